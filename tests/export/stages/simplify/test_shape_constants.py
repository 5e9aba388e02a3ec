import numpy as np
import pytest

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators
from tests.export.stages.simplify.simplified import attribute, check, check_stays, constant_input

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


def test_two_unknown_sizes_stay_computed():
    check_stays(
        """g (float[N,H,W,8] x, int64[1] eight) => (float[N,P,8] y) {
            a = Shape<start = 0, end = 1>(x) h = Shape<start = 1, end = 2>(x)
            w = Shape<start = 2, end = 3>(x) hw = Mul(h, w)
            target = Concat<axis = 0>(a, hw, eight) y = Reshape(x, target)
        }""",
        eight=np.array([8]),
    )


def test_minus_one_beside_a_copied_size_is_not_made_up():
    """With N = 0 the target [0, -1, 8] says nothing, and 2 * N does."""
    check_stays(
        """g (float[N,H,8] x, int64[1] eight) => (float[M,P,4] y) {
            n = Shape<start = 0, end = 1>(x) h = Shape<start = 1, end = 2>(x)
            hh = Add(h, h) target = Concat<axis = 0>(n, hh, eight) y = Reshape(x, target)
        }""",
        eight=np.array([4]),
    )


def test_size_that_comes_from_data_stays():
    check_stays("g (float[N,8] x, int64[2] target) => (float[P,Q] y) { y = Reshape(x, target) }")


def test_slice_that_may_be_cut_short_stays():
    check_stays(
        """g (float[N,H] x, int64[1] zero, int64[1] one, int64[1] three) => (float[N,P] y) {
            h = Shape<start = 1, end = 2>(x) end = Sub(h, three) y = Slice(x, zero, end, one)
        }""",
        zero=np.array([0]),
        one=np.array([1]),
        three=np.array([3]),
    )


def test_expand_to_a_size_of_another_axis_stays():
    check_stays(
        """g (float[N,H] x, float[1,1] z) => (float[N,H] y) { s = Shape(x) y = Expand(z, s) }"""
    )


def test_reshape_of_a_tensor_of_unknown_rank_stays():
    model = graph(
        "g (float[N,4] x, int64[2] t) => (float[P,Q] y) { a = Relu(x) y = Reshape(a, t) }",
        t=np.array([0, -1]),
    )
    model.graph[0].outputs[0].shape = None
    model.graph.inputs[0].shape = None
    assert operators(simplify(model)) == ["Relu", "Reshape"]
