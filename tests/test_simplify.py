import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, operators, run_float64
from tolerances import FLOAT64, assert_close

from keras_bn.export.simplify import simplify

SIZES = ({"N": 1, "H": 6, "W": 5}, {"N": 3, "H": 7, "W": 8})


def check(text, expected, *, opset=18, integers=(), **weights):
    """Assert that the simplified graph has these operators and is the same function."""
    model = graph(text, opset=opset, **weights)
    before = ir.to_proto(model).SerializeToString()
    after = simplify(model)
    assert operators(after) == expected
    assert ir.to_proto(model).SerializeToString() == before
    proto = ir.to_proto(after)
    onnx.checker.check_model(proto, full_check=True)
    assert ir.to_proto(simplify(after)).SerializeToString() == proto.SerializeToString()
    for kind in ("inputs", "outputs"):
        values = zip(getattr(after.graph, kind), getattr(model.graph, kind), strict=True)
        assert all((a.name, a.dtype, a.shape) == (e.name, e.dtype, e.shape) for a, e in values)
    assert_same(after, model, integers)
    return after


def assert_same(after, model, integers=()):
    """Compare two graphs in float64 for several sizes of their dynamic dimensions."""
    rng = np.random.default_rng(0)
    for sizes in SIZES:
        inputs = {}
        for value in model.graph.inputs:
            shape = [n if isinstance(n, int) else sizes[n.value] for n in value.shape]
            inputs[value.name] = rng.normal(size=shape).astype(value.dtype.numpy())
        results = zip(run_float64(after, **inputs), run_float64(model, **inputs), strict=True)
        for a, e in results:
            assert_close(a, e, FLOAT64)


def constant_input(model, op_type, index=1):
    """Return an input of the only node of a type, as a list."""
    (node,) = [node for node in model.graph if node.op_type == op_type]
    return node.inputs[index].const_value.numpy().tolist()


def attribute(model, op_type, name):
    (node,) = [node for node in model.graph if node.op_type == op_type]
    return node.attributes[name].value if name in node.attributes else None


# Shapes that are computed at run time


BATCH = """sizes = Shape(x) cast = Cast<to = 6>(sizes) first = Slice(cast, zero, one, zero)
           scalar = Squeeze(first, zero) batch = Unsqueeze(scalar, zero)"""
SCALARS = {"zero": np.array([0]), "one": np.array([1])}


def i32(*numbers):
    return np.array(numbers, np.int32)


def test_reshape_to_computed_batch_gets_a_constant_target():
    text = f"""g (float[N,8] x, int64[1] zero, int64[1] one, int32[3] rest) => (float[N,1,1,8] y) {{
        {BATCH} joined = Concat<axis = 0>(batch, rest) target = Cast<to = 7>(joined)
        y = Reshape(x, target)
    }}"""
    after = check(text, ["Reshape"], rest=i32(1, 1, 8), **SCALARS)
    assert constant_input(after, "Reshape") == [-1, 1, 1, 8]


def test_sizes_that_the_data_has_at_the_same_axis_are_copied():
    text = """g (float[N,H,W,8] x, int64[2] rest) => (float[N,H,W,2,4] y) {
        sizes = Shape<start = 0, end = 3>(x) target = Concat<axis = 0>(sizes, rest)
        y = Reshape(x, target)
    }"""
    after = check(text, ["Reshape"], rest=np.array([2, 4]))
    assert constant_input(after, "Reshape") == [0, 0, 0, 2, 4]


def test_reshape_keeps_the_minus_one_that_it_had():
    text = """g (float[N,H,W,8] x, int64[2] rest) => (float[N,P,8] y) {
        sizes = Shape<start = 0, end = 1>(x) target = Concat<axis = 0>(sizes, rest)
        y = Reshape(x, target)
    }"""
    after = check(text, ["Reshape"], rest=np.array([-1, 8]))
    assert constant_input(after, "Reshape") == [0, -1, 8]


