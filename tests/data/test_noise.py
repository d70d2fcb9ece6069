"""Made-up images: their spectrum, their size, and that the seed decides."""

import numpy as np
import pytest

from ptq.data.noise import Look, NoiseDataset, is_image
from ptq.errors import ConfigError


def noise(spec, look=None, *, shape=(4, 3, 64, 64), samples=2, seed=0):
    look = look or Look.plain(3)
    inputs = (spec("x", shape), spec("ids", (2, 5), "int64"), spec("row", (3, 7)))
    return NoiseDataset(inputs, {"x": look}, samples=samples, seed=seed)


@pytest.mark.parametrize("roughness", [0.0, 1.0, 1.5])
def test_amplitudes_fall_with_frequency_as_asked(spec, roughness):
    [feed] = noise(spec, Look(roughness, 1.0, np.zeros(3)), shape=(8, 3, 128, 128), samples=1)
    power = (np.abs(np.fft.fft2(feed["x"])) ** 2).mean(axis=(0, 1))[0]
    low, high = power[2:5].mean(), power[16:33].mean()
    slope = np.log(low / high) / np.log(np.mean(range(16, 33)) / np.mean(range(2, 5))) / 2
    # 24 images, and the ends that are cut off put some power at all frequencies
    assert slope == pytest.approx(roughness, abs=0.25)


def test_offset_and_gain_are_those_asked_for_and_ends_are_bounded(spec):
    look = Look(1.0, 10.0, np.array([0.0, 100.0, -50.0]))
    feeds = list(noise(spec, look, samples=8))
    x = np.concatenate([feed["x"] for feed in feeds])
    assert x.dtype == np.float32
    # slow waves hardly average out over an image, nor over 32 of them
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), look.offset, atol=3)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), look.gain, rtol=0.1)
    assert np.abs(x - look.offset[:, None, None]).max() <= 27.001


def test_the_seed_decides_and_more_samples_do_not_change_the_first(spec):
    assert noise(spec).digest() == noise(spec).digest()
    assert noise(spec).digest() != noise(spec, seed=1).digest()
    for a, b in zip(noise(spec), noise(spec, samples=5), strict=False):
        np.testing.assert_array_equal(a["x"], b["x"])


def test_other_inputs_are_normal_or_0_and_1_and_all_is_marked_as_made_up(spec):
    data = noise(spec)
    [feed, _] = data
    assert data.synthetic
    assert len(data) == 2
    assert set(feed["ids"].ravel()) <= {0, 1}
    assert feed["row"].shape == (3, 7)


def test_text_cannot_be_made_up(spec):
    with pytest.raises(ConfigError, match="nothing can be made up for input 'words' of type"):
        NoiseDataset((spec("words", (1,), "object"),), {}, samples=1, seed=0)


@pytest.mark.parametrize(
    ("shape", "dtype", "image"),
    [
        (("N", 3, "H", "W"), "float32", True),
        ((1, 1, 8, 8), "float16", True),
        ((1, 3, 8, 8), "uint8", False),
        ((1, 5, 8, 8), "float32", False),
        ((1, 3, 8), "float32", False),
        ((1, "C", 8, 8), "float32", False),
        (None, "float32", False),
    ],
)
def test_images_have_four_axes_and_few_channels(spec, shape, dtype, image):
    assert is_image(spec("x", shape, dtype)) == image
