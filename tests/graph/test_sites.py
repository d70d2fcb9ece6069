"""Which operators become sites, and the reason that every other one is given."""

import pytest
from support.models import load
from support.nets import TARGET, Settings, prepare

from ptq.errors import ConfigError
from ptq.graph.sites import clip_range, find_sites, plan_nodes, requests
from ptq.plan.request import Request
from ptq.runtime.host import host_target

DECLARED = """
    float[4, 4, 3, 3] w, float[4, 1, 3, 3] d, float[4, 2, 3, 3] g, float[4] b, float[4, 1, 1] array,
    float[1, 4] row, float[4, 1] column, float one, float[4, 4] m, float[2, 4, 4] batch,
    float[4] vec,
    float zero = {0}, float six = {6}, float minus = {-1}, float half = {0.5},
    int64[2] halves = {2, 2}, int64[1] axis0 = {0}, int64[4] twice = {1, 4, 16, 16}"""


def sites_of(body, shape="1, 4, 8, 8", outputs="y", **settings):
    listed = ", ".join(f"float[{', '.join(f'{n}{i}' for i in range(4))}] {n}" for n in outputs)
    text = (
        f"g (float[{shape}] x, float[4] v, float[4, 4] a) => ({listed}) <{DECLARED}> {{ {body} }}"
    )
    model = load(text)
    for output in model.graph.outputs:
        output.shape = None
    return Settings(**settings).sites(prepare(model))


def site_of(body, op_type, **options):
    [site] = [s for s in sites_of(body, **options).sites if s.node.op_type == op_type]
    return site


def why(body, **options):
    """The reasons by name of the output."""
    found = sites_of(body, **options).why_float
    return {name.partition(":")[2]: reason for name, reason in found.items()}


# -- linear operators ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "shape", "axis"),
    [
        ("y = Conv (x, w, b)", "1, 4, 8, 8", 0),
        ("y = Conv <group = 4> (x, d)", "1, 4, 8, 8", 0),
        ("y = Gemm (x, m)", "3, 4", 1),
        ("y = Gemm <transB = 0> (x, m)", "3, 4", 1),
        ("y = Gemm <transB = 1> (x, m, b)", "3, 4", 0),
        ("y = MatMul (x, m)", "2, 3, 4", 1),
        ("y = MatMul (x, batch)", "2, 3, 4", None),
    ],
)
def test_the_axis_of_the_output_channels(body, shape, axis):
    [site] = sites_of(body, shape=shape).sites
    assert site.weight_axis == axis
    assert site.activations[0].name == "x"


def test_only_one_input_channel_for_each_group_is_depthwise():
    assert site_of("y = Conv <group = 4> (x, d)", "Conv").depthwise
    assert not site_of("y = Conv <group = 2> (x, g)", "Conv").depthwise
    assert not site_of("y = Conv (x, w)", "Conv").depthwise
    one = (
        "g (float[1, 1, 8, 8] x) => (float[A, B, C, D] y) <float[4, 1, 3, 3] w> { y = Conv (x, w) }"
    )
    [site] = Settings().sites(prepare(one)).sites
    assert not site.depthwise


@pytest.mark.parametrize(
    ("body", "shape", "reason"),
    [
        ("y = Gemm (a, x)", "4, 4", "the weight is not constant"),
        ("y = Gemm (m, a)", "4, 4", "the weight is not constant"),
        ("y = Gemm (x, m, v)", "3, 4", "the bias is not constant"),
        ("y = Gemm (x, m, one)", "3, 4", "the bias is not one value per output channel"),
        # as many values as channels, but one for each row of the output
        ("y = Gemm (x, m, column)", "4, 4", "the bias is not one value per output channel"),
        ("y = Gemm <alpha = 0.5> (x, m)", "3, 4", "attribute alpha=0.5; the kernel needs 1.0"),
        ("y = Gemm <beta = 2.0> (x, m, b)", "3, 4", "attribute beta=2.0; the kernel needs 1.0"),
        ("y = Gemm <transA = 1> (x, m)", "4, 4", "attribute transA=1; the kernel needs 0"),
        ("y = MatMul (m, x)", "4, 4", "the weight is not constant"),
        ("y = MatMul (x, vec)", "3, 4", "the weight is a vector"),
        ("y = ConvTranspose (x, w)", "1, 4, 8, 8", "onnxruntime has no integer kernel"),
        ("y = Erf (x)", "3, 4", f"no integer kernel on target '{host_target()}'"),
        ("y = Add (x, x)", "3, 4", "no integer operator before it"),
    ],
)
def test_the_reason_why_an_operator_stays_in_float(body, shape, reason):
    found = sites_of(body, shape=shape)
    assert found.sites == ()
    assert list(found.why_float.values()) == [reason]


