"""Weights listed as inputs, as before IR version 4, become constants."""

from support.models import load, random_feed, run

from ptq.graph.passes.remove_initializer_inputs import RemoveInitializerInputs


def test_inputs_with_a_value_go_and_the_others_stay_in_order():
    model = load(
        "g (float[3] a, float[3] w, float[3] b) => (float[3] y) <float[3] v> {"
        "h = Add (a, w) i = Sub (h, b) y = Mul (i, v) }"
    )
    weight = model.graph.inputs[1]
    weight.const_value = model.graph.initializers["v"].const_value
    model.graph.initializers["w"] = weight
    feed = {"a": [1, 2, 3], "b": [4, 5, 6]}
    feed = {name: value for name, value in random_feed(model).items() if name in feed}
    before = run(model, feed)
    assert RemoveInitializerInputs()(model).count == 1
    assert [value.name for value in model.graph.inputs] == ["a", "b"]
    assert "w" in model.graph.initializers
    assert (run(model, feed)[0] == before[0]).all()
    assert RemoveInitializerInputs()(model).count == 0
