"""The plan as data: stable bytes and counts."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.nets import quantize

from ptq.plan import Decision, NodePlan, Plan

DECISIONS = st.builds(
    Decision,
    qtype=st.just("uint8"),
    lo=st.floats(-10, 0),
    hi=st.floats(0, 10),
    scale=st.floats(1e-6, 10),
    zero_point=st.integers(0, 255),
    clip_share=st.floats(0, 1),
    observed=st.text(max_size=5),
)
NODES = st.builds(
    NodePlan,
    name=st.text(max_size=5),
    op_type=st.sampled_from(["Conv", "Relu"]),
    integer=st.booleans(),
    why=st.sampled_from(["", "because", "no"]),
    weight=st.none() | st.text(max_size=5),
    weight_symmetric=st.booleans(),
)
PLANS = st.builds(
    Plan,
    target=st.just("ort-cpu-x86-vnni"),
    tensors=st.dictionaries(st.text(max_size=6), DECISIONS, max_size=5),
    nodes=st.lists(NODES, max_size=5).map(tuple),
)


@given(plan=PLANS, data=st.data())
def test_the_order_of_the_tensors_makes_no_difference_to_the_bytes(plan, data):
    shuffled = dict(data.draw(st.permutations(list(plan.tensors.items()))))
    other = msgspec.structs.replace(plan, tensors=shuffled)
    assert other.to_json() == plan.to_json()


@given(plan=PLANS)
def test_json_decodes_into_the_same_plan(plan):
    assert msgspec.json.decode(plan.to_json(), type=Plan) == plan


@given(plan=PLANS)
def test_reasons_count_the_nodes_left_in_float(plan):
    reasons = plan.reasons()
    assert sum(reasons.values()) == sum(not n.integer for n in plan.nodes)
    for (op_type, why), count in reasons.items():
        left = [n for n in plan.nodes if not n.integer]
        assert count == sum((n.op_type, n.why) == (op_type, why) for n in left)


def test_integer_nodes_are_those_that_run_as_integer():
    nodes = (
        NodePlan(name="a", op_type="Conv", integer=True),
        NodePlan(name="b", op_type="Relu", integer=False, why="so"),
    )
    assert Plan(target="t", tensors={}, nodes=nodes).integer_nodes == {"a"}


def test_planning_twice_gives_the_same_bytes():
    text = """g (float[1, 4, 8, 8] x) => (float[A, B, C, D] y) <float[4, 4, 1, 1] w> {
        t = Conv (x, w) r = Relu (t) y = Conv (r, w) }"""
    assert quantize(text).plan.to_json() == quantize(text).plan.to_json()
