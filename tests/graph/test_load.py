"""Any ONNX file is loaded or refused with one line that names it."""

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from support.models import parse, run, write

from ptq.data.feeds import InputSpec
from ptq.errors import ModelError, PtqError, UnsupportedError
from ptq.graph.load import input_specs, load_model, model_digest, model_files
from ptq.graph.normalize import normalize

LINEAR = "g (float[N, 16] x) => (float[N, 32] y) <float[16, 32] w> { y = MatMul (x, w) }"


@pytest.fixture
def external(tmp_path):
    """A model whose weight, 2048 bytes, lies in ``weights.bin`` beside it."""
    model = parse(LINEAR)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def weight_of(path, edit):
    """Rewrite the first initializer of a model file."""
    model = onnx.ModelProto.FromString(path.read_bytes())
    edit(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())


def set_external(tensor, **entries):
    kept = {e.key: e.value for e in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in kept.items():
        tensor.external_data.add(key=key, value=value)


# ------------------------------------------------------------------ what is loaded


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21, 26])
@pytest.mark.parametrize("ir_version", [3, 4, 7, 10, 13])
def test_any_opset_and_ir_version(tmp_path, opset, ir_version):
    proto = parse(LINEAR, opset=opset)
    proto.ir_version = ir_version
    if ir_version < 4:
        proto.graph.input.append(helper.make_tensor_value_info("w", 1, [16, 32]))
    model = load_model(write(tmp_path / "model.onnx", proto))
    assert [spec.name for spec in input_specs(model)] == ["x"]
    normalize(model)


def test_relative_paths_and_strings(external, monkeypatch):
    monkeypatch.chdir(external.parent)
    model = load_model("model.onnx")
    monkeypatch.chdir("/")
    assert model.graph.initializers["w"].const_value.numpy().shape == (16, 32)


def test_external_data_is_not_read_before_it_is_needed(external):
    tensor = load_model(external).graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None
    expected = numpy_helper.to_array(parse(LINEAR).graph.initializer[0])
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_nodes_out_of_order_are_sorted(tmp_path):
    proto = parse("g (float[3] x) => (float[3] y) { a = Neg (x) y = Abs (a) }")
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = load_model(write(tmp_path / "model.onnx", proto))
    assert [node.op_type for node in model.graph] == ["Neg", "Abs"]


def test_the_long_name_of_the_standard_domain(tmp_path):
    proto = parse("g (float[3] x) => (float[3] y) { y = Neg (x) }", opset=17)
    proto.opset_import[0].domain = proto.graph.node[0].domain = "ai.onnx"
    model = load_model(write(tmp_path / "model.onnx", proto))
    assert model.opset_imports == {"": 17}
    assert normalize(model)


def test_custom_operators_and_other_domains(tmp_path):
    path = write(
        tmp_path / "model.onnx",
        """
        <ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3, "my.domain" : 1]>
        g (float[3] x) => (float[3] y) {
          a = ai.onnx.ml.Normalizer (x)
          y = my.domain.Op <k = 1> (a)
        }
    """,
    )
    model = load_model(path)
    normalize(model)
    assert [node.domain for node in model.graph] == ["ai.onnx.ml", "my.domain"]


def test_a_model_that_computes_nothing(tmp_path):
    normalize(load_model(write(tmp_path / "m.onnx", "g (float[3] x) => (float[3] x) { }")))


