"""Write Fashion-MNIST as samples, and train a small residual network on it.

    apt-get install dataset-fashion-mnist
    python benchmarks/fashion_mnist.py FOLDER [--calib 2048] [--epochs 8]

For `training_methods.py`: FOLDER gets ``calib.npz``, images of the training set without labels,
``eval.npz`` and ``labels.npy``, the test set, and ``model.onnx``: 78 000 weights, in the
architecture of ResNet. Training needs torch; without it, ``--epochs 0`` writes the samples alone.
"""

import argparse
import gzip
import sys
import warnings
from pathlib import Path

import numpy as np

#: Where Debian's package dataset-fashion-mnist puts it.
_SOURCE = Path("/usr/share/datasets/fashion-mnist")

#: Mean and deviation of the pixels of the training set.
_MEAN, _DEVIATION = 0.286, 0.353

_BATCH, _RATE, _DECAY = 128, 0.2, 5e-4


def main() -> None:
    args = _arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    images, labels = read(args.source, "train")
    chosen = np.random.default_rng(args.seed).permutation(len(images))[: args.calib]
    np.savez(args.folder / "calib.npz", input=scaled(images[chosen]))
    held_out, classes = read(args.source, "t10k")
    np.savez(args.folder / "eval.npz", input=scaled(held_out))
    np.save(args.folder / "labels.npy", classes)
    if args.epochs:
        train(images, labels, args.epochs, args.seed, args.folder / "model.onnx")


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 of shape ``(n, 1, 28, 28)``, and classes."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64),
    )


def scaled(images: np.ndarray) -> np.ndarray:
    """Return images as the network takes them."""
    return (images.astype(np.float32) / 255 - _MEAN) / np.float32(_DEVIATION)


def train(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int, output: Path) -> None:
    """Train the network with torch, and write it."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = _network()
    x, y = torch.from_numpy(scaled(images)), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=_RATE, momentum=0.9, weight_decay=_DECAY, nesterov=True
    )
    steps = epochs * (len(x) // _BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for epoch in range(epochs):
        network.train()
        order, total = torch.randperm(len(x)), 0.0
        for rows in order[: len(x) // _BATCH * _BATCH].split(_BATCH):
            batch = x[rows]
            if torch.rand(()) < 0.5:
                batch = batch.flip(-1)
            loss = nn.functional.cross_entropy(network(batch), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            total += float(loss.detach()) / (len(x) // _BATCH)
        print(f"epoch {epoch + 1} of {epochs}: loss {total:.3f}", file=sys.stderr)
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (x[:1],),
            str(output),
            dynamo=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )


def _network():
    from torch import nn

    class Block(nn.Module):
        """Two convolutions, and what goes around them."""

        def __init__(self, read: int, made: int, stride: int) -> None:
            super().__init__()
            self.first = _conv(read, made, 3, stride)
            self.second = _conv(made, made, 3, 1)
            same = read == made and stride == 1
            self.around = nn.Identity() if same else _conv(read, made, 1, stride)

        def forward(self, x):
            inner = self.second(nn.functional.relu(self.first(x)))
            return nn.functional.relu(inner + self.around(x))

    def _conv(read: int, made: int, size: int, stride: int) -> nn.Sequential:
        conv = nn.Conv2d(read, made, size, stride, padding=size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(made))

    return nn.Sequential(
        _conv(1, 16, 3, 1),
        nn.ReLU(),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", type=Path, default=_SOURCE)
    parser.add_argument("--calib", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
