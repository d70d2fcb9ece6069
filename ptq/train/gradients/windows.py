"""Where the windows of a convolution or a pooling lie, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import onnx_ir as ir

from ptq.train.gradients.base import Backward
from ptq.train.tape import Tape


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows over an image; each tuple has a number for every spatial axis.

    Attributes:
        size: of the image.
        out: how many windows there are.
        kernel: how many elements a window reads.
        strides: from one window to the next.
        dilations: from one element of a window to the next.
        begin: how far the first window begins before the image.
    """

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """From the first element of a window to behind the last one."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def end(self) -> tuple[int, ...]:
        """How far the last window ends behind the image; below zero if before its end."""
        rows = zip(self.out, self.strides, self.extent, self.begin, self.size, strict=True)
        return tuple((o - 1) * s + e - b - n for o, s, e, b, n in rows)

    @property
    def axes(self) -> range:
        """The spatial axes of a tensor of (samples, channels, …)."""
        return range(2, 2 + len(self.kernel))

    @property
    def taps(self) -> list[tuple[int, ...]]:
        """The elements of a window, in the order in which a kernel lies in memory."""
        return list(product(*(range(k) for k in self.kernel)))

    def padded(self, tape: Tape, x: ir.Value, filler: float = 0.0) -> ir.Value:
        """Return an image that the windows are wholly in, and which begins with the first."""
        after = [max(e, 0) for e in self.end]
        if not any(self.begin) and not any(after):
            return x
        return tape.op("Pad", x, [0, 0, *self.begin, 0, 0, *after], filler)

    def tap(self, tape: Tape, padded: ir.Value, tap: tuple[int, ...]) -> ir.Value:
        """Return one element of every window of a padded image, of the shape of the windows."""
        starts = [t * d for t, d in zip(tap, self.dilations, strict=True)]
        rows = zip(starts, self.out, self.strides, strict=True)
        stops = [a + (o - 1) * s + 1 for a, o, s in rows]
        after = [max(e, 0) for e in self.end]
        whole = [b + n + a for b, n, a in zip(self.begin, self.size, after, strict=True)]
        if not any(starts) and stops == whole and set(self.strides) == {1}:
            return padded
        return tape.op("Slice", padded, starts, stops, list(self.axes), list(self.strides))


def windows_of(
    at: Backward, kernel: Sequence[int], size: Sequence[int], out: Sequence[int]
) -> Windows:
    """Return the windows of an operator with the attributes of Conv.

    Args:
        at: the operator.
        kernel: of its windows.
        size: of the image that the windows are on.
        out: how many there are.
    """
    ones = [1] * len(kernel)
    strides, dilations = at.integers("strides", ones), at.integers("dilations", ones)
    auto_pad = at.text("auto_pad", "NOTSET")
    begin = at.integers("pads", [0] * 2 * len(kernel))[: len(kernel)]
    if auto_pad == "VALID":
        begin = [0] * len(kernel)
    elif auto_pad != "NOTSET":
        rows = zip(out, strides, dilations, kernel, size, strict=True)
        totals = [max((o - 1) * s + d * (k - 1) + 1 - n, 0) for o, s, d, k, n in rows]
        begin = [t // 2 if auto_pad == "SAME_UPPER" else (t + 1) // 2 for t in totals]
    six = (size, out, kernel, strides, dilations, begin)
    return Windows(*(tuple(int(n) for n in numbers) for numbers in six))
