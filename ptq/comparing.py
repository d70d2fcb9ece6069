"""Compare a quantized model with the float one layer by layer: which layer is at fault."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import msgspec

from ptq.data import Dataset, Feed, ImageOptions, open_dataset
from ptq.data.shapes import common_inputs
from ptq.embedded import is_simulated
from ptq.errors import ConfigError, UnsupportedError, VerificationError
from ptq.files import staged
from ptq.graph.held import Held
from ptq.graph.load import load_model, model_files
from ptq.graph.makers import Makers, inner_nodes, makers
from ptq.graph.match import Matching, match, with_types
from ptq.graph.protos import parse_tensor
from ptq.graph.quantized import code_count, read_quantized
from ptq.graph.rescale.record import read_rescaling
from ptq.graph.types import Model
from ptq.places import require_free, require_text
from ptq.progress import OnProgress, Stages, ignore
from ptq.report.comparison import Comparison, LayerError
from ptq.report.decibels import NO_SIGNAL_DB
from ptq.runtime.layerwise import Differences, LayerSums, Running, Side, compare_tensors
from ptq.runtime.session import open_session
from ptq.runtime.signature import session_inputs
from ptq.source import Source, open_source

#: How many tensors a notice names.
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """How to compare.

    Attributes:
        samples: how many samples to run, evenly spaced over the data; ``None`` for all.
        isolated: whether to measure each layer by itself too, which takes as long again.
        threads: threads to run with.
        memory_bytes: about how many bytes the tensors of one sample may take; what is more takes
            another pass over the data.
        images: how to prepare images; ``None`` follows the model's input shape.
        seed: of random data.
        report: where to write the comparison as JSON.
        force: whether an existing file may be replaced.
        on_progress: told of every step.
    """

    samples: int | None = 32
    isolated: bool = True
    threads: int = 1
    memory_bytes: int = 256 << 20
    images: ImageOptions | None = None
    seed: int = 0
    report: Path | None = None
    force: bool = False
    on_progress: OnProgress = ignore

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if (self.samples is not None and self.samples < 1) or self.threads < 1:
            raise ConfigError("samples and threads must be 1 or more each")


def compare(
    reference: str | os.PathLike[str] | Source,
    quantized: str | os.PathLike[str],
    data: str | os.PathLike[str] | Dataset,
    options: CompareOptions | None = None,
) -> Comparison:
    """Run a float and a quantized model on the same samples, and compare every tensor they share.

    Example:
        >>> found = ptq.compare("model.onnx", "model.int8.onnx", "eval.npz")
        >>> min(found.layers, key=lambda layer: layer.isolated_sqnr_db or math.inf).node
        '/head/Conv'

    Args:
        reference: the float model.
        quantized: a model made of it, by `ptq` or another tool that keeps the names of tensors.
        data: real inputs, in any form that calibration data has.
        options: how many samples, and what to measure.

    Raises:
        ConfigError: the models have not the same inputs or share no tensor; an option is wrong.
        ModelError: a model cannot be read.
        DataError: the data does not fit the models.
        VerificationError: onnxruntime does not load a model.
    """
    options = options or CompareOptions()
    path = Path(quantized)
    given = reference if isinstance(reference, Source) else Path(reference)
    float_path = given.path if isinstance(given, Source) else given
    require_text([float_path, path, data, options.report])
    stages = Stages(options.on_progress)
    with stages.stage("prepare"):
        files = [file for model in (float_path, path) for file in model_files(model)]
        require_free([options.report], float_path, [data, *files], force=options.force)
        source = given if isinstance(given, Source) else open_source(given)
        feeds = _open_data(data, source, path, options)
    if options.images is not None and feeds.kind != "images":
        raise ConfigError("--image and --image-config need images as data; leave them out")
    # of data that is open already, the first ones: it says itself which of its samples are used
    found = compare_feeds(
        source,
        path,
        lambda: islice(iter(feeds), options.samples),
        options,
        expected=_least(feeds.expected, options.samples),
        stages=stages,
    )
    notices = [*found.notices, *feeds.notices]
    if feeds.synthetic:
        notices.append("the inputs are random numbers: real ones give other errors")
    found = msgspec.structs.replace(found, notices=tuple(notices), data=feeds.source)
    if options.report is not None:
        with staged(options.report, found.to_json()):
            pass
    return found


def compare_feeds(
    source: Source,
    quantized: Path,
    feeds: Callable[[], Iterator[Feed]],
    options: CompareOptions | None = None,
    *,
    expected: int | None = None,
    stages: Stages | None = None,
) -> Comparison:
    """Compare on feeds that are there already, all of them; see `compare`.

    Args:
        source: the float model.
        quantized: the file of the other model.
        feeds: yields the feeds, the same whenever it is called.
        options: what to measure.
        expected: how many feeds there are, for progress.
        stages: told of what takes time.
    """
    options = options or CompareOptions()
    stages = stages or Stages(options.on_progress)
    model = read_quantized(quantized)
    source = _as_rescaled(source, model)
    reference, matching = _match(source, model, quantized)
    running = Running(
        isolated=options.isolated,
        threads=options.threads,
        memory_bytes=options.memory_bytes,
        optimization="disabled" if is_simulated(model.metadata_props) else "all",
    )
    sides = Side(reference, source.folder), Side(model, quantized.parent)
    with ExitStack() as stack:

        def begin(passes: int) -> Callable[[], None]:
            total = None if expected is None else expected * passes
            return stack.enter_context(stages.stage("compare", total))

        found = compare_tensors(*sides, matching.held, feeds, running, begin=begin)
    made = makers(reference, model, matching.held)
    layers = tuple(_layer(h, found.sums[h.tensor], made[h.tensor]) for h in matching.held)
    return Comparison(
        reference=str(source.path),
        quantized=str(quantized),
        samples=found.samples,
        isolated=options.isolated,
        layers=layers,
        unmatched=matching.unmatched,
        notices=tuple(_notices(reference, model, layers, found)),
    )


def _open_data(
    data: str | os.PathLike[str] | Dataset, source: Source, quantized: Path, options: CompareOptions
) -> Dataset:
    """Return the data as a data set, after a look at whether both models take it."""
    try:
        inputs = session_inputs(open_session(quantized))
    except (UnsupportedError, VerificationError) as error:
        raise type(error)(f"'{quantized}': {error}") from error.__cause__
    common = common_inputs({str(source.path): source.inputs, str(quantized): inputs})
    if isinstance(data, Dataset):
        return data
    return open_dataset(
        data,
        common,
        samples=options.samples,
        seed=options.seed,
        images=options.images,
        tensor_parser=parse_tensor,
    )


def _least(available: int | None, asked: int | None) -> int | None:
    return available if available is None or asked is None else min(available, asked)


def _match(source: Source, quantized: Model, path: Path) -> tuple[Model, Matching]:
    """Return the float graph that has more of the tensors: as it was prepared, or as in the file.

    Preparing folds a BatchNormalization into a convolution, say; other tools need not.
    """
    reference = with_types(source.model)
    matching = match(reference, quantized)
    if "ptq" not in quantized.metadata_props:
        original = with_types(load_model(source.path))
        other = match(original, quantized)
        if len(other.held) > len(matching.held):
            reference, matching = original, other
    if not matching.held:
        raise ConfigError(
            f"'{source.path}' and '{path}' share no tensor, by name or by what quantizers make of "
            "names; compare a model with the one that it was made of"
        )
    return reference, matching


def _as_rescaled(source: Source, quantized: Model) -> Source:
    """Return the float model with its channels divided as they were before it was quantized."""
    rescaling = read_rescaling(quantized)
    if rescaling == source.rescaling:
        return source
    return replace(source, model=rescaling.apply(source.model), rescaling=rescaling)


def _layer(held: Held, sums: LayerSums, made: Makers) -> LayerError:
    return msgspec.structs.replace(
        _errors(held, sums),
        node=made.main,
        op_type=made.op_type,
        nodes=made.nodes,
        at_fault=made.at_fault,
        output=made.output,
    )


def _errors(held: Held, sums: LayerSums) -> LayerError:
    errors, isolated = sums.accumulated.errors, sums.isolated
    clip_share = None
    if held.params is not None and held.params.limits() is not None:
        clip_share = sums.accumulated.clipped / max(errors.count + sums.accumulated.nonfinite, 1)
    return LayerError(
        tensor=held.tensor,
        node="",
        op_type="",
        quantized=held.params is not None,
        sqnr_db=_number(errors.sqnr_db),
        cosine=errors.cosine,
        max_abs=errors.max_abs,
        mean_shift=errors.mean_shift,
        rms=errors.rms,
        clip_share=clip_share,
        nonfinite=sums.accumulated.nonfinite,
        isolated_sqnr_db=None if isolated is None else _number(isolated.errors.sqnr_db),
        isolated_cosine=None if isolated is None else isolated.errors.cosine,
    )


def _number(decibels: float) -> float | None:
    """JSON has no infinity: equal tensors have no number, and what has no signal a very low one."""
    return NO_SIGNAL_DB if decibels == -math.inf else decibels if math.isfinite(decibels) else None


def _notices(
    reference: Model, quantized: Model, layers: Sequence[LayerError], found: Differences
) -> Iterator[str]:
    if not code_count(quantized):
        yield "the second model holds no integers: it is no quantized model"
    inner = inner_nodes(reference)
    if inner:
        yield f"{inner} nodes inside If, Loop or Scan are compared only by what they put out"
    bad = [layer for layer in layers if layer.nonfinite]
    if bad:
        named = ", ".join(f"'{layer.tensor}'" for layer in bad[:_NAMED])
        yield (
            f"{len(bad)} tensors of the quantized model take NaN or infinite values where the "
            f"float model's are finite, the first of them {named}; the other figures leave those "
            "values out"
        )
    if found.disturbed:
        named = ", ".join(f"'{name}'" for name in found.disturbed[:_NAMED])
        yield (
            f"output {named} changes a little while inner tensors are read, which keeps "
            "onnxruntime from merging some operators"
        )
