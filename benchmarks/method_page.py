"""docs/methods.md, from what was measured and from what methods say of themselves."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence

from common import NOT_THERE, ROOT, table
from method_ways import (
    ACTIVATION_BITS,
    BESIDE,
    BLOCK_BITS,
    CODEBOOK,
    DENSE,
    GPTQ_BITS,
    LARGE,
    LEARNED,
    ON_CODEBOOKS,
    ROUNDED_BITS,
    SMALL,
    WEIGHT_BITS,
    block_options,
    codebook_options,
    range_options,
    rounding_names,
    rounding_options,
    weight_options,
)

from ptq.block_methods import BLOCK_METHODS
from ptq.calib import solvers
from ptq.report.literature import System, systems
from ptq.report.methods import Method, all_methods, widths_text
from ptq.train.fakequant import QAT_METHODS
from ptq.weights import weight_quantizers

PAGE = ROOT / "docs" / "methods.md"

#: What the test of each method holds it against.
CHECKS = ROOT / "benchmarks" / "method_checks.toml"

Rows = Mapping[str, Mapping]
Results = Mapping[str, Rows]

HEAD = """\
# Methods

Every method at every width, measured. `python benchmarks/methods.py` measures what is not yet in
[its results](../benchmarks/results/methods.json) and writes this page. `ptq methods` lists the same
methods with their options, `ptq methods --systems` the [systems](#systems) and what makes them.

- **What was run**: `ptq quantize MODEL --calib-data calib --samples {samples} --eval-data eval
  {common}` and the options of the row. So everything that can be is in
  integers, and first and last layers have 8 bits.
- **Figures**: SQNR of the outputs in dB on evaluation data, and the share of classes on which both
  models agree; of digits_cnn, top-1 on its labels (float {top1}). Below 0 dB, noise is louder than
  the signal. {samples} samples are few: half a decibel means nothing.
- **Size** is that of the file, **bits** the mean width of the codes of a weight. **Seconds** are of
  one thread of a busy machine, to compare with one another; without measuring accuracy and speed.
- **Models**: digits_cnn (12 convolutions, in tests/models), fm_mbv2 (MobileNetV2 on Fashion-MNIST),
  ppocr_cls (which way up a line of text is), effnet_lite0 (ImageNet), minilm_l6 (sentences),
  nsnet2_gru (noise in speech).

Sections: [weights](#weight-quantizers), [rounding](#rounding-methods),
[activations](#range-methods-of-activations), [weights alone](#weights-alone),
[training](#training-methods),
[what each is good for](#what-each-is-good-for-and-is-held-against), [systems](#systems),
[out of scope](#out-of-scope).
"""


def page(found: Mapping) -> str:
    """Return the page for results as `benchmarks/methods.py` keeps them."""
    models: Results = found["models"]
    settings = found["settings"]
    digits = [row for row in models.get(SMALL[0], {}).values() if row.get("float_top1")]
    top1 = percent(digits[0]["float_top1"]) if digits else NOT_THERE
    head = HEAD.format(samples=settings["samples"], common=settings["common"], top1=top1)
    methods = all_methods(training=QAT_METHODS.methods())
    parts = [
        head,
        *_weights(models),
        *_rounding(models),
        *_activations(models),
        *_weight_only(models),
        *_training(methods),
        *_good_for(methods),
        *_systems(models),
        *_failures(models),
    ]
    return "\n".join(parts).rstrip() + "\n"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f} %"


def cell(row: Mapping | None) -> str:
    """Return what came of one way: decibels, and the better known share there is."""
    if row is None or "error" in row:
        return NOT_THERE
    decibels = "equal" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}"
    share = row["top1"] if row["top1"] is not None else row["agreement"]
    return decibels if share is None else f"{decibels}, {percent(share)}"


def _both(rows: Rows, plain: str, other: str | None) -> str:
    """Return two ways in one cell: to nearest, and with GPTQ and biases."""
    first = cell(rows.get(plain))
    return f"{first} → {cell(rows[other])}" if other is not None and other in rows else first


def _size(row: Mapping | None) -> str:
    return NOT_THERE if row is None or "error" in row else f"{row['size_bytes'] / 1000:.0f}"


def _bits(row: Mapping | None) -> str:
    bits = (row or {}).get("weight_bits")
    return NOT_THERE if bits is None else f"{bits:.2f}"


def _seconds(row: Mapping | None) -> str:
    return NOT_THERE if row is None or "error" in row else f"{row['seconds']:.0f}"


def _over(models: Results, names: Sequence[str], options: Callable[[str], str]) -> list[str]:
    """Return the small models on which any of these ways was measured."""
    return [m for m in SMALL if any(options(n) in models.get(m, {}) for n in names)]


def _mean_db(models: Results, over: Sequence[str], options: str) -> float:
    """Return the mean SQNR over some models; minus infinity where one is missing."""
    values = [models[model].get(options, {}).get("sqnr_db") for model in over]
    return -math.inf if None in values or not values else sum(values) / len(values)


def _measured(models: Results, names: Sequence[str], options: Callable[[str], str]) -> list[str]:
    """Return the names of which anything was measured, the best on average first."""
    over = _over(models, names, options)
    there = [n for n in names if any(options(n) in rows for rows in models.values())]
    return sorted(there, key=lambda name: (-_mean_db(models, over, options(name)), name))


def _best(models: Results, names: Sequence[str], options: Callable[[str], str], how: str) -> str:
    """Return a line with the three best on average over the small models that were measured."""
    over = _over(models, names, options)
    means = {name: _mean_db(models, over, options(name)) for name in names}
    ranked = sorted((n for n in names if math.isfinite(means[n])), key=lambda n: -means[n])
    listed = ", ".join(f"`{name}` {means[name]:.1f}" for name in ranked[:3])
    return f"Best{how}, in the mean of {', '.join(over)}: {listed} dB.\n" if listed else ""


def _weights(models: Results) -> Iterator[str]:
    yield "## Weight quantizers\n"
    yield "With activations of 8 bits, to nearest → with `--rounding gptq --bias-correct` where"
    yield "that was measured. Size, bits and seconds are of fm_mbv2, to nearest.\n"
    for bits in WEIGHT_BITS:

        def plain(name: str, bits: int = bits) -> str:
            return weight_options(name, bits, gptq=False)

        def with_gptq(name: str, bits: int = bits) -> str:
            return weight_options(name, bits, gptq=True)

        names = _measured(models, list(weight_quantizers()), plain)
        if not names:
            continue
        wide = (*SMALL, LARGE) if bits == 4 else SMALL
        head = ("`--weight-method`", *wide, "kB", "bits", "s")
        rows = []
        for name in names:
            row = models.get("fm_mbv2", {}).get(plain(name))
            other = with_gptq(name) if bits in GPTQ_BITS else None
            cells = [_both(models.get(m, {}), plain(name), other) for m in wide]
            rows.append((f"`{name}`", *cells, _size(row), _bits(row), _seconds(row)))
        yield f"### {bits} bit{'s' if bits > 1 else ''} (`--bits W{bits}A8`)\n"
        yield table(head, rows) + "\n"
        yield _best(models, names, plain, " to nearest")
        if bits in GPTQ_BITS:
            yield _best(models, names, with_gptq, " with GPTQ and biases")


def _rounding(models: Results) -> Iterator[str]:
    yield "## Rounding methods\n"
    yield f"Weights by `mse`, and by `{CODEBOOK}` where it says so; activations of 8 bits, and"
    yield "`--bias-correct` but for the learned ones"
    yield f"({', '.join(f'`{name}`' for name in LEARNED)}, which want more samples than these:"
    yield "[learned rounding](low-bits.md#learned-rounding)). Seconds are of fm_mbv2.\n"
    for bits in ROUNDED_BITS:

        def options(name: str, bits: int = bits) -> str:
            kind, _, rest = name.partition(" ")
            return (
                codebook_options(rest, bits) if kind == CODEBOOK else rounding_options(name, bits)
            )

        ways = [*rounding_names(), *(f"{CODEBOOK} {name}" for name in ON_CODEBOOKS)]
        names = _measured(models, ways, options)
        if not names:
            continue
        wide = (*SMALL, LARGE) if bits == 4 else SMALL
        rows = []
        for name in names:
            seconds = _seconds(models.get("fm_mbv2", {}).get(options(name)))
            cells = [cell(models.get(model, {}).get(options(name))) for model in wide]
            rows.append((f"`{name}`", *cells, seconds))
        yield f"### {bits} bits (`--bits W{bits}A8`), rounded\n"
        yield table(("`--rounding`", *wide, "s"), rows) + "\n"
        yield _best(models, names, options, "")


def _activations(models: Results) -> Iterator[str]:
    yield "## Range methods of activations\n"
    yield "With weights of 8 bits by `minmax`. Seconds are of fm_mbv2.\n"
    for bits in ACTIVATION_BITS:

        def options(name: str, bits: int = bits) -> str:
            return range_options(name, bits)

        names = _measured(models, list(solvers()), options)
        if not names:
            continue
        rows = []
        for name in names:
            seconds = _seconds(models.get("fm_mbv2", {}).get(options(name)))
            cells = [cell(models.get(model, {}).get(options(name))) for model in SMALL]
            rows.append((f"`{name}`", *cells, seconds))
        yield f"### Activations of {bits} bits (`--bits W8A{bits}`)\n"
        yield table(("`--calib`", *SMALL, "s"), rows) + "\n"
        yield _best(models, names, options, "")


def _weight_only(models: Results) -> Iterator[str]:
    names = list(BLOCK_METHODS.methods())
    ways = [(block_options(name, bits), name, bits) for bits in BLOCK_BITS for name in names]
    ways += [(f"{block_options('mse', 4)} {beside}", f"mse {beside}", 4) for beside in BESIDE]
    there = [way for way in ways if any(way[0] in models.get(model, {}) for model in DENSE)]
    yield "## Weights alone\n"
    yield "`--scheme weight-only`, blocks of 32: SQNR in dB, size in MB, seconds.\n"
    if not there:
        return
    rows = []
    for options, name, bits in sorted(there, key=lambda way: (-way[2], _dense_db(models, way[0]))):
        cells = []
        for model in DENSE:
            row = models.get(model, {}).get(options)
            missing = row is None or "error" in row
            size = NOT_THERE if missing else f"{row['size_bytes'] / 1e6:.2f}"
            cells += [cell(row), size, _seconds(row)]
        rows.append((f"`{name}`", str(bits), *cells))
    head = [c for model in DENSE for c in (model, "MB", "s")]
    yield table(("`--weight-method`", "bits", *head), rows) + "\n"


def _dense_db(models: Results, options: str) -> float:
    """Return how a way sorts: the larger its SQNR on the first dense model, the earlier."""
    return -(models.get(DENSE[0], {}).get(options, {}).get("sqnr_db") or -math.inf)


def _training(methods: Sequence[Method]) -> Iterator[str]:
    yield "## Training methods\n"
    yield "`--fine-tune` and `ptq qat` train for weights and activations of few bits. What they"
    yield "bring is measured in [training methods](training-methods.md#what-it-brings).\n"
    rows = [(f"`{m.name}`", m.title, m.paper) for m in methods if m.kind == "training"]
    yield _listed(("`--fine-tune`", "", "source"), rows) + "\n"


#: Headings of what each kind is good for, with the option that takes it.
_KINDS = {
    "weight quantizer": "Weight quantizers",
    "block quantizer": "Block quantizers",
    "rounding": "Rounding methods",
    "activation range": "Range methods",
}


def _good_for(methods: Sequence[Method]) -> Iterator[str]:
    yield "## What each is good for, and is held against\n"
    yield "Tests hold each against what stands here, beside the laws of all of its kind.\n"
    checks = tomllib.loads(CHECKS.read_text(encoding="utf-8"))
    for kind, heading in _KINDS.items():
        own = [method for method in methods if method.kind == kind]
        if not own:
            continue
        yield f"### {heading}, one by one\n"
        rows = []
        for method in own:
            check = checks.get(kind.replace(" ", "-"), {}).get(method.name, {})
            claim = check.get("claim", NOT_THERE)
            path = check.get("test", "").partition("::")[0]
            tested = f"{claim} ([test](../{path}))" if path else claim
            width = widths_text(method.widths) if method.widths else NOT_THERE
            rows.append((f"`{method.name}`", width, method.good_for, tested, method.paper))
        yield _listed(("", "widths", "good for", "held against", "source"), rows) + "\n"


def _systems(models: Results) -> Iterator[str]:
    yield "## Systems\n"
    yield "What the systems of the literature are here: options of `ptq quantize`, or commands,"
    yield f"with SQNR and top-1 of {SMALL[0]}, of weights alone with the SQNR of {DENSE[0]}.\n"
    rows = [
        (
            system.name,
            "<br>".join(_uses(models, system)),
            system.widths,
            _said(system),
            system.paper,
        )
        for system in systems()
        if system.use
    ]
    yield _listed(("system", "what makes it", "widths", "good for", "source"), rows) + "\n"
    yield "## Out of scope\n"
    out = [(s.name, s.out_of_scope, s.paper) for s in systems() if s.out_of_scope]
    yield _listed(("system", "why", "source"), out) + "\n"


def _said(system: System) -> str:
    return f"{system.good_for}. {system.note}" if system.note else system.good_for


def _uses(models: Results, system: System) -> Iterator[str]:
    for use in system.use:
        rows = [models.get(model, {}).get(use) for model in (SMALL[0], DENSE[0])]
        figures = [cell(row) for row in rows if row is not None and "error" not in row]
        yield f"`{use}`{f' ({figures[0]})' if figures else ''}"


def _failures(models: Results) -> Iterator[str]:
    failed = [
        (model, f"`{options}`", row["error"])
        for model, rows in models.items()
        for options, row in rows.items()
        if "error" in row
    ]
    if failed:
        yield "## What does not run\n"
        yield _listed(("model", "options", "why"), failed) + "\n"


def _listed(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts, not aligned: they are long."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |" for line in lines
    )
