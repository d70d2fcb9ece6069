"""Train a job of `ptq qat export` with PyTorch alone: `forward.onnx` as a module of it.

The quantizers are functions of standard operators, and of two that only training knows:
StraightThrough(x, q) is q, with the gradient of x, and StopGradient(x) is x, without one.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import onnx2fx
import onnx_ir as ir
import torch
from loop import Backward, main
from onnx_ir.passes.common import InlinePass
from torch.nn import functional

from ptq.train.data_folder import read_samples
from ptq.train.job import Job

#: Rows by which the signal of the outputs is measured.
_MEASURED = 256


class StraightThrough(torch.autograd.Function):
    """A value in the forward pass, the gradient of another one."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """Return q."""
        return q.clone()

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Pass the gradient on to x."""
        return grad, None


def straight_through(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return q, with the gradient of x."""
    return StraightThrough.apply(x, q)


@onnx2fx.register_op("StraightThrough", domain="ptq")
def _straight_through(builder, node):  # noqa: ANN001, ANN202 - onnx2fx has no public types
    x, q = (builder.get_value(name) for name in node.input)
    return builder.call_function(straight_through, args=(x, q))


@onnx2fx.register_op("StopGradient", domain="ptq")
def _stop_gradient(builder, node):  # noqa: ANN001, ANN202 - as above
    return builder.call_function(torch.Tensor.detach, args=(builder.get_value(node.input[0]),))


def clip(
    x: torch.Tensor, lo: torch.Tensor | None = None, hi: torch.Tensor | None = None
) -> torch.Tensor:
    """Return values clipped; at a bound the gradient is the bound's, where clamp() gives it to x.

    It matters: the largest weight of a layer lies just at the end of its grid.
    """
    if lo is not None:
        x = torch.where(x > lo, x, lo)
    return x if hi is None else torch.where(x < hi, x, hi)


@onnx2fx.register_op("Clip", since_version=11)
def _clip(builder, node):  # noqa: ANN001, ANN202 - as above
    values = (builder.get_value(name) if name else None for name in node.input)
    return builder.call_function(clip, args=tuple(values))


def module_of(job: Job) -> tuple[torch.nn.Module, list[str], list[str]]:
    """Return ``forward.onnx`` as a module, with the names of its inputs and outputs."""
    model = ir.load(job.path("forward.onnx"))
    # what onnx2fx does not know are functions; they are gone but for the two above
    InlinePass(criteria=lambda f: f.name not in ("StraightThrough", "StopGradient"))(model)
    model.functions.clear()
    proto = ir.serde.serialize_model(model)
    inputs = [value.name for value in proto.graph.input]
    outputs = [value.name for value in proto.graph.output]
    return onnx2fx.convert(onnx.ModelProto.FromString(proto.SerializeToString())), inputs, outputs


def loss_of(job: Job, found: torch.Tensor, wanted: torch.Tensor, signal: float) -> torch.Tensor:
    """Return how far an output is from what the float model puts out."""
    kind, t = job.manifest.loss.kind, job.manifest.loss.temperature
    chances = bool((found >= 0).all()) and torch.allclose(found.sum(-1), torch.ones(()), atol=1e-3)
    if kind == "mse" or (kind == "auto" and not chances):
        return functional.mse_loss(found, wanted) / signal
    if chances:
        # the target is the scores before the softmax; what it makes of the logarithm is the same
        found = found.clamp_min(1e-30).log()
    logs, aim = (functional.log_softmax(x / t, -1).flatten(0, -2) for x in (found, wanted))
    return t**2 * functional.kl_div(logs, aim, reduction="batchmean", log_target=True)


def make(job: Job, options: argparse.Namespace) -> Backward:
    """Return what runs the module forwards and backwards."""
    manifest, samples = job.manifest, read_samples(job)
    if manifest.labels is not None:
        raise SystemExit("this example trains without labels; take with_onnxruntime.py")
    if any(a.becomes is not None for a in manifest.parameters):
        raise SystemExit("this example does not know states; take with_onnxruntime.py")
    module, inputs, outputs = module_of(job)
    module.to(options.device)
    options.batch = manifest.batch  # shapes in the model may be those of its batch
    targets = [a.name for a in manifest.targets]
    signals = {name: float(np.square(samples.targets[name][:_MEASURED]).mean()) for name in targets}

    def backward(parameters: dict[str, torch.nn.Parameter], rows: np.ndarray) -> float:
        feed = {n: torch.from_numpy(a).to(options.device) for n, a in samples.feed(rows).items()}
        found = module(*({**feed, **parameters}[name] for name in inputs))
        found = (found,) if isinstance(found, torch.Tensor) else found
        by_name = dict(zip(outputs, found, strict=True))
        terms = [
            loss_of(job, by_name[name], feed[target], signals[target])
            for name, target in zip(manifest.outputs, targets, strict=True)
        ]
        loss = torch.stack(terms).mean()
        loss.backward()
        return loss.item()

    return backward


if __name__ == "__main__":
    main("with_torch", make)