def test_an_external_attribute_is_brought_in(tmp_path):
    proto = parse(
        "g (float[3] x) => (float[3] y) { c = Constant <value = float[3] {1, 2, 3}> ()"
        " y = Add (x, c) }"
    )
    tensor = proto.graph.node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="c.bin")
    (tmp_path / "c.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    model = load_model(write(tmp_path / "model.onnx", proto))
    [out] = run(model, {"x": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(out, [1, 2, 3])


def test_loading_says_nothing(tmp_path, caplog, capfd):
    path = write(tmp_path / "model.onnx", LINEAR)
    weight_of(path, lambda tensor: setattr(tensor, "name", ""))
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelError):
        load_model(path)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------ inputs


def test_input_specs(tmp_path):
    path = write(
        tmp_path / "model.onnx",
        """
        g (float[N, 3, 224] a, int64[4] b, string[N] c, double d, bool[2] e) => (float[N, 3, 224] y)
        { y = Neg (a) }""",
    )
    assert input_specs(load_model(path)) == [
        InputSpec("a", np.dtype("float32"), ("N", 3, 224)),
        InputSpec("b", np.dtype("int64"), (4,)),
        InputSpec("c", np.dtype(object), ("N",)),
        InputSpec("d", np.dtype("float64"), ()),
        InputSpec("e", np.dtype(bool), (2,)),
    ]


@pytest.mark.parametrize("name", ["?", "-1", ""])
def test_dimensions_without_a_real_name_are_not_tied_together(tmp_path, name):
    proto = parse("g (float[N, 3] x) => (float[N, 3] y) { y = Neg (x) }")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    [spec] = input_specs(load_model(write(tmp_path / "model.onnx", proto)))
    assert spec.shape == (None, 3)


def test_a_dimension_of_minus_one_is_dynamic_everywhere(tmp_path):
    proto = parse("g (float[N, 3] x) => (float[N, 3] y) { y = Neg (x) }")
    for info in (proto.graph.input[0], proto.graph.output[0]):
        info.type.tensor_type.shape.dim[0].dim_value = -1
    model = load_model(write(tmp_path / "model.onnx", proto))
    assert input_specs(model)[0].shape == (None, 3)
    assert model.graph.outputs[0].shape == ir.Shape([None, 3])


def test_an_input_without_shape(tmp_path):
    path = write(tmp_path / "model.onnx", "g (float[] x) => (float[] y) { y = Neg (x) }")
    assert input_specs(load_model(path))[0].shape is None


def test_an_input_that_is_a_sequence_is_refused(tmp_path):
    path = write(
        tmp_path / "model.onnx",
        "g (seq(float[3]) x) => (float[3] y) <int64 i = {0}> { y = SequenceAt (x, i) }",
    )
    model = load_model(path)
    normalize(model)
    with pytest.raises(UnsupportedError, match="input 'x' is sequence"):
        input_specs(model)


# ------------------------------------------------------------------ files and digests


def test_files_and_digest_follow_the_contents(external):
    data = external.parent / "weights.bin"
    assert model_files(external) == [external, data]
    digest = model_digest(external)
    assert len(digest) == len(hashlib.sha256().hexdigest())
    data.write_bytes(data.read_bytes()[:-1] + b"\x7f")
    assert model_digest(external) != digest


def test_digest_does_not_depend_on_the_folder(external, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for file in model_files(external):
        (elsewhere / file.name).write_bytes(file.read_bytes())
    assert model_digest(elsewhere / "model.onnx") == model_digest(external)


def test_a_missing_data_file_is_named(external):
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        model_digest(external)


# ------------------------------------------------------------------ what is refused


def refused(path, *parts, kind=ModelError):
    with pytest.raises(kind) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_no_such_file(tmp_path):
    refused(tmp_path / "none.onnx", "does not exist")


def test_a_folder(tmp_path):
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model", b"\x80\x04\x95pickle", b"\x08\x07", os.urandom(1000), b"PK\3\4"],
)
def test_not_a_model(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX model")


def test_a_tensor_is_not_a_model(tmp_path):
    path = tmp_path / "input_0.pb"
    path.write_bytes(numpy_helper.from_array(np.zeros(3, np.float32), "x").SerializeToString())
    refused(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_cut_off(tmp_path, share):
    path = write(tmp_path / "model.onnx", LINEAR)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


def test_too_large_for_protobuf(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31 + 10)  # a hole: takes no room on the disk
    refused(path, "2.1 GB", "external data")


def test_no_permission(tmp_path, monkeypatch):
    def deny(_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "model.onnx", LINEAR)
    monkeypatch.setattr(Path, "read_bytes", deny)
    refused(path, "Permission denied")


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda t: t.dims.__setitem__(0, 1 << 40), "has 2048"),
        (lambda t: t.dims.__setitem__(0, -1), "negative dimension"),
        (lambda t: t.dims.extend([1 << 62, 1 << 62]), "has 2048"),
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "has 2047"),
        (lambda t: setattr(t, "raw_data", t.raw_data + b"x"), "has 2049"),
        (lambda t: t.ClearField("raw_data"), "has 0"),
        (lambda t: setattr(t, "data_type", 99), "element type 99"),
        (lambda t: setattr(t, "data_type", 0), "no element type"),
        (lambda t: setattr(t, "data_type", 8), "strings"),
        (lambda t: t.segment.CopyFrom(onnx.TensorProto.Segment(begin=0, end=1)), "segments"),
    ],
)
def test_a_tensor_that_is_not_what_it_claims(tmp_path, edit, part):
    path = write(tmp_path / "model.onnx", LINEAR)
    weight_of(path, edit)
    refused(path, "tensor 'w'", part)


@pytest.mark.parametrize(
    ("field", "dtype", "values", "shape", "valid"),
    [
        ("float_data", 1, [1, 2], [2], True),
        ("float_data", 1, [1, 2, 3], [2], False),
        ("int32_data", 3, [1, 2], [2], True),
        ("int64_data", 7, [1, 2], [2], True),
        ("double_data", 11, [1], [2], False),
        ("uint64_data", 13, [1, 2], [2], True),
        ("float_data", 14, [1, 2, 3, 4], [2], True),
        ("int32_data", 22, [1, 2], [3], True),
        ("int32_data", 22, [1, 2, 3], [3], False),
        ("float_data", 1, [], [0], True),
        ("float_data", 1, [], [3, 0], True),
    ],
)
def test_tensors_in_typed_fields(tmp_path, field, dtype, values, shape, valid):
    proto = parse("g (float[3] x) => (float[3] y) { y = Neg (x) }")
    tensor = proto.graph.initializer.add(name="t", data_type=dtype, dims=shape)
    getattr(tensor, field).extend(values)
    path = write(tmp_path / "model.onnx", proto)
    if valid:
        load_model(path)
    else:
        refused(path, "tensor 't'")


