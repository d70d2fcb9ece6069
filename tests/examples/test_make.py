"""`examples/make/ptq.mk`, run as a user runs it: with make, in a shell."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from support.cli import ROOT, environment

RULES = ROOT / "examples" / "make" / "ptq.mk"

#: In place of ptq: writes what ptq would write, and fails for models and options that say so.
FAKE = """\
#!/bin/sh
[ "$1" = --version ] && { cat version; exit; }
echo "$@" >> log
command=$1 model=$2
while [ $# -gt 0 ]; do case $1 in
-o) output=$2 ;; --markdown) page=$2 ;; --json) report=$2 ;; --min-sqnr) missed=3 ;;
esac; shift; done
case $model in *bad*) echo "error: bad" >&2; exit 1 ;; esac
for file in $output $report $page; do echo "$command" > $file; done
exit ${missed:-0}
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with two models and their data, and a command that stands in for ptq."""
    monkeypatch.chdir(tmp_path)
    for name in ("models/a.onnx", "models/b.onnx", "data/a.npz", "data/b/0.npy"):
        touch(tmp_path / name)
    (tmp_path / "version").write_text("ptq 1\n")
    fake = tmp_path / "fake-ptq"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    return tmp_path


def touch(path):
    """Make a file, or make it newer than anything that is there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    later = time.time() + 0.01
    while path.stat().st_mtime < later:  # clocks of file systems are coarse
        time.sleep(0.005)
        path.touch()


def make(*arguments, rules=RULES, ptq="./fake-ptq"):
    """Run make, and return how it ended."""
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of the make that runs the tests
        os.environ.pop(name, None)
    command = ["make", "-f", str(rules), f"PTQ={ptq}", *arguments]
    env = environment(LC_ALL="C.UTF-8")  # messages of make in English
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=env, timeout=300
    )


def int8(*arguments, **named):
    return make("int8", "CALIB=data", *arguments, **named)


def ran():
    """Return what ptq was asked to do since the last time, as words."""
    log = Path("log")
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def steps():
    """Return the steps since the last time: command and model."""
    return sorted((words[0], Path(words[1]).stem) for words in ran())


EVERYTHING = [("check", "a"), ("check", "b"), ("quantize", "a"), ("quantize", "b")]


@pytest.fixture
def done(work):
    """The folder after everything was made."""
    assert int8().returncode == 0
    ran()
    return work


def test_every_model_is_quantized_with_its_data_and_then_checked(work):
    found = int8()
    assert found.returncode == 0, found.stderr
    words = {(w[0], Path(w[1]).stem): w for w in ran()}
    assert sorted(words) == EVERYTHING
    for name, data in (("a", "data/a.npz"), ("b", "data/b")):
        quantize = words["quantize", name]
        assert quantize[1] == f"models/{name}.onnx"
        assert quantize[quantize.index("--calib-data") + 1] == data
        assert quantize[quantize.index("-o") + 1] == f"build/int8/{name}.int8.onnx"
        check = words["check", name]
        assert check[1:3] == [f"models/{name}.onnx", f"build/int8/{name}.int8.onnx"]
        assert check[check.index("--data") + 1] == data
    names = {p.name for p in Path("build/int8").iterdir()}
    ends = ("int8.onnx", "report.json", "check.md")
    assert names == {f"{n}.{end}" for n in "ab" for end in ends} | {".ptq"}


def test_a_second_run_does_nothing(done):
    assert "Nothing to be done" in int8().stdout
    assert int8("-q").returncode == 0
    assert steps() == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("models/a.onnx", ["a"]),
        ("models/a.onnx.data", ["a"]),
        ("models/b.onnx_data", ["b"]),
        ("data/a.npz", ["a"]),
        ("data/b/0.npy", ["b"]),
        ("data/b/deep er/1.npy", ["b"]),
        ("ptq.toml", ["a", "b"]),
    ],
)
def test_what_changed_is_done_again_and_nothing_else(done, changed, expected):
    touch(done / changed)
    assert int8("-q").returncode == 1
    assert int8().returncode == 0
    assert steps() == [(command, n) for command in ("check", "quantize") for n in expected]
    assert int8("-q").returncode == 0


