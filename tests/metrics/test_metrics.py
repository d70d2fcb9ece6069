"""What holds for every metric, and how one is named."""

import numpy as np
import pytest

from ptq.errors import ConfigError, DataError, VerificationError
from ptq.metrics import metric_names, metrics, parse_metric

RNG = np.random.default_rng(0)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def detections():
    corners = RNG.random((3, 20, 2))
    sizes = 0.05 + 0.3 * RNG.random((3, 20, 2))
    return {"b": np.concatenate([corners, corners + sizes], axis=2), "s": RNG.random((3, 20))}


#: For each metric, options, outputs of a float model, and whether it has labels.
CASES = {
    "topk": ("topk:k=2", {"y": RNG.normal(size=(6, 5)).astype(np.float32)}),
    "agreement": ("agreement:k=2", {"y": RNG.normal(size=(6, 5)).astype(np.float32)}),
    "mse": ("mse", {"y": RNG.normal(size=(4, 3)), "i": np.arange(3), "z": RNG.normal(size=7)}),
    "cosine": ("cosine:output=z", {"y": RNG.normal(size=(4, 3)), "z": RNG.normal(size=7)}),
    "sqnr": ("sqnr", {"y": RNG.normal(size=(4, 3))}),
    "iou": ("iou:threshold=0.2", {"y": RNG.normal(size=(2, 1, 8, 8))}),
    "ap": ("ap:boxes=b,scores=s,nms=1", detections()),
    "cer": ("cer", {"y": softmax(3 * RNG.normal(size=(3, 12, 4)))}),
    "nll": ("nll:output=y", {"y": RNG.normal(size=(3, 6, 5)).astype(np.float32)}),
    "perplexity": ("perplexity:tokens=t", {"y": RNG.normal(size=(3, 6, 5))}),
}

#: Metrics that are about right answers, from labels or from the feed, not about the float model.
TOLD = {"topk", "nll", "perplexity"}


def test_every_metric_has_a_case_here():
    assert set(CASES) == set(metric_names())


def is_told(metric):
    return metric.text.partition(":")[0] in TOLD


def labels_for(metric, outputs):
    return np.zeros(metric.answers(outputs), np.int64) if is_told(metric) else None


@pytest.fixture(params=sorted(CASES))
def case(request):
    text, outputs = CASES[request.param]
    return parse_metric(text), outputs


def noisy(outputs, amount):
    return {
        name: (v + amount * RNG.normal(size=v.shape)).clip(v.min(), v.max()).astype(v.dtype)
        for name, v in outputs.items()
    }


def test_the_text_of_a_metric_reads_back(case):
    metric, _ = case
    assert parse_metric(metric.text) == metric


def test_every_metric_says_what_it_is(case):
    metric, _ = case
    assert metric.title
    assert type(metric).__doc__.partition("\n")[0].endswith(".")


def test_a_model_as_good_as_float_gets_the_best_figure(case):
    metric, outputs = case
    if is_told(metric):
        return
    figure = metric.figure(metric.measure(outputs, outputs, None).sum(axis=0))
    best = {"share": 1.0, "number": 1.0, "dB": np.inf}[metric.unit]
    assert figure == (best if metric.higher_is_better else 0.0)


def test_figures_of_sums_are_vectorised_and_worse_with_noise(case):
    metric, outputs = case
    labels = labels_for(metric, outputs)
    sums = [metric.measure(noisy(outputs, s), outputs, labels).sum(axis=0) for s in (0.01, 5.0)]
    little, much = metric.figure(np.stack(sums))
    assert [little, much] == [metric.figure(s) for s in sums]
    if not is_told(metric):
        assert (little > much) == metric.higher_is_better


def test_sums_are_float64_of_one_row_for_each_unit(case):
    metric, outputs = case
    sums = metric.measure(outputs, outputs, labels_for(metric, outputs))
    assert sums.dtype == np.float64
    assert sums.ndim == 2
    if metric.counts:
        assert sums.shape[1] == 2
        assert (sums[:, 0] <= sums[:, 1]).all()


def test_nothing_to_judge_is_no_figure(case):
    metric, outputs = case
    fields = metric.measure(outputs, outputs, labels_for(metric, outputs)).shape[1]
    assert np.isnan(metric.figure(np.zeros(fields)))
    assert metric.empty


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tpk", "unknown metric 'tpk'; did you mean 'topk'"),
        ("topk:k=0", "metric 'topk': expected `int` >= 1"),
        ("topk:n=1", "unknown option of the metric 'topk': 'n'"),
        ("topk:5", "cannot read 'topk:5'; write a metric with options as topk:option=value"),
        ("topk:abc", "cannot read 'topk:abc'"),
        ("ap:iou=2", "metric 'ap'"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
    ],
)
def test_a_metric_that_is_none_is_an_error_with_a_remedy(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_metric(text)


def test_helper_classes_are_no_metrics():
    assert all(name == cls.__struct_config__.tag for name, cls in metrics().items())
    assert "FunctionMetric" not in metrics()


# -- errors that several share -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mse", "cosine", "sqnr", "iou", "agreement", "cer"])
def test_an_output_that_does_not_exist_is_an_error(name):
    metric = parse_metric(f"{name}:output=x")
    with pytest.raises(ConfigError, match="the model has no output 'x'; choose one of: y"):
        metric.measure({"y": np.ones((2, 3, 3))}, {"y": np.ones((2, 3, 3))}, None)


@pytest.mark.parametrize("name", ["mse", "cosine", "sqnr", "iou"])
def test_outputs_of_integers_have_no_error(name):
    outputs = {"y": np.ones((2, 3), np.int64)}
    with pytest.raises(VerificationError, match="no floating-point output"):
        parse_metric(name).measure(outputs, outputs, None)
    with pytest.raises(ConfigError, match="output 'y' is int64; name a floating-point one"):
        parse_metric(f"{name}:output=y").measure(outputs, outputs, None)


@pytest.mark.parametrize("name", ["mse", "cosine", "sqnr", "iou", "agreement"])
def test_outputs_of_other_shapes_cannot_be_compared(name):
    with pytest.raises(VerificationError, match=r"shape \(1, 3\), the float model gives \(2, 3\)"):
        parse_metric(name).measure({"y": np.ones((1, 3))}, {"y": np.ones((2, 3))}, None)


def test_class_scores_that_cannot_be_told_are_an_error():
    outputs = {"a": np.ones((2, 3)), "b": np.ones((2, 4))}
    with pytest.raises(DataError, match=r"looks like class scores .*; name it with output=: a"):
        parse_metric("agreement").measure(outputs, outputs, None)
    found = parse_metric("agreement:output=b").measure(outputs, outputs, None)
    assert found.tolist() == [[1, 1], [1, 1]]
