import re

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_bn.export import export_onnx
from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators, run_float64, run_onnxruntime
from tests.export.stages.simplify.simplified import simplified
from tests.export.stages.simplify.test_simplify_properties import run_optimised
from tests.tolerances import assert_close

F32 = np.float32
ROUNDED = 1e-7  # HardSigmoid's attributes are float32
NUMBERS = {
    "zero": 0.0,
    "one": 1.0,
    "three": 3.0,
    "six": 6.0,
    "half": 0.5,
    "fifth": 0.2,
    "sixth": 1 / 6,
    "tenth": 0.1,
    "minus_one": -1.0,
    "minus_three": -3.0,
    "minus_half": -0.5,
    "minus_sixth": -1 / 6,
    "tiny": 1e-8,
    "huge": 1e38,
    "thousand": 1000.123,
    "row": [3.0],
    "cube": [[[6.0]]],
    "deep": [[[[3.0]]]],
    "channels": [3.0, 3.0, 2.0, 3.0],
    "threes": [3.0] * 4,
    "sixes": [[6.0] * 4] * 3,
}


def parsed(nodes, *, opset=18, dtype="float", outputs="{t}[N,3,4] y", inputs="{t}[N,3,4] x"):
    """Parse nodes between x and y; the words of NUMBERS that they use are constants."""
    used = {word for word in re.findall(r"\w+", nodes) if word in NUMBERS}
    kinds = {"float": F32, "float16": np.float16, "double": np.float64}
    weights = {word: np.array(NUMBERS[word], kinds[dtype]) for word in sorted(used)}
    shape = {word: str(list(array.shape)).replace("[]", "") for word, array in weights.items()}
    given_inputs = [inputs.format(t=dtype), *(f"{dtype}{shape[w]} {w}" for w in weights)]
    text = f"g ({', '.join(given_inputs)}) => ({outputs.format(t=dtype)}) {{ {nodes} }}"
    return graph(text, opset=opset, **weights)


def check(model, expected):
    """Assert the operators, that it is the same function everywhere, and the rest of `simplify`."""
    after = simplified(model, expected)
    for inputs in samples(model):
        wanted = run_float64(model, **inputs)
        for run, tolerance in (
            (run_float64(after, **inputs), ROUNDED),
            (run_onnxruntime(after, **inputs), 1e-6),
            (run_optimised(after, inputs), 1e-6),
        ):
            for a, e in zip(run, wanted, strict=True):
                assert_close(a, e, tolerance)
    return after


def samples(model):
    """Draw inputs on the slope and far beyond its ends."""
    rng = np.random.default_rng(0)
    for batch, scale in ((1, 1), (3, 4), (2, 1e4)):
        shapes = {
            v.name: [n if isinstance(n, int) else batch for n in v.shape] for v in inputs_of(model)
        }
        yield {name: F32(rng.normal(size=shape) * scale) for name, shape in shapes.items()}


def inputs_of(model):
    return [v for v in model.graph.inputs if v.name not in model.graph.initializers]


def check_stays(model):
    before = ir.to_proto(model).SerializeToString()
    assert ir.to_proto(simplify(model)).SerializeToString() == before


def slope(model):
    (node,) = [node for node in model.graph if node.op_type == "HardSigmoid"]
    return [node.attributes[name].as_float() for name in ("alpha", "beta")]


