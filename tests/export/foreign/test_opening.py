"""Broken and hostile models: one clear error each."""

import os
import re
import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export import ExportError, fold_batch_norms
from keras_bn.export.foreign.opening import open_model
from tests.export.foreign_graphs import TORCH, conv_bn, foreign, serialised
from tests.export.hostile_files import field

ADVICE = "Export or copy it again."


def assert_invalid(model, *texts):
    with pytest.raises(ExportError) as caught:
        fold_batch_norms(model)
    message = str(caught.value)
    assert message.startswith("fold: the model must be a whole and valid ONNX model. Received: ")
    assert message.endswith(ADVICE)
    assert "\n" not in message
    assert len(message) < 600
    for text in texts:
        assert text in message


def assert_invalid_everywhere(proto, tmp_path, *texts):
    """Assert that a model is refused as a protobuf and as a file."""
    assert_invalid(proto, "an onnx.ModelProto", *texts)
    path = tmp_path / "model.onnx"
    path.write_bytes(serialised(proto))
    assert_invalid(path, repr(str(path)), *texts)


@pytest.mark.parametrize("missing", ["no.onnx", "no/model.onnx", ".", "a" * 300])
def test_path_without_a_file(tmp_path, missing):
    with pytest.raises(ExportError, match=r"The ONNX model must be a readable file\. Received: "):
        fold_batch_norms(tmp_path / missing)


def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="readable file"):
        fold_batch_norms(tmp_path / "pipe")


@pytest.mark.parametrize("length", [1, 3, 17, 200, -1])
def test_truncated_file(tmp_path, length):
    path = tmp_path / "model.onnx"
    path.write_bytes(serialised(foreign(TORCH))[:length])
    assert_invalid(path, repr(str(path)))


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "0 bytes"), (b"\x04zip", "no ONNX file"), (b"\x08\x08", "no graph")],
    ids=["empty", "zip", "no graph"],
)
def test_file_that_is_no_model(tmp_path, content, why):
    (tmp_path / "model.onnx").write_bytes(content)
    assert_invalid(tmp_path / "model.onnx", why)


def test_model_of_keras_is_told_apart(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"PK\x03\x04zip")
    with pytest.raises(ExportError, match="of Keras or another archive"):
        fold_batch_norms(tmp_path / "model.onnx")


def test_every_truncation_is_an_error_or_a_smaller_model(tmp_path):
    content, path = serialised(conv_bn()), tmp_path / "model.onnx"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ExportError):
            fold_batch_norms(path)


def test_flipped_bits_do_no_harm(tmp_path):
    content, rng = serialised(foreign(TORCH)), np.random.default_rng(0)
    path, outcomes = tmp_path / "model.onnx", set()
    for _ in range(200):
        broken = bytearray(content)
        broken[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            outcomes.add(type(fold_batch_norms(path)[0]))
        except ExportError:
            outcomes.add(ExportError)
    assert outcomes == {ir.Model, ExportError}


def unsorted(proto):
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])


def cyclic(proto):
    proto.graph.node[0].input[0] = "y"


def two_outputs(proto):
    proto.graph.node[0].output[0] = "y"


def two_inputs(proto):
    proto.graph.input.append(proto.graph.input[0])


def two_initializers(proto):
    proto.graph.initializer.append(proto.graph.initializer[0])


def output_like_an_initializer(proto):
    proto.graph.node[0].output[0] = "w"


def nothing_made(proto):
    proto.graph.node[0].input[0] = "nowhere"


def no_such_output(proto):
    proto.graph.output[0].name = "nowhere"


def no_text(proto):
    content = serialised(proto).replace(b"Conv", b"C\xffnv")
    proto.ParseFromString(content)


def without_a_name(proto):
    proto.graph.initializer[0].name = ""


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (unsorted, "reads 'c', which nothing before it makes"),
        (cyclic, "reads 'y', which nothing before it makes"),
        (two_outputs, "'y'"),
        (two_inputs, "two tensors are called 'x'"),
        (two_initializers, "two tensors are called 'w'"),
        (output_like_an_initializer, "'w'"),
        (nothing_made, "Conv 'c' reads 'nowhere', which nothing before it makes"),
        (no_such_output, "nothing makes the output 'nowhere'"),
        (no_text, "the name b'C\\xffnv' is not UTF-8"),
        (without_a_name, "a tensor has no name"),
    ],
)
def test_broken_graph(damage, why, tmp_path):
    proto = conv_bn()
    damage(proto)
    assert_invalid_everywhere(proto, tmp_path, why)


