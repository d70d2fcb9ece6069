"""`ptq compare` on the command line."""

import msgspec
import numpy as np
import pytest
from support.cli import contents, ptq
from support.models import write

from ptq.report.comparison import Comparison

MODEL, QUANTIZED = "digits_cnn.onnx", "digits_cnn.int8.onnx"
HEADING = "operator isolated accumulated cosine shift clipped layer"
DATA = ("--data", "digits_eval.npz", "--samples", 8)


@pytest.fixture(scope="module")
def quantized(digits, tmp_path_factory):
    """The small network, quantized."""
    output = tmp_path_factory.mktemp("quantized") / QUANTIZED
    options = ("--calib-data", digits.calibration, "--samples", 8, "--place", "all")
    assert ptq("quantize", digits.model, *options, "--seconds", 0.01, "-o", output).code == 0
    return output


@pytest.fixture
def pair(work, quantized):
    """The small network and its quantized model, in the folder."""
    (work / QUANTIZED).write_bytes(quantized.read_bytes())
    return work


def test_layers_are_listed_worst_first_with_the_next_step(pair):
    done = ptq("compare", MODEL, QUANTIZED, *DATA, "--top", 3)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "operator",
        "isolated",
        "accumulated",
        "cosine",
        "shift",
        "clipped",
        "layer",
    ]
    worst = [float(line.split(" dB")[0].split()[-1]) for line in lines[1:4]]
    assert worst == sorted(worst)
    assert lines[5].endswith("more layers; --top 0 shows all")
    assert lines[6].endswith("compared on 8 samples")
    assert lines[7].startswith(
        "next: quantize again with the worst layers in float, as a try: --exclude "
    )


def test_what_it_proposes_is_taken_by_quantize_and_makes_the_network_better(pair, digits):
    sqnr = {}
    options = []
    for name in ("first", "second"):
        base = (
            "--calib-data",
            digits.calibration,
            "--samples",
            32,
            "--eval-data",
            "digits_eval.npz",
            "--place",
        )
        rest = ("all", "--seconds", 0.01, "-o", f"{name}.onnx", "--json", f"{name}.json")
        assert ptq("quantize", MODEL, *base, *rest, *options, "-o", f"{name}.onnx").code == 0
        report = msgspec.json.decode((pair / f"{name}.json").read_bytes())
        sqnr[name] = report["accuracy"]["sqnr_db"]
        done = ptq("compare", MODEL, f"{name}.onnx", *DATA)
        options = done.out.splitlines()[-1].split(": ", 2)[-1].split()
    assert sqnr["second"] > sqnr["first"]


def test_everything_is_in_the_json_and_no_file_is_replaced_unasked(pair):
    once = ("compare", MODEL, QUANTIZED, *DATA, "--no-isolated", "--json", "c.json")
    done = ptq(*once)
    assert done.code == 0
    found = msgspec.json.decode((pair / "c.json").read_bytes(), type=Comparison)
    assert (found.samples, found.isolated, found.data) == (8, False, "digits_eval.npz")
    assert all(layer.isolated_cosine is None for layer in found.layers)
    assert "isolated" not in done.out
    again = ptq(*once)
    assert again.code == 2
    assert "--force" in again.message
    assert ptq(*once, "--force").code == 0


def test_the_order_of_the_model_can_be_asked_for(pair):
    done = ptq("compare", MODEL, QUANTIZED, *DATA, "--sort", "order", "--top", 0)
    lines = done.out.splitlines()
    assert lines[1].split()[0] == "input"
    assert "(output)" in lines[-4]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((MODEL, "gone.onnx", *DATA), 1, "gone.onnx"),
        ((QUANTIZED, MODEL, *DATA), 1, "quantized already"),
        ((MODEL, QUANTIZED, "--data", "gone.npz"), 2, "gone.npz"),
        ((MODEL, "other.onnx", *DATA), 2, "only models with the same inputs can be compared"),
        ((MODEL, "text.onnx", *DATA), 1, "text.onnx"),
        ((MODEL, QUANTIZED, "--data", "wrong.npz"), 1, "wrong.npz"),
        ((MODEL, QUANTIZED, *DATA, "--json", QUANTIZED, "--force"), 2, "is read by this run"),
        ((MODEL, QUANTIZED, *DATA, "--image", "resize=8"), 2, "need images as data"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(pair, arguments, code, message):
    write(pair / "other.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Neg (x) }")
    (pair / "text.onnx").write_text("no model")
    np.savez(pair / "wrong.npz", input=np.ones((3, 7), np.float32))
    before = contents(pair)
    done = ptq("compare", *arguments)
    assert done.code == code
    assert message in done.message
    assert contents(pair) == before


def test_random_data_is_called_so(pair):
    done = ptq("compare", MODEL, QUANTIZED, "--data", "random", "--samples", 2)
    assert done.code == 0
    assert "random" in done.err