FORMS = {
    "as Keras writes it": ("a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)", 1 / 6, 0.5),
    "times a sixth": ("a = Add(x, three) b = Clip(a, zero, six) y = Mul(b, sixth)", 1 / 6, 0.5),
    "numbers first": ("a = Add(three, x) b = Clip(a, zero, six) y = Mul(sixth, b)", 1 / 6, 0.5),
    "less -3": ("a = Sub(x, minus_three) b = Clip(a, zero, six) y = Div(b, six)", 1 / 6, 0.5),
    "Min of Max": (
        "a = Add(x, three) b = Max(a, zero) c = Min(b, six) y = Div(c, six)",
        1 / 6,
        0.5,
    ),
    "Max of Min": (
        "a = Add(x, three) b = Min(six, a) c = Max(zero, b) y = Div(c, six)",
        1 / 6,
        0.5,
    ),
    "Min of Relu": ("a = Add(x, three) b = Relu(a) c = Min(b, six) y = Div(c, six)", 1 / 6, 0.5),
    "two Clips": (
        "a = Add(x, three) b = Clip(a, zero) c = Clip(b, , six) y = Div(c, six)",
        1 / 6,
        0.5,
    ),
    "slope in front": ("a = Mul(x, fifth) b = Add(a, half) y = Clip(b, zero, one)", 0.2, 0.5),
    "quotient in front": ("a = Div(x, six) b = Add(a, half) y = Clip(b, zero, one)", 1 / 6, 0.5),
    "nothing in front": ("a = Clip(x, zero, six) y = Div(a, six)", 1 / 6, 0.0),
    "a clamp in two": ("a = Relu(x) y = Min(a, one)", 1.0, 0.0),
    "around zero": (
        "a = Mul(x, fifth) b = Clip(a, minus_half, half) y = Add(b, half)",
        0.2,
        0.5,
    ),
    "rounded around zero": (
        "a = Clip(x, minus_three, three) b = Mul(a, sixth) y = Add(b, half)",
        1 / 6,
        0.5,
    ),
    "falling": ("a = Sub(three, x) b = Clip(a, zero, six) y = Div(b, six)", -1 / 6, 0.5),
    "falling behind": (
        "a = Clip(x, minus_three, three) b = Mul(a, minus_sixth) y = Add(b, half)",
        -1 / 6,
        0.5,
    ),
    "one less it": (
        "a = Add(x, one) b = Clip(a, zero, six) c = Div(b, six) y = Sub(one, c)",
        -1 / 6,
        5 / 6,
    ),
    "negated": ("a = Clip(x, minus_one, zero) y = Neg(a)", -1.0, 0.0),
    "one number for each element": (
        "a = Add(x, threes) b = Clip(a, zero, six) y = Div(b, sixes)",
        1 / 6,
        0.5,
    ),
    "axes of one": ("a = Add(x, row) b = Clip(a, zero, six) y = Div(b, cube)", 1 / 6, 0.5),
    "many maps": (
        "a = Mul(x, half) b = Add(a, one) c = Mul(b, six) d = Sub(c, three) e = Clip(d, zero, six)"
        " f = Add(e, six) g = Sub(f, six) h = Mul(g, half) y = Div(h, three)",
        0.5,
        0.5,
    ),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("form", FORMS)
def test_row_is_one_hard_sigmoid(form, opset):
    nodes, alpha, beta = FORMS[form]
    after = check(parsed(nodes, opset=opset), ["HardSigmoid"])
    assert slope(after) == [F32(alpha), F32(beta)]
    assert not after.graph.initializers


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(b, x) y = Mul(sixth, c)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) d = Div(c, three) y = Mul(d, half)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Div(b, six) y = Mul(x, c)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Div(x, six) y = Mul(c, b)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(sixth, x) y = Mul(b, c)",
        "a = Add(x, three) b = Relu(a) c = Min(b, six) d = Div(x, three) e = Mul(d, half)"
        " y = Mul(e, c)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Div(x, three) d = Mul(c, b) y = Mul(d, half)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(b, x) y = Div(c, sixes)",
    ],
)
def test_hard_swish_is_two_nodes(nodes, opset):
    after = check(parsed(nodes, opset=opset), ["HardSigmoid", "Mul"])
    assert slope(after) == [F32(1 / 6), 0.5]


def test_product_with_a_larger_tensor_keeps_its_shape():
    nodes = "a = Add(x, three) b = Clip(a, zero, six) c = Mul(b, w) d = Div(c, six) y = Neg(d)"
    ends = {"inputs": "float[N,1,4] x, float[N,3,4] w", "outputs": "float[N,3,4] y"}
    after = check(parsed(nodes, **ends), ["HardSigmoid", "Mul", "Neg"])
    assert [str(node.outputs[0].shape) for node in after.graph] == ["[N,1,4]", "[N,3,4]", "[N,3,4]"]
    assert {node.outputs[0].dtype for node in after.graph} == {ir.DataType.FLOAT}


def test_rows_behind_each_other_are_one_each():
    row = "{1} = Add({0}, three) {1}b = Clip({1}, zero, six) {2} = Div({1}b, six)"
    nodes = row.format("x", "a", "m") + " n = Abs(m) " + row.format("n", "c", "y")
    check(parsed(nodes), ["HardSigmoid", "Abs", "HardSigmoid"])


def test_row_of_unknown_size_and_several_outputs():
    nodes = "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six) z = Neg(y)"
    ends = {"inputs": "float[N,C] x", "outputs": "float[N,C] y, float[N,C] z"}
    check(parsed(nodes, **ends), ["HardSigmoid", "Neg"])


def test_constants_that_others_read_stay():
    nodes = "a = Add(x, three) b = Clip(a, zero, six) c = Div(b, six) y = Pow(c, three)"
    after = check(parsed(nodes), ["HardSigmoid", "Pow"])
    assert set(after.graph.initializers) == {"three"}


def test_output_keeps_its_name_and_its_layers():
    model = parsed("a = Add(x, three) b = Clip(a, zero, six) c = Div(b, six) y = Neg(c)")
    model.graph[2].outputs[0].meta["layers"] = frozenset({"gate"})
    node = simplify(model).graph[0]
    assert (node.outputs[0].name, node.outputs[0].meta["layers"]) == ("c", frozenset({"gate"}))


