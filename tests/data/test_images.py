import sys

import numpy as np
import pytest
from PIL import Image

from ptq.data import ImageOptions, open_dataset
from ptq.errors import ConfigError, DataError

EXIF_ORIENTATION = 0x0112


@pytest.fixture
def pixels(rng):
    """A smooth colour picture of 20x30 with something in every corner."""
    return rng.integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def save(tmp_path):
    def make(name, array, **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        image = array if isinstance(array, Image.Image) else Image.fromarray(array)
        image.save(path, **options)
        return path

    return make


def only(source, spec, **options):
    (feed,) = open_dataset(source, [spec], images=ImageOptions(**options))
    return feed["x"]


def test_bytes_go_in_as_they_are(save, spec, pixels):
    path = save("a.png", pixels)
    got = only(path, spec(shape=(1, 20, 30, 3), dtype="uint8"))
    np.testing.assert_array_equal(got[0], pixels)
    got = only(path, spec(shape=(1, 3, 20, 30), dtype="uint8"), colour="bgr")
    np.testing.assert_array_equal(got[0], pixels[:, :, ::-1].transpose(2, 0, 1))


def test_scale_mean_and_std_are_the_usual_formula(save, spec, pixels):
    path = save("a.png", pixels)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    got = only(path, spec(shape=("N", 3, 20, 30)), mean=mean, std=std)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    expected = ((pixels / 255 - mean) / std).transpose(2, 0, 1)[np.newaxis]
    # four roundings of float32 (2^-24 each), of values up to 1/0.224
    np.testing.assert_allclose(got, expected, rtol=0, atol=4 * 2**-24 * 4.5 * 2)
    got = only(path, spec(shape=("N", 3, 20, 30)), mean=(127.5,), std=(127.5,), scale=1.0)
    np.testing.assert_array_equal(
        got[0].transpose(1, 2, 0), (pixels.astype("f4") - 127.5) / np.float32(127.5)
    )


def test_mean_is_in_the_order_of_the_models_channels(save, spec, pixels):
    got = only(
        save("a.png", pixels), spec(shape=(1, 20, 30, 3)), colour="bgr", scale=1.0, mean=(1, 2, 3)
    )
    np.testing.assert_array_equal(got[0], pixels[:, :, ::-1].astype("f4") - np.float32([1, 2, 3]))


def test_one_channel_means_gray(save, spec, pixels):
    got = only(save("a.png", pixels), spec(shape=(1, 1, 20, 30), dtype="uint8"))
    np.testing.assert_array_equal(got[0, 0], np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resize_and_crop_are_pillows(save, spec, pixels, interpolation):
    options = {"resize": 15, "crop": 10, "interpolation": interpolation}
    got = only(save("a.png", pixels), spec(shape=(1, 10, 10, 3), dtype="uint8"), **options)
    method = Image.Resampling[interpolation.upper()]
    resized = np.asarray(Image.fromarray(pixels).resize((22, 15), method))
    np.testing.assert_array_equal(got[0], resized[2:12, 6:16])


def test_the_default_keeps_the_shape_of_things_for_a_square_input(save, spec, pixels):
    got = only(save("a.png", pixels.transpose(1, 0, 2)), spec(shape=(1, 20, 20, 3), dtype="uint8"))
    np.testing.assert_array_equal(got[0], pixels.transpose(1, 0, 2)[5:25])


def test_the_default_stretches_for_other_inputs(save, spec, pixels):
    got = only(save("a.png", pixels), spec(shape=(1, 8, 24, 3), dtype="uint8"))
    resized = Image.fromarray(pixels).resize((24, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got[0], np.asarray(resized))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_respected(save, spec, pixels, orientation):
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = save("a.png", np.ascontiguousarray(turned[orientation]), exif=exif)
    got = only(path, spec(shape=(1, 20, 30, 3), dtype="uint8"))
    np.testing.assert_array_equal(got[0], pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.bmp", "a.webp", "odd ü:[x].png"])
def test_every_format_is_read(save, spec, pixels, name):
    path = save(name, pixels)
    got = only(path, spec(shape=(1, 20, 30, 3), dtype="uint8"))
    np.testing.assert_array_equal(got[0], np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_are_converted(save, spec, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    path = save("a.jpg" if mode == "CMYK" else "a.png", image)
    got = only(path, spec(shape=(1, 20, 30, 3), dtype="uint8"))
    np.testing.assert_array_equal(got[0], np.asarray(Image.open(path).convert("RGB")))


def test_a_transparent_palette_is_converted_without_ado(save, spec, pixels):
    path = save("a.png", Image.fromarray(pixels).quantize(8), transparency=bytes(range(8)))
    assert only(path, spec(shape=(1, 20, 30, 3), dtype="uint8")).shape == (1, 20, 30, 3)


def test_images_come_in_natural_order_and_one_at_a_time(tmp_path, save, spec):
    for i in (10, 2, 1):
        save(f"{i}.png", np.full((4, 4, 3), i, np.uint8))
    (tmp_path / "labels.txt").write_text("0\n1\n2\n")
    dataset = open_dataset(tmp_path, [spec(shape=("N", 3, 4, 4), dtype="uint8")])
    assert [int(feed["x"][0, 0, 0, 0]) for feed in dataset] == [1, 2, 10]
    assert dataset.notices == []


def test_images_may_lie_in_directories_of_their_classes(tmp_path, save, spec):
    for i, name in enumerate(["b/1.png", "a/9.png", "a/10.png"]):
        save(name, np.full((4, 4, 3), i, np.uint8))
    dataset = open_dataset(tmp_path, [spec(shape=("N", 3, 4, 4), dtype="uint8")])
    assert [int(feed["x"][0, 0, 0, 0]) for feed in dataset] == [1, 2, 0]


def test_a_fixed_batch_takes_several_images(tmp_path, save, spec):
    for i in range(5):
        save(f"{i}.png", np.full((4, 4, 3), i, np.uint8))
    dataset = open_dataset(tmp_path, [spec(shape=(2, 3, 4, 4), dtype="uint8")])
    assert [feed["x"][:, 0, 0, 0].tolist() for feed in dataset] == [[0, 1], [2, 3]]
    assert "the last 1 of 5 rows are left out" in dataset.notices[0]


def test_images_of_unequal_size_make_no_batch(tmp_path, save, spec):
    save("a.png", np.zeros((4, 4, 3), np.uint8))
    save("b.png", np.zeros((4, 8, 3), np.uint8))
    dataset = open_dataset(
        tmp_path, [spec(shape=(2, 3, None, None))], images=ImageOptions(resize=4)
    )
    with pytest.raises(DataError, match=r"a\.png and the next 1 images differ in size, .* crop or"):
        list(dataset)


def test_dynamic_sizes_may_differ_between_feeds(tmp_path, save, spec):
    save("a.png", np.zeros((8, 8, 3), np.uint8))
    save("b.png", np.zeros((8, 16, 3), np.uint8))
    dataset = open_dataset(
        tmp_path, [spec(shape=("N", 3, "H", "W"))], images=ImageOptions(resize=4)
    )
    assert [feed["x"].shape for feed in dataset] == [(1, 3, 4, 4), (1, 3, 4, 8)]


def test_half_precision_inputs_get_half_precision(save, spec, pixels):
    assert only(save("a.png", pixels), spec(shape=(1, 3, 20, 30), dtype="float16")).dtype == "f2"


def test_an_image_smaller_than_the_crop_is_an_error(save, spec, pixels):
    message = r"a\.png: has 20x30 pixels before the crop to 25x25; set the image option resize"
    with pytest.raises(DataError, match=message):
        only(save("a.png", pixels), spec(shape=(1, 3, 25, 25)), crop=25)


def test_sixteen_bits_are_refused(save, spec):
    path = save("a.png", np.full((4, 4), 999, np.uint16))
    with pytest.raises(DataError, match=r"a\.png: has more than 8 bits in each channel \(I;16\)"):
        only(path, spec(shape=(1, 1, 4, 4)))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\0\0", b"GIF89a"])
def test_what_is_no_image_is_an_error(tmp_path, spec, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: not an image that can be read .*; remove or"):
        only(tmp_path, spec(shape=(1, 3, 4, 4)))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
def test_an_image_cut_short_is_an_error(save, spec, pixels, name):
    path = save(name, pixels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="not an image that can be read"):
        only(path, spec(shape=(1, 3, 20, 30)))


@pytest.mark.parametrize("limit", [500, 200])
def test_a_decompression_bomb_is_refused(save, spec, pixels, limit, monkeypatch):
    path = save("a.png", pixels)
    # 600 pixels: up to twice the limit Pillow warns, above that it raises
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"a\.png: has too many pixels to be safe; make it smaller"):
        only(path, spec(shape=(1, 3, 4, 4)))


def test_a_strip_that_would_grow_out_of_bounds_is_refused(save, spec):
    path = save("a.png", np.zeros((1, 40000, 3), np.uint8))
    with pytest.raises(DataError, match="resizing 40000x1 to 8960000x224 would take too much memo"):
        only(path, spec(shape=(1, 3, 224, 224)))


def test_images_feed_one_input(save, spec, pixels):
    path = save("a.png", pixels)
    with pytest.raises(ConfigError, match="images feed one input, and the model wants: a, b; supp"):
        open_dataset(path, [spec("a"), spec("b")])


def test_without_pillow_the_remedy_is_the_extra(save, spec, pixels, monkeypatch):
    path = save("a.png", pixels)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"reading images needs Pillow; install ptq\[images\]"):
        open_dataset(path, [spec(shape=(1, 3, 20, 30))])
