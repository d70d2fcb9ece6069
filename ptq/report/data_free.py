"""What ranges rest on where there was no data."""

from __future__ import annotations

import msgspec


class MadeUpInput(msgspec.Struct, frozen=True, kw_only=True):
    """Noise in place of the images of one input.

    Attributes:
        mean: of each channel.
        std: the standard deviation.
        roughness: amplitudes fall with frequency f as ``f^-roughness``.
    """

    mean: tuple[float, ...]
    std: float
    roughness: float


class DataFree(msgspec.Struct, frozen=True, kw_only=True):
    """What ranges rest on where there was no data.

    Attributes:
        batchnorms: how many tell mean and deviation of their channels.
        from_batchnorm: tensors whose range follows from that.
        from_made_up: tensors that were observed on made-up inputs.
        inputs: what the made-up images are like, by input; with ``distilled``, to begin with.
        distilled: whether they were changed until all batchnorms found what they hold.
    """

    batchnorms: int
    from_batchnorm: int
    from_made_up: int
    inputs: dict[str, MadeUpInput]
    distilled: bool = False


def data_free_line(found: DataFree) -> str:
    """Return what to say of it, loudly."""
    made_up = "noise"
    if not found.batchnorms:
        return (
            "NO DATA: the model holds no batch normalization either, so that all ranges rest on "
            f"{made_up} in place of images, and may be far off; give --calib-data as soon as there "
            "are real inputs"
        )
    return (
        f"NO DATA: {found.from_batchnorm} ranges follow from {found.batchnorms} batch "
        f"normalizations, {found.from_made_up} from {made_up} made up to fit "
        f"{'all of them' if found.distilled else 'them'}; accuracy on "
        "real inputs is not known, measure it with --eval-data, or give --calib-data"
    )
