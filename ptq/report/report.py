"""The report of a quantization: every figure as one value; docs/formats.md describes it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Literal

import msgspec

from ptq.config import QuantizeConfig
from ptq.errors import ConfigError
from ptq.evaluate.accuracy import Accuracy
from ptq.evaluate.latency import Latency
from ptq.numerics.coding import Coding
from ptq.numerics.qtype import QType
from ptq.report.comparison import LayerError
from ptq.report.data_free import DataFree
from ptq.report.histograms import Histograms
from ptq.report.placement import Placement
from ptq.report.profile import Profile
from ptq.report.protection import Protection
from ptq.report.ranges import RangeSearch
from ptq.report.refinement import Refinement
from ptq.runtime.layer import Layer

#: How a quantized model is written: QuantizeLinear and DequantizeLinear around float operators, or
#: integer operators.
Format = Literal["qdq", "integer"]

#: Where scales come from: calibration, every run anew, or nowhere (only weights are quantized).
Scheme = Literal["static", "dynamic", "weight-only"]

#: Raised whenever a field changes its meaning or goes away; new fields may come without.
SCHEMA = 1


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model file; ``size_bytes`` and ``sha256`` cover its external data too."""

    path: str
    size_bytes: int
    sha256: str


class Output(FileInfo, frozen=True, kw_only=True):
    """A quantized model that was written, in one of the formats."""

    format: Format


class DataInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A data set: ``sha256`` is over the feeds themselves, in order.

    Attributes:
        source: as the user gave it.
        samples: how many feeds were used.
        sha256: digest of the content.
        synthetic: whether it is random numbers instead of real data.
        role: what it was used for here: ``calibration``, ``evaluation``, or ``calibration`` with
            the reason in parentheses where accuracy was measured on it.
    """

    source: str
    samples: int
    sha256: str
    synthetic: bool
    role: str


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where the figures were measured; ``cpu`` is empty in reports of older versions."""

    ptq: str
    onnxruntime: str
    python: str
    machine: str
    cores: int
    cpu: str = ""

    @classmethod
    def here(cls) -> Environment:
        """Return this process's environment."""
        from ptq import __version__
        from ptq.runtime.host import cpu_model

        return cls(
            ptq=__version__,
            onnxruntime=version("onnxruntime"),
            python=platform.python_version(),
            machine=platform.machine(),
            cores=os.cpu_count() or 1,
            cpu=cpu_model(),
        )


