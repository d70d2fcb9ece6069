"""Weights with levels of their own: from the settings to the file."""

import ptq

#: Two methods and three widths: what no override says has that of the settings.
LEVELS = {
    "bits": 4,
    "weights_symmetric": False,
    "weight_method": "lq",
    "place": ("all",),
    "overrides": (
        ptq.Override(match="block1.*", bits=2, weight_method="twn"),
        ptq.Override(match="block2.expand.conv", bits=8),
    ),
}


def test_each_layer_has_the_width_and_the_method_that_is_said(made):
    report = made(**LEVELS).report
    assert not report.ran_float
    # of block1, with one expanding, one depthwise and one projecting layer; ends have 8 bits
    assert report.weight_bits == {2: 2624, 4: 26240 + 2048 + 576, 8: 4432 - 2048 - 576}


def test_there_is_no_word_on_zero_points_that_no_weight_has(made):
    result = made(**LEVELS)
    assert not any("symmetric" in notice for notice in result.report.notices)
