"""What a training job is: the contract between `ptq qat export`, a trainer, and `ptq qat import`.

A job is a folder. What a trainer has to know is in ``manifest.json``; docs/training.md describes
the contract for authors of trainers.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ptq.train.fakequant.base import Role

#: Raised whenever the contract changes in a way that a trainer has to know.
VERSION = 1

#: Kullback-Leibler divergence from the float model; squared error of outputs as a share of their
#: signal; the one of outputs behind a softmax and the other of the rest; that and the squared
#: error of what blocks put out; cross entropy of labels.
LossKind = Literal["kl", "mse", "auto", "layers", "labels"]

#: The input that takes class numbers, and the array of a held-out feed that holds them.
LABELS = "labels"

#: The files of a job.
MANIFEST = "manifest.json"
MODEL = "model.onnx"  # the user's float model
TEACHER = "teacher.onnx"  # puts out what is aimed at
FORWARD = "forward.onnx"  # the quantizers are functions
TRAIN = "train.onnx"  # standard operators: the loss, and its gradients
EVAL = "eval.onnx"  # standard operators: the outputs and the loss, of batches of any size
PARAMETERS = "params.npz"  # first values of what is trained
HELD_OUT = "held_out.npz"  # feeds on which the result is judged
STATISTICS = "statistics.npz"  # what calibration observed
TRAINED = "params.out.npz"  # what a trainer writes
RESULT = "result.json"  # likewise
CHECKPOINT = "params.ckpt.npz"  # what the built-in trainer goes on from


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """An input of the training graph.

    Attributes:
        name: of it.
        shape: with the batch size.
        dtype: its numpy name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


class TrainedArray(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter: an input of ``train.onnx`` and ``eval.onnx``, and an array of ``params.npz``.

    Attributes:
        name: of it.
        shape: float32.
        role: what it is.
        rate: what the learning rate is multiplied by.
        decay: the factor of its own L2 term: ``decay * p`` is added to its gradient.
        positive: whether it has to stay above 0.
        gradient: the output of ``train.onnx`` that is its gradient; ``None`` if it is not trained.
        becomes: the output that it is set to after each step, for a state.
        site: the tensor or node that it belongs to.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    site: str
    rate: float = 1.0
    decay: float = 0.0
    positive: bool = False
    gradient: str | None = None
    becomes: str | None = None


class Untrained(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter that stays as it is, because an operator after it cannot be differentiated.

    Attributes:
        name: of it.
        node: the operator.
        op_type: its type.
        reason: why.
    """

    name: str
    node: str
    op_type: str
    reason: str


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What is made small.

    Attributes:
        kind: which loss.
        temperature: by which class scores are divided, of a divergence.
    """

    kind: LossKind = "auto"
    temperature: float = 2.0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A training job.

    Attributes:
        version: of the contract.
        ptq: the version that wrote it.
        method: how it is quantized, with options.
        weight_bits: width of the weights.
        activation_bits: width of the activations.
        batch: how many samples a run of ``train.onnx`` takes.
        inputs: the data, inputs of all graphs; those of ``eval.onnx`` may take other batches.
        targets: further inputs of ``train.onnx``: what ``teacher.onnx`` puts out, in its order.
        labels: the input of ``train.onnx`` that takes class numbers, if it does.
        loss: what is made small; the output ``loss`` of ``train.onnx``, a mean over the batch.
        outputs: the network's outputs, which ``train.onnx`` and ``eval.onnx`` put out, too.
        parameters: what is trained.
        untrained: what cannot be.
        sha256: digest of each file of the job, by name.
        config: the settings of the quantization.
        variants: which of several equal ways gradients are computed, by what they are of.
        keep_float: nodes of the model that stay in float though they could be integer.
    """

    ptq: str
    method: str
    weight_bits: int
    activation_bits: int
    batch: int
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    loss: Loss
    outputs: tuple[str, ...]
    parameters: tuple[TrainedArray, ...]
    untrained: tuple[Untrained, ...]
    sha256: dict[str, str]
    config: dict[str, object]
    variants: dict[str, str] = {}
    keep_float: tuple[str, ...] = ()
    labels: str | None = None
    version: int = VERSION