def test_tensors_in_subgraphs_and_attributes_are_looked_at_too(tmp_path):
    proto = parse("""
        g (float[3] x, bool c) => (float[3] y) {
          y = If (c) <then_branch = t () => (float[3] u) {
                          u = Constant <value = float[3] {1, 2, 3}> () },
                      else_branch = e () => (float[3] v) { v = Identity (x) }>
        }""")
    proto.graph.node[0].attribute[0].g.node[0].attribute[0].t.dims[0] = 1 << 50
    refused(write(tmp_path / "model.onnx", proto), "needs 1125899906842624")


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ({"location": "../weights.bin"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "a/../../weights.bin"}, "outside the model's folder"),
        ({"location": "missing.bin"}, "cannot be read"),
        ({"location": "."}, "not a file"),
        ({"location": ""}, "names no file"),
        ({"offset": "-1"}, "offset '-1'"),
        ({"offset": "x"}, "offset 'x'"),
        ({"offset": "9" * 30}, "offset"),
        ({"offset": "4"}, "has 2044"),
        ({"offset": "4000"}, "has 0"),
        ({"length": "4"}, "has 4"),
        ({"length": "4096"}, "has 4096"),
    ],
)
def test_external_data_that_is_not_there(external, entries, part):
    (external.parent.parent / "weights.bin").write_bytes(bytes(4096))
    weight_of(external, lambda tensor: set_external(tensor, **entries))
    refused(external, part)


def test_external_data_behind_a_link_out_of_the_folder(external, tmp_path_factory):
    data, outside = external.parent / "weights.bin", tmp_path_factory.mktemp("outside") / "w"
    data.rename(outside)
    data.symlink_to(outside)
    refused(external, "outside the model's folder", "copy the model and its data into one folder")


def test_external_data_behind_a_link_inside_the_folder(external):
    data = external.parent / "weights.bin"
    data.rename(external.parent / "w")
    data.symlink_to(external.parent / "w")
    assert load_model(external).graph.initializers["w"].const_value.numpy().any()


def test_external_data_with_hard_links(external):
    os.link(external.parent / "weights.bin", external.parent / "again.bin")
    refused(external, "hard links", "make a copy")


def test_unknown_keys_of_external_data_are_ignored(external):
    weight_of(external, lambda tensor: set_external(tensor, colour="red"))
    load_model(external)


STRUCTURE = "g (float[3] x) => (float[3] y) { a = Add (x, x) y = Add (a, x) }"


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda g: g.node[1].input.__setitem__(1, "nowhere"), "reads 'nowhere'"),
        (lambda g: setattr(g.output[0], "name", "nowhere"), "output 'nowhere'"),
        (lambda g: g.node[0].input.__setitem__(1, "y"), "cycle"),
        (lambda g: g.node[0].output.__setitem__(0, "y"), "redeclared"),
        (lambda g: setattr(g.node[0], "op_type", "Swish"), "no operator of opset 21"),
        (lambda g: g.node[0].input.pop(), "1 inputs"),
        (lambda g: g.node[0].input.__setitem__(0, ""), "2 inputs"),
        (lambda g: g.node[0].input.append("x"), "3 inputs"),
    ],
)
def test_a_graph_that_cannot_be(tmp_path, edit, part):
    proto = parse(STRUCTURE)
    edit(proto.graph)
    refused(write(tmp_path / "model.onnx", proto), part)


def test_an_attribute_of_the_wrong_type(tmp_path):
    proto = parse("g (float[3] x) => (float[3] y) { y = Softmax <axis = 0> (x) }")
    attribute = proto.graph.node[0].attribute[0]
    attribute.CopyFrom(helper.make_attribute("axis", 0.5))
    refused(write(tmp_path / "model.onnx", proto), "attribute 'axis'")


def test_no_opset(tmp_path):
    proto = parse(STRUCTURE)
    del proto.opset_import[:]
    refused(write(tmp_path / "model.onnx", proto), "opset 0")


def test_text_that_is_not_utf8(tmp_path):
    path = write(tmp_path / "model.onnx", STRUCTURE.replace("g (", "graph_name ("))
    path.write_bytes(path.read_bytes().replace(b"graph_name", b"graph\xff\xfename"[:10]))
    refused(path)


def test_sparse_initializers(tmp_path):
    proto = parse(STRUCTURE)
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    refused(write(tmp_path / "model.onnx", proto), "sparse", kind=UnsupportedError)


@given(data=st.data())
def test_damage_gives_an_error_of_ours_or_a_model(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    content = bytearray(
        parse(
            "g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) <float[4, 3, 1, 1] w, int64[8] p = "
            "{0, 0, 1, 1, 0, 0, 1, 1}> { q = Pad (x, p) h = Conv <strides = [1, 1]> (q, w)"
            " y = Softmax <axis = 1> (h) }",
            opset=12,
        ).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        model = load_model(path)
        input_specs(model)
        normalize(model)
    except PtqError as error:
        assert "\n" not in str(error)