def test_a_row_of_a_bias_is_one_value_per_channel():
    assert site_of("y = Gemm (x, m, row)", "Gemm", shape="3, 4").bias.name == "row"


def test_a_scalar_bias_of_one_channel_stays_in_float():
    text = (
        """g (float[3, 4] x) => (float[3, 1] y) <float[4, 1] w, float b> { y = Gemm (x, w, b) }"""
    )
    assert Settings().sites(prepare(text)).sites == ()


def test_operators_of_other_domains_stay_in_float():
    model = load(
        "g (float[1, 4, 8, 8] x) => (float[A, B, C, D] y) <float[4, 4, 1, 1] w> { y = Conv (x, w) }"
    )
    prepare(model)
    model.graph[0].domain = "com.example"
    [reason] = Settings().sites(model).why_float.values()
    assert reason == "operator of domain 'com.example'"


# -- absorbed activation functions ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "absorbed"),
    [
        ("r = Relu (t) y = Conv (r, w)", True),
        ("r = Clip (t, zero, six) y = Conv (r, w)", True),
        ("r = Clip (t, minus, half) y = Conv (r, w)", True),
        ("r = Clip (t) y = Conv (r, w)", True),
        ("r = Clip (t, , six) y = Conv (r, w)", True),
        ("r = Clip (t, half, six) y = Conv (r, w)", False),  # 0 is not in the range
        ("r = Clip (t, minus, zero) y = Conv (r, w)", False),  # 0 is all of the positive side
        ("s = ReduceMax <keepdims = 0> (x) r = Clip (t, zero, s) y = Conv (r, w)", False),
        ("r = LeakyRelu (t) y = Conv (r, w)", False),
        ("r = Relu (t) s = Abs (t) y = Add (r, s)", False),  # two readers
    ],
)
def test_relu_or_a_constant_clip_is_absorbed_if_it_alone_reads_the_result(after, absorbed):
    site = sites_of(f"t = Conv (x, w) {after}").sites[0]
    assert (site.absorbed is not None) == absorbed
    assert site.outputs[0].name == ("r" if absorbed else site.node.outputs[0].name)


def test_an_output_of_the_model_is_not_absorbed():
    found = sites_of("t = Conv (x, w) r = Relu (t)", outputs="tr")
    assert [s.absorbed for s in found.sites] == [None]


@pytest.mark.parametrize("keep", [{"exclude": ("Relu:r",)}, {"keep_float": (("Relu:r", "so"),)}])
def test_an_activation_function_that_is_to_stay_in_float_is_not_absorbed(keep):
    found = sites_of("t = Conv (x, w) r = Relu (t) y = Conv (r, w)", **keep)
    assert [s.absorbed for s in found.sites] == [None, None]
    assert "Relu:r" in found.why_float


def test_add_absorbs_and_multiply_does_not():
    body = "t = Conv (x, w) l = LeakyRelu (t) s = {} (t, l) r = Relu (s) y = Conv (r, w)"
    assert site_of(body.format("Add"), "Add").absorbed is not None
    assert why(body.format("Mul"))["s"] == "no integer operator after it"  # but the Relu


def test_a_gemm_whose_result_nobody_reads_as_codes_absorbs_nothing():
    text = """
        g (float[3, 4] x) => (float[A, B] y) <float[4, 4] w> {
          t = Gemm (x, w) r = Relu (t) y = Tanh (r)
        }"""
    found = Settings().sites(prepare(text))
    assert [(s.requantize, s.absorbed) for s in found.sites] == [(False, None)]
    assert found.why_float.keys() == {"Relu:r", "Tanh:y"}


@pytest.mark.parametrize(
    ("clip", "bounds"),
    [
        ("Relu (t)", (0, float("inf"))),
        ("Clip (t, minus)", (-1, float("inf"))),
        ("Clip (t, , six)", (-float("inf"), 6)),
        ("Clip (t, minus, half)", (-1, 0.5)),
    ],
)
def test_the_range_of_an_absorbed_node(clip, bounds):
    site = sites_of(f"t = Conv (x, w) y = {clip}").sites[0]
    assert clip_range(site.absorbed) == bounds


