"""What was measured is found again for the same run, and only for that."""

import pytest

from ptq.place.memory import Choice, Memory
from ptq.report.placement import Candidate

CHOICE = Choice(
    candidates=(Candidate(name="all", integer_nodes=3, measured_ms=1.5, ratio=2.0),),
    chosen="all",
    keep_float={"conv": "float is faster here: 1 ms against 2 ms"},
)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PTQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_choice_is_read_back():
    memory = Memory.of("cpu", ["model", {"bits": 8}])
    assert memory.read() is None
    memory.write(CHOICE)
    assert Memory.of("cpu", ["model", {"bits": 8}]).read() == CHOICE


@pytest.mark.parametrize(
    ("host", "what"), [("other cpu", ["model"]), ("cpu", ["other model"]), ("cpu", ["model", 1])]
)
def test_another_machine_model_or_setting_is_measured_anew(host, what):
    Memory.of("cpu", ["model"]).write(CHOICE)
    assert Memory.of(host, what).read() is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"chosen": 3}'])
def test_a_file_that_is_damaged_is_measured_anew(content):
    memory = Memory.of("cpu", ["model"])
    memory.write(CHOICE)
    memory.path.write_bytes(content)
    assert memory.read() is None


def test_nothing_is_kept_if_the_variable_is_empty(monkeypatch, tmp_path):
    monkeypatch.setenv("PTQ_CACHE", "")
    memory = Memory.of("cpu", ["model"])
    memory.write(CHOICE)
    assert memory.read() is None


def test_a_place_that_cannot_be_written_to_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PTQ_CACHE", str(tmp_path / "file"))
    memory = Memory.of("cpu", ["model"])
    memory.write(CHOICE)
    assert memory.read() is None


def test_the_usual_place_is_the_cache_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("PTQ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Memory.of("cpu", []).path.parent == tmp_path / "ptq" / "placements"
