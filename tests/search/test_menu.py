"""What layers may have: widths, and shares of zeros beside them."""

import numpy as np
import pytest

from ptq.numerics.qtype import QType
from ptq.search.menu import Form, forms_of, layer_of, measured_of
from ptq.weights import parse_method, weight_quantizer

W = np.random.default_rng(0).standard_normal((4, 2000)).astype(np.float32)


def tensors(forms):
    return {
        form: parse_method(form.method or "mse").quantize(
            W, QType(form.bits, signed=True), axis=0, symmetric=True
        )
        for form in forms
    }


def test_widths_are_the_menu_of_most_methods():
    assert forms_of(weight_quantizer("mse")) == tuple(Form(b) for b in (8, 6, 5, 4, 3))


def test_a_method_that_prunes_has_shares_at_the_widths_that_it_has():
    forms = forms_of(weight_quantizer("clipq"))
    assert forms[0] == Form(8)
    shares = weight_quantizer("clipq").menu()
    assert forms[1:] == tuple(Form(bits, text) for bits in (6, 5, 4, 3) for text in shares)
    assert {form.bits for form in measured_of(forms)} == {4, 3}


def test_what_was_not_measured_has_damage_in_proportion_to_the_error_of_the_same_share():
    forms = forms_of(weight_quantizer("clipq"))
    made = tensors(forms)
    measured = {form: 0.5 if form.bits == 3 else 0.1 for form in measured_of(forms)}
    layer = layer_of("w", W, made, measured)

    def error(form):
        return float(((made[form].dequantize() - W).astype(np.float64) ** 2).sum())

    for form, choice in zip(forms, layer.choices, strict=True):
        known = Form(4, form.method or forms[-4].method)
        wanted = measured.get(form, 0.1 * error(form) / error(known))
        assert choice.damage == pytest.approx(wanted)
        assert (choice.width, choice.method) == form


def test_zeros_cost_less_where_a_compressed_file_counts():
    half, none = Form(4, "clipq:prune=0.5"), Form(4, "clipq:prune=0.0")
    layer = layer_of("w", W, tensors([half, none]), {half: 1.0, none: 1.0})
    plain, coded = layer.in_bits(coded=False), layer.in_bits(coded=True)
    assert [c.cost for c in plain.choices] == [4 * W.size] * 2
    # Half of the weights are one symbol: at most a bit for which half, and 4 bits for the other.
    assert coded.choices[0].cost < 3.0 * W.size < coded.choices[1].cost
    assert layer.in_coded_bytes().choices[0].cost == coded.choices[0].cost / 8