# -- between integers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ("t = Conv (x, w) s = Sigmoid (t) y = Conv (s, w)", {}),
        ("t = Conv (x, w) y = Sigmoid (t)", {"y": "no integer operator after it"}),
        ("t = Sigmoid (x) y = Conv (t, w)", {"t": "no integer operator before it"}),
        (
            # a chain falls together, from both ends
            "s = Sigmoid (x) t = Transpose (s) u = LeakyRelu (t) y = Tanh (u)",
            {"s": "no integer operator before it", "t": "no integer operator before it",
             "u": "no integer operator before it",
             "y": f"no integer kernel on target '{host_target()}'"},
        ),
        (
            "t = Conv (x, w) u = Transpose (t) s = Squeeze (u, axis0) y = Tanh (s)",
            {"u": "no integer operator after it", "s": "no integer operator after it",
             "y": f"no integer kernel on target '{host_target()}'"},
        ),
        # one integer operand is enough
        ("t = Conv <pads = [1, 1, 1, 1]> (x, w) s = Add (t, x) y = Conv (s, w)", {}),
        (
            "t = Conv <pads = [1, 1, 1, 1]> (x, w) s = Add (t, array) y = Conv (s, w)",
            {},  # the prepare passes fold the constant
        ),
        (
            "t = Conv (x, w) r = LeakyRelu (t) s = Mul (r, array) y = Conv (s, w)",
            {},
        ),
        (
            """t = Conv (x, w) s = Sigmoid (t) p = MaxPool <kernel_shape = [2, 2]> (s)
               y = Conv (p, w)""",
            {},
        ),
        (
            """t = Conv (x, w) s = Transpose (t) p = MaxPool <kernel_shape = [2, 2]> (s)
               y = Conv (p, w)""",
            {"s": "no integer operator after it",
             "p": "the integer kernel is slow unless it follows Conv or Add or Concat or "
                  "HardSwish or LeakyRelu or MaxPool or Mul or Sigmoid"},
        ),
        (
            'z = Resize <mode = "linear"> (t, , , twice) t = Conv (x, w) y = Conv (z, w)',
            {"z": "attribute mode=linear; the kernel needs nearest"},
        ),
    ],
)  # fmt: skip
def test_operators_without_weights_are_integer_only_between_integers(body, reasons):
    assert why(body) == reasons


def test_the_indices_of_a_max_pool_are_no_activation():
    text = f"""g (float[1, 4, 8, 8] x) => (float[A, B, C, D] y, int64[A, B, E, F] i) <{DECLARED}> {{
        t = Conv (x, w) p, i = MaxPool <kernel_shape = [2, 2]> (t) y = Conv (p, w) }}"""
    found = Settings().sites(prepare(text))
    assert "MaxPool:p" in found.why_float


def test_a_resize_that_makes_up_values_stays_in_float():
    # codes of what lies outside would be extrapolation_value itself, not its code
    text = """
        g (float[1, 4, 8, 8] x) => (float[A, B, C, D] y)
        <float[4, 4, 3, 3] w, float[8] roi = {0, 0, 0, 0, 1, 1, 2, 2},
         int64[4] twice = {1, 4, 16, 16}> {
          t = Conv <pads = [1, 1, 1, 1]> (x, w)
          r = Resize <mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize",
                      extrapolation_value = 3.0> (t, roi, , twice)
          y = Conv (r, w)
        }"""
    found = Settings().sites(prepare(text))
    assert "Resize:r" in found.why_float


# -- what the user asks for ----------------------------------------------------------------------

BLOCKS = """t = Conv <pads = [1, 1, 1, 1]> (x, w) s = Conv <pads = [1, 1, 1, 1]> (t, w)
            u = Add (t, s) y = Conv (u, w)"""


def test_excluded_nodes_stay_in_float():
    found = sites_of(BLOCKS, exclude=("Conv:[ts]",))
    # and what is not between integers any more goes with them
    assert found.why_float == {
        "Conv:t": "excluded by --exclude",
        "Conv:s": "excluded by --exclude",
        "Add:u": "no integer operator before it",
    }


def test_a_glob_that_matches_nothing_is_an_error():
    with pytest.raises(ConfigError, match="--exclude 'Conv:z' matches no node"):
        sites_of(BLOCKS, exclude=("Conv:t", "Conv:z"))


