from pathlib import Path

import msgspec
import pytest

from ptq import weights
from ptq.calib import Solver, parse_method, solver, solvers
from ptq.calib.kl import KlSolver
from ptq.errors import ConfigError
from ptq.registry import Registry
from ptq.weights import parse_method as parse_weight_method
from ptq.weights import weight_quantizers


def test_the_methods_are_the_files():
    wanted = {
        *("aciq", "auto", "cosine", "ema", "kl", "lapq", "lp", "minmax", "mse", "percentile"),
        *("dorefa", "hwgq", "lloyd", "log2", "lq", "pact", "qcode", "qil", "scale", "sparse"),
        "wrpn",
    }
    assert set(solvers()) == wanted
    assert list(solvers()) == sorted(wanted)
    files = {path.stem for path in Path(weights.__file__).parent.glob("*.py")}
    assert set(weight_quantizers()) < files
    assert {"minmax", "mse", "seqmse", "bwn"} <= set(weight_quantizers())


def test_a_method_can_be_written_as_text():
    assert parse_method("kl") == KlSolver()
    assert parse_method("kl:bins=4096,strict=true") == KlSolver(bins=4096, strict=True)
    assert parse_method(" percentile : coverage = 99.9 ") == solver("percentile", coverage=99.9)
    assert parse_weight_method("mse:steps=10").steps == 10


def test_options_given_in_python_must_have_their_type():
    assert solver("kl", bins=512).bins == 512
    with pytest.raises(ConfigError, match="bins"):
        solver("kl", bins="512")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropy", "unknown calibration method 'entropy'; choose one of: aciq, auto, cosine"),
        ("percentil", "did you mean 'percentile'"),
        ("", "unknown calibration method ''"),
        ("kl:bin=4", "option of the calibration method 'kl'.*'bin'.*did you mean 'bins'"),
        ("minmax:bins=4", "it has none"),
        ("kl:bins=x", "bins"),
        ("kl:bins=1", ">= 128"),
        ("kl:strict=perhaps", "strict"),
        ("percentile:coverage=0.999", "> 50"),
        ("qcode:objective=best", "objective"),
        ("kl:", "kl:option=value"),
        ("kl:bins", "kl:option=value"),
        ("kl:bins=", "kl:option=value"),
        ("kl:bins=512,", "kl:option=value"),
    ],
)
def test_a_wrong_method_is_refused_with_the_choices(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_method(text)


class EntryPoint:
    """What importlib.metadata gives for an entry point."""

    def __init__(self, name, value):
        self.name = name
        self.value = value

    def load(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture
def installed(monkeypatch):
    """A fresh registry that sees the given entry points."""

    def install(*points):
        monkeypatch.setattr("ptq.registry.entry_points", lambda group: points)
        return Registry("calibration method", "ptq.calib", Solver)

    return install


class Other(Solver, frozen=True, tag="other"):
    """From another distribution."""

    paper = "none"
    strength: float = 1.0


class Impostor(Solver, frozen=True, tag="kl"):
    """Takes a taken name."""


class Abstract(Solver, frozen=True):
    """Has no name."""


class Stranger(msgspec.Struct, frozen=True, tag="stranger"):
    """Is no solver."""


def test_other_distributions_add_methods(installed):
    registry = installed(EntryPoint("other", Other))
    assert registry.parse("other:strength=2") == Other(strength=2.0)
    assert set(registry.methods()) == {*solvers(), "other"}


def test_a_class_that_is_merely_defined_is_no_method():
    assert "other" not in solvers()


def test_a_taken_name_is_refused(installed):
    with pytest.raises(ConfigError, match="two distributions offer the calibration method 'kl'"):
        installed(EntryPoint("kl", Impostor)).methods()


@pytest.mark.parametrize("value", [Abstract, Stranger, "text"])
def test_an_entry_point_must_be_a_method(installed, value):
    with pytest.raises(ConfigError, match="'x' is no calibration method"):
        installed(EntryPoint("x", value)).methods()


def test_an_entry_point_that_does_not_load_is_named(installed):
    with pytest.raises(ConfigError, match="'x' does not load"):
        installed(EntryPoint("x", ImportError("gone"))).methods()
