"""`ptq tune`: what it chooses, what it keeps, and that the same run gives the same answer."""

import shutil
from pathlib import Path

import msgspec
import pytest
from support.cli import contents, ptq

from ptq.report.tuning import Tuning
from ptq.search.ladder import FIRST, Rung

MODEL, WINNER = "digits_cnn.onnx", "digits_cnn.tuned.onnx"

#: Few samples and no placement: what is under test is not how good the models are.
DATA = (
    *("--calib-data", "digits_calib.npz", "--samples", 16, "--place", "all", "--threads", 1),
    *("--eval-data", "digits_eval.npz", "--eval-samples", 60, "--seconds", 0.01, "--state", "kept"),
)

#: A short ladder: values only, other kernels, another scheme.
SHORT = (
    FIRST,
    Rung(name="percentile", changes={"calib": "percentile"}),
    Rung(name="asymmetric", changes={"weights_symmetric": False}, kernels=True),
    Rung(name="weights", scheme="weight-only", alone=True, kernels=True, last=True),
)

#: No model is so near.
OUT_OF_REACH = ("--metric", "mse", "--max-drop", 1e-12, "--max-size", "90%")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("ptq.tuning.LADDER", SHORT)


def tuned(path="t.json"):
    return msgspec.json.decode(Path(path).read_bytes(), type=Tuning)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """The whole ladder climbed without reaching anything, its files, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    for path in (digits.model, digits.calibration, digits.evaluation):
        shutil.copy(path, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PTQ_CACHE", "")
        patch.setattr("ptq.tuning.LADDER", SHORT)
        patch.setattr("ptq.run.runs_here", lambda config: False)
        done = ptq(
            *("tune", MODEL, *DATA, *OUT_OF_REACH, "--json", "t.json", "--report", "t.html"),
            *("--front", "front"),
        )
        return folder, done, tuned()


def test_it_ends_at_the_first_that_holds_every_limit(work):
    done = ptq("tune", MODEL, *DATA, "--max-drop", "50%", "--json", "t.json")
    assert done.code == 0, done.err
    found = tuned()
    assert [p.rung for p in found.points] == ["as given"]
    assert (found.satisfied, found.winner) == (True, 0)
    assert done.out.splitlines()[-1] == f"'as given' holds every limit: {WINNER}"
    assert sum(found.samples) == 60
    assert (work / WINNER).stat().st_size == found.points[0].size_bytes


def test_where_nothing_holds_it_tries_all_and_says_what_comes_nearest(whole):
    folder, done, found = whole
    assert done.code == 3
    assert "holds --max-drop; " in done.message
    assert [p.rung for p in found.points] == [rung.name for rung in SHORT]
    assert not found.satisfied
    best = min((p for p in found.points), key=lambda p: p.choosing[0].drop)
    assert found.best == best
    assert (folder / WINNER).exists()


def test_the_same_run_measures_nothing_and_writes_the_same(whole, monkeypatch):
    folder, _, found = whole
    monkeypatch.chdir(folder)
    first = (folder / WINNER).read_bytes()
    monkeypatch.setattr("ptq.trying.Bench._measured", lambda *_: pytest.fail("it measures again"))
    done = ptq("tune", MODEL, *DATA, *OUT_OF_REACH, "--json", "u.json", "--force")
    assert done.code == 3
    assert (folder / WINNER).read_bytes() == first
    again = tuned("u.json")
    assert all(p.remembered for p in again.points)
    forgotten = [msgspec.structs.replace(p, remembered=False) for p in again.points]
    assert forgotten == list(found.points)
    assert again.spent_s == found.spent_s


def test_other_limits_use_the_same_trials(whole, monkeypatch):
    folder, _, found = whole
    monkeypatch.chdir(folder)
    monkeypatch.setattr("ptq.trying.Bench._measured", lambda *_: pytest.fail("it measures again"))
    limit = found.points[1].choosing[0].drop
    asked = ("--metric", "mse", "--max-drop", limit, "--json", "v.json", "-o", "v.onnx")
    done = ptq("tune", MODEL, *DATA, *asked)
    assert done.code in (0, 3), done.err  # on the other half it may be missed for certain
    first = next(i for i, p in enumerate(found.points) if p.choosing[0].drop <= limit)
    assert tuned("v.json").winner == first


def test_an_interrupted_run_goes_on_and_ends_alike(work, whole, monkeypatch):
    from ptq.trying import Bench

    folder, _, found = whole
    before, real, calls = contents(work), Bench._tried, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Bench, "_tried", interrupted)
    done = ptq("tune", MODEL, *DATA, *OUT_OF_REACH)
    assert done.code == 130
    assert "run the same command to go on" in done.err
    left = {k: v for k, v in contents(work).items() if not k.startswith("kept")}
    assert left == before
    assert len(list((work / "kept").glob("*.json"))) == 2
    done = ptq("tune", MODEL, *DATA, *OUT_OF_REACH, "--json", "t.json")
    assert done.code == 3
    assert len(calls) == 3 + 2  # the one that was broken off, and what followed
    assert [p.remembered for p in tuned().points] == [True, True, False, False]
    assert [p.sha256 for p in tuned().points] == [p.sha256 for p in found.points]
    assert (work / WINNER).read_bytes() == (folder / WINNER).read_bytes()


def test_the_recipe_of_a_point_makes_its_model(whole, monkeypatch, tmp_path):
    from ptq.graph.load import model_digest

    folder, _, found = whole
    monkeypatch.chdir(folder)
    point = found.points[1]
    (tmp_path / "r.toml").write_text(point.recipe)
    made = tmp_path / "q.onnx"
    data = ("--calib-data", "digits_calib.npz")
    done = ptq("quantize", MODEL, *data, "--recipe", tmp_path / "r.toml", "-o", made)
    assert done.code == 0, done.err
    assert model_digest(made) == point.sha256


def test_the_front_has_a_recipe_for_each_point_and_the_page_a_mark(whole):
    folder, _, found = whole
    front = {f"{i:02}": p for i, p in enumerate(found.points) if p.front}
    files = {path.name[:2]: path.read_text() for path in (folder / "front").iterdir()}
    assert files == {number: point.recipe for number, point in front.items()}
    page = (folder / "t.html").read_text()
    assert page.count("<circle") == len(found.points)


def test_the_float_model_is_what_is_left_where_it_may_be(work):
    asked = ("--metric", "mse", "--max-drop", 0, "--json", "t.json", "--time-budget", "0.001s")
    done = ptq("tune", MODEL, *DATA, *asked)
    assert done.code == 0, done.err
    assert "float model itself" in done.err
    # the budget lets nothing through but the first rung and this one
    assert [bool(p.left_out) for p in tuned().points] == [False, True, True, True, False]
    assert (work / WINNER).read_bytes() == (work / MODEL).read_bytes()


def test_labels_are_cut_like_their_samples(work, digits, savez):
    labels = savez("labels.npz", labels=digits.labels())
    done = ptq(
        *("tune", MODEL, *DATA[:-2], "--labels", labels, "--max-drop", "50%", "--json", "t.json"),
        *("--state", "kept"),
    )
    assert done.code == 0, done.err
    # wrong labels would leave a tenth of the answers right
    assert all(f.reference > 0.8 for f in tuned().points[0].reporting if f.name == "topk")
    assert tuned().tasks == ("topk",)


def test_a_recipe_says_what_to_start_from_and_what_to_reach(work):
    (work / "ptq.toml").write_text(
        '[quantize]\ncalib = "minmax"\ncalib-data = "digits_calib.npz"\nsamples = 16\n'
        'place = ["all"]\neval-data = "digits_eval.npz"\noutput = "none.onnx"\nmin-speedup = 99\n'
        '[tune]\nmax-drop = "60%"\nstate = "kept"\neval-samples = 20\nseconds = 0.01\n'
    )
    done = ptq("tune", MODEL, "--json", "t.json")
    assert done.code == 0, done.err
    found = tuned()
    assert found.limits == {"--max-drop": "60%"}
    assert sum(found.samples) == 20
    assert 'calib = "minmax"' in found.points[0].recipe
    assert (work / WINNER).exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--time-budget", "soon"], "--time-budget"),
        (["--max-drop", "-1"], "negative"),
        (["--max-size", "0"], "--max-size"),
        (["--format", "both"], "--format both"),
        (["--report", "t.pdf"], ".html or .md"),
        (["-o", "digits_cnn.onnx"], "float model itself"),
        (["--report-labels", "x.npy"], "--report-data"),
        (["--front", "digits_cnn.onnx"], "is a file"),
        (["--eval-samples", 5], "--report-data"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_trial(work, monkeypatch, more, why):
    monkeypatch.setattr("ptq.trying.Bench._measured", lambda *_: pytest.fail("it measures"))
    before = contents(work)
    assert why in ptq("tune", MODEL, *DATA, *more).message
    assert contents(work) == before


@pytest.mark.parametrize(
    ("state", "says"), [(["--state", "kept"], "to go on"), ([], "give --state DIR")]
)
def test_ctrl_c_says_whether_trials_were_kept(work, monkeypatch, state, says):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ptq.trying.Bench._tried", interrupted)
    done = ptq("tune", MODEL, *DATA[:-2], *state)
    assert done.code == 130
    assert says in done.err


def test_speed_on_another_runtime_is_refused(work):
    asked = ("--target", "tensorrt", "--min-speedup", 2)
    assert "another runtime" in ptq("tune", MODEL, *DATA, *asked).message