def test_a_sample_that_went_away_is_a_change(done):
    touch(done / "data/b/1.npy")
    int8()
    ran()
    time.sleep(0.02)
    Path("data/b/1.npy").unlink()
    int8()
    assert steps() == [("check", "b"), ("quantize", "b")]


def test_other_flags_are_a_change_to_the_step_they_are_of(done):
    flags = ['QUANTIZE_FLAGS=--exclude "/head [0]/*"', "CHECK_FLAGS=--labels {name}.npy"]
    assert int8(flags[1]).returncode == 0
    words = ran()
    assert sorted(w[0] for w in words) == ["check", "check"]
    assert {w[w.index("--labels") + 1] for w in words} == {"a.npy", "b.npy"}
    assert int8(*flags).returncode == 0
    assert steps() == EVERYTHING
    assert int8(*flags, "-q").returncode == 0
    assert int8("-q").returncode == 1


def test_another_version_of_ptq_is_a_change(done):
    Path("version").write_text("ptq 2\n")
    int8()
    assert steps() == EVERYTHING


def test_a_missing_result_is_made_again(done):
    Path("build/int8/a.int8.onnx").unlink()
    int8()
    assert steps() == [("check", "a"), ("quantize", "a")]


def test_evaluation_data_is_measured_and_checked_on(work):
    touch(work / "eval/a.npz")
    touch(work / "eval/b.npz")
    assert int8("EVAL=eval").returncode == 0
    words = {(w[0], Path(w[1]).stem): w for w in ran()}
    assert words["quantize", "b"][4:6] == ["--eval-data", "eval/b.npz"]
    assert words["check", "b"][3:5] == ["--data", "eval/b.npz"]
    touch(work / "eval/a.npz")
    int8("EVAL=eval")
    assert ("check", "a") in steps()


@pytest.mark.parametrize(
    ("calib", "expected"),
    [("zoo/{name}/calib", "zoo/a/calib"), ("one.npz", "one.npz"), ("shared", "shared")],
)
def test_data_can_be_named_by_the_model_or_be_one_for_all(work, calib, expected):
    for path in ("zoo/a/calib/0.npz", "one.npz", "shared/0.npz"):
        touch(work / path)
    assert make("int8", f"CALIB={calib}", "NAMES=a").returncode == 0
    words = ran()[0]
    assert words[words.index("--calib-data") + 1] == expected


def test_a_model_without_data_of_its_own_never_gets_that_of_another(work):
    touch(work / "models/c.onnx")
    found = int8("-k")
    assert found.returncode == 2
    assert "there is no data for model 'c'; add data/c.npz or a folder data/c" in found.stderr
    assert steps() == EVERYTHING
    assert not Path("build/int8/c.int8.onnx").exists()


def test_a_recipe_stands_in_for_data(work):
    touch(work / "ptq.toml")
    assert make("int8").returncode == 0
    words = ran()
    assert all(w[w.index("--recipe") + 1] == "ptq.toml" for w in words)
    assert not any("--calib-data" in w or "--data" in w for w in words)


@pytest.mark.parametrize("jobs", ["-j1", "-j2"])
def test_with_k_all_others_are_done_before_a_failure_is_reported(work, jobs):
    touch(work / "models/bad.onnx")
    touch(work / "data/bad.npz")
    touch(work / "build/int8/bad.int8.onnx")
    touch(work / "models/bad.onnx")
    found = int8("-k", jobs)
    assert found.returncode == 2
    assert "error: bad" in found.stderr
    assert steps() == sorted([*EVERYTHING, ("quantize", "bad")])
    assert not Path("build/int8/bad.int8.onnx").exists(), "not even the old one is left"


def test_a_check_that_fails_is_tried_again_and_what_it_found_stays(done):
    for _ in range(2):
        found = int8("-k", "CHECK_FLAGS=--min-sqnr 99")
        assert found.returncode == 2
        assert steps() == [("check", "a"), ("check", "b")]
        assert Path("build/int8/a.check.md").is_file()
        assert Path("build/int8/a.int8.onnx").is_file()
    assert int8().returncode == 0


