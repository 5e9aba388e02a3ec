"""How far rounding alone may take an ONNX graph's outputs: `reference/rounded_runs.py` for graphs.

The graph runs in float64 with every weight w and all that operators return, y, rounded at random:

    w (1 + epsilon u / 2),  y (1 + epsilon u),   u uniform in [-1, 1]

Gates are rounded as y + epsilon u, and sums as the order of their additions may have it;
`reference/reflection.py` says how often it runs.
"""

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np
import onnx

from ..reference.reflection import Reading, run_with_twins
from ..reference.sums import SINGLE, sum_error
from .float64 import Arrays, Float64Graph, Noise

__all__ = ["run_rounded"]

GATES = frozenset({"Erf", "HardSigmoid", "Sigmoid"})
SATURATING = frozenset({"Sigmoid", "Softmax", "Tanh"})
EXACT = frozenset(
    "Concat DepthToSpace Expand Flatten Gather Identity Pad Relu Reshape Slice SpaceToDepth Split "
    "Squeeze Tile Transpose Unsqueeze".split()
)
SUMS = {"ReduceSum": True, "ReduceMean": False, "GlobalAveragePool": False}  # is it the sum itself?


def run_rounded(
    graph: Float64Graph,
    batches: Sequence[Mapping[str, np.ndarray]],
    wanted: Container[str],
    epsilon: float,
) -> list[list[Arrays]]:
    """Return what some runs that round at random give, always the same ones.

    Args:
        graph: The graph.
        batches: Its inputs, by name.
        wanted: Names of the tensors to return.
        epsilon: How far rounding may go, relative to each value.

    Returns:
        For each run what each batch gives, by name.
    """

    def run(generator: np.random.Generator | None, reading: Reading) -> list[Arrays]:
        def taken(node: onnx.NodeProto, given: list[np.ndarray | None]) -> list[np.ndarray | None]:
            x = given[0] if given else None
            if node.op_type not in SATURATING or x is None or x.dtype != np.float64:
                return given
            return [reading(x), *given[1:]]

        weights, noise = None, None
        if generator is not None:
            off, noise = _at_random(generator, epsilon)
            weights = {name: off(array, epsilon / 2) for name, array in graph.weights.items()}
        return [graph.run(b, wanted, weights=weights, taken=taken, noise=noise) for b in batches]

    return run_with_twins(run)


def _at_random(
    generator: np.random.Generator, epsilon: float
) -> tuple[Callable[[np.ndarray, float], np.ndarray], Noise]:
    """Return a function that rounds an array at random, and one that does what operators return."""

    def off(array: np.ndarray, step: float) -> np.ndarray:
        if array.dtype != np.float64:
            return array
        return np.asarray(array * (1 + generator.uniform(-step, step, array.shape)))

    def noise(
        node: onnx.NodeProto, given: list[np.ndarray | None], results: list[np.ndarray]
    ) -> list[np.ndarray]:
        if node.op_type in EXACT or any(y.dtype != np.float64 for y in results):
            return results
        if node.op_type in GATES:
            return [y + generator.uniform(-epsilon, epsilon, y.shape) for y in results]
        if node.op_type in SUMS and given[0] is not None:
            error = _error_of_sum(node, given, given[0]) * epsilon / SINGLE
            sign = generator.choice([-1.0, 1.0], error.shape)
            results = [results[0] + (error * sign).reshape(results[0].shape)]
        return [off(y, epsilon) for y in results]

    return off, noise


def _error_of_sum(
    node: onnx.NodeProto, given: list[np.ndarray | None], x: np.ndarray
) -> np.ndarray:
    axes = list(range(2, x.ndim)) if node.op_type == "GlobalAveragePool" else list(range(x.ndim))
    stated = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if stated is None and len(given) > 1 and given[1] is not None:
        stated = [int(axis) for axis in given[1]]
    axes = [axis % x.ndim for axis in stated] if stated else axes
    error = sum_error(x, tuple(axes))
    count = 1 if SUMS[node.op_type] else x.size / max(error.size, 1)
    return error / max(count, 1)
