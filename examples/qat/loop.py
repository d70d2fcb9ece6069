"""What both trainers share: a training loop of PyTorch around something that gives gradients.

``ptq qat run`` starts them in a process of their own, with the folder of the job as an argument.
What they print as JSON lines becomes its progress bar.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from ptq.train.data_folder import read_samples
from ptq.train.job import Job, Result

#: Puts gradients into parameters, given rows of the samples, and returns the loss.
Backward = Callable[[dict[str, torch.nn.Parameter], np.ndarray], float]


def main(name: str, make: Callable[[Job, argparse.Namespace], Backward]) -> None:
    """Train the job that the command line names."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=32, help="taken where the graph has no own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    job = Job.open(options.folder)
    trained = fit(job, make(job, options), options)
    job.write(trained, Result(manifest=job.digest, trainer=name, steps=options.steps))


def fit(job: Job, backward: Backward, options: argparse.Namespace) -> Mapping[str, np.ndarray]:
    """Return all parameters of the job after training those that have a gradient."""
    parameters = {
        name: torch.nn.Parameter(torch.from_numpy(array).to(options.device))
        for name, array in job.parameters().items()
    }
    arrays = [a for a in job.manifest.parameters if a.gradient is not None]
    optimizer = torch.optim.Adam(
        [
            {"params": [parameters[a.name]], "lr": options.lr * a.rate, "weight_decay": a.decay}
            for a in arrays
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    positive = [parameters[a.name] for a in arrays if a.positive]
    for step, rows in enumerate(batches(job, options), start=1):
        optimizer.zero_grad()
        loss = backward(parameters, rows)
        before = [p.detach().clone() for p in positive]
        optimizer.step()
        schedule.step()
        for parameter, old in zip(positive, before, strict=True):
            parameter.data = torch.maximum(parameter.data, old / 2)
        line = json.dumps({"step": step, "loss": loss, "steps": options.steps})
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return {name: p.detach().cpu().numpy() for name, p in parameters.items()}


def batches(job: Job, options: argparse.Namespace) -> Iterator[np.ndarray]:
    """Yield the rows of each step, shuffled; a pass through the samples follows another."""
    rows, rng = read_samples(job).rows, np.random.default_rng(options.seed)
    order = np.empty(0, np.int64)
    for _ in range(options.steps):
        while len(order) < options.batch:
            order = np.concatenate([order, rng.permutation(rows)])
        taken, order = order[: options.batch], order[options.batch :]
        yield taken
