"""What is said about speed: tables for each number of threads, and what comes out of it all.

Everything is read from the results of `speed.py`: for every model, ``tools`` (what each tool made),
and ``timed`` (by number of threads, the latency, speed-up and spread of each).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import geometric_mean

from common import NOT_THERE, sqnr_cell, table

#: The tools, by their names in tables.
STATIC, DYNAMIC = ("stock", "ptq", "ptq integer"), ("stock dynamic", "ptq dynamic")

#: An SQNR this much lower is no worse.
_ALIKE_DB = 0.1


def sqnr_db(result: Mapping) -> float:
    """The SQNR: infinite where the outputs are equal."""
    return math.inf if result["sqnr_db"] is None else result["sqnr_db"]


def static_table(found: Mapping[str, Mapping], threads: str) -> str:
    head = ("model", "float ms", "stock", "dB", "MB", "ptq", "dB", "MB", "ptq integer", "MB")
    rows = []
    for name, result in found.items():
        timed = result["timed"].get(threads, {})
        row = [name, _float_ms(timed)]
        row += [_speed(result, threads, "stock"), *_quality(result, "stock")]
        row += [_speed(result, threads, "ptq"), *_quality(result, "ptq")]
        row += [_speed(result, threads, "ptq integer"), _quality(result, "ptq integer")[1]]
        rows.append((*row, _spread(timed)))
    return table((*head, "control"), rows)


def dynamic_table(found: Mapping[str, Mapping], threads: str) -> str:
    head = ("model", "float ms", "stock dynamic", "dB", "MB", "ptq dynamic", "dB", "MB", "control")
    rows = []
    for name, result in found.items():
        if "ptq dynamic" not in result["tools"]:
            continue
        timed = result["timed"].get(threads, {})
        cells = [
            cell
            for tool in DYNAMIC
            for cell in (_speed(result, threads, tool), *_quality(result, tool))
        ]
        rows.append((name, _float_ms(timed), *cells, _spread(timed)))
    return table(head, rows)


def _float_ms(timed: Mapping) -> str:
    return f"{timed['float']['median_ms']:.2f}" if "float" in timed else NOT_THERE


def _spread(timed: Mapping) -> str:
    """The control: how far the float model strays from itself."""
    return f"±{(timed['control']['spread'] - 1) * 100:.0f}%" if "control" in timed else NOT_THERE


def _quality(result: Mapping, tool: str) -> tuple[str, str]:
    made = result["tools"].get(tool, {})
    size = made.get("size_bytes")
    return sqnr_cell(made), f"{size / 1e6:.2f}" if size else NOT_THERE


def _speed(result: Mapping, threads: str, tool: str) -> str:
    """The speed-up; ``~`` if it is within the spread, ``float`` if the float model was kept."""
    figure = _figure(result, threads, tool)
    if figure is None:
        return "fails" if tool in result["tools"] else NOT_THERE
    within = 1 / figure["spread"] <= figure["speedup"] <= figure["spread"]
    kept = "float " if _is_float(result, tool) else ""
    return f"{kept}{'~' if within else ''}{figure['speedup']:.2f}x"


def _figure(result: Mapping, threads: str, tool: str) -> Mapping | None:
    figure = result["timed"].get(threads, {}).get(tool)
    return figure if figure and "error" not in figure else None


def _is_float(result: Mapping, tool: str) -> bool:
    return result["tools"].get(tool, {}).get("placed") == "float"


def conclusions(found: Mapping[str, Mapping], threads: str) -> Iterator[str]:
    """Say what comes out of it all, at one number of threads."""
    measured = {name: r for name, r in found.items() if "error" not in r}
    for scope, names in (
        ("zoo", [n for n, r in measured.items() if r["zoo"]]),
        ("architectures", [n for n, r in measured.items() if not r["zoo"]]),
        ("all", list(measured)),
    ):
        for tool in ("ptq", "ptq integer"):
            if names:
                yield _mean(scope, {n: measured[n] for n in names}, threads, tool)
    for tool in (*STATIC, *DYNAMIC):
        figures = {name: _figure(r, threads, tool) for name, r in measured.items()}
        integer = {
            name: figure
            for name, figure in figures.items()
            # where it is kept, both files are the same, whatever was measured
            if figure is not None and not _is_float(measured[name], tool)
        }
        slower = [name for name, f in integer.items() if f["speedup"] * f["spread"] < 1]
        kept = [name for name in measured if _is_float(measured[name], tool)]
        if integer or kept:
            yield (
                f"{tool}: {len(slower)} of {len(integer)} slower than float beyond the "
                f"spread{_listed(slower)}; float kept in {len(kept)}{_listed(kept)}"
            )


def _mean(scope: str, found: Mapping[str, Mapping], threads: str, tool: str) -> str:
    def speedups(which: str) -> list[float]:
        figures = [_figure(r, threads, which) for r in found.values()]
        return [1.0 if f is None else f["speedup"] for f in figures]

    stock, ours = geometric_mean(speedups("stock")), geometric_mean(speedups(tool))
    failed = [
        f"{n} ({which})"
        for n, r in found.items()
        for which in ("stock", tool)
        if _figure(r, threads, which) is None
    ]
    counted = f"; as 1.00x, because they fail: {', '.join(failed)}" if failed else ""
    return (
        f"{scope} ({len(found)}): {tool} {ours:.2f}x, stock {stock:.2f}x, ratio of the "
        f"geometric means {ours / stock:.2f}{counted}"
    )


def remarks(found: Mapping[str, Mapping]) -> Iterator[str]:
    """Say what does not depend on the number of threads."""
    yield ""
    tools = {name: r["tools"] for name, r in found.items()}
    both = {n: t for n, t in tools.items() if all("size_bytes" in t.get(x, {}) for x in STATIC)}
    worse = [
        f"{n} ({sqnr_db(t['ptq']) - sqnr_db(t['stock']):+.1f} dB)"
        for n, t in both.items()
        if sqnr_db(t["ptq"]) < sqnr_db(t["stock"]) - _ALIKE_DB
    ]
    yield f"ptq's SQNR is lower than stock's in {len(worse)} of {len(both)}{_listed(worse)}"
    larger = [
        f"{n} ({t['ptq integer']['size_bytes'] / t['stock']['size_bytes']:.2f}"
        f"{', float kept' if _is_float(found[n], 'ptq integer') else ''})"
        for n, t in both.items()
        if t["ptq integer"]["size_bytes"] > t["stock"]["size_bytes"]
    ]
    count = f"{len(larger)} of {len(both)}"
    yield f"the integer file is larger than stock's in {count}{_listed(larger)}"
    reduced = [n for n, t in tools.items() if t.get("stock", {}).get("variant") == "reduced range"]
    yield f"stock is with reduce_range, for its better SQNR, in {len(reduced)}{_listed(reduced)}"
    for name, result in found.items():
        failures = {"": result.get("error")}
        failures |= {f", {tool}": made.get("error") for tool, made in result["tools"].items()}
        for threads, timed in result["timed"].items():
            failures |= {f", {t}, threads {threads}": v.get("error") for t, v in timed.items()}
        yield from (f"{name}{what}: {error}" for what, error in failures.items() if error)


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
