"""What was rescaled, in the metadata of the quantized model: who compares needs it."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.rescale.apply import apply_factors
from ptq.graph.rescale.gates import apply_gates
from ptq.graph.rescale.smooth import apply_smoothing
from ptq.graph.rescale.split import apply_splits

#: The metadata property that holds it.
PROPERTY = "ptq.rescaled"


class Rescaling(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """By what the channels of tensors were divided.

    Attributes:
        equalized: by the first tensor of each group, a signed byte k for each channel in base64: it
            was divided by ``2^(k / 8)``.
        smoothed: likewise, by the tensor that dense layers read.
        split: by that tensor, too, before it is smoothed: how many copies of each channel there
            are, a byte each in base64.
        gated: likewise, by what a HardSwish puts out, of which the gate was computed apart.
        cut: whether what goes into every other HardSwish was cut where its gate is shut.
    """

    equalized: dict[str, str] = {}
    smoothed: dict[str, str] = {}
    split: dict[str, str] = {}
    gated: dict[str, str] = {}
    cut: bool = False

    def __bool__(self) -> bool:
        """Whether anything was rescaled."""
        return bool(self.equalized or self.smoothed or self.split or self.gated or self.cut)

    def apply(self, model: ir.Model) -> ir.Model:
        """Return a rescaled copy of a prepared model; the function is the same.

        Raises:
            ModelError: this is of another model.
        """
        rescaled = model.clone()
        apply_gates(rescaled, self.gated, cut=self.cut)
        apply_factors(rescaled, self.equalized)
        apply_splits(rescaled, self.split)
        apply_smoothing(rescaled, self.smoothed)
        return rescaled

    def write(self, model: ir.Model) -> None:
        """Add this to the metadata of a quantized model, unless nothing was rescaled."""
        if self:
            model.metadata_props[PROPERTY] = msgspec.json.encode(self, order="sorted").decode()


#: What is said of a model that is as it was prepared.
NOTHING = Rescaling()


def read_rescaling(model: ir.Model) -> Rescaling:
    """Return what the metadata of a quantized model says was rescaled.

    Raises:
        ModelError: the property cannot be read.
    """
    try:
        return msgspec.json.decode(model.metadata_props.get(PROPERTY, "{}"), type=Rescaling)
    except msgspec.DecodeError as error:
        raise ModelError(
            f"the metadata property '{PROPERTY}' cannot be read: {error}; quantize the model again"
        ) from error
