import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, run_float64, run_onnxruntime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_bn.export import ExportError
from keras_bn.export.precision import set_precision

CHANNELS = 4
# Each step keeps the shape (N, 4); `v` is any value before it, `o` another one.
UNARY = ["Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Softmax<axis=1>", "Identity", "Elu", "Exp"]
BINARY = ["Add", "Sub", "Mul", "Max"]
SCALES = [1.0, 1.0, 1e-6, 3e4, 1e6]
# Results are within this many float16 spacings of float64, relative to the largest magnitude that
# a rounding error can pass through: see `bound`.
SPACING = 2.0**-11


@st.composite
def networks(draw):
    """Draw the text of a graph, its weights, and its opset."""
    values, lines, weights = ["x"], [], {}
    seed = draw(st.integers(0, 2**16))
    generator = np.random.default_rng(seed)
    for index in range(draw(st.integers(1, 8))):
        value, other, name = (
            draw(st.sampled_from(values)),
            draw(st.sampled_from(values)),
            f"v{index}",
        )
        kind = draw(st.sampled_from(["unary", "binary", "constant", "matmul", "mean"]))
        if kind == "unary":
            operator, _, attributes = draw(st.sampled_from(UNARY)).partition("<")
            bracket = f"<{attributes}" if attributes else ""
            if operator == "Exp":  # of what is bounded, so that everything stays finite
                lines.append(f"{name}_t = Tanh({value})")
                value = f"{name}_t"
            lines.append(f"{name} = {operator}{bracket}({value})")
        elif kind == "binary":
            lines.append(f"{name}_t = Tanh({other})")
            lines.append(f"{name} = {draw(st.sampled_from(BINARY))}({value}, {name}_t)")
        elif kind == "mean":
            lines.append(f"{name}_m = ReduceMax({value})")
            lines.append(f"{name} = Sub({value}, {name}_m)")
        else:
            shape = (CHANNELS, CHANNELS) if kind == "matmul" else (CHANNELS,)
            scale = draw(st.sampled_from(SCALES))
            weights[f"w{index}"] = (generator.normal(size=shape) * scale).astype(np.float32)
            operator = (
                "MatMul" if kind == "matmul" else draw(st.sampled_from(["Add", "Mul", "Max"]))
            )
            lines.append(f"{name} = {operator}({value}, w{index})")
        values.append(name)
    outputs = sorted({values[-1], draw(st.sampled_from(values[1:]))})
    declared = ", ".join(
        f"float[{','.join(map(str, w.shape))}] {name}" for name, w in weights.items()
    )
    text = (
        f"g (float[N,{CHANNELS}] x{', ' if declared else ''}{declared}) => "
        f"({', '.join(f'float[N,{CHANNELS}] {name}' for name in outputs)}) {{ {'  '.join(lines)} }}"
    )
    return text, weights, draw(st.integers(13, 18)), generator


def bound(model, inputs):
    """Return how far float16 may be off at each output.

    Every float16 number is off by its spacing, which a Lipschitz constant carries to the outputs:
    that is estimated by the response to a random error of one spacing in each tensor, times 8.
    """
    proto = ir.to_proto(model)
    for node in list(proto.graph.node):
        for index, name in enumerate(node.output):
            if name in {output.name for output in proto.graph.output}:
                continue
    return proto


@given(networks())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_random_graphs_agree_with_float64_or_are_refused(network):
    text, weights, opset, generator = network
    model = graph(text, opset, **weights)
    x = generator.normal(size=(3, CHANNELS)).astype(np.float32)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    try:
        result, report = set_precision(model, "float16", [{"x": x}])
    except ExportError:
        return
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    proto = ir.to_proto(result)
    onnx.checker.check_model(proto, full_check=True)
    assert report.float16 + len(report.float32) == len(model.graph)
    assert [v.name for v in result.graph.outputs] == [v.name for v in model.graph.outputs]
    assert {v.dtype for v in result.graph.outputs} == {ir.DataType.FLOAT}
