import numpy as np
import pytest

from ptq.data import ImageOptions
from ptq.errors import ConfigError


@pytest.mark.parametrize(
    ("shape", "layout", "colour", "resize", "crop"),
    [
        (("N", 3, 224, 224), "nchw", "rgb", 224, (224, 224)),
        ((1, 3, 800, 608), "nchw", "rgb", (800, 608), None),
        (("N", 1, 28, 28), "nchw", "gray", 28, (28, 28)),
        (("N", 299, 299, 3), "nhwc", "rgb", 299, (299, 299)),
        ((None, 48, 192, 1), "nhwc", "gray", (48, 192), None),
    ],
)
def test_options_follow_from_the_shape(spec, shape, layout, colour, resize, crop):
    options = ImageOptions.infer(spec(shape=shape))
    assert (options.layout, options.colour) == (layout, colour)
    assert (options.resize, options.crop) == (resize, crop)


def test_what_is_said_is_kept(spec):
    given = ImageOptions(resize=256, mean=(0.5,), colour="bgr", interpolation="bicubic")
    options = given.resolve(spec(shape=("N", 3, 224, 224)))
    assert (options.resize, options.crop) == (256, (224, 224))
    assert (options.mean, options.colour, options.interpolation) == ((0.5,), "bgr", "bicubic")


def test_dynamic_sizes_take_what_is_said(spec):
    open_size = spec(shape=("N", 3, "H", "W"))
    assert ImageOptions(resize=96).resolve(open_size).crop is None
    assert ImageOptions(resize=(48, 320)).resolve(open_size).resize == (48, 320)
    options = ImageOptions(crop=64).resolve(open_size)
    assert (options.resize, options.crop) == (None, (64, 64))
    all_open = spec(shape=(None, None, None, None))
    assert ImageOptions(resize=8, layout="nhwc").resolve(all_open).colour == "rgb"


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        (("N", 3, "H", "W"), {}, "'x' leaves its height or width open; set the image option resiz"),
        (("N", 3, 48, "W"), {}, "such as resize=224 or resize=224,320"),
        (("N", 3, 48, "W"), {"resize": (32, 64)}, r"give 32x64 pixels, .* wants 48x\?; correct re"),
        (("N", 3, 8, 8), {"crop": 9}, "give 9x9 pixels, and input 'x' wants 8x8; correct crop"),
        ((1, 3, 8, 3), {}, r"wants \(1, 3, 8, 3\), where both axes 1 and 3 could be the channels"),
        ((1, 4, 8, 8), {}, "no axis of size 1 or 3 is the channels; set the image option layout"),
        ((1, 4, 8, 8), {"layout": "nchw"}, "colour 'rgb' has 3 channels, and input 'x' wants 4"),
        ((1, 3, 8, 8), {"colour": "gray"}, "colour 'gray' has 1 channels, and input 'x' wants 3"),
        ((1, 3, 8, 8), {"mean": (1.0, 2.0)}, "mean has 2 numbers, .* 3 channels; give 1 or 3"),
        ((1, 1, 8, 8), {"std": (1.0, 2.0)}, "std has 2 numbers, .* give 1 or 1"),
        ((3, 8, 8), {}, r"need an input of 4 axes, and 'x' wants \(3, 8, 8\); supply .npz files"),
        (None, {}, "need an input of 4 axes"),
    ],
)
def test_what_is_open_or_contradictory_is_an_error(spec, shape, fields, message):
    with pytest.raises(ConfigError, match=message):
        ImageOptions(**fields).resolve(spec(shape=shape))


def test_only_floats_and_bytes_can_be_images(spec):
    assert ImageOptions.infer(spec(shape=(1, 3, 8, 8), dtype="uint8")).scale is None
    with pytest.raises(ConfigError, match="takes the bytes of an image as they are; leave out sca"):
        ImageOptions(scale=1.0, std=(2.0,)).resolve(spec(shape=(1, 3, 8, 8), dtype="uint8"))
    with pytest.raises(ConfigError, match="images become floats or uint8, and input 'x' is int64"):
        ImageOptions.infer(spec(shape=(1, 3, 8, 8), dtype=np.int64))


def test_toml_and_flags_say_the_same(tmp_path):
    path = tmp_path / "images.toml"
    path.write_text(
        'resize = 256\ncrop = [224, 200]\nmean = [0.5, 0.25, 1]\nstd = [2]\nlayout = "nhwc"\n'
    )
    flags = ["resize=256", "crop=224,200", "mean=0.5,0.25,1", "std=2", "layout=nhwc"]
    expected = ImageOptions(
        resize=256, crop=(224, 200), mean=(0.5, 0.25, 1.0), std=(2.0,), layout="nhwc"
    )
    assert ImageOptions.from_toml(path) == ImageOptions.from_flags(flags) == expected
    assert ImageOptions.from_flags([]) == ImageOptions()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("color=bgr", "unknown option 'color'; did you mean 'colour'.* choose from: resize, crop"),
        ("zzz=1", "unknown option 'zzz'; choose from: "),
        ("resize", "image option 'resize' has no value; write resize=VALUE"),
        (
            "resize=big",
            r"image options: resize: expected .* got `str`; give a side in pixels, or hei",
        ),
        ("resize=0", "expected `int` >= 1"),
        ("resize=1,2,3", "expected `array` of length <= 2; give a side"),
        ("std=0", "expected `float` > 0"),
        ("std=nan", "expected `float` > 0"),
        ("mean=inf", "mean and std must be finite"),
        ("layout=chw", "layout: invalid enum value 'chw'; give nchw or nhwc"),
        ("mean=1,a", "mean: expected `float`, got `str`; give one number, or one for each channel"),
        ("interpolation=cubic", "give nearest or bilinear or bicubic or lanczos"),
        ("scale=a", "expected .*float"),
    ],
)
def test_a_bad_flag_is_an_error(flag, message):
    with pytest.raises(ConfigError, match=message):
        ImageOptions.from_flags([flag])


def test_a_bad_file_is_an_error(tmp_path):
    path = tmp_path / "images.toml"
    with pytest.raises(ConfigError, match=r"cannot read image options .*: No such file"):
        ImageOptions.from_toml(path)
    path.write_text("resize: 3")
    with pytest.raises(ConfigError, match=r"images\.toml: not TOML \(.*\); write resize = 256"):
        ImageOptions.from_toml(path)
    path.write_text("rezise = 3")
    with pytest.raises(
        ConfigError, match=r"images\.toml: unknown option 'rezise'; did you mean 're"
    ):
        ImageOptions.from_toml(path)
    path.write_text('resize = "3"')
    with pytest.raises(ConfigError, match=r"images\.toml: resize: expected"):
        ImageOptions.from_toml(path)
