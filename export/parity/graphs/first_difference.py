"""Where a graph begins to differ from another: the first tensor that both name and only one has.

Every tensor that bears the same name in both is compared, by float64 and the first graph's own
error. From the outputs that differ the search goes back through tensors that differ to one that is
computed from none. Tensors that are a factor and an offset per channel away are passed over, as a
moved batch norm leaves such on purpose. If one stands right before what is found, that is said.
"""

from collections.abc import Callable, Set

import numpy as np
import onnx

from ..ancestry import nearest
from ..measure import errors_of, is_rescaled, scale_of
from ..report import Fault
from ..rule import tolerances
from .float64 import Arrays, Float64Graph

__all__ = ["first_difference"]


def first_difference(
    truth: Float64Graph,
    second: onnx.ModelProto,
    *,
    first_values: Callable[[list[str]], Arrays],
    second_values: Callable[[list[str]], Arrays],
    inputs: Arrays,
    ends: Set[str],
    epsilon: float,
) -> Fault:
    """Name the first tensor that differs.

    Args:
        truth: The first graph, in float64.
        second: The second.
        first_values: Returns some tensors of the first, by name, as ONNX Runtime has them.
        second_values: Likewise of the second.
        inputs: What they run on, by name.
        ends: Names, in the second graph, of the outputs that differ.
        epsilon: Spacing at 1 of the coarsest dtype that is computed in.
    """
    made = {name for node in truth.nodes for name in node.output if name}
    behind = _behind(second, ends)
    shared = [
        name for node in second.graph.node for name in node.output if name in made & set(behind)
    ]
    wide = truth.run(inputs, set(shared))
    shared = [name for name in shared if wide[name].dtype == np.float64]
    own, found = first_values(shared), second_values(shared)
    bad: dict[str, tuple[float, float]] = {}
    moved = set()
    for name in shared:
        scale = scale_of(wide[name])
        errors = errors_of(wide[name], found[name], scale)
        allowed, _ = tolerances(errors_of(wide[name], own[name], scale), [], epsilon)
        if errors.max <= allowed:
            continue
        if name not in ends and _is_moved(wide[name], found[name]):
            moved.add(name)
        else:
            bad[name] = errors.max, allowed
    first = _first(second, behind, set(shared), set(bad))
    if first is None:
        return Fault("file", (), None, "No tensor that both files name differs before the outputs.")
    error, allowed = bad[first]
    node = next(node for node in second.graph.node if first in node.output)
    before = ", ".join(
        map(repr, sorted(nearest(behind[first], behind.__getitem__, set(shared)) & moved))
    )
    aside = f" Right before it {before} differs by a factor for each channel." if before else ""
    return Fault(
        "file",
        (),
        first,
        f"The first tensor that differs is {first!r}, of {node.op_type} {node.name or first!r}: "
        f"error {error:.1e}, allowed {allowed:.1e}.{aside}",
    )


def _behind(proto: onnx.ModelProto, ends: Set[str]) -> dict[str, set[str]]:
    """Return what each tensor that these are computed from is itself computed from."""
    sources = {
        name: set(node.input) - {""} for node in proto.graph.node for name in node.output if name
    }
    found: dict[str, set[str]] = {}
    stack = list(ends)
    while stack:
        name = stack.pop()
        if name not in found:
            found[name] = sources.get(name, set())
            stack.extend(found[name])
    return found


def _first(
    proto: onnx.ModelProto, behind: dict[str, set[str]], shared: set[str], bad: set[str]
) -> str | None:
    """Return the first bad tensor that is computed from no other, in the graph's order."""
    for name in (name for node in proto.graph.node for name in node.output if name in bad):
        if not nearest(behind[name], behind.__getitem__, shared) & bad:
            return str(name)
    return None


def _is_moved(truth: np.ndarray, found: np.ndarray) -> bool:
    """Say whether a factor and an offset for each channel, second or last, explain the error."""
    if truth.shape != found.shape or truth.ndim < 2 or not np.isfinite(found).all():
        return False
    return any(
        is_rescaled(np.moveaxis(truth, axis, -1), np.moveaxis(found, axis, -1)) for axis in (1, -1)
    )
