"""Average precision against a brute-force one on boxes in plain lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.errors import ConfigError, DataError, VerificationError
from ptq.metrics import parse_metric
from ptq.metrics.boxes import Boxes, overlaps


def overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def suppressed(rows, limit):
    """Rows (x0, y0, x1, y1, score, class), best first, without doubles."""
    kept = []
    for row in sorted(map(tuple, rows), key=lambda r: -r[4]):
        if all(row[5] != k[5] or overlap(row, k) <= limit for k in kept):
            kept.append(row)
    return kept


def brute(found, wanted, *, iou=0.5, score=0.3, least=0.05, nms=0.5):
    """AP of images of rows, by walking down all scores."""
    ranked, truths = [], 0
    for image, truth in zip(found, wanted, strict=True):
        truth = [t for t in suppressed(truth, nms) if t[4] >= score]
        truths += len(truth)
        for row in suppressed([r for r in image if r[4] >= least], nms):
            same = [t for t in truth if t[5] == row[5]]
            best = max(same, key=lambda t: overlap(row, t), default=None)
            hit = best is not None and overlap(row, best) >= iou
            ranked.append((row[4], hit))
            if hit:
                truth.remove(best)
    points = []
    for limit in sorted({s for s, _ in ranked}, reverse=True):
        hits = [hit for s, hit in ranked if s >= limit]
        points.append((sum(hits) / truths, sum(hits) / len(hits)))
    area = before = 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[i:])
        before = recall
    return area


def middles():
    """Scores in the middle of the steps, where rounding to steps changes no rank."""
    below = 0.05 + 0.25 / 64 * (np.arange(64) + 0.5)
    return np.concatenate([below, 0.3 + 0.7 / 192 * (np.arange(192) + 0.5)])


def image(rng, boxes):
    corners = rng.random((boxes, 2))
    sizes = 0.1 + 0.3 * rng.random((boxes, 2))
    scores, classes = rng.choice(middles(), boxes), rng.integers(0, 2, boxes)
    return np.column_stack([corners, corners + sizes, scores, classes])


def jittered(rng, rows):
    rows = rows.copy()
    rows[:, :4] += 0.02 * rng.normal(size=(len(rows), 4))
    rows[:, 4] = np.where(rng.random(len(rows)) < 0.5, rows[:, 4], rng.choice(middles(), len(rows)))
    return rows[rng.random(len(rows)) < 0.9]


def measured(text, feeds):
    metric = parse_metric(text)
    sums = np.concatenate([metric.measure(got, reference, None) for got, reference in feeds])
    return float(metric.figure(sums.sum(axis=0)))


@given(seed=st.integers(0, 9999), iou=st.sampled_from([0.5, 0.75]), nms=st.sampled_from([0.4, 1]))
def test_average_precision_is_the_area_by_brute_force(seed, iou, nms):
    rng = np.random.default_rng(seed)
    wanted = [image(rng, 12) for _ in range(3)]
    got = [jittered(rng, rows) for rows in wanted]
    feeds = [({"y": g[np.newaxis]}, {"y": w[np.newaxis]}) for g, w in zip(got, wanted, strict=True)]
    found = measured(f"ap:output=y,iou={iou},nms={nms}", feeds)
    # sums of a dozen shares
    assert found == pytest.approx(brute(got, wanted, iou=iou, nms=nms), rel=1e-12, abs=1e-12)


@given(seed=st.integers(0, 9999), score=st.floats(0.06, 0.9))
def test_the_float_model_finds_its_own_boxes_whatever_their_scores(seed, score):
    rows = image(np.random.default_rng(seed), 15)
    rows[:, 4] = np.random.default_rng(seed).random(15)
    rows[0, 4] = 1.0
    assert measured(f"ap:output=y,score={score}", [({"y": rows}, {"y": rows})]) == 1


def forms(rows):
    """The same boxes in all forms, by the text of the metric."""
    corners, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5].astype(int)
    by_class = np.zeros((len(rows), 3))
    by_class[np.arange(len(rows)), classes] = scores
    middle = np.column_stack(
        [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]]
    )
    return {
        "ap:output=y": {"y": rows},
        "ap:output=y,layout=rows": {"y": rows[np.newaxis]},
        "ap:output=z": {"z": np.column_stack([middle, by_class]).T[np.newaxis]},
        "ap:boxes=b,scores=s": {"b": corners[np.newaxis], "s": by_class[np.newaxis]},
        "ap:boxes=b,scores=t": {"b": corners[np.newaxis], "t": by_class.T[np.newaxis]},
        "ap:boxes=b,scores=s,classes=c": {"b": corners, "s": scores, "c": classes},
        "ap:boxes=m,scores=s,corners=cxcywh": {"m": middle[np.newaxis], "s": by_class[np.newaxis]},
        "ap:boxes=v,scores=s": {"v": corners[np.newaxis][..., [1, 0, 3, 2]], "s": by_class[None]},
    }


@given(seed=st.integers(0, 99))
def test_every_form_of_the_boxes_gives_the_same(seed):
    rng = np.random.default_rng(seed)
    wanted = image(rng, 20)
    got = jittered(rng, wanted)
    found = {
        text: measured(text, [(a, b)])
        for (text, a), b in zip(forms(got).items(), forms(wanted).values(), strict=True)
    }
    assert list(found.values()) == pytest.approx([brute([got], [wanted])] * len(found))


def test_images_without_boxes_count_what_is_missed_and_what_is_invented():
    rows, none = image(np.random.default_rng(0), 4), np.zeros((0, 6))
    rows[:, 4] = 0.9
    assert measured("ap:output=y", [({"y": none}, {"y": rows})]) == 0
    assert np.isnan(measured("ap:output=y", [({"y": rows}, {"y": none})]))
    both = [({"y": rows}, {"y": rows}), ({"y": rows}, {"y": none})]
    assert measured("ap:output=y", both) == pytest.approx(0.5)


def test_boxes_without_area_are_left_out():
    rows = np.array([[0, 0, 0, 0, 0.9, 0], [0, 0, 1, 1, 0.8, 0]])
    assert measured("ap:output=y", [({"y": rows}, {"y": rows})]) == 1


@given(seed=st.integers(0, 999))
def test_overlaps_are_those_of_the_definition(seed):
    a = image(np.random.default_rng(seed), 5)
    b = image(np.random.default_rng(seed + 1), 3)
    expected = [[overlap(x, y) for y in b] for x in a]
    np.testing.assert_allclose(overlaps(a[:, :4], b[:, :4]), expected, rtol=1e-12)


def test_boxes_of_equal_score_stay_in_their_order():
    same = Boxes(np.array([[0, 0, 1, 1], [0, 0, 1, 0.9]]), np.ones(2), np.zeros(2, np.int64))
    assert same.without_doubles(0.5).corners.tolist() == [[0, 0, 1, 1]]


ROWS = np.array([[0, 0, 1, 1, 0.9, 0]])


@pytest.mark.parametrize(
    ("text", "outputs", "error", "message"),
    [
        (
            "ap",
            {"y": ROWS},
            ConfigError,
            "where the boxes are; .* of the outputs y",
        ),
        ("ap:boxes=y", {"y": ROWS}, ConfigError, "must know where the boxes are"),
        ("ap:boxes=y,scores=y,output=y", {"y": ROWS}, ConfigError, "must know where"),
        ("ap:output=z", {"y": ROWS}, ConfigError, "has no output 'z'; choose one of: y"),
        ("ap:output=y", {"y": np.ones((2, 3, 7))}, DataError, r"shape \(2, 3, 7\); boxes are"),
        ("ap:output=y,layout=rows", {"y": np.ones((2, 7))}, DataError, r"shape \(2, 7\); boxes"),
        ("ap:output=y", {"y": ROWS * 3}, DataError, r"'y' holds scores in 2.7..2.7; .* sigmoid"),
        (
            "ap:boxes=b,scores=s",
            {"b": np.ones((1, 5, 4)), "s": np.ones((1, 6))},
            DataError,
            r"'b' has shape \(1, 5, 4\) and 's' \(1, 6\)",
        ),
        (
            "ap:boxes=b,scores=s,classes=c",
            {"b": np.ones((1, 5, 4)), "s": np.ones((1, 5)), "c": np.ones((1, 6))},
            DataError,
            r"output 'c' has shape \(1, 6\)",
        ),
    ],
)
def test_what_holds_no_boxes_is_an_error(text, outputs, error, message):
    with pytest.raises(error, match=message):
        parse_metric(text).measure(outputs, outputs, None)


def test_another_number_of_images_is_an_error():
    with pytest.raises(VerificationError, match="boxes are of 2 images, the float model's of 1"):
        parse_metric("ap:output=y").measure({"y": np.stack([ROWS] * 2)}, {"y": ROWS}, None)
