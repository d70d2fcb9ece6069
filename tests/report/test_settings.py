"""The settings of a run as TOML."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from ptq.config import Override, QuantizeConfig
from ptq.report.settings import settings_text


def test_settings_are_toml_and_say_what_is_the_default():
    config = QuantizeConfig(calib="mse", weights_symmetric=False, exclude=("/head/*",))
    text = settings_text(config)
    table = tomllib.loads(text)["quantize"]
    assert (table["calib"], table["symmetric-weights"]) == ("mse", False)
    assert table["exclude"] == ["/head/*"]
    assert "op-types" not in table, "it is empty"
    [calib] = [line for line in text.splitlines() if line.startswith("calib ")]
    [scheme] = [line for line in text.splitlines() if line.startswith("scheme ")]
    assert "default" not in calib and scheme.endswith("# default")


def test_overrides_are_tables_of_their_own():
    config = QuantizeConfig(
        overrides=(Override(match="/a*", float=True), Override(op="Gemm", bits=8))
    )
    tables = tomllib.loads(settings_text(config))["quantize"]["override"]
    assert tables[0]["match"] == "/a*" and tables[0]["float"] is True
    assert tables[1]["op"] == "Gemm" and tables[1]["bits"] == 8


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_whatever_the_names_are_they_can_be_read_back(names):
    text = settings_text(QuantizeConfig(exclude=tuple(names)))
    assert tomllib.loads(text)["quantize"]["exclude"] == names
    assert all(c.isprintable() or c == "\n" for c in text)