def test_joined_axes_of_dynamic_size_are_flattened():
    text = """g (float[N,H,W,8] x, int64[1] zero, int64[1] one, int64[1] end) => (float[N,P] y) {
        sizes = Shape(x) first = Slice(sizes, zero, one) rest = Slice(sizes, one, end)
        joined = ReduceProd<keepdims = 1>(rest, zero) target = Concat<axis = 0>(first, joined)
        y = Reshape(x, target)
    }"""
    check(text, ["Flatten"], end=np.array([4]), **SCALARS)


def test_shape_of_a_static_tensor_is_a_constant():
    text = """g (float[2,3] x, float[N,6] z) => (float[A,B] y) {
        sizes = Shape(x) y = Expand(z, sizes)
    }"""
    after = simplify(graph(text))
    assert operators(after) == ["Expand"]
    assert constant_input(after, "Expand") == [2, 3]


@pytest.mark.parametrize("opset", range(13, 19))
def test_crop_of_a_transposed_convolution_becomes_its_padding(opset):
    """What TensorFlow writes for Conv2DTranspose with padding="same": 2 H of 2 H + 1 rows."""
    text = """g (float[N,3,H,W] x, float[3,2,3,3] w, int64[1] two, int64[1] four, int64[2] start,
               int64[2] axes, int64 double) => (float[N,2,P,Q] y) {
        whole = ConvTranspose<strides = [2, 2]>(x, w)
        sizes = Shape(x) spatial = Slice(sizes, two, four) end = Mul(spatial, double)
        part = Slice(whole, start, end, axes) y = Relu(part)
    }"""
    after = check(
        text,
        ["ConvTranspose", "Relu"],
        opset=opset,
        w=np.random.default_rng(1).normal(size=(3, 2, 3, 3)).astype("f"),
        two=np.array([2]),
        four=np.array([4]),
        start=np.array([0, 0]),
        axes=np.array([2, 3]),
        double=np.array(2),
    )
    assert list(attribute(after, "ConvTranspose", "pads")) == [0, 0, 1, 1]


def test_slice_end_that_follows_the_size_is_counted_from_the_end():
    text = """g (float[N,H] x, float[1,2] c, int64[2] zeros, int64[2] axes) => (float[P,Q] y) {
        z = Concat<axis = 1>(x, c) sizes = Shape(x) y = Slice(z, zeros, sizes, axes)
    }"""
    after = check(
        text.replace("Concat<axis = 1>(x, c)", "Pad(x, zeros4)").replace(
            "float[1,2] c", "int64[4] zeros4"
        ),
        ["Pad", "Slice"],
        zeros4=np.array([0, 0, 0, 2]),
        zeros=np.array([0, 0]),
        axes=np.array([0, 1]),
    )
    assert constant_input(after, "Slice", 2) == [np.iinfo(np.int64).max, -2]


def test_expand_repeats_only_what_is_one():
    text = """g (float[N,1,4] x, int64[2] rest) => (float[N,3,4] y) {
        batch = Shape<start = 0, end = 1>(x) target = Concat<axis = 0>(batch, rest)
        y = Expand(x, target)
    }"""
    after = check(text, ["Expand"], rest=np.array([3, 4]))
    assert constant_input(after, "Expand") == [1, 3, 4]


def test_resize_to_multiples_of_the_size_gets_scales():
    text = """g (float[N,2,H,W] x, int64[4] factors) => (float[N,2,P,Q] y) {
        sizes = Shape(x) target = Mul(sizes, factors)
        y = Resize<mode = "nearest">(x, , , target)
    }"""
    after = check(text, ["Resize"], factors=np.array([1, 1, 2, 3]))
    assert constant_input(after, "Resize", 2) == [1, 1, 2, 3]