def test_unsorted_onnx_ir_model():
    model = ir.from_proto(conv_bn())
    model.graph.insert_after(model.graph[1], first := model.graph[0])
    assert first is model.graph[1]
    assert_invalid(model, "an onnx_ir.Model", "which nothing before it makes")


def test_body_that_reads_what_comes_later(tmp_path):
    text = """g (bool k, float[2] x) => (float[2] y) {
        e = If(k) <then_branch = a () => (float[2] p) { p = Relu(later) },
            else_branch = b () => (float[2] q) { q = Relu(x) }>
        later = Relu(x) y = Add(e, later)
    }"""
    assert_invalid_everywhere(foreign(text), tmp_path, "Relu 'p' reads 'later'")


def more_bytes(tensor):
    tensor.raw_data += b"1234"


def other_dtype(tensor):
    tensor.data_type = onnx.TensorProto.DOUBLE


def unknown_dtype(tensor):
    tensor.data_type = 99


def no_dtype(tensor):
    tensor.data_type = 0


def negative_size(tensor):
    tensor.dims[0] = -4


def huge_size(tensor):
    tensor.dims[0] = 2**62


def too_few_elements(tensor):
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 7)


def strings(tensor):
    tensor.ClearField("raw_data")
    tensor.data_type = onnx.TensorProto.STRING
    tensor.string_data.append(b"one")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (more_bytes, "has 436 bytes for the shape [4, 3, 3, 3] of FLOAT, not 432"),
        (other_dtype, "has 432 bytes for the shape [4, 3, 3, 3] of DOUBLE, not 864"),
        (unknown_dtype, "99 is not a valid DataType"),
        (no_dtype, "has the dtype UNDEFINED"),
        (negative_size, "[-4, 3, 3, 3]"),
        (huge_size, "has 432 bytes for the shape"),
        (too_few_elements, "has 7 elements for the shape [4, 3, 3, 3] of FLOAT, not 108"),
        (strings, "has 1 strings for the shape [4, 3, 3, 3]"),
    ],
)
def test_constant_that_does_not_fit_its_shape(damage, why, tmp_path):
    proto = conv_bn()
    damage(next(tensor for tensor in proto.graph.initializer if tensor.name == "w"))
    assert_invalid_everywhere(proto, tmp_path, why)


@pytest.mark.parametrize(
    "dtype",
    [onnx.TensorProto.DataType.Value(name) for name in (
        "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "INT64", "UINT64", "UINT16", "BOOL",
        "COMPLEX64", "COMPLEX128", "INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT4E2M1", "INT2",
    )],
)  # fmt: skip
@pytest.mark.parametrize("raw", [True, False])
def test_constants_of_every_dtype_are_accepted(dtype, raw):
    proto = conv_bn(opset=25, ir_version=13, imports=', "mine" : 1')
    zeros = np.zeros(5, onnx.helper.tensor_dtype_to_np_dtype(dtype))
    if raw:
        tensor = onnx.numpy_helper.from_array(zeros, "extra")
    else:
        tensor = onnx.helper.make_tensor("extra", dtype, [5], zeros)
    assert tensor.data_type == dtype
    proto.graph.initializer.append(tensor)
    proto.graph.node.add(op_type="Custom", domain="mine", input=["extra"], output=["z"])
    assert len(fold_batch_norms(proto)[1].folds) == 1


def test_attribute_of_the_wrong_kind_is_what_the_checker_says():
    proto = conv_bn()
    proto.graph.node[1].attribute.append(onnx.helper.make_attribute("epsilon", "much"))
    assert_invalid(proto, "epsilon")


def test_operator_with_too_few_inputs_is_an_error_or_left():
    proto = conv_bn()
    del proto.graph.node[1].input[3:]
    try:
        result, _ = fold_batch_norms(proto)
    except ExportError as e:
        assert "BatchNormalization" in str(e)  # noqa: PT017
    else:
        assert result is proto


