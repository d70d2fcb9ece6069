"""The settings of a quantization: what shapes the result, validated, as one frozen value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from ptq.errors import ConfigError

if TYPE_CHECKING:
    from ptq.calib import Solver
    from ptq.weights import WeightQuantizer

Granularity = Literal["per-channel", "per-tensor"]
QCodeObjective = Literal["mse", "kl", "output"]

#: In place of a target: the one that describes this machine.
AUTO = "auto"


class QuantizeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to quantize a model.

    Attributes:
        bits: width of weights and activations; the integer kernels take 8.
        calib: the range method of the activations, as `ptq methods` lists them, with options
            after a colon: ``kl``, ``percentile:coverage=99.9``.
        weight_range: the range method of the weights; if empty, ``minmax``, or ``qcode`` where
            the activations take power-of-two scales too.
        weights: one scale for each output channel, or one for a whole weight.
        weights_symmetric: whether weights have zero point 0.
        symmetric: whether activations have their zero point in the middle of the grid.
        qcode_objective: what ``--calib qcode`` makes small: the error of each tensor (``mse``),
            its divergence (``kl``), or the error of the network's output (``output``).
        op_types: the only operator types that may become integer; empty for all the target runs.
        exclude: globs over node names that stay in float.
        target: the target description; ``auto`` is the one of this machine.
        sample_size: how many values of a large tensor enter its histogram from each calibration
            sample; 0 chooses so that about half a million do over all samples.
        ema_decay: decay of the moving averages of minimum and maximum, for ``ema``.
        seed: seed of everything random (only random calibration data is).
        allow_larger: whether a result larger than the input is written; small models can grow.
    """

    bits: int = 8
    calib: str = "kl"
    weight_range: str = ""
    weights: Granularity = "per-channel"
    weights_symmetric: bool = True
    symmetric: bool = False
    qcode_objective: QCodeObjective = "mse"
    op_types: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    target: str = "auto"
    sample_size: Annotated[int, Meta(ge=0)] = 0
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    seed: Annotated[int, Meta(ge=0)] = 0
    allow_larger: bool = False

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind, and what the kernels of this release cannot run."""
        for field in msgspec.structs.fields(self):
            try:
                msgspec.convert(getattr(self, field.name), field.type)
            except msgspec.ValidationError as error:
                reason = str(error)
                raise ConfigError(f"{field.name}: {reason[:1].lower()}{reason[1:]}") from error
        if self.bits != 8:
            raise ConfigError(f"--bits {self.bits} is not supported yet; use --bits 8")
        if self.qcode_objective != "mse" and self.calib.partition(":")[0] != "qcode":
            raise ConfigError(
                f"--qcode-objective {self.qcode_objective} needs --calib qcode, not {self.calib}"
            )

    def require_known(self) -> None:
        """Refuse names that are none, before any work is done.

        Raises:
            ConfigError: there is no such method, method option or target.
        """
        from ptq.targets import load_target

        self.solver()
        self.weight_quantizer()
        if self.target != AUTO:
            load_target(self.target)

    def at(self, target: str) -> QuantizeConfig:
        """Return the same settings for this target."""
        return msgspec.structs.replace(self, target=target)

    def solver(self) -> Solver:
        """Return the range method of the activations.

        Raises:
            ConfigError: there is no such method, or an option is wrong.
        """
        from ptq.calib import parse_method

        text = self.calib
        if text == "qcode" and self.qcode_objective == "kl":
            text = "qcode:objective=kl"
        return parse_method(text)

    def weight_quantizer(self) -> WeightQuantizer:
        """Return the weight quantizer.

        Raises:
            ConfigError: there is no such method, or an option is wrong.
        """
        from ptq.weights import parse_method

        default = "qcode" if self.solver().power_of_two else "minmax"
        return parse_method(self.weight_range or default)

    @property
    def searches_output(self) -> bool:
        """Whether scales are searched by the error of the network's output."""
        return self.calib.startswith("qcode") and self.qcode_objective == "output"
