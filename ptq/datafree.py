"""What is known of a model without any data: its batchnorms, and inputs made up to fit them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptq.config import QuantizeConfig
from ptq.data.feeds import Feed, InputSpec, fixed_dim
from ptq.data.noise import DistilledDataset, Look, NoiseDataset, is_image
from ptq.data.shapes import parse_shapes, settle_shapes
from ptq.errors import ConfigError
from ptq.graph.channel_taps import with_outputs
from ptq.graph.marginals import first_known, marginals
from ptq.graph.renormalize import renormalized
from ptq.numerics.arrays import F64
from ptq.numerics.marginal import Marginal
from ptq.progress import Stages
from ptq.report.data_free import DataFree, MadeUpInput
from ptq.runtime.session import Session, open_session, run
from ptq.source import Source
from ptq.stats.base import TensorStats
from ptq.stats.ema import EmaMinMax
from ptq.stats.histogram import Histogram
from ptq.stats.minmax import MinMax
from ptq.train.distill import Distiller
from ptq.train.rows import RowWriter

#: Feeds that are made up unless told otherwise.
SAMPLES = 32

#: Images in one feed where the model leaves that open: deviations over few positions need several.
_BATCH = 8

#: How amplitudes of made-up images may fall with frequency, white noise first.
_ROUGHNESS = (0.0, 0.5, 1.0, 1.5, 2.0)

#: Steps in which a made-up feed is fitted to the batchnorms.
_DISTILLING = 200

#: Feeds on which each is tried.
_TRIED = 4

#: What is left of a variance, at least, once that of the border is taken off.
_LEAST = 0.1

#: Singular values below this share say nothing about the offsets of channels.
_RCOND = 1e-2


def made_up(source: Source, config: QuantizeConfig, samples: int | None) -> NoiseDataset:
    """Return inputs that are made up so that the first batchnorms find what they were trained on.

    Images are noise with the spectrum of photographs. Their mean is solved for, and of several
    spectra the one taken whose variances fit best, at the scale that fits.

    Args:
        source: the prepared model.
        config: the settings: shapes of dynamic inputs, and the seed.
        samples: how many feeds.

    Raises:
        ConfigError: the model holds no batchnorm and takes no images, so that nothing is known; or
            an axis has no size.
    """
    inputs = _settled(source, config)
    images = [spec for spec in inputs if is_image(spec)]
    if not source.normals and not images:
        raise ConfigError(
            f"nothing is known of the values in '{source.path.name}' without data: it has no "
            "batch normalization and takes no images; give --calib-data, or --scheme dynamic or "
            "weight-only, which need none"
        )
    looks = {spec.name: Look.plain(_channels(spec)) for spec in images}
    if len(images) == 1:
        fitted = _fitted(source, inputs, images[0], config.seed)
        if fitted is not None:
            looks[images[0].name] = fitted
    return NoiseDataset(inputs, looks, samples=samples or SAMPLES, seed=config.seed)


def distilled(source: Source, data: NoiseDataset, stages: Stages) -> DistilledDataset:
    """Return made-up inputs, changed until all batchnorms find what they hold (ZeroQ).

    Args:
        source: the prepared model.
        data: inputs to begin with.
        stages: told of every step.

    Raises:
        ConfigError: the model takes no images, or several.
        UnsupportedError: no batchnorm depends on them in a way that can be differentiated.
    """
    if len(data.looks) != 1 or not source.normals:
        raise ConfigError(
            f"--distill fits one image to batch normalizations; '{source.path.name}' takes "
            f"{len(data.looks)} images and has {len(source.normals)} of them; leave it out"
        )
    (image,) = data.looks
    first = next(iter(data))
    distiller = Distiller(source.model, source.normals, first, image, source.folder)
    shape = first[image].shape
    with (
        stages.stage("distill", len(data) * _DISTILLING) as step,
        RowWriter(shape, first[image].dtype, Path(tempfile.gettempdir())) as writer,
    ):
        for feed in data:
            writer.append(distiller.fit(feed, _DISTILLING, step)[image][np.newaxis])
        return DistilledDataset(data, image, writer.finish())


def of_one(source: Source, config: QuantizeConfig, data: NoiseDataset) -> NoiseDataset:
    """Return inputs made up likewise, but one to a feed, as users time a model."""
    return data.of(settle_shapes(source.inputs, parse_shapes(config.shape)).inputs)


def observed_model(source: Source) -> Source:
    """Return the model to observe: what batchnorms put out is as in training on any input."""
    return replace(source, model=renormalized(source.model, source.normals))


def known_stats(source: Source, ema_decay: float) -> dict[str, TensorStats]:
    """Return the statistics of the tensors whose distribution follows from batchnorms."""
    found = {}
    for name, marginal in marginals(source.model, source.normals):
        found[name] = _stats(marginal, ema_decay)
    return found


def known_means(source: Source) -> dict[str, F64]:
    """Return the mean of each channel of the tensors of which batchnorms tell it."""
    return {name: marginal.mean for name, marginal in marginals(source.model, source.normals)}


def known_tops(source: Source) -> dict[str, F64]:
    """Return the largest value of each channel of these tensors that is to be expected."""
    return {n: marginal.ends[:, 1] for n, marginal in marginals(source.model, source.normals)}


def what_it_rests_on(source: Source, data: NoiseDataset, tensors: Sequence[str]) -> DataFree:
    """Return what ranges come from, for the report.

    Args:
        source: the model that was observed.
        data: what was made up.
        tensors: those that have a range.
    """
    known = {name for name, _ in marginals(source.model, source.normals)}
    return DataFree(
        batchnorms=len(source.normals),
        from_batchnorm=sum(name in known for name in tensors),
        from_made_up=sum(name not in known for name in tensors),
        inputs={
            name: MadeUpInput(
                mean=tuple(map(float, look.offset)), std=look.gain, roughness=look.roughness
            )
            for name, look in data.looks.items()
        },
        distilled=isinstance(data, DistilledDataset),
    )


def _stats(marginal: Marginal, ema_decay: float) -> TensorStats:
    lo, hi = float(np.float32(marginal.ends.min())), float(np.float32(marginal.ends.max()))
    points = marginal.points.astype(np.float32)
    return TensorStats(
        MinMax(lo + 0.0, hi + 0.0, points.size),
        EmaMinMax.of_range(lo, hi, ema_decay),
        Histogram.of(points),
    )


def _channels(spec: InputSpec) -> int:
    channels = spec.shape[1] if spec.shape is not None else None
    assert isinstance(channels, int), "it takes images"
    return channels


def _settled(source: Source, config: QuantizeConfig) -> tuple[InputSpec, ...]:
    """Return the inputs without dynamic axes, several images in a feed where it is open."""
    given = parse_shapes(config.shape)
    settled = settle_shapes(source.inputs, given).inputs
    named = {*given} if "" not in given else {source.inputs[0].name}
    return tuple(
        replace(spec, shape=(_BATCH, *spec.shape[1:]))
        if spec.shape and _batch_is_open(asked) and spec.name not in named
        else spec
        for spec, asked in zip(settled, source.inputs, strict=True)
    )


def _batch_is_open(spec: InputSpec) -> bool:
    return bool(spec.shape) and fixed_dim(spec.shape[0]) is None  # type: ignore[index]


def _fitted(
    source: Source, inputs: tuple[InputSpec, ...], image: InputSpec, seed: int
) -> Look | None:
    """Return the look with which the first batchnorms find the moments that they hold."""
    tensors = first_known(source.model, source.normals)
    if not tensors:
        return None
    normals = [source.normals[name] for name in tensors]
    mean = np.concatenate([normal.mean for normal in normals])
    std = np.concatenate([normal.std for normal in normals])
    kept = std > 1e-3 * std.max(initial=0.0)
    if not kept.any():
        return None
    layers = _FirstLayers(
        open_session(with_outputs(source.model, tensors), folder=source.folder), tensors
    )
    channels = _channels(image)

    def tried(look: Look) -> Sequence[Feed]:
        return list(NoiseDataset(inputs, {image.name: look}, samples=_TRIED, seed=seed))

    feed = tried(Look.plain(channels))[0]
    none = np.zeros_like(feed[image.name])
    base, _ = layers.moments([{**feed, image.name: none}])
    answers = []
    for channel in range(channels):
        lit = none.copy()
        lit[:, channel] = 1.0
        answers.append(layers.moments([{**feed, image.name: lit}])[0] - base)
    answer = np.stack(answers, axis=1)[kept] / std[kept, None]
    offset = np.linalg.lstsq(answer, (mean - base)[kept] / std[kept], rcond=_RCOND)[0]
    # padding is 0 and not the mean, so that even a plain image varies towards its border
    plain = none + offset.reshape(1, -1, 1, 1).astype(none.dtype)
    border = layers.moments([{**feed, image.name: plain}])[1][kept]
    wanted = np.maximum(std[kept] ** 2 - border, _LEAST * std[kept] ** 2)
    found: list[tuple[float, Look]] = []
    for roughness in _ROUGHNESS:
        variance = layers.moments(tried(Look(roughness, 1.0, offset)))[1][kept] - border
        logs = np.log(wanted / np.maximum(variance, np.finfo(np.float32).tiny))
        gain = float(np.exp(np.median(logs) / 2.0))
        found.append((float(np.std(logs)), Look(roughness, gain, offset)))
    return min(found, key=lambda f: f[0])[1]


@dataclass(frozen=True, slots=True)
class _FirstLayers:
    """What is linear in the input, up to the first batchnorms."""

    session: Session
    tensors: Sequence[str]

    def moments(self, feeds: Sequence[Feed]) -> tuple[F64, F64]:
        """Return mean and variance of the channels of all tensors."""
        first: F64 | float = 0.0
        second: F64 | float = 0.0
        for feed in feeds:
            arrays = run(self.session, feed, self.tensors, where="a made-up sample")
            wide = [a.astype(np.float64).reshape(*a.shape[:2], -1) for a in arrays]
            first = first + np.concatenate([a.mean(axis=(0, 2)) for a in wide]) / len(feeds)
            second = second + np.concatenate([(a * a).mean(axis=(0, 2)) for a in wide]) / len(feeds)
        mean, square = np.asarray(first), np.asarray(second)
        return mean, np.maximum(square - mean**2, 0.0)