STAYING = {
    "bounds not 0 and 1": "a = Add(x, three) y = Clip(a, zero, six)",
    "bounds near 0 and 1": "a = Add(x, three) b = Clip(a, zero, six) y = Mul(b, tenth)",
    "a floor for a logarithm": "a = Mul(x, half) b = Clip(a, tiny, one) y = Log(b)",
    "no lower bound": "a = Add(x, half) y = Clip(a, , one)",
    "no upper bound": "a = Add(x, half) b = Relu(a) y = Div(b, six)",
    "a Clip and no more": "y = Clip(x, zero, one)",
    "exchanged bounds": "a = Add(x, three) b = Clip(a, six, zero) y = Div(b, six)",
    "numbers that repeat x": "a = Clip(x, zero, six) b = Div(a, sixes) y = Neg(b)",
    "a map for each channel": "a = Add(x, channels) b = Clip(a, zero, six) y = Sub(b, a)",
    "divided by it": "a = Clip(x, zero, one) y = Div(six, a)",
    "a factor of zero": "a = Clip(x, zero, six) y = Mul(a, zero)",
    "an offset behind a product": (
        "a = Clip(x, zero, six) b = Mul(a, x) c = Add(b, one) y = Div(c, six)"
    ),
    "two readers": "a = Clip(x, zero, six) b = Div(a, six) y = Mul(a, b)",
    "a product of itself": "a = Clip(x, zero, six) b = Mul(a, a) y = Div(b, six)",
}


@pytest.mark.parametrize("form", STAYING)
def test_other_row_stays(form):
    ends = {"inputs": "{t}[N,1,4] x"} if form == "numbers that repeat x" else {}
    check_stays(parsed(STAYING[form], **ends))


def test_number_that_adds_an_axis_stays():
    nodes = "a = Clip(x, zero, six) b = Add(a, deep) y = Div(b, six)"
    check_stays(parsed(nodes, outputs="float[1,N,3,4] y"))


def test_offset_that_would_cancel_stays():
    nodes = "a = Sub(x, thousand) b = Clip(a, zero, six) y = Div(b, six)"
    check(parsed(nodes), ["Sub", "HardSigmoid"])


def test_slope_past_float32_is_left_in_front():
    nodes = "a = Mul(x, huge) b = Mul(a, six) y = Clip(b, zero, one)"
    check(parsed(nodes), ["Mul", "HardSigmoid"])


@pytest.mark.parametrize("kept", ["a", "b", "c"])
def test_row_with_a_graph_output_inside_stays(kept):
    nodes = "a = Add(x, three) b = Clip(a, zero, six) c = Mul(b, x) y = Div(c, six)"
    model = parsed(nodes, outputs=f"float[N,3,4] y, float[N,3,4] {kept}")
    expected = ["Add", "HardSigmoid", "Mul"] if kept == "a" else ["Add", "Clip", "Mul", "Div"]
    check(model, expected)


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_row_in_another_dtype_stays(dtype):
    check_stays(parsed("a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)", dtype=dtype))


def test_number_that_a_caller_may_override_is_no_constant():
    model = parsed("a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)")
    model.graph.inputs.append(model.graph.initializers["six"])
    assert operators(simplify(model)) == ["Add", "Clip", "Div"]


def test_number_of_one_axis_needs_a_known_rank():
    model = parsed("a = Add(x, row) b = Clip(a, zero, six) y = Div(b, six)")
    for value in (model.graph.inputs[0], *(node.outputs[0] for node in model.graph)):
        value.shape = None
    assert operators(simplify(model)) == ["Add", "HardSigmoid"]


def test_value_of_unknown_dtype_stays():
    model = parsed("a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)")
    model.graph[1].outputs[0].type = None
    assert operators(simplify(model)) == ["Add", "Clip", "Div"]


def test_nodes_of_other_domains_stay():
    model = parsed("a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)")
    model.graph[2].domain = "other"
    assert operators(simplify(model)) == ["Add", "Clip", "Div"]


def test_row_that_a_subgraph_reads_stays():
    model = parsed(
        """a = Add(x, three) b = Clip(a, zero, six)
        y = If(c) <then_branch = t () => (float[N,3,4] u) { u = Div(b, six) },
                   else_branch = e () => (float[N,3,4] v) { v = Identity(x) }>""",
        inputs="float[N,3,4] x, bool c",
    )
    check_stays(model)


def test_long_row_takes_linear_time():
    text = " ".join(f"v{i + 1} = Add(v{i}, tiny)" for i in range(3000)).replace("(v0,", "(x,")
    model = parsed(f"{text} a = Clip(v3000, zero, six) y = Div(a, six)")
    check(model, ["HardSigmoid"])


