"""What trials found outlives the run that found it."""

import pytest

from ptq.errors import ConfigError
from ptq.search.ledger import Ledger
from ptq.search.trials import Damage

FIRST, SECOND = Damage(noise=0.1 + 0.2), Damage(noise=1e-17, kl=0.0)


def filled(path):
    with Ledger(path, "key") as ledger:
        ledger.add("a", FIRST)
        ledger.add("b", SECOND)
    return path


def test_results_are_read_back_to_the_bit(tmp_path):
    with Ledger(filled(tmp_path / "new" / "state"), "key") as ledger:
        assert ledger.known == 2
        assert (ledger.get("a"), ledger.get("b"), ledger.get("c")) == (FIRST, SECOND, None)


def test_of_a_run_that_was_killed_all_whole_lines_count(tmp_path):
    path = filled(tmp_path / "state")
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with Ledger(path, "key") as ledger:
            assert ledger.known == max(whole[:end].count(b"\n") - 1, 0)
            for name, damage in (("a", FIRST), ("b", SECOND)):
                if ledger.get(name) is None:
                    ledger.add(name, damage)
        assert path.read_bytes() == whole


def test_an_error_keeps_what_was_measured(tmp_path):
    with pytest.raises(KeyboardInterrupt), Ledger(tmp_path / "state", "key") as ledger:
        ledger.add("a", FIRST)
        raise KeyboardInterrupt
    assert Ledger(tmp_path / "state", "key").known == 1


def test_results_of_something_else_are_not_taken(tmp_path):
    path = filled(tmp_path / "state")
    with pytest.raises(ConfigError, match="other settings"):
        Ledger(path, "another key")
    before = path.read_bytes()
    for content in (b"a text", b"a text\n", b'{"key": "key"}\n{"trial": 1}\n', b"\xff\n"):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ConfigError, match="no results of trials"):
            Ledger(tmp_path / "other", "key")
        assert (tmp_path / "other").read_bytes() == content
    assert path.read_bytes() == before


def test_without_a_file_it_is_a_dictionary():
    with Ledger(None, "key") as ledger:
        ledger.add("a", FIRST)
        assert ledger.get("a") == FIRST
