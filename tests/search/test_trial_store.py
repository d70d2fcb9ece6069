"""Kept trials: by content, whole or not at all."""

import msgspec
import pytest

from ptq.errors import ConfigError
from ptq.search.trial_store import TrialStore


class Result(msgspec.Struct, frozen=True):
    seconds: float
    names: tuple[str, ...] = ()


RESULT = Result(0.1, ("a", "b"))


def test_another_run_finds_what_was_kept(tmp_path):
    store = TrialStore(tmp_path / "deep" / "state")
    key = store.key(["model", {"a": 1, "b": 2}])
    assert store.get(key, Result) is None
    store.put(key, RESULT)
    again = TrialStore(tmp_path / "deep" / "state")
    assert again.get(again.key(["model", {"b": 2, "a": 1}]), Result) == RESULT
    assert again.get(again.key(["model", {"b": 2, "a": 2}]), Result) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"seconds": "x"}', b"\xff"])
def test_a_damaged_file_is_measured_again(tmp_path, content):
    store = TrialStore(tmp_path)
    store.put("0123", RESULT)
    (tmp_path / "0123.json").write_bytes(content)
    assert store.get("0123", Result) is None


def test_without_a_folder_nothing_is_kept():
    store = TrialStore(None)
    store.put("0123", RESULT)
    assert store.get("0123", Result) is None


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="another --state"):
        TrialStore(tmp_path / "file" / "state").put("0123", RESULT)
