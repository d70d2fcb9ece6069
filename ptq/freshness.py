"""Whether a quantized model that is there is what quantizing anew would write."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ptq import __version__
from ptq.auto import SCHEMES
from ptq.calibration import Calibration
from ptq.config import AUTO, QuantizeConfig
from ptq.data import Dataset, open_dataset
from ptq.datafree import SAMPLES
from ptq.embedded import EmbeddedRecipe, read_recipe
from ptq.errors import PtqError
from ptq.graph.load import input_specs, load_model, model_digest
from ptq.graph.protos import parse_tensor
from ptq.graph.save import to_bytes
from ptq.options import RunOptions
from ptq.pipeline import Data
from ptq.runtime.host import host_target
from ptq.source import open_source


def is_current(
    model: Path, output: Path, calibration: Data | None, config: QuantizeConfig, options: RunOptions
) -> bool:
    """Return whether quantizing would give a model that was made from the same.

    The recipe in the model is compared: the version of `ptq`, the settings, the digest of the float
    model and that of the calibration samples, which are read for it. A float model that was kept
    has no recipe; nor does a run with a threshold on speed end without a measurement.
    """
    if options.min_speedup is not None or options.on_slower == "fail":
        return False
    more = [place for place in (options.report, options.page) if place is not None]
    if config.format == "both":
        more.append(output.with_name(f"{output.stem}.integer{output.suffix}"))
    if not all(place.is_file() for place in (output, *more)):
        return False
    try:
        made = read_recipe(output)
        return (
            made.ptq == __version__
            and made.config in _settings(config)
            and made.model_sha256 == model_digest(model)
            and options.placement in (None, made.placement)
            and _same_data(made, model, calibration, config, options)
        )
    except PtqError:
        return False  # quantizing says what is wrong


def is_ours(output: Path, model: Path) -> bool:
    """Return whether a file is what `ptq` made of a model, and so may be made anew.

    A float model that was kept has no recipe, but is a copy of it, or just as it was prepared.
    """
    if not output.is_file():
        return False
    try:
        read_recipe(output)
    except PtqError:
        return _is_float_kept(output, model)
    return True


def _is_float_kept(output: Path, model: Path) -> bool:
    content = output.read_bytes()
    try:
        return content == model.read_bytes() or content == to_bytes(open_source(model).model)
    except (PtqError, OSError):
        return False


def _settings(config: QuantizeConfig) -> list[QuantizeConfig]:
    """Return the settings that the recipe may hold: several where the best scheme is taken."""
    if config.target == AUTO:
        config = config.at(host_target())
    config = msgspec.structs.replace(config, format=config.formats[0])
    schemes = SCHEMES if config.scheme == "auto" else (config.scheme,)
    return [config.with_scheme(scheme) for scheme in schemes]


def _same_data(
    made: EmbeddedRecipe,
    model: Path,
    calibration: Data | None,
    config: QuantizeConfig,
    options: RunOptions,
) -> bool:
    if made.data_sha256 is None:  # its scales did not come from data
        return True
    if config.data_free:  # what is made up depends on the model and the settings alone
        return (options.samples or SAMPLES) == made.samples
    if calibration is None:
        given = options.statistics
        return given is not None and Calibration.load(given).header.data_sha256 == made.data_sha256
    if not isinstance(calibration, Dataset):
        calibration = open_dataset(
            calibration,
            input_specs(load_model(model)),
            samples=options.samples,
            seed=config.seed,
            images=options.images,
            tensor_parser=parse_tensor,
        )
    return calibration.digest() == made.data_sha256
