import numpy as np
import pytest

from ptq.errors import ConfigError
from ptq.numerics.qtype import (
    INT2,
    INT4,
    INT8,
    INT8_NARROW,
    INT16,
    UINT2,
    UINT4,
    UINT8,
    UINT16,
    QType,
)

NAMED = [INT2, UINT2, INT4, UINT4, INT8, INT8_NARROW, UINT8, INT16, UINT16]


@pytest.mark.parametrize(
    ("qtype", "qmin", "qmax"),
    [
        (INT8, -128, 127),
        (INT8_NARROW, -127, 127),
        (UINT8, 0, 255),
        (INT4, -8, 7),
        (UINT4, 0, 15),
        (INT2, -2, 1),
        (INT16, -32768, 32767),
        (UINT16, 0, 65535),
        (QType(1, signed=True), -1, 0),
        (QType(1, signed=False), 0, 1),
    ],
)
def test_the_grid_has_the_bounds_of_its_integer_type(qtype, qmin, qmax):
    assert (qtype.qmin, qtype.qmax, qtype.levels) == (qmin, qmax, qmax - qmin + 1)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("signed", [True, False])
def test_storage_holds_every_code_and_is_no_wider_than_needed(bits, signed):
    qtype = QType(bits, signed=signed)
    bounds = np.iinfo(qtype.storage)
    assert bounds.min <= qtype.qmin
    assert qtype.qmax <= bounds.max
    assert qtype.storage.itemsize == (1 if bits <= 8 else 2)


@pytest.mark.parametrize("qtype", NAMED)
def test_parse_reads_what_str_writes(qtype):
    assert QType.parse(str(qtype)) == qtype


def test_the_name_is_that_of_onnx_also_for_a_narrow_grid():
    assert [q.name for q in (UINT4, INT16, INT8_NARROW)] == ["uint4", "int16", "int8"]
    assert str(INT8_NARROW) == "int8_narrow"


@pytest.mark.parametrize("name", ["float32", "int", "int0", "int17", "uint8_narrow", "Int8", ""])
def test_an_unknown_type_is_refused(name):
    with pytest.raises(ConfigError):
        QType.parse(name)


def test_a_narrow_grid_must_be_signed_and_have_two_bits():
    with pytest.raises(ConfigError, match="narrow"):
        QType(1, signed=True, narrow=True)
