"""How fast and how large several models are: as data, and as text."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ptq.report.profile import Profile, profile_lines, threads_text
from ptq.report.report import Environment
from ptq.report.table import aligned, megabytes

#: Raised whenever a field changes its meaning or goes away; new fields may come without.
SCHEMA = 1


class BenchedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model file and what it needs besides time.

    Attributes:
        label: what it is called in tables: the end of the path that tells it from the others.
        path: the file.
        size_bytes: with external data.
        load_ms: time to open a session, the median of a few.
        peak_rss_bytes: the largest resident size of a process that opens it and runs it.
        bare_rss_bytes: how much of it Python and onnxruntime need before that.
    """

    label: str
    path: str
    size_bytes: int
    load_ms: float
    peak_rss_bytes: int
    bare_rss_bytes: int


class FedInput(msgspec.Struct, frozen=True, kw_only=True):
    """What an input was fed."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ModelLatency(msgspec.Struct, frozen=True, kw_only=True):
    """The latency of one model at one number of threads.

    Attributes:
        median_ms: of all rounds.
        p10_ms: 10th percentile.
        p90_ms: 90th percentile.
        speedup: time of the first model over that of this one, the median over the rounds.
        speedup_p10: the ratio of the 10th percentiles.
        spread: by what factor the measurement strays, the control or the speed-up itself.
        verdict: ``faster``, ``slower``, or ``no difference`` within the spread.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    speedup: float
    speedup_p10: float
    spread: float
    verdict: str


class ThreadsLatency(msgspec.Struct, frozen=True, kw_only=True):
    """The latencies at one number of threads.

    Attributes:
        threads: threads within an operator.
        rounds: how often each model was run, in turn.
        control: the first model against itself, as ``speedup``.
        control_spread: by what factor that control strays from 1, over two of five blocks.
        models: each model, in the order given.
    """

    threads: int
    rounds: int
    control: float
    control_spread: float
    models: tuple[ModelLatency, ...]


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """What `ptq bench` measures.

    Attributes:
        environment: versions and machine.
        source: where the inputs come from; ``random`` if they are made up.
        inputs: what was fed.
        models: in the order given; ratios are against the first.
        latencies: one for each number of threads.
        profile: ``None`` unless asked for.
        stages_s: wall time by stage.
        notices: what the user should know.
        schema: version of this format.
    """

    environment: Environment
    source: str
    inputs: tuple[FedInput, ...]
    models: tuple[BenchedModel, ...]
    latencies: tuple[ThreadsLatency, ...]
    profile: Profile | None
    stages_s: dict[str, float]
    notices: tuple[str, ...]
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def bench_text(found: Bench, *, top: int = 20) -> str:
    """Return what `ptq bench` prints.

    Args:
        found: what was measured.
        top: how many layers the profile lists.
    """
    lines = [_fed(found), "", *aligned(_footprints(found))]
    for latency in found.latencies:
        lines += ["", *_latency(found, latency)]
    if found.profile is not None:
        labels = [model.label for model in found.models]
        lines += ["", *profile_lines(found.profile, labels, top)]
    return "\n".join(lines)


def _fed(found: Bench) -> str:
    inputs = ", ".join(f"{i.name} {i.dtype} {_shape(i.shape)}" for i in found.inputs)
    source = "random values" if found.source == "random" else found.source
    return f"fed {inputs or 'nothing'} from {source}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _footprints(found: Bench) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "size", "load", "peak memory")]
    for model in found.models:
        load = f"{model.load_ms:.1f} ms"
        peak = f"{model.peak_rss_bytes / 1e6:.0f} MB"
        own = f"{(model.peak_rss_bytes - model.bare_rss_bytes) / 1e6:.0f} MB"
        memory = f"{peak}, {own} for the model"
        rows.append((model.label, megabytes(model.size_bytes), load, memory))
    return rows


def _latency(found: Bench, latency: ThreadsLatency) -> list[str]:
    rows: list[tuple[str, ...]] = [(threads_text(latency.threads), "median", "p10", "p90", "")]
    for i, (model, timed) in enumerate(zip(found.models, latency.models, strict=True)):
        times = (_ms(t) for t in (timed.median_ms, timed.p10_ms, timed.p90_ms))
        rows.append((model.label, *times, _against(timed) if i else ""))
    return [
        *aligned(rows),
        f"control, {found.models[0].label} against itself: {latency.control:.2f}x "
        f"± {latency.control_spread - 1:.2f} (n={latency.rounds})",
    ]


def _against(timed: ModelLatency) -> str:
    """Say how fast a model is against the first."""
    spread = timed.spread - 1
    if timed.verdict == "no difference":
        return f"no difference ({timed.speedup:.2f}x ± {spread:.2f})"
    # a speed-up of 0.5 is said as 2x slower
    ratio, p10 = timed.speedup, timed.speedup_p10
    if timed.verdict == "slower":
        ratio, p10 = 1 / ratio, 1 / p10
    return f"{ratio:.2f}x ± {ratio * spread:.2f} {timed.verdict} (p10 {p10:.2f}x)"


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value >= 1 else f"{value:.3f} ms"