def test_constant_that_would_be_huge_is_not_made():
    text = """g (float[2,3] x) => (float[2,3] y, float[a,b] z, float[c] u, float[d] v) {
        column = Reshape(w, tall) row = Reshape(w, wide) outer = MatMul(column, row) z = Exp(outer)
        many = Constant<value_ints = [1000000000000]>()
        vast = ConstantOfShape(many) twice = Sum(vast, vast) u = Mul(twice, vast)
        size = Constant<value_int = 100000000000>() window = HannWindow(size) v = Exp(window)
        y = Relu(x)
    }"""
    proto = foreign(text, 17, weights={"w": (100_000,)})
    for name, shape in (("tall", [-1, 1]), ("wide", [1, -1])):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    result, report = fold_batch_norms(proto)
    assert result is proto
    assert report.folds == ()


def test_error_names_the_file_and_is_chained(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ExportError, match=re.escape(repr(str(path)))) as caught:
        fold_batch_norms(path)
    assert caught.value.__cause__ is not None


def test_error_begins_with_whoever_opens_the_model(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\xff")
    (tmp_path / "keras.onnx").write_bytes(b"PK")
    for name, rule in (("model.onnx", "be a whole"), ("keras.onnx", "be an ONNX file")):
        with pytest.raises(ExportError, match=rf"^check: the model must {rule}"):
            open_model(tmp_path / name, where="check")
        with pytest.raises(ExportError, match=rf"^fold: the model must {rule}"):
            open_model(tmp_path / name)


CALLS = """<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
    g (float[2] x) => (float[2] y) { y = mine.f0(x) }"""
FUNCTION = """<domain: "mine", opset_import: ["" : 17, "mine" : 1]>
    %s (p) => (q) { %s }"""


def calling(*bodies):
    functions = [FUNCTION % (f"f{i}", body) for i, body in enumerate(bodies)]
    return onnx.parser.parse_model("\n".join([CALLS, *functions]))


@pytest.mark.parametrize(
    "bodies",
    [
        ["q = mine.f0(p)"],
        ["q = mine.f1(p)", "q = mine.f2(p)", "q = mine.f1(p)"],
        ["""k = Constant<value = bool {1}>() q = If(k) <
            then_branch = a () => (float[2] r) { r = mine.f0(p) },
            else_branch = b () => (float[2] s) { s = Relu(p) }>"""],
    ],
    ids=["itself", "in a circle", "in a body"],
)  # fmt: skip
def test_function_that_calls_itself(bodies, tmp_path):
    assert_invalid_everywhere(calling(*bodies), tmp_path, "calls itself")


def test_functions_may_call_each_other():
    twice = "r = mine.f{0}(p) q = mine.f{0}(r)"
    bodies = [twice.format(i + 1) for i in range(30)]
    proto = calling(*bodies[:10], "q = Relu(p)")
    assert fold_batch_norms(proto)[0] is proto
    assert_invalid(calling(*bodies, "q = Relu(p)"), "its functions make 1,073,741,824 nodes")


def test_range_that_would_be_huge_is_not_followed():
    text = """g (float[2,3] x) => (float[2,3] y) {
        a = Constant<value_int = 0>() b = Constant<value_int = 4611686018427387904>()
        c = Constant<value_int = 1>() v = Range(a, b, c) s = ReduceMax<keepdims = 0>(v)
        f = Cast<to = 1>(s) y = Add(x, f)
    }"""
    proto = foreign(text, 17, weights={})
    assert fold_batch_norms(proto)[0] is proto


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_constant_that_is_joined_with_itself_again_and_again_is_left(dtype):
    joined = " ".join(f"x{i + 1} = Concat<axis = 0>(x{i}, x{i})" for i in range(60))
    text = f"""g (float[2] x) => (float[2] y) {{
        {joined} s = ReduceMax<keepdims = 0>(x60) f = Cast<to = 1>(s) y = Add(x, f)
    }}"""
    proto = foreign(text, 17, weights={})
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, dtype), "x0"))
    tracemalloc.start()
    assert fold_batch_norms(proto)[0] is proto
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**29


def test_very_many_attributes_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    node = field(1, b"\x2a\x00" * 1_000_001)
    path.write_bytes(serialised(conv_bn()) + field(7, node))
    assert_invalid(path, "over 1,000,000 nodes and attributes")
