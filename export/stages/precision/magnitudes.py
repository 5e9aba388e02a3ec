"""How large the values of every tensor in a graph become on samples.

    largest = max |x|   and   total = sum |x|   of every float32 tensor x

are computed inside the graph, by three more nodes a tensor, so that two numbers a tensor leave
ONNX Runtime and a tensor is freed as soon as the next ones are computed. The sum is there because
a maximum may pass over NaN.
"""

import math
import os
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from ...errors import ExportError, one_line
from ...graph.names import Names
from ...runtime.arena import give_memory_back
from ...runtime.session import LEVELS, open_session

__all__ = ["largest_magnitudes"]


def largest_magnitudes(
    model: ir.Model, samples: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Run a graph on samples and find the largest magnitude in each float32 tensor.

    Args:
        model: A graph that ONNX Runtime can run; stays unchanged.
        samples: Batches, each an array for every graph input, by name.

    Returns:
        For each float32 graph input and node output, by name, the largest magnitude in any batch
        on which all are finite; 0 for one that was always empty. Subgraphs are not looked into.

    Raises:
        ExportError: If there are no samples, or one lacks an input, or ONNX Runtime cannot run the
            graph on them, or a value in between is Inf or NaN on each.
    """
    values = [
        value
        for value in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs))
        if value.name and value.type == ir.TensorType(ir.DataType.FLOAT)
    ]
    if not values:
        return {}
    run = _runner(model, [str(value.name) for value in values])
    largest = np.zeros(len(values), np.float64)
    batches, error = 0, None
    for batch in samples:
        found, total = run(batch)
        wrong = np.isnan(total) | np.isposinf(found)
        if wrong.any():
            index = int(wrong.argmax())
            error = error or ExportError(
                "export: every value must be finite on some samples for `precision='float16'`. "
                f"Received: {'NaN' if math.isnan(total[index]) else 'Inf'} in tensor "
                f"{values[index].name!r}. Give other samples, or mend the model."
            )
            continue  # such as the logarithm of a constant 0, which is what it is in any precision
        largest = np.maximum(largest, found)
        batches += 1
    if not batches and error is not None:
        raise error
    if not batches:
        raise ExportError(
            "export: `samples` must have at least one batch for `precision='float16'`, to see "
            "which values would overflow. Received: none. Give samples."
        )
    return {str(v.name): float(n) for v, n in zip(values, largest, strict=True)}


class _Runner:
    """A graph in ONNX Runtime that returns the maximum and the sum of magnitudes."""

    def __init__(self, session: onnxruntime.InferenceSession, dtypes: dict[str, np.dtype]) -> None:
        self._session, self._dtypes = session, dtypes
        self._outputs = [output.name for output in session.get_outputs()]

    def __call__(self, batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        missing = [name for name in self._dtypes if name not in batch]
        if missing:
            raise ExportError(
                f"export: `samples` must have an array for each of the inputs "
                f"{list(self._dtypes)}. Received: arrays {sorted(batch)}."
            )
        feeds = {name: np.asarray(batch[name], dtype) for name, dtype in self._dtypes.items()}
        try:
            found = self._session.run(self._outputs, feeds, give_memory_back())
        except Exception as e:  # ONNX Runtime's exceptions have no common class of their own
            raise _cannot_run(e) from e
        pairs = np.array(found, np.float64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]


def _runner(model: ir.Model, tensors: list[str]) -> _Runner:
    proto = ir.to_proto(model)
    names = Names.of(model.graph)
    del proto.graph.output[:]
    added = []
    for tensor in tensors:
        magnitude, most, total = (names.new(f"{tensor}_{w}") for w in ("abs", "most", "total"))
        nodes = [onnx.helper.make_node("Abs", [tensor], [magnitude])]
        for operator, result in (("ReduceMax", most), ("ReduceSum", total)):
            nodes.append(onnx.helper.make_node(operator, [magnitude], [result], keepdims=0))
            info = onnx.helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, [])
            proto.graph.output.append(info)
        added.append(nodes)
    # ONNX Runtime visits the nodes that nobody reads from the last to the first, each after all
    # that it needs; in this order it looks at every tensor as soon as that is there.
    for nodes in reversed(added):
        proto.graph.node.extend(nodes)
    try:
        session = open_session(proto.SerializeToString(), LEVELS[0], threads=os.cpu_count() or 1)
    except Exception as e:
        raise _cannot_run(e) from e
    given = {str(value.name): value.dtype for value in model.graph.inputs}
    required = [value.name for value in session.get_inputs()]
    return _Runner(session, {name: (given[name] or ir.DataType.FLOAT).numpy() for name in required})


def _cannot_run(error: Exception) -> ExportError:
    return ExportError(
        "export: ONNX Runtime must run the graph on the samples for `precision='float16'`. "
        f"Received: {one_line(error)}"
    )
