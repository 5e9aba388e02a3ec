"""Everything that must hold for the fold of any graph.

The truth is the unfolded graph in float64. Errors are relative: the largest absolute error of an
output, divided by its largest magnitude. A folded graph may be wrong by

    in float64:         1e-6. Its weights are rounded to float32 once, which is 6e-8 for each, and
                        errors of neighbours rarely add up.
    in ONNX Runtime:    4 times the error of the unfolded graph there, because a fold may change the
                        order in which a sum is rounded, plus 16 spacings of float32 at the output's
                        scale (2e-6), because the unfolded graph may be right by chance.

Some graphs amplify any rounding: a difference of two almost equal tensors, a sum that cancels.
Where a limit is passed, it is 4 times what the unfolded graph's output moves, in float64, if each
operator reads every number off by one spacing of float32.
"""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from keras_bn.export.stages.folding.fold import fold
from tests.export.stages.folding.fold_reference import captured, run_corrected, run_nodes

AFFINE = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Sub"})
ROUNDED = 1e-6  # weights that are rounded once, in float64
EPSILON = float(np.finfo(np.float32).eps)
FLOOR = 16 * EPSILON
FACTOR = 4.0


def to_bytes(model):
    return ir.to_proto(model).SerializeToString(deterministic=True)


def affine_nodes(model):
    """Return the nodes that map one tensor, element by element, with constants."""
    return [
        node
        for node in model.graph
        if node.op_type in AFFINE
        and sum(value.const_value is None for value in node.inputs if value is not None) == 1
        and (node.op_type != "Div" or node.inputs[1].const_value is not None)
    ]


def check_fold(model, inputs, expected=None, *, runtime=True):
    """Assert everything that must hold; return the folded graph and the report.

    Args:
        model: Any graph in float32.
        inputs: By name.
        expected: What the graph computes in float64, if that is known already.
        runtime: Whether to run ONNX Runtime and the checks of form that take as long as a run.
    """
    before, proto = to_bytes(model), ir.to_proto(model)
    folded, report = fold(model)
    assert to_bytes(model) == before, "the input has changed"
    after = ir.to_proto(folded)
    _check_surface(proto, after)
    _check_report(proto, after, report)
    again, second = fold(folded)
    assert second.folds == (), f"folded again: {second.folds}"
    assert to_bytes(again) == to_bytes(folded), "a second fold changes the graph"
    expected = run_corrected(proto, inputs) if expected is None else expected
    actual = run_corrected(after, inputs)
    response = _Response(proto, inputs)
    for index, (found, truth) in enumerate(zip(actual, expected, strict=True)):
        error = _error(found, truth)
        limit = ROUNDED if error <= ROUNDED else max(ROUNDED, FACTOR * response.error(index))
        assert error <= limit, _message("float64", after, index, error, limit)
    if runtime:
        onnx.checker.check_model(after, full_check=True)
        _check_shapes(folded, after, inputs)
        assert to_bytes(fold(model)[0]) == to_bytes(folded), "it folds differently each time"
        _check_runtime(proto, after, inputs, expected, response)
    return folded, report


def check_other_batch(model, folded, inputs):
    """Assert that the graphs agree for another batch, if their first dimensions leave it open."""
    rng = np.random.default_rng(0)
    others = {}
    for value in model.graph.inputs:
        if value.name in inputs:
            old = inputs[value.name]
            more = not isinstance(value.shape[0], int) if old.ndim else False
            shape = (old.shape[0] + 2, *old.shape[1:]) if more else old.shape
            drawn = rng.normal(size=shape) if old.dtype.kind == "f" else rng.integers(0, 5, shape)
            others[value.name] = drawn.astype(old.dtype)
    try:
        expected = run_corrected(ir.to_proto(model), others)
    except Exception:  # a constant of the graph does not fit this size
        return
    response = _Response(ir.to_proto(model), others)
    actual = run_corrected(ir.to_proto(folded), others)
    for index, (found, truth) in enumerate(zip(actual, expected, strict=True)):
        error = _error(found, truth)
        assert error <= ROUNDED or error <= FACTOR * response.error(index), f"{error:.3g} off"


