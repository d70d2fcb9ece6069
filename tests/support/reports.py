"""Reports made by hand, with whatever names a model may have."""

from __future__ import annotations

from collections.abc import Sequence

from ptq.config import QuantizeConfig
from ptq.evaluate.accuracy import Accuracy, OutputError
from ptq.evaluate.latency import Latency, Timing
from ptq.report import (
    Candidate,
    DataInfo,
    Environment,
    FileInfo,
    FloatNodes,
    Output,
    Placement,
    Report,
    TensorInfo,
)
from ptq.report.comparison import LayerError
from ptq.report.histograms import ActivationHistogram, Bins, Histograms, WeightHistogram
from ptq.report.profile import BenchedLayer, Profile, RunKernel
from ptq.runtime.layer import Layer

#: Names that are markup somewhere, cannot be seen, turn text around, or fill pages.
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<script>document.title='owned'</script>",
    "\"><svg onload=document.title='owned'>",
    "'onmouseover='document.title=1",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!--",
    "</title></style><b>",
    "a|b\\|`c` ``d`` <i>e</i>",
    "line\nbreak\r\n\n# heading\n```",
    "\u202egnp.exe\u202c",
    "nul\x00 bell\x07 escape\x1b[31m",
    "&lt;not an entity&gt; &amp; javascript:alert(1)",
    "[link](javascript:alert(1)) @everyone #1 www.example.org",
    "long" * 500,
    " ",
    "",
)

ORDINARY = tuple(f"/block.{i}/Conv" for i in range(8))


def made_report(names: Sequence[str] = ORDINARY) -> Report:
    """Return a report on a model whose nodes, tensors, weights and files have these names."""
    sha = "0" * 64
    count = len(names)
    operators = ["Conv" if i % 3 else names[i] or "Conv" for i in range(count)]
    integer = [i % 4 != 0 for i in range(count)]
    data = DataInfo(source=names[0], samples=8, sha256=sha, synthetic=False, role="evaluation")
    path = f"models/{names[0].replace('/', '')}.onnx"
    quantized = Output(path=path, size_bytes=1_000_000, sha256=sha, format="qdq")
    timing = Timing(median_ms=4.0, p10_ms=3.9, p90_ms=4.2)
    faster = Timing(median_ms=2.0, p10_ms=1.9, p90_ms=2.2)
    latency = Latency(timing, faster, speedup=2.0, control=1.01, spread=1.05, rounds=50, threads=1)
    bins = Bins(lo=-1.0, width=0.25, counts=(1, 0, 40, 900, 300, 20, 3), zeros=77)
    return Report(
        environment=Environment(
            ptq="0.1.0", onnxruntime="1.31.1", python="3.11", machine="x86_64", cores=4, cpu="A CPU"
        ),
        input=FileInfo(path=path, size_bytes=4_000_000, sha256=sha),
        output=quantized,
        outputs=(quantized,),
        config=QuantizeConfig(exclude=tuple(names)),
        calibration=data,
        evaluation=data,
        prepared=tuple(f"folded {name}" for name in names),
        integer_nodes={name or "Conv": 1 for name in names},
        float_nodes=tuple(
            FloatNodes(op_type=op, why=f"it is {name}", names=(name,))
            for op, name in zip(operators, names, strict=True)
        ),
        ran_integer={"QLinearConv": sum(integer)},
        ran_float={"Conv": count - sum(integer)},
        conversions=2,
        tensors=tuple(
            TensorInfo(
                name=f"{name}:0", qtype="uint8", scale=0.1, zero_point=3, lo=-0.5, hi=0.6,
                observed_min=-1.0, observed_max=0.75, clip_share=0.01,
            )
            for name in names
        ),
        weights=count,
        biases=count,
        widened=(),
        coarse_biases=(),
        accuracy=Accuracy(
            samples=8,
            outputs=tuple(OutputError(name, 20.0 + i, 0.99, 0.1) for i, name in enumerate(names)),
            sqnr_db=21.5, agreement=0.97, float_top1=0.91, quantized_top1=0.9,
        ),
        latency=latency,
        latencies=(latency,),
        stages_s={"prepare": 0.5, "time": 2.0},
        peak_rss_bytes=200_000_000,
        notices=tuple(f"beware of {name}" for name in names),
        layers=tuple(
            Layer(
                name=name, op_type=op, kernel="QLinearConv" if yes else op, integer=yes,
                why="" if yes else f"not here: {name}",
            )
            for name, op, yes in zip(names, operators, integer, strict=True)
        ),
        placement=Placement(
            mode="auto",
            candidates=(
                Candidate(name="float", integer_nodes=0, measured_ms=4.0, ratio=1.0),
                Candidate(name="all", integer_nodes=count, predicted_ms=2.1, measured_ms=2.0,
                          ratio=2.0),
            ),
            chosen="all",
            seconds=3.0,
        ),
        errors=tuple(
            LayerError(
                tensor=f"{name}:0", node=name, op_type=op, quantized=True, sqnr_db=40.0 - i,
                cosine=0.99, max_abs=0.1, mean_shift=0.0, rms=1.0, clip_share=0.01,
                isolated_sqnr_db=30.0 + (7 * i) % 11 if i % 5 else None,
            )
            for i, (name, op) in enumerate(zip(names, operators, strict=True))
        ),
        profile=Profile(
            threads=1,
            total_ms=(4.0, 2.0),
            layers=tuple(
                BenchedLayer(
                    name=name,
                    ms=(0.4, 0.2 + 0.05 * i),
                    kernels=(
                        (RunKernel(name=name, op_type=op, ms=0.4),),
                        (RunKernel(name=name, op_type="QLinearConv", ms=0.2 + 0.05 * i),),
                    ),
                )
                for i, (name, op) in enumerate(zip(names, operators, strict=True))
            ),
        ),
        histograms=Histograms(
            activations=tuple(
                ActivationHistogram(name=f"{name}:0", bins=bins, lo=-0.5, hi=0.6, clip_share=0.01)
                for name in names
            ),
            weights=tuple(
                WeightHistogram(
                    name=f"{name}.weight", node=name, op_type=op, bins=bins, bits=8, scales=16,
                    symmetric=True, lo=-1.1, hi=1.1, least_lo=-0.3, least_hi=0.3, clip_share=0.0,
                )
                for name, op in zip(names, operators, strict=True)
            ),
        ),
    )  # fmt: skip
