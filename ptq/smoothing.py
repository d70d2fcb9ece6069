"""Find factors that take outliers out of what dense layers read (SmoothQuant).

Reference: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", ICML 2023, equation 4. Departs from it by searching the strength for each tensor
by the error of its readers' output, and by not smoothing where that does not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ptq.calib import Solver
from ptq.config import QuantizeConfig
from ptq.data import Dataset
from ptq.graph.channel_taps import ChannelTap, tap_channels, with_outputs
from ptq.graph.rescale.apply import decode, encode
from ptq.graph.rescale.linear import Float64
from ptq.graph.rescale.smooth import Smoothable, find_smoothable
from ptq.numerics.affine import dequantize, fake_quantize, qparams_from_range
from ptq.numerics.arrays import F32
from ptq.numerics.qtype import QType
from ptq.progress import Stages
from ptq.runtime.channels import ChannelExtremes, observe_channels
from ptq.runtime.session import open_session, run
from ptq.source import Source
from ptq.stats.base import TensorStats
from ptq.targets import load_target
from ptq.weights import WeightQuantizer

#: Strengths that are tried: the paper's 0.5, and around it what it found best for other models.
_STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

#: Samples, and rows of each tensor in all of them, on which strengths are tried.
_SAMPLES, _ROWS = 8, 512

#: A Mul costs time: it must take away this share of the error at least (1 dB).
_WORTH = 0.2


@dataclass(frozen=True, slots=True)
class Rounding:
    """How values are quantized in a trial."""

    solver: Solver
    activation: QType
    symmetric: bool
    quantizer: WeightQuantizer
    weight: QType
    axis: int | None
    weights_symmetric: bool

    @classmethod
    def of(cls, config: QuantizeConfig) -> Rounding:
        """Return how these settings quantize; overrides are left out."""
        target, solver = load_target(config.target), config.solver()
        weight, quantizer = QType.parse(target.weight), config.weight_quantizer()
        if not quantizer.has_width(weight.bits):
            quantizer = config.weight_quantizer(weight.bits)
        return cls(
            solver,
            QType.parse(target.activation),
            config.symmetric or target.activation_symmetric or solver.power_of_two,
            quantizer,
            weight,
            1 if config.weights == "per-channel" else None,
            config.weights_symmetric,
        )

    def error(self, rows: F32, weights: Sequence[F32]) -> float:
        """Return the squared error of products, relative to the signal of each, summed."""
        found = self.solver.solve(TensorStats.of(rows), self.activation, symmetric=self.symmetric)
        params = qparams_from_range(found.lo, found.hi, self.activation, symmetric=self.symmetric)
        rounded, total = fake_quantize(rows, params), 0.0
        for weight in weights:
            codes = self.quantizer.quantize(
                weight, self.weight, axis=self.axis, symmetric=self.weights_symmetric
            )
            exact = rows @ weight
            noise = rounded @ dequantize(codes.codes, codes.qparams) - exact
            signal = float(np.square(exact, dtype=np.float64).sum())
            total += float(np.square(noise, dtype=np.float64).sum()) / (signal or 1.0)
        return total


def smoothing_factors(
    source: Source, data: Dataset, config: QuantizeConfig, stages: Stages, *, threads: int
) -> dict[str, str]:
    """Return the factors of tensors that dense layers read, where they make the error less.

    Args:
        source: the model.
        data: the calibration data: all of it for the extremes of channels, a few for errors.
        config: how values are quantized.
        stages: told of what takes time.
        threads: threads within an operator.

    Raises:
        CalibrationError: there is no sample, or a tensor is not finite.
    """
    rounding = Rounding.of(config)

    def choose(tensor: Smoothable, seen: ChannelExtremes, rows: F32) -> str | None:
        return _best(tensor, seen.magnitudes, rows, rounding)

    return for_dense_layers(source, data, stages, choose, stage="smooth", threads=threads)


def for_dense_layers(
    source: Source,
    data: Dataset,
    stages: Stages,
    choose: Callable[[Smoothable, ChannelExtremes, F32], str | None],
    *,
    stage: str,
    threads: int,
) -> dict[str, str]:
    """Return what is chosen for the tensors that dense layers read, by what is observed of them.

    Args:
        source: the model.
        data: the calibration data: all of it for the extremes of channels, a few for errors.
        stages: told of what takes time.
        choose: returns what to do with a tensor, or ``None`` for nothing: given the extremes of its
            channels, and some of its rows.
        stage: what takes time.
        threads: threads within an operator.

    Raises:
        CalibrationError: there is no sample, or a tensor is not finite.
    """
    tensors = find_smoothable(source.model)
    if not tensors:
        return {}
    tapped = tap_channels(source.model, [ChannelTap(t.name, t.channels, -1, 0) for t in tensors])
    with stages.stage(stage, data.expected) as step:
        extremes = observe_channels(
            tapped, data, threads=threads, folder=source.folder, on_feed=step
        )
        rows = _some_rows(source, tensors, data, threads)
        found = {}
        for tensor in tensors:
            chosen = choose(tensor, extremes[tensor.name], rows[tensor.name])
            if chosen is not None:
                found[tensor.name] = chosen
    return found


def smoothing(sizes: Float64, weights: Float64, strength: float) -> Float64:
    """Return ``max|X|^strength / max|W|^(1 - strength)``, with a geometric mean of 1.

    Args:
        sizes: the largest magnitude of each channel of the tensor.
        weights: that of each row of the weights that read it.
        strength: 0 makes the weights even, 1 the tensor. A channel without either has factor 1.
    """
    known = (sizes > 0) & (weights > 0)
    scale = np.ones(sizes.size)
    if known.any():
        log = strength * np.log(sizes[known]) - (1 - strength) * np.log(weights[known])
        scale[known] = np.exp(log - log.mean())
    return scale


def _best(tensor: Smoothable, sizes: Float64, rows: F32, rounding: Rounding) -> str | None:
    """Return the factors of the least error, or ``None`` if none are worth it."""
    weights = [reader.matrix() for reader in tensor.readers]
    largest = np.max([np.abs(w).max(axis=1) for w in weights], axis=0).astype(np.float64)
    plain = rounding.error(rows, weights)
    tried = [encode(smoothing(sizes, largest, strength)) for strength in _STRENGTHS]
    errors = []
    for text in tried:
        scale = decode(text).astype(np.float32)
        errors.append(rounding.error(rows / scale, [w * scale[:, None] for w in weights]))
    best = int(np.argmin(errors))
    worth = 0.0 if tensor.folds else _WORTH
    return tried[best] if errors[best] < (1 - worth) * plain else None


def _some_rows(
    source: Source, tensors: Sequence[Smoothable], data: Dataset, threads: int
) -> dict[str, F32]:
    """Return some rows of each tensor, evenly spaced over the first samples."""
    names = [tensor.name for tensor in tensors]
    session = open_session(with_outputs(source.model, names), threads=threads, folder=source.folder)
    parts: dict[str, list[F32]] = {name: [] for name in names}
    for feed in islice(iter(data), _SAMPLES):
        for name, array in zip(names, run(session, feed, names), strict=True):
            rows = array.reshape(-1, array.shape[-1])
            parts[name].append(rows[:: max(1, len(rows) * _SAMPLES // _ROWS)])
    return {name: np.concatenate(found)[:_ROWS] for name, found in parts.items()}
