"""This machine: what its onnxruntime does, found by asking it, and a key for caches of timings."""

from __future__ import annotations

import hashlib
import platform
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq.graph.save import to_bytes
from ptq.runtime.session import open_session

_ARM = ("aarch64", "arm64")

_CPUINFO = Path("/proc/cpuinfo")

#: What /proc/cpuinfo calls the model: a name, which virtual machines may cut short, and numbers.
_MODEL = ("model name", "cpu family", "model", "CPU implementer", "CPU variant", "CPU part")

#: What it calls the instruction sets, on x86 and on Arm.
_FLAGS = ("flags", "Features")


@cache
def host_target() -> str:
    """Return the name of the target that describes this machine.

    On x86 one product is computed whose sum of two overflows int16: CPUs without VNNI saturate.
    """
    if platform.machine().lower() in _ARM:
        return "ort-cpu-arm64"
    return "ort-cpu-x86-avx2" if _saturates() else "ort-cpu-x86-vnni"


@cache
def host_key() -> str:
    """Return what timings depend on, as a file name: the CPU, its instructions, onnxruntime.

    Machines of one kind have the same key; nothing in it tells them apart.
    """
    flags = hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()[:12]
    return f"{_slug(cpu_model())}-{flags}-onnxruntime-{_slug(version('onnxruntime'))}"


@cache
def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of the CPU as Linux names them, such as ``avx2``.

    Elsewhere than on Linux they are not known: then the set is empty.
    """
    info = _cpuinfo()
    return frozenset(word for key in _FLAGS for word in info.get(key, "").split())


def cpu_model() -> str:
    """Return what the CPU is called: its name, or its numbers where it has none."""
    info = _cpuinfo()
    known = [info[key] for key in _MODEL if key in info]
    return " ".join(known) or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """Return what Linux tells about the first processor; nothing where there is no such file."""
    if not _CPUINFO.is_file():
        return {}
    first = _CPUINFO.read_text(encoding="utf-8", errors="replace").strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _saturates() -> bool:
    codes = ir.Value(name="x", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([1, 2]))
    weight = ir.tensor(np.full((2, 16), 127, np.int8), name="w")
    graph = ir.Graph(inputs=[codes], outputs=[], nodes=[], opset_imports={"": 21}, name="probe")
    value = ir.Value(name="w", const_value=weight)
    graph.register_initializer(value)
    node = ir.node("MatMulInteger", [codes, value])
    node.outputs[0].name, node.outputs[0].dtype = "y", ir.DataType.INT32
    graph.append(node)
    graph.outputs.append(node.outputs[0])
    session = open_session(to_bytes(ir.Model(graph, ir_version=10)))
    product = session.run(None, {"x": np.full((1, 2), 255, np.uint8)})[0]
    return bool(product[0, 0] != 2 * 255 * 127)