def test_dense_layer_multiplies_without_joining_axes():
    text = """g (float[N,H,W,3] x, float[3,4] w, int64[2] flat, int64[1] four)
              => (float[N,H,W,4] y) {
        joined = Reshape(x, flat) product = MatMul(joined, w)
        sizes = Shape<start = 0, end = 3>(x) target = Concat<axis = 0>(sizes, four)
        y = Reshape(product, target)
    }"""
    w = np.random.default_rng(1).normal(size=(3, 4)).astype("f")
    check(text, ["MatMul"], w=w, flat=np.array([-1, 3]), four=np.array([4]))


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("shape", ["N,5,6,2", "N,H,W,2"])
def test_upsampling_becomes_one_resize(opset, shape):
    text = f"""g (float[{shape}] x, int64[1] two, int64[1] three, int64[5] tall, int64[5] wide,
               int64[4] f, int64[4] h) => (float[N,P,Q,2] y) {{
        sizes = Shape(x) target = Mul(sizes, f) a = Unsqueeze(x, two) b = Tile(a, tall)
        c = Reshape(b, target)
        sizes2 = Shape(c) target2 = Mul(sizes2, h) d = Unsqueeze(c, three) e = Tile(d, wide)
        y = Reshape(e, target2)
    }}"""
    after = check(
        text,
        ["Resize"],
        opset=opset,
        two=np.array([2]),
        three=np.array([3]),
        tall=np.array([1, 1, 2, 1, 1]),
        wide=np.array([1, 1, 1, 3, 1]),
        f=np.array([1, 2, 1, 1]),
        h=np.array([1, 1, 3, 1]),
    )
    assert constant_input(after, "Resize", 2) == [1, 2, 3, 1]


# Operators that change nothing


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("Identity(a)", id="identity"),
        pytest.param("Dropout(a)", id="dropout"),
        pytest.param("Cast<to = 1>(a)", id="cast to its own dtype"),
        pytest.param("Concat<axis = 1>(a)", id="concat of one"),
        pytest.param("Sum(a)", id="sum of one"),
        pytest.param("Reshape(a, same)", id="reshape to the same shape"),
        pytest.param("Expand(a, ones)", id="expand"),
        pytest.param("Tile(a, ones)", id="tile"),
        pytest.param("Pad(a, nothing)", id="pad"),
        pytest.param("Slice(a, zero, end)", id="slice"),
        pytest.param("Slice(a, back, end, one)", id="slice from beyond the start"),
        pytest.param("Transpose<perm = [0, 1, 2]>(a)", id="transpose"),
        pytest.param("Squeeze(b, zero)", id="squeeze after unsqueeze"),
    ],
)
def test_operator_that_changes_nothing_goes(node):
    constants = {
        "same": np.array([0, -1, 4]),
        "ones": np.array([1, 1, 1]),
        "nothing": np.zeros(6, np.int64),
        "zero": np.array([0]),
        "one": np.array([1]),
        "back": np.array([-99]),
        "end": np.array([2**31 - 1]),
    }
    types = "int64[3] same, int64[3] ones, int64[6] nothing, int64[1] zero, int64[1] one"
    text = f"""g (float[N,3,4] x, {types}, int64[1] back, int64[1] end) => (float[N,3,4] y) {{
        a = Relu(x) b = Unsqueeze(a, zero) c = {node} y = Neg(c)
    }}"""
    check(text, ["Relu", "Neg"], **constants)


def test_graph_output_keeps_its_name():
    text = """g (float[N,3] x) => (float[N,3] y) { a = Relu(x) b = Identity(a) y = Identity(b) }"""
    after = check(text, ["Relu"])
    assert after.graph[0].outputs[0].name == "y"


def test_input_that_is_an_output_keeps_one_identity():
    text = """g (float[N,3] x) => (float[N,3] y) { a = Identity(x) y = Cast<to = 1>(a) }"""
    check(text, ["Identity"])


def test_two_outputs_of_one_tensor_keep_one_identity():
    text = """g (float[N,3] x) => (float[N,3] y, float[N,3] z) {
        a = Relu(x) y = Identity(a) z = Identity(a)
    }"""
    check(text, ["Relu", "Identity"])


