"""A directory of images, prepared as `ImageOptions` say (needs Pillow)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Array, Feed, InputSpec
from ptq.data.files import data_files, subdirectories
from ptq.data.image_options import ImageOptions
from ptq.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}


class ImageDirectory(Dataset):
    """One image in each sample, or as many as the batch the model fixes.

    The images are those in the directory in natural order of name or, if there are none, those in
    the directories right below it. An image with more pixels than Pillow thinks safe is refused.
    """

    kind = "images"
    form = "an image or a directory of images (.jpg .png .bmp .webp)"

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether there are images at the source."""
        return bool(_image_files(Path(source)))

    def __init__(self, request: DataRequest) -> None:
        super().__init__(request)
        _need_pillow()
        if len(self.inputs) != 1:
            wanted = ", ".join(spec.name for spec in self.inputs)
            raise ConfigError(
                f"{self.source}: images feed one input, and the model wants: {wanted}; "
                "supply .npz files or a function"
            )
        self._spec = self.inputs[0]
        self._options = (request.images or ImageOptions()).resolve(self._spec)
        self._files = _image_files(Path(request.source))
        self._choose_rows(len(self._files), self._spec.batch, request.samples)

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for i in self._chosen():
            paths = self._files[i * self.rows : (i + 1) * self.rows]
            images = [load_image(path, self._options, self._spec) for path in paths]
            if len({image.shape for image in images}) > 1:
                raise DataError(
                    f"{paths[0]} and the next {self.rows - 1} images differ in size, and the model "
                    "fixes its batch; set the image option crop or resize=HEIGHT,WIDTH"
                )
            yield str(paths[0]), {self._spec.name: np.stack(images)}


def load_image(path: Path, options: ImageOptions, spec: InputSpec) -> Array:
    """Return one image as the input wants it, without the batch axis.

    Args:
        path: the file.
        options: as `ImageOptions.resolve` gives them.
        spec: the input, of type uint8 or float.

    Raises:
        DataError: the file is damaged, too large, not 8 bits deep, or smaller than the crop.
    """
    pixels = np.asarray(_decode(path, options))
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if options.colour == "bgr":
        pixels = pixels[:, :, ::-1]
    if spec.dtype != np.uint8:
        scale = np.float32(1 / 255 if options.scale is None else options.scale)
        mean, std = np.array(options.mean, np.float32), np.array(options.std, np.float32)
        pixels = ((pixels.astype(np.float32) * scale - mean) / std).astype(spec.dtype)
    if options.layout == "nchw":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def _decode(path: Path, options: ImageOptions) -> Image.Image:
    """Return the image upright, in its colours, resized and cropped, 8 bits a channel."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # transparency is dropped and odd metadata ignored, both without ado
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path, formats=FORMATS) as file:
                if file.mode.startswith(("I", "F")):
                    raise DataError(
                        f"{path}: has more than 8 bits in each channel ({file.mode}); "
                        "convert it to 8 bits"
                    )
                upright = ImageOps.exif_transpose(file)
                image = upright.convert(_MODES[options.colour or "rgb"])
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: has too many pixels to be safe; make it smaller") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{path}: not an image that can be read ({error}); remove or convert it"
        ) from error
    return _crop(_resize(image, options, path), options, path)


def _resize(image: Image.Image, options: ImageOptions, path: Path) -> Image.Image:
    from PIL import Image

    width, height = image.size
    if options.resize is None:
        return image
    if isinstance(options.resize, int):
        # rounds down, as torchvision does
        short = options.resize
        size = (
            (short, short * height // width)
            if width <= height
            else (short * width // height, short)
        )
    else:
        size = (options.resize[1], options.resize[0])
    if size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise DataError(
            f"{path}: resizing {width}x{height} to {size[0]}x{size[1]} would take too "
            "much memory; remove it, or set the image option resize=HEIGHT,WIDTH"
        )
    return image.resize(size, Image.Resampling[options.interpolation.upper()])


def _crop(image: Image.Image, options: ImageOptions, path: Path) -> Image.Image:
    if options.crop is None:
        return image
    assert isinstance(options.crop, tuple)  # resolve made it so
    height, width = options.crop
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    if left < 0 or top < 0:
        raise DataError(
            f"{path}: has {image.height}x{image.width} pixels before the crop to {height}x{width}; "
            "set the image option resize to that or more"
        )
    return image.crop((left, top, left + width, top + height))


def _image_files(path: Path) -> list[Path]:
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return [path]
    below = [image for sub in subdirectories(path) for image in data_files(sub, SUFFIXES)]
    return data_files(path, SUFFIXES) or below


def _need_pillow() -> None:
    try:
        import PIL  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConfigError("reading images needs Pillow; install ptq[images]") from error
