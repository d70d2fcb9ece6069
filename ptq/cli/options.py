"""Options that several commands share, and how they become configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ptq.errors import ConfigError

if TYPE_CHECKING:
    from ptq.config import QuantizeConfig
    from ptq.data import ImageOptions

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator for several options, in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class _Words(click.ParamType[str]):
    """Words with commas between them; a list of them in a recipe."""

    name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        words = [w for w in (value if isinstance(value, list) else [value]) if isinstance(w, str)]
        if not words or (isinstance(value, list) and len(words) < len(value)):
            self.fail("takes text in quotes, or a list of it", param, ctx)
        return ",".join(words)


MODEL = click.argument("model", type=FILE)

PLACEMENT = together(
    click.option(
        "--op-types",
        type=_Words(),
        metavar="TYPES",
        default="",
        help="The only operator types that may become integer, separated by commas.",
    ),
    click.option(
        "--exclude",
        metavar="GLOB",
        multiple=True,
        help="Keep nodes whose names match in float; may be given several times.",
    ),
    click.option(
        "--target",
        default="auto",
        show_default=True,
        help="What will run the model; 'auto' is onnxruntime on this machine.",
    ),
)

IMAGES = together(
    click.option(
        "--image",
        "image_flags",
        metavar="KEY=VALUE",
        multiple=True,
        help="How to prepare images: resize, crop, mean, std, scale, layout, colour, "
        "interpolation; may be given several times.",
    ),
    click.option("--image-config", type=FILE, metavar="TOML", help="The same from a file."),
)

DATA = together(
    click.option(
        "--calib-data",
        metavar="DATA",
        help="Real inputs: an .npz file (one array for each input, leading axis = samples), a "
        "folder of .npz or .npy files, of test_data_set_* folders or of images, or "
        "package.module:function. 'random' makes numbers up, and the result says so.",
    ),
    click.option(
        "--samples", type=click.IntRange(min=1), help="How many calibration samples to use.  [all]"
    ),
    IMAGES,
)


def threads(purpose: str) -> Callable[[F], F]:
    """Return the option of how many threads to use, with what for."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=os.cpu_count() or 1,
        show_default="all cores",
        help=f"Threads to {purpose}.",
    )


TOP = click.option(
    "--top",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many layers to list; 0 for all.",
)


OBSERVER = together(
    click.option(
        "--sample-size",
        type=click.IntRange(min=0),
        default=0,
        help="Values of a large tensor counted for each sample.  [about half a million in all]",
    ),
    click.option(
        "--ema-decay",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.99,
        show_default=True,
        help="Decay of the moving averages that --calib ema uses.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Seed of random calibration data.",
    ),
    threads("observe with; latency is measured with one"),
)

LOSS = click.option(
    "--loss",
    type=click.Choice(["auto", "kl", "mse", "layers"]),
    default="auto",
    show_default=True,
    help="What training makes small: the divergence from the float model's classes (kl), the "
    "squared error of the outputs (mse), the one of outputs behind a softmax and the other of the "
    "rest (auto), or that and the squared error of what blocks put out (layers).",
)

FORCE = click.option("--force", is_flag=True, help="Replace existing files.")


class _Bits(click.ParamType[int | str]):
    """Widths: ``4`` of weights, ``W4A4`` of activations too as papers write it, or ``mixed``."""

    name = "integer|W4A4|mixed"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        text = str(value).strip().upper()
        if text == MIXED.upper():
            return MIXED
        found = re.fullmatch(r"W(\d+)A8|(-?\d+)", text)
        if found is not None and not isinstance(value, bool):
            return int(found[1] or found[2])
        if re.fullmatch(r"W\d+A[2-7]", text):
            return text
        why = "is no width of weights; write 4, W4A8, W4A4 or mixed"
        if re.fullmatch(r"W\d+A\d+", text):
            why = "has activations that no kernel takes; write A8 to A2"
        raise click.BadParameter(f"{value} {why}", ctx, param)


class _Size(click.ParamType[int]):
    """A number of bytes: ``2MB``, ``800kB``, ``1.5MiB`` or ``2000000``."""

    name = "SIZE"
    units = MappingProxyType(
        {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
        | {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
    )

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Z]*)\s*", str(value).upper())
        if found is None or found[2] not in self.units:
            raise click.BadParameter(f"{value} is no size; write 2MB, 800kB or bytes", ctx, param)
        return int(float(found[1]) * self.units[found[2]])


#: The type of options that are sizes of files.
SIZE = _Size()

#: What ``--bits`` is where each layer has a width of its own.
MIXED = "mixed"

#: The type of ``--bits``.
BITS = _Bits()


def widths_of(bits: int | str) -> tuple[int, int]:
    """Return the bits of weights and of activations that a value of ``--bits`` stands for."""
    if isinstance(bits, int):
        return bits, 8
    weights, _, activations = bits.removeprefix("W").partition("A")
    return (8, 8) if bits == MIXED else (int(weights), int(activations))


def config_from(**fields: Any) -> QuantizeConfig:  # noqa: ANN401 - of many types
    """Return the configuration that the options describe."""
    import msgspec

    from ptq.config import QuantizeConfig

    types = [t.strip() for t in fields.pop("op_types", "").split(",")]
    fields["op_types"] = [t for t in types if t]
    try:
        return msgspec.convert(fields, QuantizeConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error


def images_from(flags: tuple[str, ...], file: Path | None) -> ImageOptions | None:
    """Return how to prepare images, if the user said anything about it."""
    from ptq.data import ImageOptions

    if flags and file:
        raise ConfigError(
            "--image and --image-config exclude each other; put all of it in the file"
        )
    if file is not None:
        return ImageOptions.from_toml(file)
    return ImageOptions.from_flags(flags) if flags else None


def json_of(found: object) -> str:
    """Return a struct as JSON that people can read."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