def test_only_the_operator_types_asked_for():
    found = sites_of(BLOCKS, op_types=("Conv",))
    assert {s.node.op_type for s in found.sites} == {"Conv"}
    assert found.why_float == {"Add:u": "not among --op-types"}


def test_an_operator_type_that_the_target_does_not_run_is_an_error():
    with pytest.raises(ConfigError, match=r"'Softmax' has no integer kernel.*choose from: Add, C"):
        sites_of(BLOCKS, op_types=("Conv", "Softmax"))


def test_nodes_kept_in_float_carry_the_reason_given():
    found = sites_of(BLOCKS, keep_float=(("Conv:t", "because"),))
    assert found.why_float["Conv:t"] == "because"


# -- what is asked of the plan -------------------------------------------------------------------


def test_requests_name_the_source_of_every_scale():
    found = sites_of("""
        t = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (t)
        m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r)
        s = Sigmoid (m) h = Mul (s, half) e = Add (h, minus)
        c = Concat <axis = 2> (m, e) y = Conv (c, w)""")
    assert requests(found) == [
        Request("x", observed="x"),
        Request("r", observed="r"),
        Request("m", copies="r"),
        Request("s", observed="s"),
        Request("h", copies="s", factor=0.5),
        Request("minus", constant=(-1.0, -1.0)),
        Request("e", observed="e", copies="h", shift=-1.0),
        Request("c", joins=("m", "e")),
        Request("y", observed="y"),
    ]


def test_a_move_that_is_left_in_float_between_sites_keeps_the_scale():
    # the pool follows no convolution and stays in float, and with it what is around it; a scale of
    # its own would round a second time, and onnxruntime would make one scale of both
    body = """t = Conv <pads = [1, 1, 1, 1]> (x, w) k = Transpose <perm = [0, 1, 3, 2]> (t)
              m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (k)
              u = Transpose <perm = [0, 1, 3, 2]> (m) y = Conv (u, w)"""
    found = sites_of(body)
    assert {s.node.op_type for s in found.sites} == {"Conv"}
    assert requests(found) == [
        Request("x", observed="x"),
        Request("t", observed="t"),
        Request("u", copies="t"),
        Request("y", observed="y"),
    ]


def test_a_move_of_what_was_never_rounded_gets_a_scale_of_its_own():
    found = sites_of("u = Transpose <perm = [0, 1, 3, 2]> (x) t = Conv (x, w) y = Conv (u, w)")
    assert Request("u", observed="u") in requests(found)


def test_sources_come_before_what_takes_their_scale():
    found = sites_of(
        """
        t = Conv <group = 2> (x, g) p, q = Split <axis = 1> (t, halves)
        c = Concat <axis = 1> (q, p, q) e = Concat <axis = 1> (c, t)
        s = Squeeze (e, axis0) u = Unsqueeze (s, axis0) y = Conv <group = 10> (u, k)
        """.replace("<group = 10> (u, k)", "(t, w)")
    )
    seen = set()
    for request in requests(found):
        for source in (request.copies, *request.joins):
            assert source is None or source in seen
        seen.add(request.tensor)


def test_depthwise_weights_are_symmetric_whatever_is_asked():
    body = "t = Conv <group = 4> (x, d) y = Conv (t, w)"
    text = f"g (float[1, 4, 8, 8] x) => (float[A, B, C, D] y) <{DECLARED}> {{ {body} }}"
    model = prepare(text)
    nodes = plan_nodes(model, find_sites(model, TARGET), symmetric=False)
    assert [(n.name, n.weight, n.weight_symmetric) for n in nodes] == [
        ("Conv:t", "d", True),
        ("Conv:y", "w", False),
    ]


def test_an_absorbed_node_counts_as_integer():
    text = f"""g (float[1, 4, 8, 8] x) => (float[A, B, C, D] y) <{DECLARED}> {{
        t = Conv (x, w) r = Relu (t) y = Tanh (r) }}"""
    model = prepare(text)
    nodes = plan_nodes(model, find_sites(model, TARGET), symmetric=True)
    assert [(n.name, n.integer, n.weight) for n in nodes] == [
        ("Conv:t", True, "w"),
        ("Relu:r", True, None),
        ("Tanh:y", False, None),
    ]
    assert nodes[2].why