def test_the_baseline_is_held_once_it_is_there(done):
    assert make("baseline", "CALIB=data").returncode == 0
    assert all(w[-3:] == ["--baseline", "baseline.json", "--update-baseline"] for w in ran())
    touch(done / "baseline.json")
    assert int8().returncode == 0
    words = ran()
    assert [w[0] for w in words] == ["check", "check"]
    assert all(w[w.index("--baseline") + 1] == "baseline.json" for w in words)
    assert not any("--update-baseline" in w for w in words)


def test_jobs_side_by_side_take_a_thread_each_and_make_the_same(done):
    assert int8("-j2", "-q").returncode == 0, "the number of jobs is no change"
    assert int8("-j2", "-B").returncode == 0
    threads = [w[w.index("--threads") + 1] for w in ran() if w[0] == "quantize"]
    assert threads == ["1", "1"]


def test_a_space_in_the_name_of_a_model_is_refused(work):
    touch(work / "models/a b.onnx")
    found = int8()
    assert found.returncode == 2
    assert "has a space in its name, which make cannot handle" in found.stderr
    assert steps() == []


def test_no_model_is_an_error(work):
    found = make("int8", "MODELS=nowhere")
    assert found.returncode == 2
    assert "there is no .onnx file in 'nowhere'; give MODELS=folder" in found.stderr


def test_results_beside_the_models_are_no_models(work):
    for _ in range(2):
        assert int8("OUT=models").returncode == 0
    assert steps() == EVERYTHING


def test_the_rules_can_be_included(work):
    Path("Makefile").write_text(
        f"CALIB := data\ninclude {RULES}\nmodels/a.onnx.touched: models/a.onnx\n\ttouch $@\n"
    )
    assert make("int8", rules="Makefile").returncode == 0
    assert steps() == EVERYTHING


def test_the_makefile_of_the_repository_uses_the_ptq_of_its_venv(work):
    touch(work / "venv/bin/ptq")
    shutil.copy(work / "fake-ptq", work / "venv/bin/ptq")
    touch(work / "venv/.installed")
    given = [f"{name}={work / folder}" for name, folder in (("MODELS", "models"), ("OUT", "out"))]
    given += [f"CALIB={work / 'data'}", f"VENV={work / 'venv'}", "RECIPE=", "BASELINE="]
    found = make("-n", "-C", ROOT, "int8", "-j2", *given, rules="Makefile", ptq="unused")
    assert found.returncode == 0, found.stderr
    assert f"{work}/venv/bin/ptq quantize {work}/models/a.onnx" in found.stdout
    assert f"{work}/venv/bin/ptq check {work}/models/b.onnx" in found.stdout


def test_real_models_are_quantized_checked_and_held_against_a_baseline(
    tmp_path, digits, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/digits.onnx").write_bytes(digits.model.read_bytes())
    Path("models/broken.onnx").write_bytes(b"no model")
    given = [f"CALIB={digits.calibration}", f"EVAL={digits.evaluation}", "-k", "-j2"]
    given += ["QUANTIZE_FLAGS=--samples 8", "CHECK_FLAGS=--min-sqnr 10 --samples 64"]
    ptq = f"{sys.executable} -m ptq"
    found = make("int8", *given, ptq=ptq)
    assert found.returncode == 2
    assert "'models/broken.onnx' is not an ONNX model" in found.stderr
    assert not Path("build/int8/broken.int8.onnx").exists()
    onnx.checker.check_model("build/int8/digits.int8.onnx")
    assert "SQNR" in Path("build/int8/digits.check.md").read_text()
    given.append("NAMES=digits")
    assert make("int8", *given, ptq=ptq).stdout.startswith("make: Nothing to be done")
    assert make("baseline", *given, ptq=ptq).returncode == 0
    held = make("int8", *given, ptq=ptq)
    assert held.returncode == 0, held.stderr
    assert "--baseline baseline.json" in held.stdout
    assert "ptq quantize" not in held.stdout
