"""What `ptq bench` prints, from a value."""

import msgspec
import pytest

from ptq.report.bench import (
    Bench,
    BenchedModel,
    FedInput,
    ModelLatency,
    ThreadsLatency,
    bench_text,
)
from ptq.report.profile import BenchedLayer, Profile, RunKernel
from ptq.report.report import Environment


def model(label, size_bytes=2_000_000):
    return BenchedModel(
        label=label,
        path=f"/models/{label}",
        size_bytes=size_bytes,
        load_ms=12.34,
        peak_rss_bytes=90_000_000,
        bare_rss_bytes=55_000_000,
    )


def latency(median_ms, speedup=1.0, spread=1.05, verdict="no difference"):
    return ModelLatency(
        median_ms=median_ms,
        p10_ms=median_ms * 0.9,
        p90_ms=median_ms * 1.2,
        speedup=speedup,
        speedup_p10=speedup * 1.1,
        spread=spread,
        verdict=verdict,
    )


def bench(*latencies, profile=None):
    return Bench(
        environment=Environment.here(),
        source="random",
        inputs=(
            FedInput(name="x", dtype="float32", shape=(1, 3, 8, 8)),
            FedInput(name="rate", dtype="int64", shape=()),
        ),
        models=tuple(model(f"{name}.onnx") for name in "abcd"[: len(latencies)]),
        latencies=(
            ThreadsLatency(
                threads=2, rounds=40, control=1.01, control_spread=1.04, models=latencies
            ),
        ),
        profile=profile,
        stages_s={},
        notices=(),
    )


def layer(name, *kernels):
    """A layer of which each model runs some kernels, given as (type, ms) each."""
    return BenchedLayer(
        name=name,
        ms=tuple(sum(ms for _, ms in found) for found in kernels),
        kernels=tuple(
            tuple(RunKernel(name=name, op_type=op, ms=ms) for op, ms in found) for found in kernels
        ),
    )


def test_the_text_says_what_was_fed_and_what_the_models_need():
    text = bench_text(bench(latency(10), latency(5, 2.0, verdict="faster")))
    assert text.splitlines()[:5] == [
        "fed x float32 1x3x8x8, rate int64 scalar from random values",
        "",
        "           size     load  peak memory",
        "a.onnx  2.00 MB  12.3 ms  90 MB, 35 MB for the model",
        "b.onnx  2.00 MB  12.3 ms  90 MB, 35 MB for the model",
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (latency(5, 2.0, 1.05, "faster"), "2.00x ± 0.10 faster (p10 2.20x)"),
        (latency(20, 0.5, 1.05, "slower"), "2.00x ± 0.10 slower (p10 1.82x)"),
        (latency(9.8, 1.02, 1.05), "no difference (1.02x ± 0.05)"),
    ],
)
def test_every_ratio_has_its_spread_beside_it(found, said):
    lines = bench_text(bench(latency(10), found)).splitlines()
    assert lines[6].split() == ["2", "threads", "median", "p10", "p90"]
    assert lines[7].split() == ["a.onnx", "10.00", "ms", "9.00", "ms", "12.00", "ms"]
    assert lines[8].startswith("b.onnx ")
    assert lines[8].endswith(f" ms  {said}")
    assert lines[9] == "control, a.onnx against itself: 1.01x ± 0.04 (n=40)"


def test_the_profile_begins_with_what_costs_most_in_any_model():
    profile = Profile(
        threads=1,
        total_ms=(4.0, 5.0),
        layers=(
            layer("small", [("Relu", 0.5)], [("Relu", 0.5)]),
            layer("won", [("Conv", 3.5)], [("QLinearConv", 1.0)]),
            layer("lost", [], [("QLinearMul", 2.0), ("Transpose", 0.75), ("Transpose", 0.75)]),
        ),
    )
    lines = bench_text(bench(latency(10), latency(9), profile=profile), top=2).splitlines()
    start = lines.index(next(line for line in lines if line.startswith("where the time goes")))
    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        ["won", "Conv", "3.500", "87.5%", "QLinearConv", "1.000", "20.0%", "3.50x"],
        [
            *("lost", "-", "0.000", "0.0%", "QLinearMul", "+", "2", "Transpose"),
            "3.500",
            "70.0%",
            "-",
        ],
        ["1", "more", "0.500", "12.5%", "0.500", "10.0%", "1.00x"],
        ["all", "kernels", "4.000", "100.0%", "5.000", "100.0%", "0.80x"],
    ]
    assert [line.split() for line in lines[start + 7 : start + 9]] == [
        ["Conv", "1", "3.500", "87.5%", "-"],
        ["QLinearMul", "-", "1", "2.000", "40.0%"],
    ]
    assert lines[-2:] == [
        "b.onnx: 1 layers faster, by 2.500 ms; 1 slower, by 3.500 ms",
        "  +3.500 ms  lost",
    ]


def test_one_model_and_three_have_tables_too():
    profile = Profile(threads=1, total_ms=(1.0,), layers=(layer("only", [("Conv", 1.0)]),))
    text = bench_text(bench(latency(1), profile=profile))
    assert "faster" not in text
    assert "only                           Conv    1.000  100.0%" in text
    kernels = [("Conv", 1.0)]
    profile = Profile(
        threads=1, total_ms=(1.0, 1.0, 1.0), layers=(layer("x", kernels, kernels, kernels),)
    )
    text = bench_text(bench(latency(1), latency(1), latency(1), profile=profile))
    assert "1.00x, 1.00x" in text


def test_long_names_lose_their_middle():
    name = f"model/{'block/' * 20}conv"
    profile = Profile(threads=1, total_ms=(1.0,), layers=(layer(name, [("Conv", 1.0)]),))
    text = bench_text(bench(latency(1), profile=profile))
    [line] = [line for line in text.splitlines() if line.startswith("model/")]
    assert line.split()[0] == f"{name[:20]}...{name[-20:]}"


def test_it_survives_json():
    profile = Profile(threads=1, total_ms=(1.0,), layers=(layer("x", [("Conv", 1.0)]),))
    found = bench(latency(1), profile=profile)
    assert msgspec.json.decode(found.to_json(), type=Bench, strict=True) == found
