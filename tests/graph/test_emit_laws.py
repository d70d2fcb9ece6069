"""Laws of what is emitted, over random graphs."""

from collections import Counter

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nets import Settings, check, quantize, run, simulate
from support.random_graphs import exact_feed, graphs

from ptq.graph.check import Signature

#: Each example opens several sessions.
FEW = settings(max_examples=60)


def quantized_graph(graph, excluded):
    text, weights, tensors = graph
    kinds = ("Conv", "Relu", "Clip", "Add", "MaxPool", "Concat", "Transpose", "Unsqueeze", "Slice")
    kept = [(f"{kind}:{tensors[i % len(tensors)]}", "kept") for i in excluded for kind in kinds]
    return quantize(text, weights, feeds=[exact_feed()], settings=Settings(keep_float=tuple(kept)))


GRAPHS = graphs()
EXCLUDED = st.lists(st.integers(0, 9), max_size=2)


@FEW
@given(graph=GRAPHS, excluded=EXCLUDED)
def test_no_conversion_serves_nobody(graph, excluded):
    quantized = quantized_graph(graph, excluded)
    sites = set(quantized.site_names)
    outputs = {id(v) for v in quantized.model.graph.outputs}
    for node in quantized.model.graph:
        if node.op_type == "QuantizeLinear":
            # codes come from a site, or go to one
            before = node.inputs[0].producer()
            after = _readers_of_codes(node.outputs[0])
            assert (before is not None and before.name in sites) or sites & after
        if node.op_type == "DequantizeLinear":
            assert node.outputs[0].uses() or id(node.outputs[0]) in outputs
    unused = [n for n, v in quantized.model.graph.initializers.items() if not v.uses()]
    assert unused == []


def _readers_of_codes(codes: ir.Value) -> set[str]:
    readers: set[str] = set()
    for node in codes.consumers():
        if node.op_type in ("DequantizeLinear", "Clip"):
            readers |= _readers_of_codes(node.outputs[0])
        else:
            readers.add(node.name)
    return readers


@FEW
@given(graph=GRAPHS, excluded=EXCLUDED)
def test_the_result_is_valid_and_keeps_its_signature(graph, excluded):
    quantized = quantized_graph(graph, excluded)
    assert Signature.of(quantized.model) == Signature.of(quantized.source)
    check(quantized.model)


@FEW
@given(graph=GRAPHS, excluded=EXCLUDED)
def test_it_computes_what_the_plan_says_and_runs_as_planned(graph, excluded):
    quantized = quantized_graph(graph, excluded)
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    planned = Counter(f"QLinear{site.node.op_type}" for site in quantized.sites.sites)
    # data movement has no kernels of that name; of equal operators onnxruntime keeps one
    ran = {op: n for op, n in coverage.integer.items() if op.startswith("QLinear")}
    assert all(n <= planned[op] for op, n in ran.items()), "an integer kernel that was not planned"
    feed = exact_feed(1)
    expected = simulate(quantized, feed)
    for level in ("disabled", "all"):
        for found, wanted in zip(run(quantized.model, feed, level), expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=level)


@FEW
@given(graph=GRAPHS)
def test_every_node_is_planned_once_and_every_tensor_has_a_decision(graph):
    quantized = quantized_graph(graph, [])
    nodes = [node.name for node in quantized.source.graph]
    assert [n.name for n in quantized.plan.nodes] == nodes
    assert all(n.integer != bool(n.why) for n in quantized.plan.nodes)
    assert quantized.plan.tensors.keys() == quantized.sites.quantized().keys()
    tensors = quantized.sites.quantized()
    computed = {name for name, value in tensors.items() if not value.is_initializer()}
    assert quantized.emitted.scales.keys() == computed


@FEW
@given(graph=GRAPHS, excluded=EXCLUDED)
def test_emitting_twice_gives_the_same_bytes(graph, excluded):
    first, second = (quantized_graph(graph, excluded) for _ in range(2))
    serialized = [
        ir.to_proto(q.model).SerializeToString(deterministic=True) for q in (first, second)
    ]
    assert serialized[0] == serialized[1]
