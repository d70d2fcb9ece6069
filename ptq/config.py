"""The settings of a quantization: what shapes the result, validated, as one frozen value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import msgspec
from msgspec import Meta

from ptq.errors import ConfigError

if TYPE_CHECKING:
    from ptq.block_methods import BlockQuantizer
    from ptq.calib import Solver
    from ptq.rounders import Rounder
    from ptq.train.fakequant import QatMethod
    from ptq.train.phases import Widths
    from ptq.weights import WeightQuantizer

Granularity = Literal["per-channel", "per-tensor"]
QCodeObjective = Literal["mse", "kl", "output"]
FileFormat = Literal["qdq", "integer"]
Format = Literal["qdq", "integer", "both"]
Scheme = Literal["static", "dynamic", "weight-only", "auto"]
LearnedRounding = Literal["adaround", "brecq", "qdrop"]
Preference = Literal["speed", "size"]
Phases = Literal["direct", "two-stage", "progressive"]

#: The width of what integer kernels take.
FULL_BITS = 8

#: Widths of weights that each scheme takes.
_WIDTHS = {
    "static": (8, 7, 6, 5, 4, 3, 2, 1),
    "dynamic": (8,),
    "weight-only": (8, 6, 5, 4, 3, 2),
    "auto": (8,),
}

#: What an override may change in each scheme; the rest of it would mean nothing there.
_OVERRIDDEN = {
    "static": ("float", "bits", "calib", "weights", "weight_method"),
    "dynamic": ("float", "bits", "weights", "weight_method"),
    "weight-only": ("float", "bits"),
    "auto": ("float", "bits", "calib", "weights", "weight_method"),
}

#: Schemes that may have calibration data to look at outputs on.
_CALIBRATED = ("static", "weight-only", "auto")

#: Schemes in which layers may be left in float for the sake of the outputs.
_PROTECTED = ("static", "auto")

#: Range methods that mean nothing without data: they compare distributions, or run the network.
_OF_DATA = ("kl", "auto", "lapq")

#: ``--place``: by measured cost, or everything that the target runs.
PLACE_AUTO, PLACE_ALL = "auto", "all"

#: The SQNR of the outputs that layers are left in float for unless told otherwise: noise of a
#: hundredth of the signal, below which classes and boxes begin to differ.
_PROTECTED_DB = 20.0

#: In place of a target: the one that describes this machine.
AUTO = "auto"


class Override(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Other settings for some nodes and tensors; where several match, the last wins in each field.

    A node matches by its name, or by that of an output or of a constant that it reads. A tensor
    matches by its name, or with the node that makes it.

    Attributes:
        match: glob over the names of the prepared model, as `ptq inspect` shows it.
        op: the only operator type that matches; empty for all.
        float: whether the nodes stay in float; ``False`` takes back what an earlier one says.
        bits: width of their weights.
        calib: range method of the activations that match.
        weights: granularity of the scales of their weights.
        weight_method: range method of their weights.
    """

    match: str = "*"
    op: str = ""
    float: bool | None = None
    bits: int | None = None
    calib: str | None = None
    weights: Granularity | None = None
    weight_method: str | None = None

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind, and an override that changes nothing."""
        _require_kinds(self)
        if not self.changes:
            raise ConfigError(
                f"override {self} changes nothing; give one of: "
                f"{', '.join(_OVERRIDDEN['static']).replace('_', '-')}"
            )

    def __str__(self) -> str:
        """Return what it matches, as a message names it."""
        return f"of {self.op} '{self.match}'" if self.op else f"'{self.match}'"

    @property
    def changes(self) -> dict[str, bool | int | str]:
        """What differs for what matches, by field."""
        given = {name: getattr(self, name) for name in _OVERRIDDEN["static"]}
        return {name: value for name, value in given.items() if value is not None}

    def require_fits(self, scheme: Scheme) -> None:
        """Refuse what this scheme cannot do.

        Raises:
            ConfigError: the weights cannot be so wide, or the field means nothing to the scheme.
        """
        if self.bits is not None and self.bits not in _WIDTHS[scheme]:
            raise ConfigError(f"override {self}: {_wrong_width('bits =', self.bits, scheme)}")
        allowed = _OVERRIDDEN[scheme]
        if other := [name for name in self.changes if name not in allowed]:
            raise ConfigError(
                f"override {self}: {other[0].replace('_', '-')} means nothing to --scheme "
                f"{scheme}, which takes {', '.join(allowed).replace('_', '-')}"
            )

    def require_known(self) -> None:
        """Refuse methods that are none.

        Raises:
            ConfigError: there is no such method, or no such option of it.
        """
        from ptq import calib, weights

        try:
            if self.calib is not None and calib.parse_method(self.calib).runs_network:
                raise ConfigError(f"calib '{self.calib}' chooses for a whole model; name a method")
            if (
                self.weight_method is not None
                and weights.parse_method(self.weight_method).runs_network
            ):
                raise ConfigError(
                    f"weight-method '{self.weight_method}' is for a whole model; give it as "
                    "--weight-method"
                )
        except ConfigError as error:
            raise ConfigError(f"override {self}: {error}") from error

    def fitted(self, scheme: Scheme) -> Override | None:
        """Return what of it means something to a scheme, or ``None`` if nothing does."""
        kept = {n: v for n, v in self.changes.items() if n in _OVERRIDDEN[scheme]}
        return Override(match=self.match, op=self.op, **kept) if kept else None  # type: ignore[arg-type]


class QuantizeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to quantize a model.

    Attributes:
        scheme: where scales come from: calibration (``static``), every run anew (``dynamic``), or
            nowhere, because only weights are quantized (``weight-only``); ``auto`` measures all.
        format: how the result is written: QuantizeLinear and DequantizeLinear around float
            operators, which any runtime takes (``qdq``); fused integer operators of onnxruntime
            (``integer``); or both files.
        bits: width of the weights.
        activation_bits: width of what layers multiply their weights by; in the static scheme fewer
            than 8. The kernels are of 8 bits, and what only others read keeps them.
        edge_bits: in the static scheme, the least width of the weights of layers that no layer
            with a weight comes before, or none after, and of what these read.
        block: how many weights share a scale in ``weight-only``.
        place: which operators become integer: ``auto`` by measured cost, where the target is this
            machine; ``all`` that the target runs; or globs over the names of those that do.
        prefer: ``size`` puts up with a result that is slower than the float model.
        calib: the range method of the activations, as `ptq methods` lists them, with options
            after a colon: ``kl``, ``percentile:coverage=99.9``.
        weight_method: the weight quantizer, as `ptq methods` lists them, with options after a
            colon; layers of a width that it has no codes of, as first and last ones, have the
            default; if empty, ``minmax``, with fewer than 8 bits
            ``mse``, and ``qcode`` where the activations take power-of-two scales too; in the
            weight-only scheme the block quantizer, ``mse`` if empty.
        weights: one scale for each output channel, or one for a whole weight.
        weights_symmetric: whether weights have zero point 0.
        symmetric: whether activations have their zero point in the middle of the grid.
        equalize: whether scales of channels are moved between neighbouring layers, where the error
            of the network's output is a tenth less with it.
        smooth: likewise, whether channels of what dense layers read are divided by their sizes;
            ``None`` tries it on models of mostly dense layers, where the outputs are further off
            than ``protect`` says, before any layer is left in float.
        awq: likewise, whether weights of dense layers are multiplied by the sizes of what they
            read, so that those that matter most lose least by rounding; in the weight-only scheme.
        split_gates: likewise, whether HardSwish inputs are cut where nothing comes through, and
            gates computed apart where channels can be rescaled behind them; ``None`` tries the cut,
            which costs nothing, where the outputs are further off than ``protect`` says.
        split_outliers: likewise, whether channels with outliers that dense layers read are split
            into copies of equal shares.
        qcode_objective: what ``--calib qcode`` makes small: the error of each tensor (``mse``),
            its divergence (``kl``), or the error of the network's output (``output``).
        op_types: the only operator types that may become integer; empty for all the target runs.
        exclude: globs over node names that stay in float.
        target: the target description; ``auto`` is the one of this machine.
        sample_size: how many values of a large tensor enter its histogram from each calibration
            sample; 0 chooses so that about half a million do over all samples.
        ema_decay: decay of the moving averages of minimum and maximum, for ``ema``.
        data_free: whether there is no data: ranges and corrections come from batchnorms and, where
            these say nothing, from inputs that are made up to fit them.
        distill: whether made-up inputs are changed until all batchnorms find what they hold, for
            networks to be rounded and trained on them.
        shape: of dynamic inputs that are made up, as ``NAME=1x3x224x224``.
        seed: seed of everything random (only random and made-up calibration data is).
        allow_larger: whether a result larger than the input is written; small models can grow.
        rounding: how weights are rounded: each to the ``nearest`` code, or with ``gptq`` or another
            rounding method of `ptq methods`, with options after a colon, so that the outputs of
            layers change least on calibration data; ``adaround`` learns by gradient
            descent which are rounded up, layer by layer with the activation functions behind them,
            ``brecq`` block by block, and ``qdrop`` likewise with activations quantized at random;
            not in the dynamic scheme.
        bias_correct: whether biases make up for what the rounding of weights takes from each
            channel on the average, on calibration data; not in the dynamic scheme.
        protect: the SQNR that the outputs should have on calibration data, in decibels: the layers
            that stand most in its way stay in float, as few as will do; 0 protects nothing.
            ``None`` is 20 where costs decide the placement and activations have 8 bits, else 0;
            in the static scheme.
        tweak_norms: whether factors and shifts of layer norms give their channels the mean and the
            deviation of the float network, on calibration data; in the static scheme.
        fine_tune: the training method by which the quantized network is trained for a short while,
            towards what the float network puts out for the calibration data, with options after a
            colon: ``pact``; in the static scheme.
        steps: for how many steps.
        phases: by which widths: at those of the result (``direct``), weights first, with
            activations of 8 bits (``two-stage``), or from 8 bits down by halves (``progressive``);
            the steps are shared out.
        learning_rate: the highest, as a share of the size of what is trained in each step.
        loss: what is made small: the divergence of classes (``kl``), the squared error of outputs
            (``mse``), the one of outputs behind a softmax and the other of the rest (``auto``), or
            that and the squared error of what blocks put out (``layers``).
        overrides: other settings for some nodes and tensors.
    """

    scheme: Scheme = "static"
    format: Format = "qdq"
    bits: int = 8
    activation_bits: Annotated[int, Meta(ge=2, le=8)] = 8
    edge_bits: Annotated[int, Meta(ge=2, le=8)] = 8
    block: Literal[16, 32, 64, 128, 256] = 32
    place: tuple[str, ...] = (PLACE_AUTO,)
    prefer: Preference = "speed"
    calib: str = "kl"
    weight_method: str = ""
    weights: Granularity = "per-channel"
    weights_symmetric: bool = True
    symmetric: bool = False
    equalize: bool = False
    smooth: bool | None = None
    awq: bool = False
    split_gates: bool | None = None
    split_outliers: bool = False
    data_free: bool = False
    distill: bool = False
    shape: tuple[str, ...] = ()
    qcode_objective: QCodeObjective = "mse"
    op_types: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    target: str = "auto"
    sample_size: Annotated[int, Meta(ge=0)] = 0
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    seed: Annotated[int, Meta(ge=0)] = 0
    allow_larger: bool = False
    rounding: str = "nearest"
    bias_correct: bool = False
    protect: Annotated[float, Meta(ge=0)] | None = None
    tweak_norms: bool = False
    fine_tune: str = ""
    steps: Annotated[int, Meta(ge=1)] = 300
    phases: Phases = "direct"
    learning_rate: Annotated[float, Meta(gt=0)] = 3e-3
    loss: Literal["auto", "kl", "mse", "layers"] = "auto"
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind, and what the kernels of this release cannot run."""
        _require_kinds(self)
        self._require_widths()
        for override in self.overrides:
            override.require_fits(self.scheme)
        for option in self.transforms:
            scheme = "weight-only" if option == "--awq" else "static"
            if self.scheme != scheme:
                raise ConfigError(
                    f"{option} is of --scheme {scheme}, not {self.scheme}; leave one of them out"
                )
        if self.data_free:
            self._require_data_free()
        elif self.distill or self.shape:
            option = "--distill" if self.distill else "--shape"
            raise ConfigError(f"{option} is of made-up inputs; leave it out, or give --data-free")
        if not self.place or (len(self.place) > 1 and {PLACE_AUTO, PLACE_ALL} & {*self.place}):
            raise ConfigError(f"--place takes {PLACE_AUTO}, {PLACE_ALL}, or globs over node names")
        if self.refines and self.scheme not in _CALIBRATED:
            raise ConfigError(
                f"{self.refinements[0]} means nothing to --scheme {self.scheme}; use --scheme "
                "static or weight-only"
            )
        for option, given in (
            (f"--weight-method {self.weight_method}", self.searches_weights),
            ("--tweak-norms", self.tweak_norms),
            (f"--fine-tune {self.fine_tune}", self.fine_tune),
            ("--protect", self.protect),
        ):
            if given and self.scheme not in _PROTECTED:
                raise ConfigError(
                    f"{option} means nothing to --scheme {self.scheme}; use --scheme static"
                )
        if self.rounding == "qdrop" and self.scheme == "weight-only":
            raise ConfigError(
                "--rounding qdrop quantizes activations at random, and --scheme weight-only leaves "
                "them in float; use --rounding brecq"
            )
        if self.qcode_objective != "mse" and self.calib.partition(":")[0] != "qcode":
            raise ConfigError(
                f"--qcode-objective {self.qcode_objective} needs --calib qcode, not {self.calib}"
            )

    def _require_widths(self) -> None:
        """Refuse widths that the scheme does not take."""
        if self.bits not in _WIDTHS[self.scheme]:
            raise ConfigError(_wrong_width("--bits", self.bits, self.scheme))
        if self.activation_bits < FULL_BITS and self.scheme != "static":
            raise ConfigError(
                f"activations of {self.activation_bits} bits are of --scheme static, not "
                f"{self.scheme}; write --bits W{self.bits}A8, or leave the scheme out"
            )

    def _require_data_free(self) -> None:
        """Refuse what needs data."""
        needs = {
            f"--scheme {self.scheme}": self.scheme != "static",
            "--smooth": bool(self.smooth),
            "--split-gates": bool(self.split_gates),
            "--split-outliers": self.split_outliers,
            f"--rounding {self.rounding}": self.rounding != "nearest" and not self.distill,
            f"--fine-tune {self.fine_tune}": bool(self.fine_tune) and not self.distill,
            f"--calib {self.calib}": self.calib.partition(":")[0] in _OF_DATA,
            f"--qcode-objective {self.qcode_objective}": self.qcode_objective == "output",
        }
        wrong = [option for option, given in needs.items() if given]
        if wrong:
            raise ConfigError(
                f"--data-free and {wrong[0]} exclude each other: "
                "without data there are only means and deviations of channels; use --scheme "
                "static, and --calib minmax or mse"
            )

    def require_known(self, widths: Sequence[int] = ()) -> None:
        """Refuse names that are none, before any work is done.

        Args:
            widths: what weights may have besides the width of these settings, where a search is to
                choose.

        Raises:
            ConfigError: there is no such method, method option or target.
        """
        from ptq.targets import load_target

        if self.data_free and self.solver().runs_network:
            raise ConfigError(
                f"--data-free and --calib {self.calib} exclude each other: it runs the network on "
                "data; use --calib minmax or mse"
            )
        if self.scheme == "weight-only":
            self._require_block_method()
        else:
            self._require_weight_method(widths)
        self._require_even_activations()
        self.rounding_method()
        if self.fine_tune:
            for phase in self.training_widths():
                self.training_method().check_widths(*phase)
        elif self.phases != "direct":
            raise ConfigError(
                f"--phases {self.phases} is of --fine-tune; give a method, or leave it"
            )
        for override in self.overrides:
            override.require_known()
        if self.target == AUTO or load_target(self.target).runtime == "onnxruntime":
            return
        for option, given, fine in (
            ("--format", self.format, "qdq"),
            ("--scheme", self.scheme, "static"),
            ("--bits", f"W{self.bits}A{self.activation_bits}", f"W{self.bits}A{FULL_BITS}"),
        ):
            if given != fine:
                raise ConfigError(
                    f"{option} {given} is of onnxruntime, and target '{self.target}' is not; "
                    f"use {option} {fine}"
                )

    def _require_weight_method(self, widths: Sequence[int]) -> None:
        """Refuse what a weight quantizer cannot do.

        Args:
            widths: what weights may have besides the width of these settings.

        Raises:
            ConfigError: there is no such method, or it lacks the widths or even steps.
        """
        from ptq.block_methods import BLOCK_METHODS
        from ptq.weights import parse_method, weight_quantizers

        self.solver()
        self._require_of_scheme(BLOCK_METHODS.methods(), weight_quantizers(), "weight-only")
        method = parse_method(self.weight_method) if self.weight_method else self.weight_quantizer()
        others = (*widths, *(o.bits for o in self.overrides if o.bits is not None))
        if not any(map(method.has_width, others)):
            method.require_width(self.bits)
        if not method.uniform and (self.learns_rounding or self.fine_tune):
            option = f"--rounding {self.rounding}" if self.learns_rounding else "--fine-tune"
            raise ConfigError(
                f"{option} is for grids of even steps, and --weight-method {self.weight_method} "
                "has levels of its own; leave one of them out, or use --rounding gptq"
            )

    def _require_of_scheme(
        self, others: Collection[str], ours: Collection[str], scheme: Scheme
    ) -> None:
        """Refuse a weight quantizer that is among those of another scheme only."""
        name = self.weight_method.partition(":")[0]
        if name in others and name not in ours:
            raise ConfigError(
                f"--weight-method {name} is of --scheme {scheme}, not {self.scheme}; give that "
                "one, or another --weight-method"
            )

    def _require_block_method(self) -> None:
        """Refuse what a block quantizer cannot do.

        Raises:
            ConfigError: there is no such method, or it lacks the width, zero points or rounding.
        """
        from ptq.block_methods import BLOCK_METHODS
        from ptq.weights import weight_quantizers

        self._require_of_scheme(weight_quantizers(), BLOCK_METHODS.methods(), "static")
        method, option = self.block_quantizer(), f"--weight-method {self.weight_method}"
        method.require_width(self.bits)
        if not self.weights_symmetric and not method.zero_points:
            own = "offsets of its own" if method.offsets else "no zero points"
            raise ConfigError(f"{option} has {own}; leave --asymmetric-weights out")
        if method.floats and self.rounding != "nearest":
            raise ConfigError(
                f"--rounding {self.rounding} is for integers, and {option} stores floats; leave "
                "one of them out"
            )
        if self.learns_rounding and not method.zero_points:
            raise ConfigError(
                f"--rounding {self.rounding} is for grids of even steps about a zero point, which "
                f"{option} does not have; leave one of them out, or use --rounding gptq"
            )

    def _require_even_activations(self) -> None:
        """Refuse levels of activations where gradients need even steps."""
        from ptq.calib import parse_method

        if self.activation_bits == FULL_BITS or not (self.learns_rounding or self.fine_tune):
            return
        methods = [self.calib, *(o.calib for o in self.overrides if o.calib is not None)]
        uneven = [method for method in methods if not parse_method(method).uniform]
        if uneven:
            option = f"--rounding {self.rounding}" if self.learns_rounding else "--fine-tune"
            raise ConfigError(
                f"{option} is for activations of even steps, and --calib {uneven[0]} has levels of "
                "its own; use --calib mse, or --rounding gptq"
            )

    def at(self, target: str) -> QuantizeConfig:
        """Return the same settings for this target."""
        return msgspec.structs.replace(self, target=target)

    def with_scheme(self, scheme: Scheme) -> QuantizeConfig:
        """Return the same settings for this scheme, overrides cut down to what it can do."""
        fitted = (override.fitted(scheme) for override in self.overrides)
        overrides = tuple(override for override in fitted if override is not None)
        return msgspec.structs.replace(
            self,
            scheme=scheme,
            overrides=overrides,
            bias_correct=self.bias_correct and scheme in _CALIBRATED,
            protect=self.protect if scheme in _PROTECTED else None,
            tweak_norms=self.tweak_norms and scheme in _PROTECTED,
            fine_tune=self.fine_tune if scheme in _PROTECTED else "",
            rounding=self.rounding if scheme in _CALIBRATED else "nearest",
            weight_method=self._weight_method_of(scheme),
        )

    def _weight_method_of(self, scheme: Scheme) -> str:
        """Return the method of weights as it means something to another scheme."""
        blocks = "weight-only"
        if (scheme == blocks) != (self.scheme == blocks):
            return ""  # the methods of blocks are others
        dropped = self.searches_weights and scheme not in _PROTECTED
        return "" if dropped else self.weight_method

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

    def rounding_method(self) -> Rounder | LearnedRounding | None:
        """Return how weights are rounded; ``None`` if to nearest.

        Raises:
            ConfigError: there is no such method, or an option is wrong.
        """
        from ptq.rounders import ROUNDERS

        if self.rounding == "nearest":
            return None
        if self.learns_rounding:
            return cast(LearnedRounding, self.rounding)
        try:
            return ROUNDERS.parse(self.rounding)
        except ConfigError as error:
            learned = ", ".join(("nearest", *get_args(LearnedRounding)))
            raise ConfigError(f"{error}, or of {learned}") from error

    def training_method(self) -> QatMethod:
        """Return the training method.

        Raises:
            ConfigError: there is no such method, or an option is wrong.
        """
        from ptq.train.fakequant import QAT_METHODS

        return QAT_METHODS.parse(self.fine_tune)

    def training_widths(self) -> tuple[Widths, ...]:
        """Return the widths of each phase of training, those of the result last."""
        from ptq.train.phases import Widths, widths_of

        return widths_of(self.phases, Widths(self.bits, self.activation_bits))

    def weight_quantizer(self, bits: int | None = None) -> WeightQuantizer:
        """Return the weight quantizer.

        Args:
            bits: width of the codes, by default that of most weights.

        Raises:
            ConfigError: there is no such method, or an option is wrong.
        """
        from ptq.weights import parse_method

        wanted = self.bits if bits is None else bits
        if self.scheme == "weight-only":
            return parse_method("minmax")  # its methods are those of `block_quantizer`
        narrow = self.scheme == "static" and wanted < FULL_BITS
        default = "qcode" if self.solver().power_of_two else "mse" if narrow else "minmax"
        method = parse_method(self.weight_method or default)
        return method if method.has_width(wanted) else parse_method(default)

    def block_quantizer(self, bits: int | None = None) -> BlockQuantizer:
        """Return the block quantizer of the weight-only scheme.

        Args:
            bits: width of the codes, by default that of most weights.

        Raises:
            ConfigError: there is no such method, or an option is wrong.
        """
        from ptq.block_methods import BLOCK_METHODS

        default = "mse"
        method = BLOCK_METHODS.parse(self.weight_method or default)
        fits = bits is None or bits == self.bits or method.has_width(bits)
        return method if fits else BLOCK_METHODS.parse(default)

    @property
    def power_of_two(self) -> bool:
        """Whether some scales are to be powers of two."""
        from ptq.calib import parse_method

        methods = [o.calib for o in self.overrides if o.calib is not None]
        return any(m.power_of_two for m in (self.solver(), *map(parse_method, methods)))

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
    def transforms(self) -> tuple[str, ...]:
        """The options given that change the float model before it is quantized."""
        options = {
            "--equalize": self.equalizes,
            "--smooth": self.smooth,
            "--split-gates": self.split_gates,
            "--split-outliers": self.split_outliers,
            "--awq": self.awq,
        }
        return tuple(option for option, given in options.items() if given)

    @property
    def refines(self) -> bool:
        """Whether the outputs of layers are looked at once they are quantized."""
        return bool(self.refinements)

    @property
    def refinements(self) -> tuple[str, ...]:
        """The options given that look at the outputs of layers once they are quantized."""
        options = {
            "--bias-correct": self.corrects_biases,
            f"--rounding {self.rounding}": self.rounding != "nearest",
            f"--weight-method {self.weight_method}": self.searches_weights,
            "--tweak-norms": self.tweak_norms,
            f"--fine-tune {self.fine_tune}": bool(self.fine_tune),
        }
        return tuple(option for option, given in options.items() if given)

    @property
    def learns_rounding(self) -> bool:
        """Whether it is learned by gradient descent whether each weight is rounded up or down."""
        return self.rounding in get_args(LearnedRounding)

    @property
    def searches_weights(self) -> bool:
        """Whether the ranges of weights are chosen by the outputs of their layers."""
        return self.weight_method.partition(":")[0] == "seqmse"

    @property
    def corrects_biases(self) -> bool:
        """Whether biases make up for what rounding takes: without data, there is little else."""
        return self.bias_correct or self.data_free

    @property
    def equalizes(self) -> bool:
        """Whether scales of channels may be moved between neighbouring layers.

        Without data, where a weight has one scale: that is what it is needed for. Where each
        channel has its own, there is little to gain, and made-up inputs do not tell what.
        """
        return self.equalize or (self.data_free and self.weights == "per-tensor")

    @property
    def protected_db(self) -> float:
        """The SQNR of the outputs for which layers stay in float; 0 for none."""
        if self.protect is not None:
            return self.protect
        # no layer is the culprit where few bits are asked of all: those that would stay in float
        # are what was asked for
        by_default = self.scheme == "static" and self.activation_bits == FULL_BITS
        return _PROTECTED_DB if by_default and self.places_by_cost else 0.0

    @property
    def searches_output(self) -> bool:
        """Whether scales are searched by the error of the network's output."""
        return self.calib.startswith("qcode") and self.qcode_objective == "output"


def _require_kinds(settings: msgspec.Struct) -> None:
    """Refuse values of the wrong kind: msgspec checks only what it decodes.

    Raises:
        ConfigError: a field has one; it is named.
    """
    for field in msgspec.structs.fields(settings):
        try:
            msgspec.convert(getattr(settings, field.name), field.type)
        except msgspec.ValidationError as error:
            reason = str(error)
            raise ConfigError(f"{field.name}: {reason[:1].lower()}{reason[1:]}") from error


def _wrong_width(option: str, bits: int, scheme: Scheme) -> str:
    widths = _WIDTHS[scheme]
    whole = len(widths) > 1 and len(widths) == widths[0] - widths[-1] + 1
    choices = f"{widths[-1]} to {widths[0]}" if whole else " or ".join(map(str, widths))
    more = "" if len(widths) > 1 else "; --scheme static and weight-only take fewer"
    return f"{option} {bits} is not supported by --scheme {scheme}; use {choices}{more}"
