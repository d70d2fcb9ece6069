"""Matching the arrays in a file to the inputs of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ptq.data.feeds import LABEL_KEYS, InputSpec, Notice


def match_keys(keys: Iterable[str], inputs: Sequence[InputSpec], notice: Notice) -> dict[str, str]:
    """Return which input each array is for, as key -> input name.

    A key is the name of its input. Labels are left out. A single array for the single input of a
    model may have any name, as `numpy.savez` calls its positional arguments ``arr_0``; that is
    noted. Other keys stay as they are, for `check_feed` to complain about.
    """
    wanted = [spec.name for spec in inputs]
    arrays = [key for key in keys if key in wanted or key not in LABEL_KEYS]
    if len(wanted) == len(arrays) == 1 and arrays != wanted:
        notice(f"array '{arrays[0]}' is taken for the only input, '{wanted[0]}'")
        return {arrays[0]: wanted[0]}
    return {key: key for key in arrays}
