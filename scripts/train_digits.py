"""Train the small CNN of tests/models on scikit-learn's digits and write it as ONNX.

Needs, besides the dev extra, torch==2.13.0 (the CPU build is enough; 20 seconds on one core):

    pip install torch==2.13.0
    python scripts/train_digits.py

Writes digits_cnn.onnx, digits_calib.npz and digits_eval.npz into tests/models. Seeds are fixed and
torch runs on one thread, so a second run on the same kind of CPU gives the same bytes.

The graph is written node by node from the trained weights rather than exported: an exporter folds
BatchNormalization away, and the tests need it there.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

SEED = 0
EPOCHS = 60
BATCH = 64
HELD_OUT = 597  # of 1797 images; never trained on, never calibrated with
CALIBRATION = 128  # taken from the training images
# Pixels are 0..16. Mean and standard deviation over the training images, rounded.
MEAN, STD = 0.3, 0.38


class Graph:
    """Nodes and initializers in order, with names taken from the layers."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def constant(self, name, value):
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op_type, name, inputs, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name


def conv(cin, cout, kernel, stride=1, groups=1):
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)


class ConvNorm(nn.Module):
    """Conv without bias, BatchNorm, and an activation: ``relu6``, ``relu`` or none."""

    def __init__(self, name, conv, act="relu6"):
        super().__init__()
        self.name, self.conv, self.act = name, conv, act
        self.norm = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return {"relu6": functional.relu6, "relu": functional.relu, None: lambda v: v}[self.act](y)

    def emit(self, graph, x):
        conv, norm = self.conv, self.norm
        weight = graph.constant(f"{self.name}.conv.weight", conv.weight)
        y = graph.node(
            "Conv",
            f"{self.name}.conv",
            [x, weight],
            kernel_shape=conv.kernel_size,
            strides=conv.stride,
            pads=conv.padding * 2,
            dilations=conv.dilation,
            group=conv.groups,
        )
        parameters = {
            "scale": norm.weight,
            "bias": norm.bias,
            "mean": norm.running_mean,
            "var": norm.running_var,
        }
        inputs = [graph.constant(f"{self.name}.bn.{k}", v) for k, v in parameters.items()]
        y = graph.node("BatchNormalization", f"{self.name}.bn", [y, *inputs], epsilon=norm.eps)
        if self.act == "relu6":
            return graph.node("Clip", f"{self.name}.relu6", [y, "zero", "six"])
        if self.act == "relu":
            return graph.node("Relu", f"{self.name}.relu", [y])
        return y


class Bottleneck(nn.Module):
    """MobileNetV2's inverted residual: expand 1x1, depthwise 3x3, project 1x1, add."""

    def __init__(self, name, cin, cout, expand, stride=1):
        super().__init__()
        self.name, self.residual = name, stride == 1 and cin == cout
        self.expand = ConvNorm(f"{name}.expand", conv(cin, expand, 1))
        depthwise = conv(expand, expand, 3, stride, groups=expand)
        self.depthwise = ConvNorm(f"{name}.depthwise", depthwise)
        self.project = ConvNorm(f"{name}.project", conv(expand, cout, 1), act=None)

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y

    def emit(self, graph, x):
        y = self.project.emit(graph, self.depthwise.emit(graph, self.expand.emit(graph, x)))
        return graph.node("Add", f"{self.name}.add", [x, y]) if self.residual else y


class Digits(nn.Module):
    """40 thousand parameters, 8x8 pixels in, 10 logits out."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm("stem", conv(1, 16, 3)),
            Bottleneck("block1", 16, 16, 64),
            Bottleneck("block2", 16, 32, 64, stride=2),
            Bottleneck("block3", 32, 32, 128),
            ConvNorm("dense", conv(32, 48, 3), act="relu"),
            ConvNorm("head", conv(48, 64, 1)),
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        return self.classifier(self.body(x).mean((2, 3)))

    def emit(self):
        graph = Graph()
        graph.constant("zero", np.float32(0))
        graph.constant("six", np.float32(6))
        x = "input"
        for layer in self.body:
            x = layer.emit(graph, x)
        x = graph.node("GlobalAveragePool", "pool", [x])
        x = graph.node("Flatten", "flatten", [x], axis=1)
        weight = graph.constant("classifier.weight", self.classifier.weight)
        bias = graph.constant("classifier.bias", self.classifier.bias)
        graph.node("Gemm", "logits", [x, weight, bias], transB=1)
        return helper.make_model(
            helper.make_graph(
                graph.nodes,
                "digits",
                [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
                [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
                graph.initializers,
            ),
            opset_imports=[helper.make_opsetid("", 13)],
            ir_version=8,
            producer_name="ptq-train-digits",
        )


def split():
    """Return (train images, train labels, held-out images, held-out labels)."""
    digits = load_digits()
    images = ((digits.images[:, None] / 16 - MEAN) / STD).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(images))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    return images[train], labels[train], images[held_out], labels[held_out]


def shifted(x):
    """Move every image by up to one pixel in each direction; what comes in is background."""
    padded = functional.pad(x, (1, 1, 1, 1), value=-MEAN / STD)
    moves = torch.randint(0, 3, (len(x), 2)).tolist()
    return torch.stack(
        [image[:, i : i + 8, j : j + 8] for image, (i, j) in zip(padded, moves, strict=True)]
    )


def train(model, images, labels):
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
            logits = model(shifted(x[batch]))
            loss = functional.cross_entropy(logits, y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent.parent / "tests" / "models"
    parser.add_argument("-o", "--out", type=Path, default=default)
    out = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    images, labels, eval_images, eval_labels = split()
    model = train(Digits(), images, labels)
    with torch.no_grad():
        accuracy = (model(torch.from_numpy(eval_images)).argmax(1).numpy() == eval_labels).mean()
    proto = model.emit()
    onnx.checker.check_model(proto, full_check=True)
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, out / "digits_cnn.onnx")
    np.savez_compressed(out / "digits_calib.npz", input=images[:CALIBRATION])
    np.savez_compressed(out / "digits_eval.npz", input=eval_images, labels=eval_labels)
    print(f"held-out accuracy {accuracy:.4f} on {len(eval_labels)} images")


if __name__ == "__main__":
    main()
