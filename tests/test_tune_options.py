"""What the options of `ptq tune` mean."""

import pytest

from ptq.errors import ConfigError
from ptq.tune_options import TuneOptions, seconds_of, size_ratio


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90), ("10m", 600), ("1h", 3600), ("0.5h", 1800), ("45", 45), (45, 45), (1.5, 1.5),
     (" 2 m ", 120), (".5m", 30)],
)  # fmt: skip
def test_a_budget_is_a_time(given, seconds):
    assert seconds_of(given) == seconds


@pytest.mark.parametrize(
    "given", ["", "10 minutes", "-5s", "0", "0m", "1h30m", "ten", "nan", "1e3"]
)
def test_what_is_no_time_is_refused(given):
    with pytest.raises(ConfigError, match="write 90s, 10m or 1h"):
        seconds_of(given)


@pytest.mark.parametrize(
    ("given", "part"),
    [("30%", 0.3), ("0.3", 0.3), (0.3, 0.3), ("5MB", 0.5), ("500 kB", 0.05), ("2.5MB", 0.25),
     ("1GB", 100.0), ("10B", 1e-6)],
)  # fmt: skip
def test_a_size_is_a_part_of_the_float_models(given, part):
    assert size_ratio(given, 10_000_000) == pytest.approx(part, rel=1e-12)


@pytest.mark.parametrize("given", ["0", "0MB", "-1MB", "5mb", "big", "nan"])
def test_what_is_no_size_is_refused(given):
    with pytest.raises(ConfigError, match="--max-size"):
        size_ratio(given, 10_000_000)


def test_limits_are_as_they_were_given():
    options = TuneOptions(max_drop="0.5%", min_speedup=1.5, max_size="5MB")
    assert options.limits() == {
        "--max-drop": "0.5%",
        "--min-speedup": "1.5",
        "--max-size": "5MB",
    }
    limits = options.thresholds(10_000_000)
    assert (limits.max_drop.value, limits.min_speedup, limits.max_size_ratio) == (0.005, 1.5, 0.5)
    assert TuneOptions().limits() == {"--max-drop": "1%"}
