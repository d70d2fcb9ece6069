"""Made-up images: noise with the spectrum of photographs, at an offset and a scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Array, Feed, InputSpec
from ptq.errors import ConfigError

#: Deviations from the mean at which made-up images end: real ones are bounded, and white lies at
#: 2.6 for photographs that were normalized as for ImageNet.
_REACH = 2.7

#: How much of the variance channels have in common, as those of photographs do.
_SHARED = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What made-up images of one input are like.

    Attributes:
        roughness: amplitudes fall with frequency f as ``f^-roughness``; photographs are near 1.
        gain: the standard deviation.
        offset: the mean of each channel, ``(channels,)``.
    """

    roughness: float
    gain: float
    offset: Array

    @classmethod
    def plain(cls, channels: int) -> Look:
        """Return images of mean 0 and deviation 1."""
        return cls(1.0, 1.0, np.zeros(channels))


class NoiseDataset(Dataset):
    """Made-up images, the same for the same seed; inputs that are no images take normal numbers."""

    kind = "made-up"
    form = ""
    synthetic = True

    def __init__(
        self, inputs: tuple[InputSpec, ...], looks: Mapping[str, Look], *, samples: int, seed: int
    ) -> None:
        """Prepare to make them up.

        Args:
            inputs: of which every shape is fixed.
            looks: by name of the inputs that are images.
            samples: how many feeds.
            seed: of the random numbers.
        """
        super().__init__(DataRequest("no data (made-up inputs)", inputs))
        self.looks = dict(looks)
        self.samples = samples
        self.seed = seed
        for spec in inputs:
            if spec.name not in looks and spec.dtype.kind not in "fViub":
                raise ConfigError(
                    f"nothing can be made up for input '{spec.name}' of type {spec.dtype}; give "
                    "--calib-data"
                )
        self._choose(samples, None)

    def of(self, inputs: tuple[InputSpec, ...]) -> NoiseDataset:
        """Return as many feeds of the same looks in other shapes."""
        return NoiseDataset(inputs, self.looks, samples=self.samples, seed=self.seed)

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return false: it is no source that a user names."""
        return False

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for i in self._chosen():
            # a stream for each sample: the first ones stay the same when more are asked for
            rng = np.random.default_rng((self.seed, i))
            yield f"made-up sample {i}", {spec.name: self._draw(rng, spec) for spec in self.inputs}

    def _draw(self, rng: np.random.Generator, spec: InputSpec) -> Array:
        shape, look = spec.shape, self.looks.get(spec.name)
        sizes = tuple(dim for dim in shape or () if isinstance(dim, int))
        if spec.dtype.kind in "iub":
            return np.asarray(rng.integers(0, 2, sizes)).astype(spec.dtype)
        if look is None:
            return np.asarray(rng.standard_normal(sizes, np.float32)).astype(spec.dtype)
        made = np.clip(_coloured(rng, sizes, look.roughness), -_REACH, _REACH)
        images = look.gain * made + np.reshape(look.offset, (1, -1, 1, 1))
        return np.asarray(images).astype(spec.dtype)


class DistilledDataset(NoiseDataset):
    """Made-up feeds whose images have been replaced by such as fit a model.

    Args:
        noise: the feeds.
        image: the input that is replaced.
        images: what by, ``(feeds, *shape of the input)``; may lie in a file.
    """

    def __init__(self, noise: NoiseDataset, image: str, images: Array) -> None:
        super().__init__(noise.inputs, noise.looks, samples=len(images), seed=noise.seed)
        self.image = image
        self.images = images

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for (where, feed), image in zip(super()._feeds(), self.images, strict=True):
            yield where, {**feed, self.image: np.asarray(image)}


def is_image(spec: InputSpec) -> bool:
    """Whether an input takes ``(N, C, H, W)`` of one to four channels."""
    channels = spec.shape[1] if spec.shape is not None and len(spec.shape) == 4 else None
    return isinstance(channels, int) and 1 <= channels <= 4 and spec.dtype.kind in "fV"


def _coloured(rng: np.random.Generator, shape: tuple[int, ...], roughness: float) -> Array:
    """Return noise of mean 0 and deviation 1, of which the amplitudes fall with frequency.

    Reference: Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", JOSA A 1987: amplitudes of photographs fall as 1 / f.
    """
    n, channels, height, width = shape
    white = rng.standard_normal((n, channels + 1, height, width))
    shared = np.sqrt(_SHARED) * white[:, channels:] + np.sqrt(1 - _SHARED) * white[:, :channels]
    across, down = np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    frequency = np.hypot(across, down)
    # the mean is the slowest of all: as if of a wave as long as the image
    frequency[0, 0] = 1.0 / max(height, width)
    falling = np.fft.rfft2(shared) * frequency**-roughness
    coloured = np.fft.irfft2(falling, s=(height, width))
    power = np.mean(coloured**2)
    return np.asarray(coloured / np.sqrt(power if power > 0 else 1.0))
