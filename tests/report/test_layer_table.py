"""A row for each layer."""

import msgspec
from support.reports import made_report

from ptq.report.layer_table import layer_rows, worst_first
from ptq.report.profile import BenchedLayer, Profile, RunKernel
from ptq.runtime.layer import Layer


def layer(name, op_type, *, kernel="QLinearConv", part_of=""):
    return Layer(name=name, op_type=op_type, kernel=kernel, integer=True, part_of=part_of)


def with_layers(report, *layers):
    return msgspec.structs.replace(report, layers=layers)


def test_a_kernel_has_one_row_however_many_nodes_it_does_the_work_of():
    report = with_layers(
        made_report(),
        layer("conv", "Conv"),
        layer("relu", "Relu", part_of="conv"),
        layer("shape", "Shape", kernel=""),
        layer("pool", "MaxPool", kernel="MaxPool"),
    )
    rows = layer_rows(report)
    assert [(r.number, r.name, r.op_type) for r in rows] == [
        (1, "conv", "Conv + Relu"),
        (2, "pool", "MaxPool"),
    ]


def test_errors_accumulate_up_to_the_last_tensor_and_any_one_may_be_at_fault():
    report = made_report(["conv", "relu"])
    report = with_layers(report, layer("conv", "Conv"), layer("relu", "Relu", part_of="conv"))
    [row] = layer_rows(report)
    first, last = report.errors
    assert row.tensors == (first.tensor, last.tensor)
    assert row.accumulated_db == last.sqnr_db
    # the first has no isolated error, as a fused Conv before its Relu has none
    assert row.isolated_db == last.isolated_sqnr_db
    swapped = msgspec.structs.replace(
        report,
        errors=(
            msgspec.structs.replace(first, isolated_sqnr_db=12.0),
            msgspec.structs.replace(last, isolated_sqnr_db=None),
        ),
    )
    assert layer_rows(swapped)[0].isolated_db == 12.0


def test_times_are_found_by_any_node_of_a_layer_and_added_up():
    report = with_layers(
        made_report(["conv", "relu"]),
        layer("conv", "Conv"),
        layer("relu", "Relu", part_of="conv"),
    )
    kernel = RunKernel(name="relu_fused", op_type="Relu", ms=1.0)
    parts = (
        BenchedLayer(name="relu", ms=(1.0, 2.0), kernels=((kernel,), (kernel,))),
        BenchedLayer(name="conv", ms=(10.0, 20.0), kernels=((kernel,), (kernel,))),
        BenchedLayer(name="(Reorder)", ms=(100.0, 200.0), kernels=((kernel,), (kernel,))),
    )
    profile = Profile(threads=1, total_ms=(111.0, 222.0), layers=parts)
    [row] = layer_rows(msgspec.structs.replace(report, profile=profile))
    assert (row.float_ms, row.quantized_ms) == (11.0, 22.0)


def test_isolated_errors_rank_and_where_there_are_none_the_accumulated_do():
    report = made_report(["a", "b", "c"])
    isolated = {"a": 30.0, "b": 10.0, "c": None}
    accumulated = {"a": 5.0, "b": 20.0, "c": 1.0}

    def errors(by_node):
        return tuple(
            msgspec.structs.replace(
                e, isolated_sqnr_db=by_node.get(e.node), sqnr_db=accumulated[e.node]
            )
            for e in report.errors
        )

    def names(found):
        return [row.name for row in worst_first(layer_rows(found))]

    assert names(msgspec.structs.replace(report, errors=errors(isolated))) == ["b", "a"]
    assert names(msgspec.structs.replace(report, errors=errors({}))) == ["c", "a", "b"]


def test_an_older_report_has_rows_without_figures():
    older = msgspec.structs.replace(made_report(), errors=(), profile=None)
    rows = layer_rows(older)
    assert len(rows) == len(older.layers)
    assert all(r.tensors == () and r.float_ms is None for r in rows)
    assert worst_first(rows) == []
