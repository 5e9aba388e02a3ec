"""What a report on two ONNX files says that it rests on."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keras_bn.export.parity.graphs.caveats import caveats
from keras_bn.export.parity.graphs.check_files import check_files
from tests.export.parity.graphs.test_check_files import parse

RELU = parse("g (float[N] x) => (float[N] y) { z = Relu(x) y = Sigmoid(z) }")


def test_other_names_are_told_to_stand_in_order():
    other = parse("g (float[N] a) => (float[N] b) { c = Relu(a) b = Sigmoid(c) }")
    assert check_files(RELU, other).notes == (
        "the inputs ['x'] of the first file stand for ['a'] of the second, in order",
        "the outputs ['y'] of the first file stand for ['b'] of the second, in order",
    )


def test_names_inside_do_not_matter():
    other = parse("g (float[N] x) => (float[N] y) { c = Relu(x) y = Sigmoid(c) }")
    assert check_files(RELU, other).notes == ()


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ("r = RandomNormalLike(x) y = Add(x, r)", "RandomNormalLike 'r'"),
        ("y = Dropout(x, half, yes)", "Dropout 'y'"),
        ("t = Identity(yes) y = Dropout(x, half, t)", "Dropout 'y'"),
        ("y = Dropout(x, half, no)", ""),
        ("y = Dropout(x)", ""),
        ("y = mine.RandomNormalLike(x)", ""),
    ],
)
def test_random_numbers_are_told(nodes, told):
    text = '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>'
    proto = onnx.parser.parse_model(f"{text} g (float[N] x) => (float[N] y) {{ {nodes} }}")
    for name, value in (
        ("half", np.float32(0.5)),
        ("yes", np.array(True)),
        ("no", np.array(False)),
    ):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    notes = list(caveats(proto, proto))
    assert len(notes) == bool(told)
    assert all(f"draws random numbers, others in each run ({told})" in note for note in notes)
