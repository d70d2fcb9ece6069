"""benchmarks/rivals.py: what it keeps of its records, whom it calls better, and whom it can run."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def rival_table(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import rival_table

    return rival_table


@pytest.fixture
def rivals(rival_table):
    import rivals

    return rivals


def made(row: str, sqnr_db: float | None, size_bytes: int = 300, **more) -> dict:
    return {"model": "m", "row": row, "sqnr_db": sqnr_db, "size_bytes": size_bytes, **more}


FLOAT = {"model": "m", "row": "float", "size_bytes": 1000}


def better(rival_table, *records: dict) -> str:
    """Return the last cell of the summary's only line."""
    summary = rival_table.summary(rival_table.merged([FLOAT, *records]), "W8A8")
    return summary.splitlines()[-1].split("|")[-2].strip()


def test_a_later_measurement_adds_to_a_row(rival_table):
    timed = {"model": "m", "row": "W8A8: a", "speedup": 2.0}
    assert rival_table.merged([made("W8A8: a", 20.0), timed])["m"]["W8A8: a"] == {
        "sqnr_db": 20.0,
        "size_bytes": 300,
        "speedup": 2.0,
    }


def test_a_row_made_anew_forgets_what_the_old_file_measured(rival_table):
    timed = {"model": "m", "row": "W8A8: a", "speedup": 2.0}
    records = [made("W8A8: a", 20.0), timed, made("W8A8: a", 21.0)]
    assert "speedup" not in rival_table.merged(records)["m"]["W8A8: a"]


def test_a_row_that_fails_now_has_no_figures_of_before(rival_table):
    failed = {"model": "m", "row": "W8A8: a", "error": "it broke"}
    rows = rival_table.merged([made("W8A8: a", 20.0), failed])["m"]
    assert rows["W8A8: a"] == {"error": "it broke"}
    assert "- W8A8: a: it broke" in rival_table.model_table(rows)


@pytest.mark.parametrize(
    ("ours", "theirs", "who"),
    [(20.0, 15.0, "ptq"), (15.0, 20.0, "others"), (20.0, 20.4, "even"), (20.4, 20.0, "even")],
)
def test_the_better_one_has_the_larger_sqnr_by_half_a_decibel(rival_table, ours, theirs, who):
    assert better(rival_table, made("W8A8: ptq x", ours), made("W8A8: rival", theirs)) == who


@pytest.mark.parametrize("nothing", [made("W8A8: rival", None), made("W8A8: rival", 99.0)])
def test_a_rival_that_quantized_nothing_is_not_better(rival_table, nothing):
    assert better(rival_table, made("W8A8: ptq", 20.0), nothing) == "ptq"


def test_the_better_one_is_marked_where_its_file_is_larger(rival_table):
    rival = made("W8A8: rival", 30.0, 900)
    assert better(rival_table, made("W8A8: ptq", 20.0), rival) == "others, larger"


def test_rows_of_another_group_are_not_compared(rival_table):
    assert better(rival_table, made("W8A8: ptq", 20.0), made("W4: rival", 30.0)) == "ptq"


def test_every_row_names_a_function_that_is_there(rivals):
    rows = rivals.read_rows(BENCHMARKS / "rivals.toml")
    assert len({row.key for row in rows}) == len(rows)
    assert len({row.file for row in rows}) == len(rows)
    for row in rows:
        tree = ast.parse((BENCHMARKS / row.script).read_text())
        jobs = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        taken = {a.arg for a in (*jobs[row.job].args.args, *jobs[row.job].args.kwonlyargs)}
        if jobs[row.job].args.kwarg is None:
            assert set(row.settings) <= taken, row.key


def run(tmp_path: Path, digits, *more: object) -> dict[str, dict]:
    """Run the benchmark on 8 digits and return its records by row."""
    for part, data in (("calib", digits.calibration), ("eval", digits.evaluation)):
        (tmp_path / part).mkdir()
        with np.load(data) as arrays:
            for i, image in enumerate(arrays["input"][:8]):
                np.savez(tmp_path / part / f"{i}.npz", input=image[None])
    found = tmp_path / "found.jsonl"
    data = ["--calib", tmp_path / "calib", "--eval", tmp_path / "eval"]
    command = [sys.executable, BENCHMARKS / "rivals.py", digits.model, *data, "--json", found]
    done = subprocess.run(
        [*map(str, [*command, "--seconds", 0, *more])], capture_output=True, text=True, check=True
    )
    assert "### digits_cnn" in done.stdout
    return {r["row"]: r for r in map(json.loads, found.read_text().splitlines())}


def test_onnxruntime_is_run_with_weights_of_8_and_of_4_bits(tmp_path, digits):
    rows = ["W8A8: onnxruntime minmax, reduce_range", "W4A8: onnxruntime minmax"]
    found = run(tmp_path, digits, "--rows", *rows)
    eight, four = (found[row] for row in rows)
    # 4 bits cost 12 to 24 dB against 8 (6 dB a bit, one of them taken by reduce_range)
    assert eight["sqnr_db"] > four["sqnr_db"] + 10 > 15
    assert four["size_bytes"] < eight["size_bytes"] < found["float"]["size_bytes"]
    assert four["cpu_s"] > 0
    assert four["peak_rss_mb"] > 0


def test_a_tool_that_fails_is_reported_with_its_reason(tmp_path, digits):
    rows = tmp_path / "rows.toml"
    rows.write_text(
        '[[row]]\nname = "x"\ngroup = "W4"\nby = "onnxruntime"\njob = "static"\n'
        'script = "adapters/ort_low_bits.py"\n'
        'settings = { weights = "QInt3", activations = "QUInt8" }\n'
    )
    assert "QInt3" in run(tmp_path, digits, "--rows-file", rows)["W4: x"]["error"]
