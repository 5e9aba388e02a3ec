"""Transform a graph given as text and compare what it computes before and after."""

import numpy as np

from keras_bn.export.stages.layout.transposes import cancel_transposes
from tests.export.graphs import graph, run_float64, run_onnxruntime
from tests.tolerances import FLOAT64, assert_close

TO_NCHW, TO_NHWC = "<perm = [0, 3, 1, 2]>", "<perm = [0, 2, 3, 1]>"
X = "float[N,3,4,5] x"  # channels-first; the operators see (N, 4, 5, 3)


def integers(*values):
    return np.array(values, np.int64)


def floats(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def compare(model, after, batches=(2,), runtime=True):
    for batch in batches:
        rng = np.random.default_rng(batch)
        inputs = {
            v.name: rng.normal(size=[d if isinstance(d, int) else batch for d in v.shape]).astype(
                np.float32
            )
            for v in model.graph.inputs
        }
        expected = run_float64(model, **inputs)
        for a, e in zip(run_float64(after, **inputs), expected, strict=True):
            assert_close(a, e, FLOAT64)
        if runtime:
            for a, e in zip(run_onnxruntime(after, **inputs), expected, strict=True):
                assert_close(a, e)


def declared(weights):
    kinds = {"float32": "float", "int64": "int64", "bool": "bool", "int8": "int8"}
    shapes = {
        name: f"[{','.join(map(str, w.shape))}]" * bool(w.shape) for name, w in weights.items()
    }
    return "".join(f", {kinds[str(w.dtype)]}{shapes[name]} {name}" for name, w in weights.items())


def transform(body, result, opset=18, inputs=X, **weights):
    weights = {name: np.asarray(weight) for name, weight in weights.items()}
    text = f"g ({inputs}{declared(weights)}) => ({result}) {{ {body} }}"
    model = graph(text, opset=opset, **weights)
    after = cancel_transposes(model)
    compare(model, after)
    return after
