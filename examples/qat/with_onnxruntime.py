"""Train a job of `ptq qat export` with an optimizer of PyTorch, and gradients of onnxruntime."""

from __future__ import annotations

import argparse

import numpy as np
import onnxruntime
import torch
from loop import Backward, main

from ptq.train.data_folder import read_samples
from ptq.train.job import Job


def make(job: Job, options: argparse.Namespace) -> Backward:
    """Return what runs ``train.onnx``, which puts out the loss and its gradients."""
    options.batch = job.manifest.batch  # the graph takes no other
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        job.path("train.onnx"), settings, providers=["CPUExecutionProvider"]
    )
    arrays, samples = job.manifest.parameters, read_samples(job)
    outputs = {a.name: a.gradient for a in arrays if a.gradient is not None}
    states = {a.name: a.becomes for a in arrays if a.becomes is not None}

    def backward(parameters: dict[str, torch.nn.Parameter], rows: np.ndarray) -> float:
        feed = samples.feed(rows)
        if job.manifest.labels is not None and samples.labels is not None:
            feed[job.manifest.labels] = samples.labels[rows]
        feed |= {name: p.detach().cpu().numpy() for name, p in parameters.items()}
        loss, *found = session.run(["loss", *outputs.values(), *states.values()], feed)
        for name, array in zip((*outputs, *states), found, strict=True):
            tensor = torch.from_numpy(np.array(array)).to(parameters[name].device)
            if name in outputs:
                parameters[name].grad = tensor
            else:
                parameters[name].data = tensor
        return float(loss)

    return backward


if __name__ == "__main__":
    main("with_onnxruntime", make)
