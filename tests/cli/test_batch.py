"""`ptq batch`: what a recipe asks for, and how the command says what came of it."""

import dataclasses
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from support.cli import command, contents, environment, ptq

import ptq as package
from ptq.errors import ConfigError
from ptq.report.batch import Batch

#: As `digits` is: what is written does not depend on how fast it is.
QUANTIZE = """
[quantize]
calib-data = "digits_calib.npz"
eval-data = "digits_eval.npz"
output = "int8/{name}.onnx"
samples = 4
on-slower = "write"
"""
CHECK = """
[check]
samples = 32
threads = 1
min-sqnr = 10.0
"""
ALL = """
[[model]]
match = "models/*.onnx"
"""


@pytest.fixture
def batch(work, digits):
    """A folder with two models and their data; returns what writes the recipe there."""
    Path("models").mkdir()
    for name in ("one", "two"):
        model = onnx.load(digits.model)
        model.doc_string = name
        onnx.save_model(model, f"models/{name}.onnx")

    np.savez("digits_eval.npz", input=digits.images()[:32])  # enough, and quick

    def write(*parts):
        path = Path("ptq.toml")
        path.write_text("".join(parts) or QUANTIZE + CHECK + ALL)
        return path

    write()
    return write


def rows(text):
    """Return the lines of the table, without its head, by the name of the model."""
    lines = text.partition("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: line for line in lines}


# -- what a recipe asks for ----------------------------------------------------------------------


def test_a_task_has_the_settings_of_its_model_as_the_commands_have_them(batch):
    recipe = batch(
        QUANTIZE.replace("[quantize]", '[quantize]\npreset = "smallest"\nblock = 64'),
        '[[quantize.override]]\nmatch = "*/head"\nfloat = true\n',
        CHECK,
        ALL,
        '[[model]]\nmatch = "models/two.onnx"\nquantize = { calib = "minmax" }\n',
        'check = { max-drop = "1%", labels = "{name}.npy" }\n',
    )
    one, two = package.read_tasks(recipe)
    assert (one.model, two.model) == (Path("models/one.onnx"), Path("models/two.onnx"))
    assert one.output == Path("int8/one.onnx")
    assert one.config.block == 64
    assert one.config.prefer == "size", "of the preset"
    assert one.config.overrides == (package.Override(match="*/head", float=True),)
    assert (one.config.calib, two.config.calib) == ("kl", "minmax")
    assert one.options.samples == 4
    assert one.calibration == "digits_calib.npz"
    assert one.checks.data == "digits_eval.npz", "that of the evaluation, if nothing is said"
    assert one.checks.options.min_sqnr == two.checks.options.min_sqnr == 10.0
    assert one.checks.options.max_drop is None
    assert two.checks.options.max_drop == "1%"
    assert two.checks.options.labels == Path("two.npy")


def test_the_task_of_a_model_is_what_quantize_makes_of_the_same_recipe(batch):
    recipe = batch(QUANTIZE, ALL)
    assert ptq("batch", recipe, "--only", "one").code == 0
    made = ptq("quantize", "models/one.onnx", "--recipe", recipe, "-o", "alone.onnx")
    assert made.code == 0, made.err
    assert Path("int8/one.onnx").read_bytes() == Path("alone.onnx").read_bytes()


def test_variables_win_over_the_recipe_as_they_do_for_quantize(batch, monkeypatch):
    monkeypatch.setenv("PTQ_QUANTIZE_SAMPLES", "7")
    [task, _] = package.read_tasks(batch())
    assert task.options.samples == 7


def test_without_check_settings_nothing_is_checked(batch):
    assert all(task.checks is None for task in package.read_tasks(batch(QUANTIZE, ALL)))


def test_labels_come_with_the_evaluation_data(batch):
    recipe = batch(QUANTIZE, 'labels = "labels.npy"\n', CHECK, ALL)
    assert package.read_tasks(recipe)[0].checks.options.labels == Path("labels.npy")
    recipe = batch(QUANTIZE, 'labels = "labels.npy"\n', CHECK, 'data = "digits_calib.npz"\n', ALL)
    assert package.read_tasks(recipe)[0].checks.options.labels is None


@pytest.mark.parametrize("glob", ["two", "two.onnx", "*/two.onnx", "t*"])
def test_only_takes_paths_and_names(batch, glob):
    assert [t.model.stem for t in package.read_tasks(batch(), only=[glob])] == ["two"]


def test_out_is_the_folder_of_all_models(batch):
    tasks = package.read_tasks(batch(), folder="elsewhere")
    assert [t.output for t in tasks] == [Path("elsewhere/one.onnx"), Path("elsewhere/two.onnx")]


# -- what is wrong before any work ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        (QUANTIZE, [], "no file matches a [[model]]; add one with match ="),
        (QUANTIZE + ALL, ["--only", "three"], "--only 'three' matches none of: one, two"),
        (QUANTIZE + "smaples = 3\n" + ALL, [], "did you mean 'samples'?"),
        (
            QUANTIZE + 'calib = "median"\n' + ALL,
            [],
            "models/one.onnx: unknown calibration method 'median'",
        ),
        (QUANTIZE + "bits = 9\n" + ALL, [], "models/one.onnx: --bits 9 is not supported"),
        (QUANTIZE.replace("{name}", "m") + ALL, [], "are both to be written to 'int8/m.onnx'"),
        (CHECK + ALL, [], "models/one.onnx: missing option '--data'"),
        ("[quantize\n", [], "is not TOML"),
        (QUANTIZE + CHECK + 'max-drop = "x"\n' + ALL, [], "one.onnx: --max-drop 'x' is no number"),
        (QUANTIZE + CHECK + ALL, ["--json", "models/two.onnx"], "is read by this run"),
        (QUANTIZE + CHECK + ALL, ["--json", "ptq.toml"], "is read by this run"),
        (QUANTIZE + CHECK + ALL, ["--json", "no/such.json"], "folder 'no' does not exist"),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_a_wrong_recipe_is_said_before_any_work(batch, work, recipe, arguments, message):
    path = batch(recipe)
    before = contents(work)
    done = ptq("batch", path, *arguments)
    assert done.code == 2
    assert message in done.message
    assert contents(work) == before


def test_the_library_raises_its_own_errors_for_a_wrong_recipe(batch):
    with pytest.raises(ConfigError, match="'three' matches none"):
        package.read_tasks(batch(), only=["three"])
    with pytest.raises(ConfigError, match="missing option '--data'"):
        package.read_tasks(batch(CHECK + ALL))


# -- what is printed -----------------------------------------------------------------------------


def test_a_batch_ends_with_a_table_and_is_up_to_date_the_next_time(batch):
    done = ptq("batch", "ptq.toml", "--json", "b.json", "--markdown", "b.md")
    assert done.code == 0, done.err
    found = rows(done.out)
    assert list(found) == ["one.onnx", "two.onnx"]
    for line in found.values():
        assert "smaller" in line
        assert " dB" in line
        assert line.endswith("holds")
    assert done.out.splitlines()[-1].endswith(": 2 done")
    record = msgspec.json.decode(Path("b.json").read_bytes(), type=Batch)
    assert [row.status for row in record.rows] == ["done", "done"]
    assert "| one.onnx |" in Path("b.md").read_text()
    again = ptq("batch", "ptq.toml")
    assert again.code == 0
    assert all(line.endswith("up to date, holds") for line in rows(again.out).values())
    assert again.out.splitlines()[-1].endswith(": 2 up to date")


def test_a_model_that_fails_does_not_keep_the_others_from_their_turn(batch, work):
    Path("models/broken.onnx").write_bytes(b"no model")
    done = ptq("batch", "ptq.toml", "--json", "b.json")
    assert done.code == 1
    found = rows(done.out)
    assert "'models/broken.onnx' is not an ONNX model" in found["broken.onnx"]
    assert found["two.onnx"].endswith("holds")
    assert done.out.splitlines()[-1].endswith(": 2 done, 1 failed")
    assert Path("b.json").is_file()
    first = ptq("batch", "ptq.toml", "--fail-fast")
    assert first.code == 1
    assert rows(first.out)["two.onnx"].endswith("not run")


def test_a_missed_threshold_is_exit_code_3(batch):
    strict = '[[model]]\nmatch = "models/one.onnx"\ncheck = { min-cosine = 1.0 }\n'
    recipe = batch(QUANTIZE, CHECK, ALL, strict)
    done = ptq("batch", recipe)
    assert done.code == 3
    assert "missed: cosine similarity is" in rows(done.out)["one.onnx"]
    assert rows(done.out)["two.onnx"].endswith("holds")


def test_notes_name_their_model_and_there_is_no_bar_without_a_terminal(batch):
    recipe = batch(QUANTIZE.replace('"digits_calib.npz"', '"random"'), ALL)
    done = ptq("batch", recipe, "--only", "one")
    assert done.code == 0
    lines = done.err.splitlines()
    assert lines
    assert all(line.startswith("note: one.onnx: ") for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_done_and_says_what_is_not(batch, work, tmp_path_factory, number):
    slow = tmp_path_factory.mktemp("module")
    (slow / "slow_feeds.py").write_text(
        "import time, pathlib\nimport numpy as np\n\n\ndef feeds():\n"
        "    for i in range(2000):\n"
        "        if i == 3:\n"
        f"            pathlib.Path({str(slow / 'mark')!r}).touch()\n"
        "        time.sleep(0.02)\n"
        '        yield {"input": np.full((1, 1, 8, 8), i % 7, np.float32)}\n'
    )
    two = '[[model]]\nmatch = "models/two.onnx"\nquantize = { calib-data = "slow_feeds:feeds", '
    recipe = batch(QUANTIZE, ALL, two + "samples = 2000 }\n")
    process = subprocess.Popen(
        command("batch", recipe),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(
            PYTHONPATH=f"{slow}:{environment()['PYTHONPATH']}", PYTHONDONTWRITEBYTECODE="1"
        ),
    )
    deadline = time.monotonic() + 120
    while not (slow / "mark").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert [p.name for p in Path("int8").iterdir()] == ["one.onnx"]
    if number == signal.SIGINT:
        assert rows(out)["one.onnx"].endswith("done")
        assert rows(out)["two.onnx"].endswith("interrupted")
        assert "nothing was written" not in err


def test_the_bar_names_the_model_and_its_stage(monkeypatch):
    from io import StringIO

    from ptq.batching import BatchProgress
    from ptq.cli.progress import batch_bar
    from ptq.progress import Progress

    class Terminal(StringIO):
        def isatty(self):
            return True

    drawn = Terminal()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    with batch_bar(3) as (show, _):
        now = BatchProgress("model.onnx", 1, 3)
        show(now)
        show(dataclasses.replace(now, stage=Progress("place", 0, None)))
        time.sleep(0.15)  # tqdm draws ten times a second
        show(dataclasses.replace(now, stage=Progress("observe", 5, 32)))
    assert "1/3" in drawn.getvalue()
    assert "model.onnx observe 5/32" in drawn.getvalue()
