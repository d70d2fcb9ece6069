"""`ptq sensitivity`: which layers do the damage, measured one by one at the network's output."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from ptq import __version__
from ptq.comparing import CompareOptions, compare_feeds
from ptq.config import PLACE_ALL, PLACE_AUTO, QuantizeConfig
from ptq.damages import Sensing
from ptq.data import Dataset, Feed, open_dataset
from ptq.data.feeds import hash_feed
from ptq.errors import ConfigError
from ptq.files import staged
from ptq.graph.load import model_files
from ptq.graph.protos import parse_tensor
from ptq.options import RunOptions
from ptq.pipeline import Data, begin
from ptq.place.memory import cache_folder
from ptq.places import require_free, require_text
from ptq.progress import Stages
from ptq.report.sensitivity import Sensitivity
from ptq.runtime.host import host_key
from ptq.search.ledger import SCHEMA, Ledger
from ptq.search.trials import Trials
from ptq.version import Version
from ptq.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityOptions:
    """What to measure.

    Attributes:
        run: where data comes from and how many calibration samples and threads to use; the damage
            is measured on its evaluation data where there is any, else on the calibration data.
            Nothing is written to its places but the JSON.
        trial_samples: on how many samples each trial is measured, evenly spaced over the data.
        tensors: whether to measure each activation and each weight too, not only whole layers.
        keep_float: up to how many layers to choose to leave in float.
        min_sqnr: the least SQNR in dB to reach with as few layers in float as possible.
        state: the file that keeps results, so that an interrupted run goes on; by default one in
            the cache folder of `ptq`.
    """

    run: RunOptions = field(default_factory=RunOptions)
    trial_samples: int = 8
    tensors: bool = False
    keep_float: int | None = None
    min_sqnr: float | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.trial_samples < 1:
            raise ConfigError("--trial-samples must be 1 or more")
        if self.keep_float is not None and self.min_sqnr is not None:
            raise ConfigError("--keep-float and --min-sqnr exclude each other; leave one out")
        if self.keep_float is not None and self.keep_float < 1:
            raise ConfigError("--keep-float must be 1 or more")


def sensitivity(
    model: str | os.PathLike[str],
    calibration: Data | None,
    config: QuantizeConfig | None = None,
    options: SensitivityOptions | None = None,
) -> Sensitivity:
    """Measure what quantizing each layer, and leaving each layer in float, does to the output.

    Everything that the target runs counts as quantized, unless ``config.place`` names it.

    Example:
        >>> found = ptq.sensitivity("model.onnx", "calib.npz")
        >>> max(found.layers, key=lambda layer: layer.spared).name
        '/head/Conv'

    Args:
        model: the file of a float32 model.
        calibration: real inputs, as for `ptq.quantize`.
        config: how to quantize; static schemes only.
        options: what to measure, and on what.

    Raises:
        ConfigError: a setting is wrong, or the state is of another run.
        ModelError: the model cannot be read, or has nothing to quantize.
        DataError: the data does not fit the model.
        CalibrationError: the data does not determine a range.
        VerificationError: the quantized model gives NaN where the float one does not.
    """
    options = options or SensitivityOptions()
    config = _all_placed(config or QuantizeConfig())
    stages = Stages(options.run.on_progress)
    read = [calibration, options.run.evaluation, options.run.statistics]
    _require_places(Path(model), read, options)
    work = begin(model, calibration, config, options=options.run, stages=stages)
    weights = model_files(work.source.path)[1:]
    report = options.run.report
    require_free([report], work.source.path, [*read, *weights], force=options.run.force)
    data = _trial_data(work, calibration, options)
    feeds = list(islice(iter(data), options.trial_samples))
    found = msgspec.structs.replace(
        _measured(work, feeds, options),
        data=data.source,
        samples=len(feeds),
        notices=tuple(_notices(work, data)),
    )
    if report is not None:
        with staged(report, found.to_json()):
            pass
    return found


def _require_places(model: Path, read: Sequence[Data | None], options: SensitivityOptions) -> None:
    """Refuse places that are something else, or the same."""
    report, state = options.run.report, options.state
    require_text([model, report, state])
    if report is not None and state is not None and report.absolute() == state.absolute():
        raise ConfigError("--json and --state name the same file; give two")
    if state is not None:  # ours may be there
        require_free([state], model, read, force=True)


def _measured(work: Work, feeds: Sequence[Feed], options: SensitivityOptions) -> Sensitivity:
    """Quantize into a file that goes again, and measure."""
    with TemporaryDirectory(prefix="ptq-") as folder:
        path = Path(folder) / "quantized.onnx"
        version = work.write(path, "qdq")
        proxies = _proxies(work, path, feeds, options)
    key, switched = _key(work, version, feeds), work.switched(version)
    trials = Trials(switched, feeds, threads=options.run.threads)
    with Ledger(_state(options, key), key) as ledger:
        sensing = Sensing(work, version, switched, ledger, trials)
        found = sensing.measure(proxies, tensors=options.tensors)
        kept = sensing.keep(found, count=options.keep_float, min_sqnr_db=options.min_sqnr)
    return msgspec.structs.replace(
        found, kept=kept, trials=sensing.measured, resumed=sensing.remembered
    )


def _notices(work: Work, data: Dataset) -> Iterator[str]:
    yield from dict.fromkeys((*work.inputs.notices(), *data.notices))
    if data.synthetic:
        yield "the inputs are random numbers: real ones give other damages"


def _all_placed(config: QuantizeConfig) -> QuantizeConfig:
    """Return settings that quantize all that can be: what costs say is no matter of accuracy."""
    if config.refines:
        raise ConfigError(
            "sensitivity is measured of weights that are rounded to the nearest code; leave out "
            "rounding, bias_correct and tweak_norms"
        )
    if config.scheme != "static":
        raise ConfigError(
            f"sensitivity is measured of static quantization, not of --scheme {config.scheme}"
        )
    auto = config.place == (PLACE_AUTO,)
    return msgspec.structs.replace(config, place=(PLACE_ALL,)) if auto else config


def _trial_data(work: Work, calibration: Data | None, options: SensitivityOptions) -> Dataset:
    given: Data | None = options.run.evaluation or calibration
    if given is None:
        raise ConfigError("damage is measured on data; give --calib-data or --eval-data")
    if isinstance(given, Dataset):
        return given
    return open_dataset(
        given,
        work.source.inputs,
        samples=options.trial_samples,
        seed=work.config.seed,
        images=options.run.images,
        tensor_parser=parse_tensor,
    )


def _proxies(
    work: Work, path: Path, feeds: Sequence[Feed], options: SensitivityOptions
) -> dict[str, tuple[float, float]]:
    """Return by tensor its isolated noise over the signal, and that over its accumulated noise."""
    comparison = compare_feeds(
        work.source,
        path,
        lambda: iter(feeds),
        CompareOptions(threads=options.run.threads),
        expected=len(feeds),
        stages=work.stages,
    )
    found = {}
    for layer in comparison.layers:
        isolated, accumulated = (_noise(x) for x in (layer.isolated_sqnr_db, layer.sqnr_db))
        found[layer.tensor] = isolated, isolated / accumulated if accumulated else 0.0
    return found


def _noise(sqnr_db: float | None) -> float:
    """Return noise over signal; of equal tensors, which have no SQNR, it is none."""
    return 0.0 if sqnr_db is None else float(10.0 ** (-sqnr_db / 10))


def _key(work: Work, version: Version, feeds: Sequence[Feed]) -> str:
    """Return a digest of everything that the result of a trial depends on."""
    hasher = hashlib.sha256()
    about = [SCHEMA, __version__, host_key(), work.source.digest, work.config]
    hasher.update(msgspec.json.encode(about, order="sorted"))
    hasher.update(version.plan.to_json())
    for feed in feeds:
        hash_feed(hasher, feed)
    return hasher.hexdigest()


def _state(options: SensitivityOptions, key: str) -> Path | None:
    if options.state is not None:
        return options.state
    folder = cache_folder()
    return None if folder is None else folder / "sensitivity" / f"{key[:32]}.jsonl"
