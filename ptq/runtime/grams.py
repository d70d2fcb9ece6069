"""Run a quantized model over feeds and sum up products of what its layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import CalibrationError
from ptq.graph.layer_inputs import LayerInput, LayerInputs
from ptq.numerics.arrays import F32, AnyArray
from ptq.numerics.patches import Window, patches, rows_of
from ptq.runtime.session import open_session, run
from ptq.stats.gram import Gram

#: Vectors of each layer taken from one feed: neighbouring ones are alike.
_VECTORS = 1024

#: The same where every channel is a group: its matrix is small.
_VECTORS_OF_GROUPS = 256


def grams(
    tapped: LayerInputs,
    feeds: Iterable[Feed],
    folder: Path,
    *,
    threads: int = 1,
    on_feed: Callable[[], None] = lambda: None,
) -> dict[str, tuple[Gram, Gram]]:
    """Return the sums over every other feed, from the first and from the second, by weight.

    A weight that several layers multiply by gets what all of them read. The memory is that of the
    sums and of one feed.

    Args:
        tapped: what to run.
        feeds: the data.
        folder: where external data lies.
        threads: within an operator.
        on_feed: called after each feed.

    Raises:
        CalibrationError: a layer reads NaN or infinity.
        DataError: onnxruntime fails on a feed.
    """
    if not tapped.layers:
        return {}
    session = open_session(tapped.model, threads=threads, folder=folder)
    wanted = list(dict.fromkeys(layer.output for layer in tapped.layers))
    # layers that read the same in the same way have the same sums
    alike: dict[tuple[str, Window | None], list[LayerInput]] = {}
    for layer in tapped.layers:
        alike.setdefault((layer.output, layer.window), []).append(layer)
    halves: tuple[dict[str, Gram], dict[str, Gram]] = ({}, {})
    for i, feed in enumerate(feeds):
        given = {name: feed[name] for name in tapped.inputs}
        found = dict(
            zip(wanted, run(session, given, wanted, where="a calibration sample"), strict=True)
        )
        half = halves[i % 2]
        for layers in alike.values():
            gram = Gram.of(_vectors(layers[0], found[layers[0].output]))
            if not np.isfinite(gram.sums).all():
                raise CalibrationError(
                    f"tensor '{layers[0].output}' takes a NaN or infinite value in sample {i}; "
                    "check preprocessing"
                )
            for layer in layers:
                before = half.get(layer.weight)
                half[layer.weight] = gram if before is None else before + gram
        on_feed()
    first, second = halves
    return {weight: (gram, second.get(weight, gram)) for weight, gram in first.items()}


def _vectors(layer: LayerInput, codes: AnyArray) -> F32:
    centred = codes
    if layer.zero_point is not None:
        centred = codes.astype(np.int16) - np.int16(layer.zero_point)
    if layer.window is None:
        return rows_of(centred, _VECTORS)
    most = _VECTORS if layer.window.groups == 1 else _VECTORS_OF_GROUPS
    return patches(centred, layer.window, most)
