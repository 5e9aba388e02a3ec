"""Faults as exports and files have them, each put where it is wanted, and where that is.

A fault is a function of a model, the path of the file to write and a random generator. It writes a
file of the model with one thing wrong and gives the path of the Keras layer that is wrong in it;
None if the model has no place for it.
"""

import contextlib

import keras
import numpy as np
import onnx
from onnx import helper, numpy_helper

from keras_bn.export import export_onnx
from keras_bn.export.graph.layer_paths import LayerPaths
from keras_bn.export.stages.folding.fold import fold

OVERFLOW = 1e5  # beyond the largest number of float16, 65,504


def norms(model):
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def some_norm(model, rng):
    found = [layer for layer in norms(model) if layer.center and layer.scale]
    return found[rng.integers(len(found))] if found else None


@contextlib.contextmanager
def temporarily(variable, values):
    before = variable.numpy()
    variable.assign(values)
    try:
        yield
    finally:
        variable.assign(before)


def layer_of(model, operator):
    """Return the path of the layer that an operator of an exported file is named after."""
    paths = LayerPaths(model).layers()
    while operator not in paths:
        operator = operator.rpartition("/")[0]
    return operator


def export(model, path):
    export_onnx(model, path, check=False)
    return onnx.load(path)


def convolutions(proto):
    """Return the convolutions of a file whose kernel is a constant of their own."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    reads = [name for node in proto.graph.node for name in node.input]
    return [
        (node, weights[node.input[1]])
        for node in proto.graph.node
        if node.op_type == "Conv" and node.input[1] in weights and reads.count(node.input[1]) == 1
    ]


def weight_of_one_channel(model, path, rng):
    """Make the kernel of one output channel larger by a thousandth."""
    proto = export(model, path)
    found = convolutions(proto)
    if not found:
        return None
    node, tensor = found[rng.integers(len(found))]
    kernel = numpy_helper.to_array(tensor).copy()
    kernel[rng.integers(len(kernel))] *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(kernel, tensor.name))
    onnx.save(proto, path)
    return layer_of(model, node.name)


def epsilon(model, path, rng):
    """Export with another epsilon in one batch norm."""
    layer = some_norm(model, rng)
    if layer is None:
        return None
    before, layer.epsilon = layer.epsilon, 1e-2
    try:
        export(model, path)
    finally:
        layer.epsilon = before
    return layer.path


def biased_variance(model, path, rng):
    """Export one batch norm with the biased variance of groups of four: 3/4 of the unbiased."""
    layer = some_norm(model, rng)
    if layer is None:
        return None
    with temporarily(layer.moving_variance, layer.moving_variance.numpy() * 0.75):
        export(model, path)
    return layer.path


def mean_for_beta(model, path, rng):
    """Export one batch norm with its mean and its beta exchanged."""
    layer = some_norm(model, rng)
    if layer is None:
        return None
    mean, beta = layer.moving_mean.numpy(), layer.beta.numpy()
    with temporarily(layer.moving_mean, beta), temporarily(layer.beta, mean):
        export(model, path)
    return layer.path


def wrong_fold(model, **options):
    """Fold as the export does, but for the weight of a layer called "depthwise"."""
    folded, report = fold(model, **options)
    value = folded.graph.initializers["depthwise/kernel"]
    value.const_value = type(value.const_value)(value.const_value.exact * 1.01, value.dtype)
    return folded, report


@contextlib.contextmanager
def in_training(layer):
    """Let a batch norm normalise by the batch, whatever its caller says."""
    rank = len(layer.input.shape)
    axes = [axis for axis in range(rank) if axis != layer.axis % rank]

    def call(_, inputs, **options):
        mean = keras.ops.mean(inputs, axes, keepdims=True)
        variance = keras.ops.mean((inputs - mean) ** 2, axes, keepdims=True)
        y = (inputs - mean) / keras.ops.sqrt(variance + layer.epsilon)
        return y * layer.gamma + layer.beta

    kind = type(layer)
    # A subclass, so that the export does not take the layer for a batch norm that it knows.
    layer.__class__ = type("InTraining", (kind,), {"call": call})
    try:
        yield
    finally:
        layer.__class__ = kind


def training_mode(model, path, rng):
    """Export with one batch norm that normalises by the batch."""
    layer = some_norm(model, rng)
    if layer is None:
        return None
    with in_training(layer):
        export(model, path)
    return layer.path


def padding(model, path, rng):
    """Shift the padding of one convolution by one along its last axis."""
    proto = export(model, path)
    found = [
        (node, attribute)
        for node, _ in convolutions(proto)
        for attribute in node.attribute
        if attribute.name == "pads" and any(attribute.ints)
    ]
    if not found:
        return None
    node, pads = found[rng.integers(len(found))]
    axis = len(pads.ints) // 2
    step = 1 if pads.ints[-1] else -1
    pads.ints[axis - 1] += step
    pads.ints[-1] -= step
    onnx.save(proto, path)
    return layer_of(model, node.name)


def axes(model, path, rng):
    """Exchange height and width of a square tensor on its way into one convolution."""
    proto = export(model, path)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(proto).graph.value_info
    }
    found = []
    for node, _ in convolutions(proto):
        shape = shapes.get(node.input[0], [])
        if len(shape) == 4 and shape[2] == shape[3] > 1:
            found.append(node)
    if not found:
        return None
    node = found[rng.integers(len(found))]
    wrong = helper.make_node(
        "Transpose",
        [node.input[0]],
        [f"{node.name}/turned"],
        f"{node.name}/turn",
        perm=[0, 1, 3, 2],
    )
    place = list(proto.graph.node).index(node)
    node.input[0] = wrong.output[0]
    proto.graph.node.insert(place, wrong)
    onnx.save(proto, path)
    return layer_of(model, node.name)


def relu6(model, path, rng):
    """Turn one Clip at 6 into a Relu."""
    proto = export(model, path)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found = [
        node
        for node in proto.graph.node
        if node.op_type == "Clip" and len(node.input) > 2 and weights.get(node.input[2]) == 6.0
    ]
    if not found:
        return None
    node = found[rng.integers(len(found))]
    node.op_type = "Relu"
    del node.input[1:]
    onnx.save(proto, path)
    return layer_of(model, node.name)


def float16_overflow(model, path, rng):
    """Let one convolution compute on numbers that are too large for float16, in float16."""
    proto = export(model, path)
    found = convolutions(proto)
    if not found:
        return None
    node, _ = found[rng.integers(len(found))]
    place = list(proto.graph.node).index(node)
    inner = f"{node.name}/narrow"
    factor = numpy_helper.from_array(np.float32(OVERFLOW), f"{node.name}/factor")
    back = numpy_helper.from_array(np.float32(1 / OVERFLOW), f"{node.name}/back")
    proto.graph.initializer.extend([factor, back])
    output = node.output[0]
    steps = [
        helper.make_node("Mul", [inner, factor.name], [f"{inner}:1"], f"{node.name}/Mul"),
        helper.make_node("Cast", [f"{inner}:1"], [f"{inner}:2"], f"{node.name}/Cast", to=10),
        helper.make_node("Cast", [f"{inner}:2"], [f"{inner}:3"], f"{node.name}/Cast_1", to=1),
        helper.make_node("Mul", [f"{inner}:3", back.name], [output], f"{node.name}/Mul_1"),
    ]
    node.output[0] = inner
    for offset, step in enumerate(steps):
        proto.graph.node.insert(place + 1 + offset, step)
    onnx.save(proto, path)
    return layer_of(model, node.name)


FAULTS = {
    "a weight off by 1e-3 in one channel": weight_of_one_channel,
    "another epsilon": epsilon,
    "the biased variance at m = 4": biased_variance,
    "mean and beta exchanged": mean_for_beta,
    "padding shifted by one": padding,
    "height and width exchanged": axes,
    "one layer in training mode": training_mode,
    "ReLU6 as ReLU": relu6,
    "float16 overflow": float16_overflow,
}
