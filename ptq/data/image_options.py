"""How images become the input of a model: the settings, and what the input's shape implies."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from ptq.data.feeds import InputSpec, fixed_dim, format_shape
from ptq.errors import ConfigError

Layout = Literal["nchw", "nhwc"]
Colour = Literal["rgb", "bgr", "gray"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Pixels = Annotated[int, Meta(ge=1, le=65536)]
# msgspec 0.22.0 crashes in the garbage collector on tuple[Pixels, Pixels] beside Pixels
HeightWidth = Annotated[tuple[Pixels, ...], Meta(min_length=2, max_length=2)]
Positive = Annotated[float, Meta(gt=0)]

_NUMBER_LISTS = ("mean", "std")
_SIDES = "a side in pixels, or height and width"
_NUMBERS = "one number, or one for each channel"
_FORMS = {
    "resize": _SIDES,
    "crop": _SIDES,
    "scale": "a positive number",
    "mean": _NUMBERS,
    "std": f"{_NUMBERS}, all positive",
    "layout": " or ".join(get_args(Layout)),
    "colour": " or ".join(get_args(Colour)),
    "interpolation": " or ".join(get_args(Interpolation)),
}


class ImageOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to prepare images; what is left out follows from the shape of the model's input.

    The steps, in order: turn upright (EXIF), convert the colours, resize, crop the centre, then
    ``(pixel * scale - mean) / std`` in float32. Inputs of type uint8 get the bytes as they are.

    Attributes:
        resize: the shorter side, the longer one following (rounded down), or (height, width).
            Default: the model's height if it is square, cut by ``crop``; else its (height, width).
        crop: side of the centre square, or (height, width). Default: the model's height and width.
        scale: factor of the bytes 0..255; default 1/255.
        mean: subtracted after scaling: one number, or one for each channel as the model has them.
        std: divided by after that; likewise.
        layout: where the channel axis is. Default: where the model's shape has 1 or 3.
        colour: the channels and their order. Default: ``gray`` for 1 channel, ``rgb`` for 3.
        interpolation: of the resizing; Pillow's, which averages when it shrinks.
    """

    resize: Pixels | HeightWidth | None = None
    crop: Pixels | HeightWidth | None = None
    scale: Positive | None = None
    mean: Annotated[tuple[float, ...], Meta(min_length=1)] = (0.0,)
    std: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (1.0,)
    layout: Layout | None = None
    colour: Colour | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Refuse numbers that would make every pixel infinite or NaN."""
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale or 1.0))):
            raise ConfigError("the image options scale, mean and std must be finite; correct them")

    @classmethod
    def of(cls, fields: Mapping[str, object], where: str = "image options") -> ImageOptions:
        """Return options from plain values, as TOML or JSON have them.

        Raises:
            ConfigError: a field is unknown (the message has the nearest name) or has a bad value.
        """
        known = [field.name for field in msgspec.structs.fields(cls)]
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                guess = f"did you mean '{near[0]}'? " if near else ""
                raise ConfigError(
                    f"{where}: unknown option '{name}'; {guess}choose from: {', '.join(known)}"
                )
        try:
            return msgspec.convert(fields, cls)
        except msgspec.ValidationError as error:
            # msgspec ends its messages with the place: "... - at `$.resize`"
            what, _, place = str(error).partition(" - at ")
            field = place.strip("`").removeprefix("$.").partition("[")[0]
            problem = what[:1].lower() + what[1:]
            raise ConfigError(f"{where}: {field}: {problem}; give {_FORMS[field]}") from error

    @classmethod
    def from_toml(cls, path: str | Path) -> ImageOptions:
        """Read options from a TOML file with the fields at its top level."""
        try:
            fields = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read image options '{path}': {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not TOML ({error}); write resize = 256") from error
        return cls.of(fields, str(path))

    @classmethod
    def from_flags(cls, flags: Sequence[str]) -> ImageOptions:
        """Read options from ``key=value`` words: ``resize=256``, ``mean=0.485,0.456,0.406``."""
        fields: dict[str, object] = {}
        for flag in flags:
            name, equals, text = flag.partition("=")
            if not equals or not text:
                raise ConfigError(f"image option '{flag}' has no value; write {name}=VALUE")
            values = [_plain(word) for word in text.split(",")]
            fields[name] = values if len(values) > 1 or name in _NUMBER_LISTS else values[0]
        return cls.of(fields)

    @classmethod
    def infer(cls, spec: InputSpec) -> ImageOptions:
        """Return the options that the input's shape implies, all of them set."""
        return cls().resolve(spec)

    def resolve(self, spec: InputSpec) -> ImageOptions:
        """Return these options with all that was left out taken from the input's shape.

        Only ``resize`` or ``crop`` may remain ``None``, where the other one fixes the size, and
        ``scale`` and the like are untouched for uint8.

        Raises:
            ConfigError: the shape leaves something open, or contradicts an option.
        """
        _check_type(self, spec)
        shape = spec.shape
        if shape is None or len(shape) != 4:
            raise ConfigError(
                f"images need an input of 4 axes, and '{spec.name}' wants {format_shape(shape)}; "
                "supply .npz files or a function"
            )
        layout = self.layout or _infer_layout(spec.name, shape)
        channels, height, width = (
            (shape[1], shape[2], shape[3]) if layout == "nchw" else (shape[3], shape[1], shape[2])
        )
        colour = self.colour or ("gray" if fixed_dim(channels) == 1 else "rgb")
        options = msgspec.structs.replace(self, layout=layout, colour=colour)
        options = _with_size(options, spec.name, fixed_dim(height), fixed_dim(width))
        _check_channels(options, spec.name, fixed_dim(channels))
        return options

    @property
    def channels(self) -> int:
        """The number of channels of the colours."""
        return 1 if self.colour == "gray" else 3


