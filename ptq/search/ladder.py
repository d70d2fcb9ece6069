"""What `ptq tune` tries, from cheap to dear: plain data, a line for each rung.

A rung changes some settings of the best model so far, or of what the user gave. Another method
becomes part of tuning by a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ptq.config import Override, QuantizeConfig, Scheme

#: Operators that transformers are made of, and those whose scales of channels can move.
_DENSE = frozenset({"MatMul"})
_LINKED = frozenset({"Conv", "ConvTranspose", "Gemm"})

#: The operator that has a gate.
_GATED = frozenset({"HardSwish"})


#: What a user may have asked of static models, and other schemes are tried without.
_OF_STATIC = ("equalize", "smooth", "split_gates", "split_outliers", "bias_correct", "rounding")

_DEFAULTS = QuantizeConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One thing to try.

    Attributes:
        name: what the table calls it.
        changes: fields of `QuantizeConfig`.
        scheme: where scales come from.
        alone: whether it starts from the settings of the user, not from the best model so far.
        kernels: whether other kernels may run than in what it starts from: otherwise size and
            speed are the same, and a limit on them that is missed there is missed here, too.
        cost: about how many times the seconds of the first rung it adds to those of what it starts
            from, as measured on the zoo; alone, how many it takes.
        float_layers: how many of the layers that do the most damage are to stay in float.
        needs: operator types of which the model must have one for the rung to do anything.
        last: whether it is one of those at the end that dear ones leave time for.
        quantizes: whether anything is; otherwise it is the float model itself.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    scheme: Scheme = "static"
    alone: bool = False
    kernels: bool = False
    cost: float = 1.0
    float_layers: int = 0
    needs: frozenset[str] = frozenset()
    last: bool = False
    quantizes: bool = True

    def settings(
        self, started: QuantizeConfig, worst: tuple[str, ...] = ()
    ) -> QuantizeConfig | None:
        """Return what to try.

        Args:
            started: the settings to change.
            worst: names of layers to leave in float beside what the settings leave there.

        Returns:
            The settings; ``None`` if they are those that it started from.
        """
        changes = dict(self.changes)
        if self.scheme != "static":
            plain = {name: getattr(_DEFAULTS, name) for name in _OF_STATIC}
            started = msgspec.structs.replace(started, **plain).with_scheme(self.scheme)
        if worst:
            kept = tuple(Override(match=escaped(name), float=True) for name in worst)
            others = tuple(o for o in started.overrides if o not in kept)
            changes["overrides"] = (*others, *kept)
        found = msgspec.structs.replace(started, **changes)
        return None if found == started and not self.alone else found


def escaped(name: str) -> str:
    """Return a glob that matches just this name."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


#: What the user gave; everything else starts from it.
FIRST = Rung(name="as given", alone=True, kernels=True)

#: What looks at the outputs of layers.
_ROUNDED = {"rounding": "gptq", "bias_correct": True}

#: Static kernels are the fastest, so that all that makes them better comes before other schemes.
LADDER = (
    FIRST,
    # -- ranges: solved anew from the same statistics
    Rung(name="mse", changes={"calib": "mse", "weight_method": "mse"}, cost=0.1),
    Rung(name="percentile", changes={"calib": "percentile"}, cost=0.1),
    # -- what costs a pass over some samples
    Rung(name="bias correction", changes={"bias_correct": True}, cost=0.8),
    Rung(name="smooth", changes={"smooth": True}, kernels=True, cost=1.5, needs=_DENSE),
    Rung(name="split outliers", changes={"split_outliers": True}, kernels=True, cost=2.0,
         needs=_DENSE),
    Rung(name="split gates", changes={"split_gates": True}, kernels=True, cost=4.0, needs=_GATED),
    # -- sums of squares and searches
    Rung(name="gptq", changes=_ROUNDED, cost=4.0),
    Rung(name="asymmetric weights", changes={"weights_symmetric": False}, kernels=True, cost=2.0),
    Rung(name="equalize", changes={"equalize": True}, kernels=True, cost=2.0, needs=_LINKED),
    Rung(name="ranges by output", changes={"calib": "auto"}, cost=4.0),
    Rung(name="brecq", changes={"rounding": "brecq"}, cost=20.0),
    # -- mixed precision: by groups of tensors; then layer by layer, measured once, which is dear
    Rung(name="protected to 25 dB", changes={"protect": 25.0}, kernels=True),
    Rung(name="protected to 30 dB", changes={"protect": 30.0}, kernels=True),
    Rung(name="1 layer in float", kernels=True, float_layers=1, cost=0.3),
    Rung(name="2 layers in float", kernels=True, float_layers=2, cost=0.3),
    Rung(name="4 layers in float", kernels=True, float_layers=4, cost=0.3),
    Rung(name="8 layers in float", kernels=True, float_layers=8, cost=0.3),
    Rung(name="16 layers in float", kernels=True, float_layers=16, cost=0.3),
    # -- other schemes: slower kernels, or only smaller files, and nearer to the float model
    Rung(name="dynamic", scheme="dynamic", alone=True, kernels=True, last=True),
    Rung(name="weights only, 8 bits", scheme="weight-only", alone=True, kernels=True, last=True),
    Rung(name="weights only, 8 bits, blocks of 16", scheme="weight-only", changes={"block": 16},
         alone=True, kernels=True),
    Rung(name="weights only, 8 bits, gptq", scheme="weight-only", changes=_ROUNDED, alone=True,
         kernels=True, cost=3.0),
    Rung(name="4 bits, gptq", changes={"bits": 4, "weights_symmetric": False, **_ROUNDED},
         alone=True, kernels=True, cost=4.0),
    # as many bits, and tables: between 4 and 5 bits a weight in layers of many inputs
    Rung(name="4 bits, k-means and refit",
         changes={"bits": 4, "weight_method": "kmeans", "rounding": "refit", "bias_correct": True},
         alone=True, kernels=True, cost=12.0),
    Rung(name="weights only, 4 bits", scheme="weight-only", changes={"bits": 4}, alone=True,
         kernels=True),
    Rung(name="weights only, 4 bits, gptq and awq", scheme="weight-only",
         changes={"bits": 4, "awq": True, **_ROUNDED}, alone=True, kernels=True, cost=4.0),
    Rung(name="weights only, 4 bits, k-quants and gptq", scheme="weight-only",
         changes={"bits": 4, "weight_method": "kquant", **_ROUNDED}, alone=True, kernels=True,
         cost=4.0),
)  # fmt: skip

#: What always stays within a drop, for limits that a float model can hold.
UNCHANGED = Rung(
    name="the float model", alone=True, kernels=True, last=True, cost=0.5, quantizes=False
)
