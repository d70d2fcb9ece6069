"""Functions are inlined; those that cannot be are refused, and quickly."""

import pytest
from support.models import check_rewrite, load, op_types

from ptq.errors import UnsupportedError
from ptq.graph.passes.inline_functions import InlineFunctions

HEADER = '<ir_version: 9, opset_import: ["" : 18, "local" : 1]>'
FUNCTION = '<opset_import: ["" : 18, "local" : 1], domain: "local">'


def test_calls_in_calls_and_in_subgraphs():
    model = load(f"""
        {HEADER} g (float[3] x, bool c) => (float[3] y) {{
          h = local.twice (x)
          i = local.scale <factor = 3.0> (h)
          y = If (c) <then_branch = t () => (float[3] u) {{ u = local.twice (i) }},
                      else_branch = e () => (float[3] v) {{ v = Neg (i) }}>
        }}
        {FUNCTION} twice (a) => (b) {{ h = local.scale <factor = 2.0> (a) b = Identity (h) }}
        {FUNCTION} scale <factor> (a) => (b) {{
          f = Constant <value_float: float = @factor> ()
          b = Mul (a, f)
        }}""")
    check_rewrite(InlineFunctions(), model, count=2)
    assert not model.functions
    assert set(op_types(model)) == {"Constant", "Mul", "Identity", "If"}
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(set(names)) == len(names)


def test_a_function_that_calls_itself_is_refused():
    model = load(f"""
        {HEADER} g (float[3] x) => (float[3] y) {{ y = local.f (x) }}
        {FUNCTION} f (a) => (b) {{ b = local.g (a) }}
        {FUNCTION} g (a) => (b) {{ b = local.f (a) }}""")
    with pytest.raises(UnsupportedError, match="calls itself"):
        InlineFunctions()(model)


def test_a_bomb_is_refused():
    bodies = "\n".join(
        f"{FUNCTION} f{i} (a) => (b) {{ h = local.f{i + 1} (a) b = local.f{i + 1} (h) }}"
        for i in range(40)
    )
    model = load(f"""
        {HEADER} g (float[3] x) => (float[3] y) {{ y = local.f0 (x) }}
        {bodies}
        {FUNCTION} f40 (a) => (b) {{ b = Neg (a) }}""")
    with pytest.raises(UnsupportedError, match=f"make {2**40} nodes"):
        InlineFunctions()(model)


def test_another_opset_is_refused():
    model = load(f"""
        {HEADER} g (float[3] x) => (float[3] y) {{ y = local.f (x) }}
        <opset_import: ["" : 17], domain: "local"> f (a) => (b) {{ b = Neg (a) }}""")
    with pytest.raises(UnsupportedError, match="Opset mismatch"):
        InlineFunctions()(model)


def test_functions_that_nobody_calls_go():
    model = load(f"""
        {HEADER} g (float[3] x) => (float[3] y) {{ y = Neg (x) }}
        {FUNCTION} f (a) => (b) {{ b = Abs (a) }}""")
    check_rewrite(InlineFunctions(), model, count=1)