def _plain(word: str) -> object:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _check_type(options: ImageOptions, spec: InputSpec) -> None:
    if spec.dtype == "uint8":
        plain = ImageOptions()
        touched = [n for n in ("scale", "mean", "std") if getattr(options, n) != getattr(plain, n)]
        if touched:
            raise ConfigError(
                f"input '{spec.name}' is uint8 and takes the bytes of an image as they are; "
                f"leave out {', '.join(touched)}"
            )
    elif spec.dtype.kind != "f":
        raise ConfigError(
            f"images become floats or uint8, and input '{spec.name}' is {spec.dtype}; "
            "supply .npz files or a function"
        )


def _infer_layout(name: str, shape: Sequence[Any]) -> Layout:
    first, last = (fixed_dim(shape[axis]) in (1, 3) for axis in (1, 3))
    if first == last:
        found = "both axes 1 and 3 could be" if first else "no axis of size 1 or 3 is"
        raise ConfigError(
            f"input '{name}' wants {format_shape(shape)}, where {found} the channels; "
            "set the image option layout to nchw or nhwc"
        )
    return "nchw" if first else "nhwc"


def _with_size(
    options: ImageOptions, name: str, height: int | None, width: int | None
) -> ImageOptions:
    """Fill in resize and crop, and check that they end at the model's size."""
    resize, crop = options.resize, options.crop
    if isinstance(crop, int):
        crop = (crop, crop)
    if height is not None and width is not None:
        if resize is None and crop is None:
            resize = height if height == width else (height, width)
        if crop is None and isinstance(resize, int):
            crop = (height, width)
    elif resize is None and crop is None:
        raise ConfigError(
            f"input '{name}' leaves its height or width open; set the image option resize, "
            "such as resize=224 or resize=224,320"
        )
    final = crop or resize
    if isinstance(final, tuple) and any(
        want not in (None, have) for have, want in zip(final, (height, width), strict=True)
    ):
        raise ConfigError(
            f"the image options give {final[0]}x{final[1]} pixels, and input '{name}' wants "
            f"{height or '?'}x{width or '?'}; correct {'crop' if crop else 'resize'}"
        )
    return msgspec.structs.replace(options, resize=resize, crop=crop)


def _check_channels(options: ImageOptions, name: str, channels: int | None) -> None:
    if channels not in (None, options.channels):
        raise ConfigError(
            f"colour '{options.colour}' has {options.channels} channels, and input '{name}' wants "
            f"{channels}; correct the image options colour or layout"
        )
    for field in _NUMBER_LISTS:
        given = len(getattr(options, field))
        if given not in (1, options.channels):
            raise ConfigError(
                f"image option {field} has {given} numbers, and colour '{options.colour}' has "
                f"{options.channels} channels; give 1 or {options.channels}"
            )
