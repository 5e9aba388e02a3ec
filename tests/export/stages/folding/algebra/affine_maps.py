"""Random affine maps, what they do to a tensor, and single operators of onnx.reference."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from keras_bn.export.graph.exact import ExactTensor
from keras_bn.export.stages.folding.algebra.affine import Affine
from keras_bn.export.stages.folding.reason import NotExactError
from tests.export.reference_operators import OPERATORS
from tests.tolerances import FLOAT64, assert_close

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 4)


def rngs():
    """Draw a seeded generator: large arrays are too much for Hypothesis to draw."""
    return SEEDS.map(np.random.default_rng)


def shapes(min_rank=1, max_rank=4):
    return st.lists(SIZES, min_size=min_rank, max_size=max_rank).map(tuple)


@st.composite
def maps(draw, shape, *, along=None, kinds=("both", "scale", "shift"), invertible=False):
    """Draw a map of a tensor of a shape, differing along some of the axes `along` at most."""
    rng = draw(rngs())
    kind = draw(st.sampled_from(kinds))
    allowed = range(len(shape)) if along is None else along

    def sizes():
        kept = [axis in allowed and draw(st.booleans()) for axis in range(len(shape))]
        return [size if keep else 1 for size, keep in zip(shape, kept, strict=True)]

    scale, shift = np.ones((1,) * len(shape)), np.zeros((1,) * len(shape))
    if kind != "shift":
        scale = np.asarray(rng.normal(size=sizes()))
        if not invertible and draw(st.booleans()):
            scale = np.where(rng.random(scale.shape) < 0.3, 0.0, scale)
    if kind != "scale":
        shift = np.asarray(rng.normal(size=sizes()))
    return Affine(scale, shift)


@st.composite
def vectors(draw, size, **options):
    """Draw a map of a vector."""
    return draw(maps((size,), **options))


def of(scale, shift=0.0, shape=None):
    """Return the map of a vector with these numbers, or of a tensor in which they have a shape."""
    scale, shift = np.broadcast_arrays(np.asarray(scale, float), np.asarray(shift, float))
    shape = shape or (scale.size,)
    return Affine(scale.reshape(shape), shift.reshape(shape))


def refused(reason, detail=""):
    """Expect a `NotExactError` with a reason, and a detail that matches a pattern."""
    return pytest.raises(NotExactError, match=rf"Reason\.{reason.name}:.*{detail}")


def applied(a, x):
    """Return A x, of the shape of x."""
    y = a.scale * x + a.shift
    assert y.shape == x.shape
    return y


def applied_along(a, x, axis):
    """Return A x for the map of a vector along an axis of x."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return applied(Affine(a.scale.reshape(shape), a.shift.reshape(shape)), x)


def same(a, b):
    """Assert that two maps are the same but for rounding, differing along the same axes."""
    assert a.rank == b.rank
    assert_close(a.scale, b.scale, FLOAT64)
    assert_close(a.shift, b.shift, FLOAT64)


@st.composite
def weights(draw, *shape):
    """Draw a weight of float32 numbers, as an array or held with its scales."""
    array = draw(rngs()).normal(size=shape).astype(np.float32)
    return ExactTensor.of(ir.Tensor(array)) if draw(st.booleans()) else array.astype(np.float64)


def same_kind(new, old):
    """Say whether a new weight is held as the old one was, in the same shape."""
    return type(new) is type(old) and tuple(new.shape) == tuple(old.shape)


def run_operator(op_type, *inputs, outputs=1, **attributes):
    """Evaluate one operator of the latest opset; None stands for an input that is left out."""
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    node = onnx.helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], **attributes)
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if name}
    results = ReferenceEvaluator(node, new_ops=OPERATORS).run(None, feeds)
    return results[0] if outputs == 1 else results
