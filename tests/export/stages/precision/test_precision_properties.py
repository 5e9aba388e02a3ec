import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_bn.export import ExportError
from keras_bn.export.stages.precision.set_precision import set_precision
from tests.export.graphs import graph, run_float64, run_onnxruntime

# Every tensor of the graphs below has the shape (3, 4), but for kernels, vectors and maxima.
BATCH, CHANNELS = 3, 4
UNARY = ["Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Softmax<axis=1>", "Identity", "Elu", "Exp"]
BINARY = ["Add", "Sub", "Mul", "Max"]
SCALES = [1e3, 1.0, 1e-6, 1e6]  # of weights
SPACING = 2.0**-11  # of float16, relative
SMALLEST = 2.0**-25  # half the spacing of float16 at 0
MARGIN = 8.0  # six draws do not find the worst case


@st.composite
def networks(draw):
    """Draw the text of a graph, its weights, its opset, and an input."""
    values, lines, weights = ["x"], [], {}
    seed = draw(st.integers(0, 2**16))
    generator = np.random.default_rng(seed)
    for index in range(draw(st.integers(3, 8))):
        value, name = draw(st.sampled_from(values[-2:])), f"v{index}"
        kind = draw(st.sampled_from(["unary", "binary", "vector", "matmul", "maximum"]))
        if kind == "unary":
            operator, _, attributes = draw(st.sampled_from(UNARY)).partition("<")
            if operator == "Exp":  # of what is bounded, so that everything stays finite
                lines.append(f"{name}_t = Tanh({value})")
                value = f"{name}_t"
            lines.append(f"{name} = {operator}{attributes and '<'}{attributes}({value})")
        elif kind == "binary":
            lines.append(f"{name}_t = Tanh({draw(st.sampled_from(values))})")
            lines.append(f"{name} = {draw(st.sampled_from(BINARY))}({value}, {name}_t)")
        elif kind == "maximum":
            lines.append(f"{name}_m = ReduceMax({value})")
            lines.append(f"{name} = Sub({value}, {name}_m)")
        else:
            shape = (CHANNELS, CHANNELS) if kind == "matmul" else (CHANNELS,)
            scale = draw(st.sampled_from(SCALES))
            weights[f"w{index}"] = (generator.normal(size=shape) * scale).astype(np.float32)
            operator = "MatMul" if kind == "matmul" else draw(st.sampled_from(BINARY))
            lines.append(f"{name} = {operator}({value}, w{index})")
        values.append(name)
    outputs = sorted({values[-1], draw(st.sampled_from(values[1:]))})
    inputs = [f"float[N,{CHANNELS}] x"]
    inputs += [f"float[{','.join(map(str, w.shape))}] {name}" for name, w in weights.items()]
    declared = (", ".join(inputs), ", ".join(f"float[N,{CHANNELS}] {name}" for name in outputs))
    text = "g ({}) => ({}) {{ {} }}".format(*declared, "  ".join(lines))
    x = generator.normal(size=(BATCH, CHANNELS)) * draw(st.sampled_from([1.0, 1e3]))
    return text, weights, draw(st.integers(13, 18)), x.astype(np.float32)


def response_to_rounding(model, x):
    """Return how far each output of a graph moves if every tensor in it is off by its spacing.

    The largest of six draws. In float64, so that nothing else moves them.
    """
    truth, generator = run_float64(model, x=x), np.random.default_rng(0)
    moved = [0.0] * len(truth)
    for _ in range(6):
        for index, found in enumerate(run_float64(perturbed(model, generator), x=x)):
            moved[index] = max(moved[index], np.abs(found - truth[index]).max())
    return moved


def perturbed(model, generator):
    """Multiply every tensor of a graph by 1 + SPACING or 1 - SPACING, element by element."""
    proto = ir.to_proto(model)
    body, nodes = proto.graph, []
    del body.value_info[:]

    def perturb(name, result, shape):
        signs = generator.choice([-1.0, 1.0], shape)
        for kind, array in (("factor", 1 + signs * SPACING), ("summand", signs * SMALLEST)):
            tensor = onnx.numpy_helper.from_array(array.astype(np.float32), f"{result}_{kind}")
            body.initializer.append(tensor)
        nodes.append(onnx.helper.make_node("Mul", [name, f"{result}_factor"], [f"{result}_p"]))
        nodes.append(onnx.helper.make_node("Add", [f"{result}_p", f"{result}_summand"], [result]))

    outside = {"x": (BATCH, CHANNELS)} | {t.name: tuple(t.dims) for t in body.initializer}
    for name, shape in outside.items():
        perturb(name, f"{name}_off", shape)
    for node in body.node:
        for index, name in enumerate(node.input):
            node.input[index] = f"{name}_off" if name in outside else name
        result = node.output[0]
        node.output[0] = f"{result}_raw"
        nodes.append(node)
        perturb(f"{result}_raw", result, (BATCH, CHANNELS))
    del body.node[:]
    body.node.extend(nodes)
    return ir.from_proto(proto)


@given(networks())
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_random_graphs_agree_with_float64_or_are_refused(network):
    text, weights, opset, x = network
    model = graph(text, opset, **weights)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    try:
        result, report = set_precision(model, "float16", [{"x": x}])
    except ExportError:  # a fifth of them
        return
    finally:
        assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert report.float16 > 0
    assert [v.name for v in result.graph.outputs] == [v.name for v in model.graph.outputs]
    assert {v.dtype for v in result.graph.outputs} == {ir.DataType.FLOAT}
    with np.errstate(over="ignore", invalid="ignore"):  # in the branch that Sigmoid drops
        allowed = response_to_rounding(model, x)
        truth = run_float64(model, x=x)
    for found, exact, moved in zip(run_onnxruntime(result, x=x), truth, allowed, strict=True):
        assert np.abs(found - exact).max() <= MARGIN * moved + 1e-6 * np.abs(exact).max()
