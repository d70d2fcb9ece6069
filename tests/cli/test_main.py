"""The command itself: usage, exit codes, broken pipes and missing streams."""

import os
import subprocess
import termios

import pytest
from support.cli import command, environment, ptq, run

NAMES = ["quantize", "calibrate", "bench", "inspect", "methods", "targets"]


def test_alone_it_shows_its_help_and_fails():
    done = run()
    assert done.returncode == 2
    assert all(name in done.stdout + done.stderr for name in NAMES)


def test_help_says_what_exit_codes_mean():
    done = ptq("--help")
    assert done.code == 0
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage" in done.out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_that_fits_a_terminal(name):
    done = ptq(name, "--help")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 100


@pytest.mark.parametrize("name", ["quantize", "inspect"])
def test_a_missing_model_argument_is_named(name):
    done = ptq(name)
    assert done.code == 2
    assert "'MODEL'" in done.message


def test_an_unknown_command_is_named():
    done = ptq("quantise")
    assert done.code == 2
    assert "'quantise'" in done.message


def test_an_unknown_option_gets_a_suggestion(work):
    done = ptq("quantize", "digits_cnn.onnx", "--calib-dat", "x")
    assert done.code == 2
    assert "--calib-data" in done.message


@pytest.mark.parametrize(
    "arguments", [["methods"], ["inspect", "digits_cnn.onnx"], ["quantize", "--help"]], ids=str
)
def test_a_reader_that_goes_away_is_no_traceback(work, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*arguments, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = run("methods", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_streams_do_not_stop_the_work(work, closed):
    done = run(
        *("quantize", "digits_cnn.onnx", "--calib-data", "digits_calib.npz", "--samples", 4),
        capture_output=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.close(closed),
    )
    assert done.returncode == 0
    assert (work / "digits_cnn.int8.onnx").is_file()


@pytest.mark.parametrize(
    "variables",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}, {"LANG": "xx_YY.UTF-8"}],
    ids=str,
)
def test_names_outside_ascii_work_in_any_locale(work, variables):
    folder = work / "mödels ✓"
    folder.mkdir()
    model = (work / "digits_cnn.onnx").rename(folder / "my modèl.onnx")
    done = run(
        *("quantize", model, "--calib-data", "digits_calib.npz", "--samples", 4),
        env=environment(**variables),
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "my modèl.int8.onnx").is_file()


def test_a_name_that_is_no_text_is_refused_as_such(work):
    name = os.fsdecode(b"bad\xff.onnx")
    (work / "digits_cnn.onnx").rename(work / name)
    done = ptq("inspect", name)
    assert done.code == 2
    assert "'bad\\udcff.onnx' is no UTF-8" in done.message


def test_progress_is_not_drawn_where_nobody_looks(work):
    done = ptq("quantize", "digits_cnn.onnx", "--calib-data", "digits_calib.npz", "--samples", 4)
    assert done.code == 0
    assert "observe" not in done.err


def test_progress_is_drawn_on_a_terminal(work):
    leader, follower = os.openpty()
    termios.tcsetwinsize(leader, (24, 100))  # new ones have no columns
    process = subprocess.Popen(
        command("quantize", "digits_cnn.onnx", "--calib-data", "digits_calib.npz"),
        stdout=subprocess.PIPE,
        stderr=follower,
        env=environment(),
    )
    os.close(follower)
    process.communicate(timeout=120)
    drawn = b""
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # EIO: the other end is closed and everything is read
            break
        if not part:
            break
        drawn += part
    os.close(leader)
    assert process.returncode == 0
    assert b"observe: 100%" in drawn
    assert b"evaluate: 100%" in drawn
