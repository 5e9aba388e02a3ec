"""UpSampling as TensorFlow repeats it -> Resize, which layouts and affine maps pass through.

Reshape(Tile(Reshape(x, (..., n, 1, ...)), k at the 1), (..., k*n, ...))
    =  Resize(x, scales k at n), output[i] = input[floor(i / k)]
Resize(Resize(x, s), t)  =  Resize(x, s * t)      both of that kind
"""

import numpy as np
import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.families import RESHAPING
from .editor import Editor

__all__ = ["merge_repetitions"]

REPEATING = {
    "coordinate_transformation_mode": "asymmetric",
    "mode": "nearest",
    "nearest_mode": "floor",
}
LARGEST = 16  # i / k is rounded; floor(i / k) is right in float32 for any size that fits memory
RANKS = range(3, 6)


def merge_repetitions(editor: Editor) -> bool:
    """Write repeated elements as one Resize."""
    changed = False
    for tile in editor.nodes("Tile"):
        changed |= _tile_to_resize(editor, tile)
    for node in editor.nodes("Resize"):
        changed |= _merge_resizes(editor, node)
    return changed


def _tile_to_resize(editor: Editor, tile: ir.Node) -> bool:
    before = editor.producer(tile.inputs[0], *RESHAPING)
    reader = editor.only_reader(tile)
    if before is None or reader is None:
        return False
    after = editor.producer(reader.outputs[0], *RESHAPING)
    x, repeats = before.inputs[0], editor.known.constant_integers(tile.inputs[1])
    shape, spread = editor.known.shape(x), editor.known.shape(tile.inputs[0])
    if after is None or x is None or repeats is None or shape is None or spread is None:
        return False
    if x.dtype is not ir.DataType.FLOAT or len(shape) not in RANKS:
        return False
    at = [axis for axis, times in enumerate(repeats) if times != 1]
    if len(at) != 1 or at[0] == 0 or not 1 < repeats[at[0]] <= LARGEST:
        return False
    axis, times = at[0] - 1, repeats[at[0]]
    if spread != (*shape[: axis + 1], 1, *shape[axis + 1 :]):
        return False
    if editor.known.shape(after.outputs[0]) != _scaled(shape, axis, times):
        return False
    scales = [1] * len(shape)
    scales[axis] = times
    _write(editor, after, x, scales)
    editor.graph.remove(tile, safe=True)
    return True


def _scaled(shape: tuple[object, ...], axis: int, times: int) -> tuple[object, ...]:
    size = shape[axis]
    return (*shape[:axis], size * times, *shape[axis + 1 :])  # type: ignore[operator]


def _merge_resizes(editor: Editor, node: ir.Node) -> bool:
    inner = editor.producer(node.inputs[0], "Resize")
    if inner is None or inner.inputs[0] is None or not editor.is_read_once(inner.outputs[0]):
        return False
    first, second = _repetitions(inner), _repetitions(node)
    if first is None or second is None or len(first) != len(second):
        return False
    scales = [a * b for a, b in zip(first, second, strict=True)]
    if max(scales) > LARGEST:
        return False
    _write(editor, node, inner.inputs[0], scales)
    editor.graph.remove(inner, safe=True)
    return True


def _repetitions(node: ir.Node) -> list[int] | None:
    """Return how often a Resize repeats each axis, or None if it does anything else."""
    if any(node.attributes.get_string(name, "") != value for name, value in REPEATING.items()):
        return None
    scales = node.inputs[2] if len(node.inputs) == 3 else None
    if scales is None or scales.const_value is None or not is_constant(scales):
        return None
    if "axes" in node.attributes:
        return None
    factors = scales.const_value.numpy().tolist()
    return [int(f) for f in factors] if all(f >= 1 and f == int(f) for f in factors) else None


def _write(editor: Editor, node: ir.Node, x: ir.Value, scales: list[int]) -> None:
    constant = editor.constant(
        f"{node.outputs[0].name}/scales", ir.tensor(np.array(scales, np.float32))
    )
    editor.replace(node, "Resize", [x, None, constant], REPEATING)
