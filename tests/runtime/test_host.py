"""This machine is told from others by what it computes, and its caches by what times depend on."""

import platform
import re
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
from support.cli import environment
from support.models import parse

from ptq.runtime import host
from ptq.targets import load_target, target_names

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 25
model\t\t: 17
model name\t: Imaginary(R) CPU @ 3.00GHz
cpu MHz\t\t: 2999.998
flags\t\t: fpu avx2 fma
bugs\t\t:

processor\t: 1
model name\t: Other CPU
flags\t\t: fpu
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimddp i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


@pytest.fixture
def described(tmp_path, monkeypatch):
    """Let the machine be described by a text, or not at all."""

    def describe(text):
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(host, "_CPUINFO", path)
        for cached in (host.host_key, host.cpu_flags):
            cached.cache_clear()

    yield describe
    monkeypatch.undo()
    for cached in (host.host_key, host.cpu_flags, host.host_target):
        cached.cache_clear()


# -- the target ------------------------------------------------------------------------------------


def test_the_machine_has_a_target():
    assert host.host_target() in target_names()
    assert load_target(host.host_target()).runtime == "onnxruntime"


def test_it_is_one_that_saturates_if_a_convolution_here_does():
    """MatMulInteger was asked; a QLinearConv must answer alike."""
    model = parse(
        """g (uint8[1, 16, 1, 1] x) => (uint8[1, 16, 1, 1] y)
        <int8[16, 16, 1, 1] w, float s, uint8 z, int8 wz, float ys> {
            y = QLinearConv (x, s, z, w, s, wz, ys, z)
        }""",
        {"w": np.full((16, 16, 1, 1), 127, np.int8), "s": np.ones((), np.float32)}
        | {"z": np.zeros((), np.uint8), "wz": np.zeros((), np.int8)}
        | {"ys": np.array(4096, np.float32)},
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [y] = session.run(None, {"x": np.full((1, 16, 1, 1), 255, np.uint8)})
    exact = np.all(y == np.rint(255 * 127 * 16 / 4096))
    saturates = load_target(host.host_target()).ops["Conv"].saturates
    assert saturates == (not exact)


@pytest.mark.parametrize(
    ("machine", "saturates", "name"),
    [
        ("x86_64", True, "ort-cpu-x86-avx2"),
        ("AMD64", False, "ort-cpu-x86-vnni"),
        ("aarch64", False, "ort-cpu-arm64"),
        ("arm64", False, "ort-cpu-arm64"),
    ],
)
def test_what_each_machine_is_called(described, monkeypatch, machine, saturates, name):
    described(None)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(host, "_saturates", lambda: saturates)
    host.host_target.cache_clear()
    assert host.host_target() == name


# -- the key ---------------------------------------------------------------------------------------


def test_the_key_is_a_file_name_and_does_not_name_the_machine():
    key = host.host_key()
    assert re.fullmatch(r"[a-z0-9.-]+", key)
    assert len(key) < 200
    assert platform.node().lower() not in key
    assert key.endswith(ort.__version__)


def test_another_process_finds_the_same_key():
    code = "from ptq.runtime.host import host_key; print(host_key())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment(PYTHONHASHSEED="7"),
    )
    assert found.stdout.strip() == host.host_key()


def test_flags_and_model_are_those_of_the_first_processor(described):
    described(X86)
    assert host.cpu_flags() == {"fpu", "avx2", "fma"}
    assert host.cpu_model() == "Imaginary(R) CPU @ 3.00GHz 25 17"


def test_an_arm_processor_is_known_by_its_numbers(described):
    described(ARM)
    assert host.cpu_flags() == {"fp", "asimd", "asimddp", "i8mm"}
    assert host.cpu_model() == "0x41 0x1 0xd40"


def test_the_key_depends_on_model_and_flags_and_on_nothing_else(described):
    keys = []
    changes = [("", ""), ("2999.998", "1234.5"), ("Imaginary", "Real"), ("fma", "avx_vnni")]
    for old, new in changes:
        described(X86.replace(old, new))
        keys.append(host.host_key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_the_order_of_the_flags_does_not_matter(described):
    described(X86)
    key = host.host_key()
    described(X86.replace("fpu avx2 fma", "fma fpu avx2"))
    assert host.host_key() == key


def test_without_such_a_file_there_are_no_flags_but_a_key(described):
    described(None)
    assert host.cpu_flags() == frozenset()
    assert re.fullmatch(r"[a-z0-9.-]+", host.host_key())