def _check_surface(before, after):
    for kind in ("input", "output"):
        old, new = (list(getattr(proto.graph, kind)) for proto in (before, after))
        assert [v.SerializeToString() for v in new] == [v.SerializeToString() for v in old], (
            f"the graph's {kind}s have changed"
        )
    assert len(after.graph.node) <= len(before.graph.node), "there are more nodes"
    assert list(after.opset_import) == list(before.opset_import)
    unused = _unused(after.graph)
    assert unused <= _unused(before.graph), f"nothing reads {unused}"


def _unused(graph):
    """Return the names of the constants that nothing reads; one that is an input has to stay."""
    read = {name for node in graph.node for name in (*node.input, *captured(node))}
    read |= {value.name for value in (*graph.input, *graph.output)}
    return {tensor.name for tensor in graph.initializer} - read


def _check_report(before, after, report):
    old, new = ({node.name for node in proto.graph.node} for proto in (before, after))
    if "" in old:  # rows have other names for nodes that have none
        return
    gone = {row.node for row in report.folds}  # what one was folded into may fold in its turn
    for row in report.folds:
        assert row.node in old, row
        assert row.node not in new, f"reported as gone: {row}"
        assert set(row.into) <= new | gone, f"{row}: not all are in {sorted(new)}"
        assert set(row.through) <= old | new, row
    left = {row.node for row in report.refusals}
    assert left <= new, f"refused, but gone: {left - new}"
    rows = [row.node for row in (*report.folds, *report.refusals)]
    assert len(rows) == len(set(rows)), f"twice in the report: {sorted(rows)}"


def _check_shapes(folded, after, inputs):
    """Assert that what the graph declares of its values is so."""
    found = run_nodes(after, inputs)
    for node in folded.graph:
        for value in node.outputs:
            if value.shape is None or value.name not in found:
                continue
            sizes = found[value.name].shape
            assert len(sizes) == len(value.shape), f"{value} is of shape {sizes}"
            for declared, size in zip(value.shape, sizes, strict=True):
                known = isinstance(declared, int)
                assert not known or declared == size, f"{value} is of shape {sizes}"


def _check_runtime(before, after, inputs, expected, response):
    plain, folded = (run_runtime(proto, inputs) for proto in (before, after))
    for index, truth in enumerate(expected):
        error, allowed = (_error(run[index], truth) for run in (folded, plain))
        limit = FACTOR * allowed + FLOOR
        if error > limit:
            limit = max(limit, FACTOR * response.error(index))
        assert error <= limit, _message("ONNX Runtime", after, index, error, limit)


def run_runtime(proto, inputs, level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL):
    """Evaluate a protobuf in ONNX Runtime in one thread, which is faster for small graphs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


class _Response:
    """How far each output moves if every number that is read is off by one spacing."""

    def __init__(self, proto, inputs):
        self.proto, self.inputs, self.moved = proto, inputs, None

    def error(self, index):
        if self.moved is None:
            self.moved = self._measure()
        return self.moved[index]

    def _measure(self):
        rng = np.random.default_rng(0)
        names = [value.name for value in self.proto.graph.output]
        truth = run_nodes(self.proto, self.inputs)

        def disturb(array):
            return array * (1 + rng.choice([-EPSILON, EPSILON], array.shape))

        runs = [run_nodes(self.proto, self.inputs, disturb) for _ in range(4)]
        return [max(_error(run[name], truth[name]) for run in runs) for name in names]


def _error(found, truth):
    found, truth = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    assert found.shape == truth.shape, f"of shape {found.shape}, not {truth.shape}"
    assert np.isfinite(found).all(), "not finite"
    return np.abs(found - truth).max(initial=0.0) / (np.abs(truth).max(initial=0.0) or 1.0)


def _message(where, after, index, error, limit):
    name = after.graph.output[index].name
    return f"output {name!r} of the folded graph is off by {error:.3g} in {where}, not {limit:.3g}"