def test_casts_that_lose_nothing_are_one():
    text = """g (float[N,3] x) => (double[N,3] y, float[N,3] z) {
        a = Cast<to = 11>(x) y = Cast<to = 11>(a) z = Cast<to = 1>(a)
    }"""
    after = simplify(graph(text))
    assert operators(after) == ["Cast", "Identity"]


def test_reshapes_in_a_row_are_one():
    text = """g (float[N,2,3,4] x, int64[2] flat, int64[1] one, int64[4] t) => (float[N,4,1,6] y) {
        a = Reshape(x, flat) b = Unsqueeze(a, one) c = Squeeze(b, one) y = Reshape(c, t)
    }"""
    after = check(
        text, ["Reshape"], flat=np.array([0, -1]), one=np.array([1]), t=np.array([-1, 4, 1, 6])
    )
    assert constant_input(after, "Reshape") == [-1, 4, 1, 6]


def test_squeezes_of_dynamic_sizes_are_one():
    text = """g (float[1,H,W,1] x, int64[1] zero, int64[1] last) => (float[H,W] y) {
        a = Squeeze(x, zero) y = Squeeze(a, last)
    }"""
    after = check(text, ["Squeeze"], zero=np.array([0]), last=np.array([2]))
    assert constant_input(after, "Squeeze") == [0, 3]


def test_flatten_is_a_reshape():
    after = check("g (float[N,3,4] x) => (float[N,12] y) { y = Flatten(x) }", ["Reshape"])
    assert constant_input(after, "Reshape") == [-1, 12]


# Padding


W3 = np.random.default_rng(2).normal(size=(4, 3, 3, 3)).astype("f")
PADS = np.array([0, 0, 1, 0, 0, 0, 2, 1])


@pytest.mark.parametrize("opset", range(13, 19))
@pytest.mark.parametrize(
    ("attributes", "pads"),
    [
        ("", [1, 0, 2, 1]),
        ("<pads = [1, 1, 0, 2]>", [2, 1, 2, 3]),
        ('<auto_pad = "VALID", strides = [2, 2]>', [1, 0, 2, 1]),
        ('<auto_pad = "SAME_UPPER">', [2, 1, 3, 2]),
        ("<dilations = [2, 1]>", [1, 0, 2, 1]),
    ],
)
def test_pad_goes_into_the_convolution(opset, attributes, pads):
    text = f"""g (float[N,3,H,W] x, int64[8] p, float[4,3,3,3] w) => (float[N,4,P,Q] y) {{
        a = Pad(x, p) y = Conv{attributes}(a, w)
    }}"""
    after = check(text, ["Conv"], opset=opset, p=PADS, w=W3)
    assert list(attribute(after, "Conv", "pads")) == pads


@pytest.mark.parametrize("upper", [True, False])
def test_same_padding_of_a_static_size_is_added(upper):
    auto_pad = "SAME_UPPER" if upper else "SAME_LOWER"
    text = f"""g (float[N,3,5,6] x, int64[8] p, float[4,3,3,3] w) => (float[N,4,P,Q] y) {{
        a = Pad(x, p) y = Conv<auto_pad = "{auto_pad}", strides = [2, 2]>(a, w)
    }}"""
    after = check(text, ["Conv"], p=PADS, w=W3)
    assert list(attribute(after, "Conv", "pads")) == ([1, 1, 3, 2] if upper else [2, 1, 2, 2])


def test_pad_with_axes_goes_into_the_convolution():
    text = """g (float[N,3,H,W] x, int64[2] p, float fill, int64[1] axes, float[4,3,3,3] w)
              => (float[N,4,P,Q] y) { a = Pad(x, p, fill, axes) y = Conv(a, w) }"""
    zero = np.float32(0)
    after = check(text, ["Conv"], p=np.array([1, 2]), fill=zero, axes=np.array([-1]), w=W3)
    assert list(attribute(after, "Conv", "pads")) == [0, 1, 0, 2]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("attributes", ["", ", count_include_pad = 1, pads = [0, 1, 0, 0]"])
