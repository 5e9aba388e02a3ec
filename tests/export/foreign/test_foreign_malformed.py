"""Graphs with one thing wrong that `onnx.checker` lets pass: folded, or one clear error."""

import collections

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from keras_bn.export import ExportError, fold_batch_norms
from tests.export.foreign_graphs import conv_bn
from tests.export.stages.folding.fold_graphs import random_graph

FEW, MANY = 400, 10_000
SIZES = (-7, -1, 0, 1, 2, 3, 5, 100)
DTYPES = (np.float16, np.float32, np.float64, np.int32, np.int64, bool)


def _attribute(rng, graph):
    """Change a number or a list of an attribute."""
    found = [a for n in graph.node for a in n.attribute if a.ints or a.HasField("i")]
    if not found:
        return
    attribute = found[rng.integers(len(found))]
    if attribute.HasField("i"):
        attribute.i = int(rng.choice(SIZES))
        return
    numbers = [int(n) for n in attribute.ints]
    numbers[rng.integers(len(numbers))] = int(rng.choice(SIZES))
    length = rng.integers(len(numbers) + 3) if rng.random() < 0.5 else len(numbers)
    attribute.ClearField("ints")
    attribute.ints.extend((numbers * 3)[:length])


def _absent_attribute(rng, graph):
    """Remove an attribute, or give a node one of another operator."""
    node = graph.node[rng.integers(len(graph.node))]
    others = [a for n in graph.node for a in n.attribute]
    if node.attribute and rng.random() < 0.5:
        del node.attribute[rng.integers(len(node.attribute))]
    elif others:
        node.attribute.append(others[rng.integers(len(others))])


def _inputs(rng, graph):
    """Drop, leave out, repeat or exchange what a node reads."""
    node = graph.node[rng.integers(len(graph.node))]
    names = list(node.input)
    if not names:
        return
    at = rng.integers(len(names))
    match rng.integers(4):
        case 0:
            del names[at]
        case 1:
            names[at] = ""
        case 2:
            names.append(names[at])
        case 3:
            names = names[::-1]
    del node.input[:]
    node.input.extend(names)


def _operator(rng, graph):
    """Let a node be another operator."""
    node = graph.node[rng.integers(len(graph.node))]
    node.op_type = graph.node[rng.integers(len(graph.node))].op_type


def _weight(rng, graph):
    """Give a constant other sizes, another dtype, or other elements."""
    if not graph.initializer:
        return
    tensor = graph.initializer[rng.integers(len(graph.initializer))]
    array = numpy_helper.to_array(tensor)
    match rng.integers(4):
        case 0:
            array = array.astype(DTYPES[rng.integers(len(DTYPES))])
        case 1:
            array = np.resize(array, rng.integers(0, 5, rng.integers(5)))
        case 2:
            array = array[..., None] if rng.random() < 0.5 else array.ravel()
        case 3 if array.size:
            array = array.copy()
            array.flat[rng.integers(array.size)] = rng.choice(SIZES)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _declared(rng, graph):
    """Declare another size or dtype for an input, an output or what is between."""
    values = [*graph.input, *graph.output, *graph.value_info]
    type_ = values[rng.integers(len(values))].type.tensor_type
    if rng.random() < 0.3:
        type_.elem_type = int(rng.choice([1, 6, 7, 10, 11]))
    elif type_.shape.dim and rng.random() < 0.5:
        type_.shape.dim[rng.integers(len(type_.shape.dim))].dim_value = int(rng.choice(SIZES))
    elif type_.shape.dim:
        del type_.shape.dim[rng.integers(len(type_.shape.dim))]


WRONG = (_attribute, _absent_attribute, _inputs, _operator, _weight, _declared)


def _broken(seed):
    """Return a random graph with something wrong, or None where onnx sees it."""
    rng = np.random.default_rng(seed)
    proto = ir.to_proto(random_graph(seed // 8).model)
    for _ in range(rng.integers(1, 3)):
        WRONG[rng.integers(len(WRONG))](rng, proto.graph)
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, RuntimeError):
        return None
    return proto


def _outcome(proto):
    """Return what became of a model; raises what is not an `ExportError`."""
    content = proto.SerializeToString(deterministic=True)
    try:
        fold_batch_norms(proto)
    except ExportError as e:
        message = str(e)
        assert message.startswith("fold: the model must be a whole and valid ONNX model. Received:")
        assert "\n" not in message
        return "refused"
    finally:
        assert proto.SerializeToString(deterministic=True) == content
    return "folded"


def _sweep(seeds):
    outcomes, wrong = collections.Counter(), []
    for seed in seeds:
        proto = _broken(seed)
        if proto is None:
            continue
        try:
            outcomes[_outcome(proto)] += 1
        except Exception as e:
            wrong.append(f"{seed}: {type(e).__name__}: {e}")
    return outcomes, wrong


def test_a_graph_with_something_wrong_is_folded_or_one_clear_error():
    outcomes, wrong = _sweep(range(FEW))
    assert not wrong, "\n".join(wrong[:50])
    assert min(outcomes["folded"], outcomes["refused"]) > FEW / 50


@pytest.mark.slow
def test_thousands_of_graphs_with_something_wrong():
    outcomes, wrong = _sweep(range(MANY))
    assert not wrong, "\n".join([f"{len(wrong)} of {outcomes}", *wrong[:50]])


def test_a_split_that_says_another_number_of_parts():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[4,2] x) => (float[2,2] y, float[2,2] z) {
            y, z = Split <axis = 0, num_outputs = 1> (x)
        }"""
    )
    with pytest.raises(ExportError, match=r"Split 'y' has 2 outputs and num_outputs 1\. Export or"):
        fold_batch_norms(proto)


def test_what_does_not_fit_together_is_named_by_operator():
    proto = conv_bn()
    bias = numpy_helper.from_array(np.ones((4, 2), np.float32), "bias")
    proto.graph.initializer.append(bias)
    proto.graph.node[0].input.append("bias")
    onnx.checker.check_model(proto, full_check=True)
    with pytest.raises(ExportError, match="Conv c: sizes, types or attributes do not fit together"):
        fold_batch_norms(proto)