class FloatNodes(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes left in float for one reason."""

    op_type: str
    why: str
    names: tuple[str, ...]


class TensorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One quantized activation: what was observed, and what was chosen.

    Attributes:
        name: the tensor.
        qtype: the grid; its codes are in 8-bit containers where it has fewer bits.
        scale: the step.
        zero_point: the code of 0.0.
        lo: lower end of the clipping range.
        hi: upper end.
        observed_min: smallest value seen, if it was observed itself.
        observed_max: largest.
        clip_share: share of the values outside the range, in 0..1.
        decode: the step that codes stand for, where it is not ``scale``.
        levels: the only values that there are, ascending; empty if all of the grid.
    """

    name: str
    qtype: str
    scale: float
    zero_point: int
    lo: float
    hi: float
    observed_min: float | None
    observed_max: float | None
    clip_share: float
    decode: float | None = None
    levels: tuple[float, ...] = ()

    @property
    def bits(self) -> int:
        """How many bits tell a value from the others that there may be."""
        if self.levels:
            return max(1, (len(self.levels) - 1).bit_length())
        return QType.parse(self.qtype).bits


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a quantization decided and measured.

    Attributes:
        environment: versions and machine.
        input: the float model.
        output: the quantized model, the first one if there are several; ``None`` for a dry run.
        config: every setting.
        calibration: the data that ranges come from.
        evaluation: the data that accuracy was measured on; ``None`` if there was none.
        prepared: what the prepare passes did, one line each.
        integer_nodes: nodes planned as integer kernels, by operator type.
        float_nodes: the others, by reason.
        ran_integer: integer kernels in onnxruntime's optimized graph, by type.
        ran_float: float operators there, by type.
        conversions: QuantizeLinear and DequantizeLinear there.
        tensors: every quantized activation.
        weights: how many weights were quantized.
        biases: how many biases became int32.
        widened: nodes of which a weight scale was enlarged so that the bias fits int32.
        coarse_biases: nodes of which the bias is rounded by more than half an output step.
        accuracy: ``None`` if there was no data to measure it on.
        latency: ``None`` likewise; the first of ``latencies``.
        stages_s: wall time by stage.
        peak_rss_bytes: the largest resident size of the process until now.
        notices: what the user should know.
        layers: what onnxruntime made of every node of the prepared float model, and why.
        outputs: every quantized model that was written.
        scheme: where scales come from.
        placement: how it was chosen what becomes integer; ``None`` if nothing was chosen.
        range_search: how the output error chose the ranges; ``None`` if it did not.
        latencies: one for each number of threads.
        errors: how far each layer is from the float model; empty unless a page was asked for.
        profile: what each layer costs in the float and in the quantized model; ``None`` likewise,
            or where the model is for another machine.
        histograms: values and ranges of activations and weights; ``None`` likewise.
        protection: what stays in float for the sake of the outputs, and what that gave; ``None`` if
            they were near enough, or nothing was to be protected.
        refinements: what ``--weight-method seqmse``, ``--rounding gptq`` and ``--bias-correct``
            did, in this order.
        weight_bits: how many numbers the weights of the static scheme have, by their bits.
        weight_coding: how far an entropy coder would go with weights of fewer than 8 bits, the
            others of the model included; ``None`` if all have 8.
        data_free: what ranges rest on with ``--data-free``; ``None`` if there was data.
        schema: version of this format.
    """

    environment: Environment
    input: FileInfo
    output: FileInfo | None
    config: QuantizeConfig
    calibration: DataInfo | None
    evaluation: DataInfo | None
    prepared: tuple[str, ...]
    integer_nodes: dict[str, int]
    float_nodes: tuple[FloatNodes, ...]
    ran_integer: dict[str, int]
    ran_float: dict[str, int]
    conversions: int
    tensors: tuple[TensorInfo, ...]
    weights: int
    biases: int
    widened: tuple[str, ...]
    coarse_biases: tuple[str, ...]
    accuracy: Accuracy | None
    latency: Latency | None
    stages_s: dict[str, float]
    peak_rss_bytes: int
    notices: tuple[str, ...]
    layers: tuple[Layer, ...] = ()
    outputs: tuple[Output, ...] = ()
    scheme: Scheme = "static"
    placement: Placement | None = None
    range_search: RangeSearch | None = None
    latencies: tuple[Latency, ...] = ()
    errors: tuple[LayerError, ...] = ()
    profile: Profile | None = None
    histograms: Histograms | None = None
    protection: Protection | None = None
    refinements: tuple[Refinement, ...] = ()
    weight_bits: dict[int, int] = {}
    weight_coding: Coding | None = None
    data_free: DataFree | None = None
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """Return the report as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, content: bytes, path: str) -> Report:
        """Return the report that `to_json` wrote, by this version or an older one.

        Args:
            content: the file.
            path: what to call it in errors.

        Raises:
            ConfigError: it is no report, or one of another schema.
        """
        remedy = "give the file that `ptq quantize --json` wrote"
        try:
            schema = msgspec.json.decode(content, type=_Schema).schema
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"'{path}' is no report ({error}); {remedy}") from error
        if schema != SCHEMA:
            raise ConfigError(
                f"'{path}' is a report of schema {schema}, and this ptq reads schema {SCHEMA}; "
                "quantize again, or use the ptq that wrote it"
            )
        try:
            return msgspec.json.decode(content, type=cls, strict=True)
        except (msgspec.DecodeError, ConfigError) as error:
            raise ConfigError(f"'{path}' is no report of ptq ({error}); {remedy}") from error


class _Schema(msgspec.Struct):
    schema: int