def test_pad_goes_into_an_average_that_counts_it(opset, attributes):
    text = f"""g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{
        a = Pad(x, p) y = AveragePool<kernel_shape = [3, 3], strides = [2, 2]{attributes}>(a)
    }}"""
    after = check(text, ["AveragePool"], opset=opset, p=PADS)
    assert attribute(after, "AveragePool", "count_include_pad") == 1


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param("r = Relu(x)", id="relu"),
        pytest.param("r = Clip(x, zero, six)", id="clip"),
        pytest.param("a = Sigmoid(x) b = Exp(x) r = Mul(a, b)", id="product"),
        pytest.param("r = Mul(x, x)", id="square"),
        pytest.param("a = Abs(x) b = HardSigmoid(x) r = Concat<axis = 1>(a, b)", id="concat"),
        pytest.param("a = Softmax<axis = 1>(x) r = Add(a, six)", id="sum with a constant"),
        pytest.param("r = Max(x, zero)", id="max"),
        pytest.param(
            """a = Relu(x) b = MaxPool<kernel_shape = [2, 2]>(a)
               r = AveragePool<kernel_shape = [2, 2], pads = [0, 0, 1, 1]>(b)""",
            id="pools",
        ),
        pytest.param(
            "a = Relu(x) r = Transpose<perm = [0, 1, 3, 2]>(a)", id="through another axis order"
        ),
    ],
)
def test_pad_of_what_is_not_negative_goes_into_the_maximum(opset, nodes):
    text = f"""g (float[N,3,H,W] x, int64[8] p, float zero, float six) => (float[N,C,P,Q] y) {{
        {nodes} c = Pad(r, p) y = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(c)
    }}"""
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    weights = {"p": pads, "zero": np.float32(0), "six": np.float32(6)}
    after = simplify(graph(text, opset=opset, **weights))
    assert "Pad" not in operators(after)
    assert_same(after, graph(text, opset=opset, **weights))


# Operators of one dimension


CHANNELS_FIRST, CHANNELS_LAST = "<perm = [0, 3, 1, 2]>", "<perm = [0, 2, 3, 1]>"
W1 = np.random.default_rng(3).normal(size=(4, 3, 1, 3)).astype("f")


@pytest.mark.parametrize("opset", [13, 18])
def test_convolution_over_a_length_of_one_is_one_dimensional(opset):
    text = """g (float[N,3,H] x, int64[1] two, float[4,3,1,3] w, float[4,1,1] c)
              => (float[N,4,P] y) {
        a = Unsqueeze(x, two) b = Conv<strides = [1, 2], dilations = [1, 1], pads = [0, 0, 0, 1],
        kernel_shape = [1, 3]>(a, w) d = Mul(b, c) e = Relu(d) y = Squeeze(e, two)
    }"""
    c = np.random.default_rng(4).normal(size=(4, 1, 1)).astype("f")
    after = check(text, ["Conv", "Mul", "Relu"], opset=opset, two=np.array([2]), w=W1, c=c)
    assert list(attribute(after, "Conv", "pads")) == [0, 1]
    assert list(attribute(after, "Conv", "kernel_shape")) == [3]
    conv, mul = after.graph[0], after.graph[1]
    assert list(conv.inputs[1].const_value.shape) == [4, 3, 3]
    assert list(mul.inputs[1].const_value.shape) == [4, 1]
    assert list(conv.outputs[0].shape)[1:2] == [4]


def test_axis_goes_through_transposes_and_pools():
    text = f"""g (float[N,H,3] x, int64[1] axis, float[4,3,1,3] w, int64[1] back)
               => (float[N,P,4] y) {{
        a = Unsqueeze(x, axis) b = Transpose{CHANNELS_FIRST}(a) c = Conv(b, w)
        d = Transpose{CHANNELS_LAST}(c) e = Relu(d) f = Transpose{CHANNELS_FIRST}(e)
        g = MaxPool<kernel_shape = [1, 2], strides = [1, 2]>(f)
        h = AveragePool<kernel_shape = [1, 2], auto_pad = "VALID">(g)
        i = Transpose{CHANNELS_LAST}(h) y = Squeeze(i, back)
    }}"""
    expected = "Transpose Conv Transpose Relu Transpose MaxPool AveragePool Transpose".split()
    check(text, expected, axis=np.array([1]), back=np.array([-3]), w=W1)


