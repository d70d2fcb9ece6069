"""The order of the stages, and nothing else.

load, prepare -> find sites -> observe -> plan -> emit -> ask the runtime -> prove -> publish
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from ptq.auto import try_schemes
from ptq.calibration import Calibration, ObserverSettings, observe_tensors
from ptq.config import AUTO, QuantizeConfig
from ptq.data import Dataset, data_forms, open_dataset, read_labels, select_labels
from ptq.datafree import distilled, made_up, of_one
from ptq.errors import ConfigError
from ptq.files import staged
from ptq.graph.load import model_files
from ptq.graph.protos import parse_tensor
from ptq.graph.publish import Draft
from ptq.graph.sites import Sites, requests
from ptq.inputs import Inputs
from ptq.inspection import inspect_source
from ptq.options import RunOptions
from ptq.places import require_free, require_text
from ptq.plan import Plan
from ptq.progress import Stages
from ptq.report import Report
from ptq.report.inspection import Inspection
from ptq.report.render import page_renderer
from ptq.run import Job, Run
from ptq.runtime.host import host_target
from ptq.search.menu import MENU
from ptq.source import Source, find_configured_sites, open_source, require_sites
from ptq.targets import load_target
from ptq.transforming import transformed
from ptq.widths import choose_widths, require_fits
from ptq.work import Work

#: What calibration data may be: a path or another source, or a data set that is already open.
Data = str | os.PathLike[str] | Dataset


@dataclass(frozen=True, slots=True)
class Result:
    """A finished quantization.

    Attributes:
        output: the quantized model.
        report: everything that was decided and measured.
        plan: the decisions.
    """

    output: Path
    report: Report
    plan: Plan


def default_output(model: Path, config: QuantizeConfig, options: RunOptions) -> Path:
    """Return where a quantized model goes unless told otherwise: ``MODEL.int8.onnx`` beside it."""
    title = "mixed" if options.widths is not None else f"int{config.bits}"
    return model.with_name(f"{model.stem}.{title}.onnx")


def _outputs(output: Path, config: QuantizeConfig) -> list[Path]:
    """Return where the files go: of both formats, the integer one is ``NAME.integer.onnx``."""
    if len(config.formats) == 1:
        return [output]
    return [output, output.with_name(f"{output.stem}.integer{output.suffix}")]


def quantize(
    model: str | os.PathLike[str],
    calibration: Data | None,
    config: QuantizeConfig | None = None,
    *,
    options: RunOptions | None = None,
) -> Result:
    """Quantize a float ONNX model and prove the result.

    Example:
        >>> result = ptq.quantize("model.onnx", "calib.npz", ptq.QuantizeConfig(calib="mse"))
        >>> result.report.accuracy.sqnr_db
        38.2

    Args:
        model: the file of a float32 model.
        calibration: real inputs: a path in any form that ``--calib-data`` takes, a data set, or
            ``None`` if ``options.statistics`` names a statistics file.
        config: how to quantize.
        options: where to write, what to measure on, how many threads.

    Raises:
        ConfigError: a setting is wrong, or the output exists.
        ModelError: the model cannot be read, or has nothing to quantize.
        DataError: the data does not fit the model.
        CalibrationError: the data does not determine a range, or statistics are stale.
        VerificationError: the result does not load, gives NaN, or is larger than the model.
    """
    options = options or RunOptions()
    config = _settled(config, MENU if options.widths is not None else ())
    path = Path(model)
    outputs = _outputs(options.output or default_output(path, config, options), config)
    given = [calibration, options.evaluation, options.statistics, options.labels]
    require_text([path, *outputs, *given])
    pages = [options.report, options.page]
    require_free([*outputs, *pages], path, given, force=options.force)
    renderer = page_renderer(options.page) if options.page is not None else None
    stages = Stages(options.on_progress)
    with stages.stage("prepare"):
        source = open_source(path)
    if config.scheme == "static":
        _sites(source, config)  # refused before its data is read
    inputs = _inputs(source, calibration, config, options, stages)
    changed = transformed(source, inputs, config, stages, threads=options.threads)
    said: tuple[str, ...] = ()
    if options.widths is not None:
        config, said = choose_widths(changed, inputs, config, stages, options)
    job = Job(changed, inputs, config, stages, options, unchanged=source, notices=said)
    with ExitStack() as stack:
        if config.scheme == "auto":
            done = try_schemes(job, outputs, stack)
            run, drafts, report = done.run, done.drafts, done.report
        else:
            drafts = [stack.enter_context(Draft(place)) for place in outputs]
            run = Run(job)
            report = run.write(drafts)
        if options.widths is not None:
            require_fits(report, options.widths)
        # only now is it known whether a result needs a file for its weights
        written = [d.destination.with_name(f.name) for d in drafts for f in d.files]
        weights = model_files(path)[1:]
        require_free([*written, *pages], path, [*given, *weights], force=options.force)
        if options.page is not None and renderer is not None:
            report = run.detailed(report, drafts[0])
            stack.enter_context(staged(options.page, renderer(report).encode()))
        if options.report is not None:
            stack.enter_context(staged(options.report, report.to_json()))
        for draft in drafts:
            draft.publish()
    return Result(outputs[0], report, run.plan)


def calibrate(
    model: str | os.PathLike[str],
    calibration: Data | None,
    output: str | os.PathLike[str],
    config: QuantizeConfig | None = None,
    *,
    merge: Sequence[Path] = (),
    options: RunOptions | None = None,
) -> Calibration:
    """Observe a model on data and write the statistics, from which any method can be solved.

    Args:
        model: the file of a float32 model.
        calibration: real inputs, as for `quantize`; ``None`` to merge files only.
        output: the statistics file to write.
        config: which operators are to be quantized decides which tensors are observed.
        merge: statistics files of other parts of the data, added in this order.
        options: how many samples and threads.

    Raises:
        PtqError: as `quantize`.
    """
    config, options = _settled(config), options or RunOptions()
    require_text([model, output, calibration])
    stages = Stages(options.on_progress)
    with stages.stage("prepare"):
        source = open_source(Path(model))
    read = [calibration, *model_files(source.path)[1:]]
    require_free([Path(output)], source.path, read, force=options.force)
    sites = _sites(source, config)
    parts = []
    if calibration is not None:
        data = _dataset(calibration, source, options, samples=options.samples, seed=config.seed)
        _require_images([data], options)
        settings = ObserverSettings(config.sample_size, config.ema_decay, options.threads)
        tensors = [r.observed for r in requests(sites) if r.observed]
        with stages.stage("observe", data.expected) as step:
            parts.append(observe_tensors(source, tensors, data, settings, on_feed=step))
    for path in merge:
        part = Calibration.load(path)
        part.require_fresh(source, path, None)
        parts.append(part)
    if not parts:
        raise ConfigError(f"calibrating needs data; give one of: {data_forms()}")
    found = reduce(operator.add, parts)
    found.save(Path(output))
    return found


def begin(
    model: str | os.PathLike[str],
    calibration: Data | None,
    config: QuantizeConfig | None = None,
    *,
    options: RunOptions | None = None,
    stages: Stages | None = None,
) -> Work:
    """Return a static quantization with its data open, of which nothing is written yet.

    Raises:
        PtqError: as `quantize`, before any data is read.
    """
    config, options = _settled(config), options or RunOptions()
    given = [options.evaluation, options.statistics]
    require_text([model, calibration, *given])
    stages = stages or Stages(options.on_progress)
    with stages.stage("prepare"):
        source = open_source(Path(model))
    _sites(source, config)
    inputs = _inputs(source, calibration, config, options, stages)
    source = transformed(source, inputs, config, stages, threads=options.threads)
    return Work(source, inputs, config, stages, options.threads)


def inspect(model: str | os.PathLike[str], config: QuantizeConfig | None = None) -> Inspection:
    """Return what a model is made of, and what of it would be quantized.

    Raises:
        ModelError: the model cannot be read.
        ConfigError: a setting is wrong.
    """
    require_text([model])
    return inspect_source(open_source(Path(model)), _settled(config))


def _settled(config: QuantizeConfig | None, widths: Sequence[int] = ()) -> QuantizeConfig:
    """Return the settings with every name known, and the target of this machine if none is named.

    The report and the recipe in the model then say what the result is for.

    Args:
        config: the settings.
        widths: what weights may have besides, where a search is to choose.
    """
    config = config or QuantizeConfig()
    config.require_known(widths)
    return config.at(host_target()) if config.target == AUTO else config


def _sites(source: Source, config: QuantizeConfig) -> Sites:
    target = load_target(config.target)
    sites = find_configured_sites(source.model, target, config)
    require_sites(sites, source, target)
    return sites


def _inputs(
    source: Source,
    calibration: Data | None,
    config: QuantizeConfig,
    options: RunOptions,
    stages: Stages,
) -> Inputs:
    if config.data_free and (calibration is not None or options.statistics is not None):
        raise ConfigError(
            "--data-free is for want of data, and there is some; leave out --data-free"
        )
    no_data = calibration is None and options.statistics is None and not config.data_free
    if no_data and config.scheme == "static":
        raise ConfigError(f"quantizing needs calibration data; give one of: {data_forms()}")
    evaluation = labels = None
    if options.evaluation is not None:
        evaluation = _dataset(options.evaluation, source, options, samples=None, seed=config.seed)
    if options.labels is not None:
        if evaluation is None:
            raise ConfigError("labels need evaluation data; give --eval-data as well")
        labels = select_labels(read_labels(options.labels), evaluation)
    opened: Dataset | None = None
    trial: Dataset | None = None
    if config.data_free:
        opened = noise = made_up(source, config, options.samples)
        trial = of_one(source, config, noise)
        if config.distill:
            opened = distilled(source, noise, stages)
    elif calibration is not None:
        opened = _dataset(calibration, source, options, samples=options.samples, seed=config.seed)
    _require_images([d for d in (opened, evaluation) if d is not None], options)
    images = options.images if opened is not None and opened.kind == "images" else None
    return Inputs(opened, options.statistics, evaluation, labels, images, trial)


def _dataset(
    data: Data, source: Source, options: RunOptions, *, samples: int | None, seed: int
) -> Dataset:
    if isinstance(data, Dataset):
        return data
    return open_dataset(
        data,
        source.inputs,
        samples=samples,
        seed=seed,
        images=options.images,
        tensor_parser=parse_tensor,
    )


def _require_images(data: Sequence[Dataset], options: RunOptions) -> None:
    if options.images is not None and all(d.kind != "images" for d in data):
        raise ConfigError("--image and --image-config need images as data; leave them out")