QUARTERS = st.integers(-12, 12).map(lambda n: n / 4)
FACTORS = QUARTERS.filter(bool)


@settings(max_examples=100)
@example(1.0, 3.0, 0.0, 6.0, False)
@example(1.0, 3.0, -3.0, 3.0, True)
@given(FACTORS, QUARTERS, QUARTERS, QUARTERS, st.booleans())
def test_row_is_one_node_where_its_bounds_become_0_and_1(a, b, low, high, falling):
    low, high = sorted((low, high + 3.1))
    c = F32(1 / (high - low))
    d = F32(-c * np.float64(low))
    if falling:
        c, d = -c, F32(1 - np.float64(d))
    weights = {"a": a, "b": b, "low": low, "high": high, "c": c, "d": d}
    text = f"""g (float[N] x, {", ".join(f"float {name}" for name in weights)}) => (float[N] y) {{
        p = Mul(x, a) q = Add(p, b) r = Clip(q, low, high) s = Mul(r, c) y = Add(s, d)
    }}"""
    model = graph(text, **{name: F32(number) for name, number in weights.items()})
    after = simplify(model)
    ends = sorted(F32(F32(c * F32(bound)) + d) for bound in (low, high))
    beta = np.float64(c) * b + np.float64(d)
    whole = ends == [0, 1] and 0 <= beta <= 1
    if whole:
        assert operators(after) == ["HardSigmoid"]
    elif ends != [0, 1]:
        assert "HardSigmoid" not in operators(after)
    knees = (np.array([low, high]) - b) / a
    x = F32(np.concatenate([np.linspace(*(knees + np.array([-1, 1])), 99), knees, [-1e6, 1e6]]))
    (wanted,), (actual,) = run_float64(model, x=x), run_float64(after, x=x)
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=ROUNDED)


def built(function):
    image = keras.Input((5, 4, 3))
    return keras.Model(image, function(keras.layers.Conv2D(4, 3)(image)))


ops = keras.ops
WRITTEN = {
    "ops.hard_sigmoid": (ops.hard_sigmoid, []),
    "ops.hard_silu": (ops.hard_silu, ["Mul"]),
    "ops.hard_swish": (ops.hard_swish, ["Mul"]),
    "activations.hard_sigmoid": (keras.layers.Activation("hard_sigmoid"), []),
    "activations.hard_swish": (keras.layers.Activation("hard_swish"), ["Mul"]),
    "relu6": (lambda x: ops.relu6(x + 3) / 6, []),
    "ReLU": (lambda x: keras.layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0), []),
    "clip": (lambda x: ops.clip(x * 0.2 + 0.5, 0.0, 1.0), []),
    "hard swish with the quotient last": (lambda x: x * ops.relu6(x + 3) / 6, ["Mul"]),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", WRITTEN)
def test_keras_function_is_a_hard_sigmoid(name, opset, tmp_path):
    function, behind = WRITTEN[name]
    path = tmp_path / "model.onnx"
    assert export_onnx(built(function), path, opset=opset).parity.passed
    kinds = [node.op_type for node in onnx.load(path).graph.node if node.op_type != "Transpose"]
    assert kinds == ["Conv", "HardSigmoid", *behind]


@pytest.mark.parametrize(
    ("policy", "precision"),
    [("float32", "float16"), ("float32", "float32"), ("mixed_float16", "float32")],
)
def test_hard_swish_in_another_precision(policy, precision, tmp_path):
    image = keras.Input((5, 4, 3))
    x = keras.layers.Conv2D(4, 3, dtype=policy)(image)
    model = keras.Model(image, keras.layers.Activation("hard_swish", dtype=policy)(x))
    path = tmp_path / "model.onnx"
    assert export_onnx(model, path, precision=precision).parity.passed
    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    (node,) = [node for node in proto.graph.node if node.op_type == "HardSigmoid"]
    kinds = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    assert kinds[node.output[0]] == getattr(onnx.TensorProto, precision.upper().replace("32", ""))


@pytest.mark.parametrize("opset", [13, 18])
def test_mobilenet_adds_nothing_but_its_branches(opset, randomised, tmp_path):
    build = keras.applications.MobileNetV3Small
    model = randomised(build(weights=None, input_shape=(64, 64, 3), classes=5))
    export_onnx(model, tmp_path / "model.onnx", opset=opset, check=False)
    proto = onnx.load(tmp_path / "model.onnx")
    constants = {tensor.name for tensor in proto.graph.initializer}
    kinds = [node.op_type for node in proto.graph.node]
    assert not [n for n in proto.graph.node if n.op_type == "Add" and constants & set(n.input)]
    assert (kinds.count("HardSigmoid"), kinds.count("Clip"), kinds.count("Transpose")) == (28, 0, 1)