def test_transposed_convolution_over_a_length_of_one():
    text = """g (float[N,3,H] x, int64[1] two, float[3,4,1,3] w) => (float[N,4,P] y) {
        a = Unsqueeze(x, two) y0 = ConvTranspose<strides = [1, 2], output_padding = [0, 1]>(a, w)
        y = Squeeze(y0, two)
    }"""
    w = np.random.default_rng(3).normal(size=(3, 4, 1, 3)).astype("f")
    after = check(text, ["ConvTranspose"], two=np.array([2]), w=w)
    assert list(attribute(after, "ConvTranspose", "output_padding")) == [1]


def test_residual_of_one_dimension():
    text = """g (float[N,3,H] x, int64[1] two, float[3,3,1,3] w) => (float[N,3,P] y) {
        a = Unsqueeze(x, two) b = Conv<pads = [0, 1, 0, 1]>(a, w) c = Add(a, b)
        d = Concat<axis = 1>(c, a) e = Slice(d, zero, three, one) y = Squeeze(e, two)
    }""".replace(
        "float[3,3,1,3] w", "float[3,3,1,3] w, int64[1] zero, int64[1] one, int64[1] three"
    )
    w = np.random.default_rng(3).normal(size=(3, 3, 1, 3)).astype("f")
    numbers = {"zero": np.array([0]), "one": np.array([1]), "three": np.array([3])}
    check(text, ["Conv", "Add", "Concat", "Slice"], two=np.array([2]), w=w, **numbers)


def test_shared_weight_of_one_dimension_stays_for_its_other_reader():
    text = """g (float[N,3,H] x, float[N,3,H,W] z, int64[1] two, float[4,3,1,3] w)
              => (float[N,4,P] y, float[N,4,P,Q] u) {
        a = Unsqueeze(x, two) b = Conv(a, w) y = Squeeze(b, two) u = Conv(z, w)
    }"""
    after = check(text, ["Conv", "Conv"], two=np.array([2]), w=W1)
    assert sorted(len(v.shape) for v in after.graph.initializers.values()) == [3, 4]


def test_constant_keeps_its_layers():
    text = """g (float[N,3,H] x, int64[1] two, float[4,3,1,3] w) => (float[N,4,P] y) {
        a = Unsqueeze(x, two) b = Conv(a, w) y = Squeeze(b, two)
    }"""
    model = graph(text, two=np.array([2]), w=W1)
    model.graph.initializers["w"].meta["layers"] = frozenset({"conv"})
    after = simplify(model)
    (weight,) = after.graph.initializers.values()
    assert weight.meta["layers"] == {"conv"}


# What the graph says about its values


def test_known_shapes_are_written_down():
    text = """g (float[N,3,H] x, int64[1] two, float[3,4,1,3] w, int64[1] end) => (float[N,4,P] y) {
        a = Unsqueeze(x, two) b = ConvTranspose(a, w) sizes = Shape(x) part = Slice(sizes, two, end)
        c = Slice(b, zero, part, end) d = Squeeze(c, two) e = Relu(d) y = Neg(e)
    }""".replace("int64[1] end", "int64[1] end, int64[1] zero")
    w = np.random.default_rng(3).normal(size=(3, 4, 1, 3)).astype("f")
    numbers = {"two": np.array([2]), "end": np.array([3]), "zero": np.array([0])}
    after = check(text, ["ConvTranspose", "Relu", "Neg"], w=w, **numbers)
    assert [str(node.outputs[0].shape) for node in after.graph] == ["[N,4,H]", "[N,4,H]", "[N,4,P]"]
    assert {node.outputs[0].dtype for node in after.graph} == {ir.DataType.FLOAT}
