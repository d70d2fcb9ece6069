"""Which methods are measured on which models: options of `ptq quantize`, from the registries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ptq.block_methods import BLOCK_METHODS
from ptq.calib import solvers
from ptq.report.literature import systems
from ptq.rounders import ROUNDERS
from ptq.weights import weight_quantizers

SECTIONS = ("weights", "rounding", "activations", "weight-only", "systems")

#: Small enough for everything; the first has labels.
SMALL = ("digits_cnn", "fm_mbv2", "ppocr_cls")

#: Large, for 4 bits.
LARGE = "effnet_lite0"

#: Those on which roundings, which take long, are measured with 4 bits only.
SLOW = ("ppocr_cls", LARGE)

#: Of dense layers, for weights alone.
DENSE = ("minilm_l6", "nsnet2_gru")

WEIGHT_BITS = (8, 4, 3, 2, 1)
#: Those that are measured with GPTQ as well; of one bit, there is nothing to round.
GPTQ_BITS = (4, 2)
ROUNDED_BITS = (4, 3, 2)
ACTIVATION_BITS = (8, 4, 2)
BLOCK_BITS = (8, 6, 4, 3, 2)

GPTQ = "--rounding gptq --bias-correct"

#: Roundings that are learned by gradient descent: minutes, so with 2 bits, where they matter.
LEARNED = ("adaround", "brecq", "qdrop")
LEARNED_ON = ("digits_cnn", "fm_mbv2")

#: Levels that are not even, and the roundings that are measured on them as well.
CODEBOOK = "kmeans"
ON_CODEBOOKS = ("nearest", "gptq", "cd", "admm", "refit")

#: Range methods that run the network many times.
SLOW_RANGES = ("auto", "lapq")


@dataclass(frozen=True)
class Way:
    """One measurement.

    Attributes:
        section: of the page.
        model: the folder of the model.
        group: what is measured in one process with it.
        options: of `ptq quantize`.
    """

    section: str
    model: str
    group: str
    options: str


def ways(sections: Iterable[str]) -> Iterator[Way]:
    """Yield all ways, the cheap models first."""
    made = {
        "weights": weights,
        "rounding": rounding,
        "activations": activations,
        "weight-only": weight_only,
        "systems": of_systems,
    }
    seen = set()
    for model in (*SMALL, LARGE, *DENSE):
        for section in SECTIONS:
            if section not in sections:
                continue
            for group, options in made[section](model):
                if (model, options) not in seen:
                    seen.add((model, options))
                    yield Way(section, model, f"{section} {group}", options)


def weight_options(name: str, bits: int, *, gptq: bool) -> str:
    """Return the options of a weight quantizer, with activations of 8 bits."""
    return f"--bits W{bits}A8 --weight-method {name}{f' {GPTQ}' if gptq else ''}"


def weights(model: str) -> Iterator[tuple[str, str]]:
    """Yield each weight quantizer at each width that it has, to nearest and with GPTQ."""
    if model not in (*SMALL, LARGE):
        return
    for name, method in weight_quantizers().items():
        for bits in WEIGHT_BITS:
            if not method.has_width(bits) or (model == LARGE and bits != 4):
                continue
            yield name, weight_options(name, bits, gptq=False)
            rounded = bits == 4 if model in SLOW else bits in GPTQ_BITS
            if rounded and (model != LARGE or name == "mse"):
                yield name, weight_options(name, bits, gptq=True)


def rounding_options(name: str, bits: int) -> str:
    """Return the options of a rounding method; the learned ones have made up for biases."""
    corrected = "" if name in LEARNED else " --bias-correct"
    return f"--bits W{bits}A8 --rounding {name}{corrected}"


def rounding_names() -> list[str]:
    """Return every rounding method, the baseline first and the learned ones last."""
    return ["nearest", *ROUNDERS.methods(), *LEARNED]


def codebook_options(name: str, bits: int) -> str:
    """Return the options of a rounding method on levels that are not even."""
    return f"--bits W{bits}A8 --weight-method {CODEBOOK} --rounding {name} --bias-correct"


def rounding(model: str) -> Iterator[tuple[str, str]]:
    """Yield each rounding method at few bits, the learned ones where they matter."""
    if model not in (*SMALL, LARGE):
        return
    for name in rounding_names():
        for bits in ROUNDED_BITS:
            learned = name in LEARNED and (model not in LEARNED_ON or bits != 2)
            slow = model in SLOW and bits != 4
            large = model == LARGE and name not in ("nearest", "gptq", "cd")
            if not (learned or slow or large):
                yield name, rounding_options(name, bits)
                if name in ON_CODEBOOKS and model != LARGE:
                    yield name, codebook_options(name, bits)


def range_options(name: str, bits: int) -> str:
    """Return the options of a range method, with weights of 8 bits."""
    return f"--bits W8A{bits} --calib {name}"


def activations(model: str) -> Iterator[tuple[str, str]]:
    """Yield each range method at each width; the slow ones on the smaller models."""
    if model not in SMALL:
        return
    for name in solvers():
        for bits in ACTIVATION_BITS:
            if name not in SLOW_RANGES or model != "ppocr_cls":
                yield name, range_options(name, bits)


def block_options(name: str, bits: int) -> str:
    """Return the options of a block quantizer."""
    return f"--scheme weight-only --bits {bits} --weight-method {name}"


#: What is done to weight-only models beside, with the default block quantizer and 4 bits.
BESIDE = ("--awq", "--rounding gptq --bias-correct")


def weight_only(model: str) -> Iterator[tuple[str, str]]:
    """Yield each block quantizer at each width that it has, and what is done beside."""
    if model not in DENSE:
        return
    for name, method in BLOCK_METHODS.methods().items():
        for bits in BLOCK_BITS:
            if method.has_width(bits):
                yield name, block_options(name, bits)
    for beside in BESIDE:
        yield beside, f"{block_options('mse', 4)} {beside}"


def of_systems(model: str) -> Iterator[tuple[str, str]]:
    """Yield what makes each system of the literature, on the smallest model that it is for."""
    for system in systems():
        for use in system.use:
            alone = "weight-only" in use
            if not use.startswith("ptq ") and model == (DENSE[0] if alone else SMALL[0]):
                yield system.name, use
