import numpy as np
import pytest

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators
from tests.export.stages.simplify.simplified import assert_same, attribute, check, check_stays

EVEN = np.array([0, 0, 1, 1, 0, 0, 1, 1])
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


@pytest.mark.parametrize(
    ("attributes", "pads"),
    [
        ('auto_pad = "SAME_UPPER"', [1, 0, 1, 1]),
        ('auto_pad = "SAME_LOWER"', [1, 1, 1, 0]),
        ('auto_pad = "SAME_UPPER", dilations = [2, 3]', [2, 1, 2, 2]),
        ('auto_pad = "SAME_UPPER", strides = [1, 2]', [1, 0, 1, 1]),  # a kernel of 2 takes one more
    ],
)
def test_same_padding_of_any_size_is_written_as_numbers(attributes, pads):
    text = f"""g (float[N,3,H,W] x, float[4,3,3,2] w) => (float[N,4,P,Q] y) {{
        y = Conv<{attributes}>(x, w) }}"""
    after = check(text, ["Conv"], w=W3[..., :2].copy())
    assert list(attribute(after, "Conv", "pads")) == pads
    assert attribute(after, "Conv", "auto_pad") is None


def test_same_padding_that_varies_from_run_to_run_stays():
    text = """g (float[N,3,H,W] x, float[4,3,3,3] w) => (float[N,4,P,Q] y) {
        y = Conv<auto_pad = "SAME_UPPER", strides = [1, 2]>(x, w) }"""
    check_stays(text, w=W3)


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


@pytest.mark.parametrize(
    ("pad", "pads"),
    [
        pytest.param("Pad(x, p, one)", EVEN, id="another value"),
        pytest.param('Pad<mode = "reflect">(x, p)', EVEN, id="reflected"),
        pytest.param("Pad(x, p)", np.array([0, 0, -1, 1, 0, 0, 1, 1]), id="negative"),
        pytest.param("Pad(x, p)", np.array([0, 1, 0, 0, 0, 0, 0, 0]), id="channels"),
        pytest.param("Pad(x, p)", np.array([1, 0, 0, 0, 0, 0, 0, 0]), id="batch"),
    ],
)
def test_pad_that_a_convolution_cannot_make_stays(pad, pads):
    channels = 3 + int(pads[1])
    check_stays(
        f"""g (float[N,3,H,W] x, int64[8] p, float one, float[4,{channels},3,3] w)
            => (float[M,4,P,Q] y) {{ a = {pad} y = Conv(a, w) }}""",
        p=pads,
        one=np.float32(1),
        w=np.ones((4, channels, 3, 3), np.float32),
    )


def test_pad_that_others_read_stays():
    check_stays(
        """g (float[N,3,H,W] x, int64[8] p, float[4,3,3,3] w)
           => (float[N,4,P,Q] y, float[N,3,R,S] z) { a = Pad(x, p) y = Conv(a, w) z = Relu(a) }""",
        p=EVEN,
        w=W3,
    )


def test_pad_that_is_an_output_stays():
    check_stays(
        """g (float[N,3,H,W] x, int64[8] p, float[4,3,3,3] w)
           => (float[N,4,P,Q] y, float[N,3,R,S] a) { a = Pad(x, p) y = Conv(a, w) }""",
        p=EVEN,
        w=W3,
    )


def test_pad_before_padding_that_varies_stays():
    check_stays(
        """g (float[N,3,H,W] x, int64[8] p, float[4,3,3,3] w) => (float[N,4,P,Q] y)
           { a = Pad(x, p) y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(a, w) }""",
        p=EVEN,
        w=W3,
    )


KERNEL = "kernel_shape = [3, 3], strides = [2, 2]"
VALID = 'auto_pad = "VALID"'


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(f"MaxPool<{KERNEL}, {VALID}>", id="maximum of what may be negative"),
        pytest.param(f"MaxPool<kernel_shape = [1, 1], {VALID}>", id="kernel no larger than pads"),
        pytest.param(f"AveragePool<kernel_shape = [1, 1], {VALID}>", id="average, the same"),
    ],
)
def test_pad_that_a_pool_cannot_make_stays(pool):
    check_stays(
        f"g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{ a = Pad(x, p) y = {pool}(a) }}",
        p=EVEN,
    )


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("Clip(x, minus, one)", id="clip below zero"),
        pytest.param("Clip(x, , one)", id="clip without a minimum"),
        pytest.param("Clip(x, zero, minus)", id="clip to a negative maximum"),
        pytest.param("HardSwish(x)", id="hard swish"),
        pytest.param("LeakyRelu(r)", id="leaky relu of a relu is not looked through"),
        pytest.param("Sub(r, r)", id="difference"),
        pytest.param("Mul(r, minus)", id="negative factor"),
        pytest.param("Add(r, x)", id="sum with the input"),
        pytest.param("Max(x, minus)", id="max with a negative number"),
        pytest.param("Concat<axis = 1>(r, x)", id="concat with the input"),
        pytest.param("Tanh(x)", id="tanh"),
    ],
)
def test_maximum_of_what_may_be_negative_keeps_its_pad(before):
    text = f"""g (float[N,3,H,W] x, int64[8] p, float zero, float one, float minus)
               => (float[N,C,P,Q] y) {{
        r = Relu(x) b = {before} a = Pad(b, p) y = MaxPool<{KERNEL}>(a)
    }}"""
    after = simplify(
        graph(text, p=EVEN, zero=np.float32(0), one=np.float32(1), minus=np.float32(-1))
    )
    assert operators(after)[-2:] == ["Pad", "MaxPool"]


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param("ceil_mode = 1", id="last window cut short"),
        pytest.param("dilations = [2, 2]", id="windows that jump over the data"),
    ],
)
def test_maximum_over_unusual_windows_keeps_its_pad(attributes):
    text = f"""g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{
        r = Relu(x) a = Pad(r, p) y = MaxPool<{KERNEL}, {attributes}>(a)
    }}"""
    assert operators(simplify(graph(text, p=EVEN))) == ["Relu", "Pad", "MaxPool"]


def test_average_that_pads_and_does_not_count_it_keeps_its_pad():
    text = f"""g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{
        a = Pad(x, p) y = AveragePool<{KERNEL}, pads = [1, 1, 1, 1]>(a)
    }}"""
    assert operators(simplify(graph(text, p=EVEN))) == ["Pad", "AveragePool"]


@pytest.mark.parametrize(
    ("ends", "steps"), [([-1, -1], [2, 1]), ([3, 4], [1, 1])], ids=["steps", "fixed size"]
)
def test_crop_that_is_no_padding_stays(ends, steps):
    check_stays(
        """g (float[N,3,H,W] x, float[3,2,3,3] w, int64[2] s, int64[2] e, int64[2] a, int64[2] t)
           => (float[N,2,P,Q] y) { b = ConvTranspose(x, w) y = Slice(b, s, e, a, t) }""",
        w=np.ones((3, 2, 3, 3), np.float32),
        s=np.array([0, 0]),
        e=np.array(ends),
        a=np.array([2, 3]),
        t=np.array(steps),
    )
