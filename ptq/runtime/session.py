"""Open onnxruntime sessions with one set of settings, and say clearly when one does not open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import DataError, VerificationError

Optimization = Literal["disabled", "basic", "extended", "all"]


class Value(Protocol):
    """What onnxruntime tells about an input or an output."""

    name: str
    type: str
    shape: Sequence[int | str | None]


class Session(Protocol):
    """The part of `onnxruntime.InferenceSession` that `ptq` uses."""

    def get_inputs(self) -> Sequence[Value]:
        """Return the inputs in order, without those that have a value."""

    def get_outputs(self) -> Sequence[Value]:
        """Return the outputs in order."""

    def run(self, outputs: Sequence[str] | None, feed: Feed) -> Sequence[np.ndarray]:
        """Return the outputs of that name, or all, for one feed."""

    def end_profiling(self) -> str:
        """Close the profile of a session that keeps one, and return its file."""


def open_session(
    model: bytes | Path,
    *,
    threads: int = 1,
    optimization: Optimization = "all",
    folder: Path | None = None,
    optimized: Path | None = None,
    profile: Path | None = None,
) -> Session:
    """Return a session on the CPU.

    Args:
        model: a model file, or its bytes.
        threads: threads within an operator; they do not spin while they wait, because two
            spinning sessions on one machine slow each other down by half.
        optimization: how far onnxruntime may rewrite the graph; ``all`` is what users run.
        folder: where the external data of a model given as bytes lies.
        optimized: where to write the graph as onnxruntime rewrote it; large constants go beside
            it, into a file of that name and ``.data``.
        profile: keep a profile of every run, in a file whose name begins like this.

    Raises:
        VerificationError: onnxruntime refuses the model.
    """
    import onnxruntime as ort

    levels = {
        "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = levels[optimization]
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(folder))
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        # in one file, a graph of more than 2 GB cannot be written
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, f"{optimized.name}.data")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    source = str(model) if isinstance(model, Path) else model
    try:
        session: Session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no other base
        raise VerificationError(f"onnxruntime does not load the model: {_first(error)}") from error
    return session


def run(
    session: Session,
    feed: Feed,
    outputs: Sequence[str] | None = None,
    *,
    where: str = "the feed",
) -> list[np.ndarray]:
    """Run the model on one feed.

    Args:
        session: an open session.
        feed: one array per input.
        outputs: names of the outputs wanted, all of them if ``None``; may not be empty.
        where: what the feed is called in an error.

    Raises:
        DataError: onnxruntime fails on this feed.
    """
    try:
        return list(session.run(outputs, feed))
    except Exception as error:  # as above
        raise DataError(f"onnxruntime fails on {where}: {_first(error)}") from error


def _first(error: Exception) -> str:
    """The first line of an onnxruntime message, without its numeric prefix."""
    text = str(error).strip().split("\n")[0]
    return text.rsplit("[ONNXRuntimeError] : ", 1)[-1]
