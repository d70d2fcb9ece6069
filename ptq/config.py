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
FileFormat = Literal["qdq", "integer"]
Format = Literal["qdq", "integer", "both"]
Scheme = Literal["static", "dynamic", "weight-only", "auto"]
Preference = Literal["speed", "size"]

#: Widths of weights that each scheme takes.
_WIDTHS = {"static": (8,), "dynamic": (8,), "weight-only": (8, 4, 2), "auto": (8,)}

#: ``--place``: by measured cost, or everything that the target runs.
PLACE_AUTO, PLACE_ALL = "auto", "all"

#: In place of a target: the one that describes this machine.
AUTO = "auto"


class QuantizeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to quantize a model.

    Attributes:
        scheme: where scales come from: calibration (``static``), every run anew (``dynamic``), or
            nowhere, because only weights are quantized (``weight-only``); ``auto`` measures all.
        format: how the result is written: QuantizeLinear and DequantizeLinear around float
            operators, which any runtime takes (``qdq``); fused integer operators of onnxruntime
            (``integer``); or both files.
        bits: width of the weights, and of the activations where they are quantized.
        block: how many weights share a scale in ``weight-only``.
        place: which operators become integer: ``auto`` by measured cost, where the target is this
            machine; ``all`` that the target runs; or globs over the names of those that do.
        prefer: ``size`` puts up with a result that is slower than the float model.
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

    scheme: Scheme = "static"
    format: Format = "qdq"
    bits: int = 8
    block: Literal[16, 32, 64, 128, 256] = 32
    place: tuple[str, ...] = (PLACE_AUTO,)
    prefer: Preference = "speed"
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
        widths = _WIDTHS[self.scheme]
        if self.bits not in widths:
            choices = " or ".join(map(str, widths))
            more = "" if self.scheme == "weight-only" else "; --scheme weight-only takes 4 and 2"
            raise ConfigError(
                f"--bits {self.bits} is not supported by --scheme {self.scheme}; "
                f"use {choices}{more}"
            )
        if not self.place or (len(self.place) > 1 and {PLACE_AUTO, PLACE_ALL} & {*self.place}):
            raise ConfigError(f"--place takes {PLACE_AUTO}, {PLACE_ALL}, or globs over node names")
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
        if self.target == AUTO or load_target(self.target).runtime == "onnxruntime":
            return
        for option, given, fine in (
            ("--format", self.format, "qdq"),
            ("--scheme", self.scheme, "static"),
        ):
            if given != fine:
                raise ConfigError(
                    f"{option} {given} is of onnxruntime, and target '{self.target}' is not; "
                    f"use {option} {fine}"
                )

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
    def formats(self) -> tuple[FileFormat, ...]:
        """The format of each file to write, the main one first."""
        return ("qdq", "integer") if self.format == "both" else (self.format,)

    @property
    def places_by_cost(self) -> bool:
        """Whether measured costs are to decide what becomes integer."""
        # who quantizes weights only wants a small file
        speed = self.prefer == "speed" and self.scheme != "weight-only"
        return self.place == (PLACE_AUTO,) and speed

    @property
    def placed_globs(self) -> tuple[str, ...]:
        """Globs over the nodes that alone may become integer; empty for all."""
        return () if self.place in ((PLACE_AUTO,), (PLACE_ALL,)) else self.place

    @property
    def searches_output(self) -> bool:
        """Whether scales are searched by the error of the network's output."""
        return self.calib.startswith("qcode") and self.qcode_objective == "output"
