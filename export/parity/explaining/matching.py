"""Which layer's output a tensor of a file holds, and how well.

The graph says it only in part, because folding leaves a convolution with the output of the batch
norm behind it. Offered are the outputs of the tensor's own layer, and those computed from them by
layers that have no operator in the file; the nearest one is taken, with the axes as they are, with
the channels second, or with time first.
"""

import dataclasses
from collections.abc import Callable, Sequence, Set

import numpy as np

from ..measure import errors_of, is_rescaled, scale_of
from ..reference.intermediates import Intermediate
from ..report import LayerParity
from ..rule import bad_channel, tolerances
from .taps import Taps

__all__ = ["Match", "Record", "arranged", "best_match", "candidates", "compared", "folded_before"]

# As they are; channels second; channels last where Keras has them second; time first.
ORDERS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda array: array,
    lambda array: np.moveaxis(array, 1, -1),
    lambda array: np.moveaxis(array, -1, 1),
    lambda array: np.swapaxes(array, 0, 1),
)


def candidates(taps: Taps, record: Sequence[Intermediate]) -> dict[str, list[int]]:
    """Return, for each tensor, the places of the outputs that it may hold.

    Args:
        taps: The file.
        record: What the layers return.
    """
    # A Transpose that carries the name of a folded batch norm computes none.
    permuting = {item.layer for item in record if item.kind == "Permute"}
    present = {tap.layer for tap in taps.taps.values()} - (taps.transposed - permuting)
    of_layer: dict[str, list[int]] = {}
    readers: dict[int, list[int]] = {}
    for place, item in enumerate(record):
        of_layer.setdefault(item.layer, []).append(place)
        for source in item.sources:
            readers.setdefault(source, []).append(place)
    offered = {}
    for value, tap in taps.taps.items():
        places = list(of_layer.get(tap.layer, ()))
        for place in places:  # which grows
            places += [
                reader
                for reader in readers.get(place, ())
                if record[reader].layer not in present and reader not in places
            ]
        if places:
            offered[value] = places
    return offered


def folded_before(
    holds: dict[str, int], held: Set[int], record: Sequence[Intermediate]
) -> dict[str, tuple[str, ...]]:
    """Return, for each tensor, the layers before its own whose outputs no tensor holds.

    Args:
        holds: The place of what each tensor holds, or should.
        held: Places of what some tensor holds.
        record: What the layers return.
    """
    found = {}
    for value, place in holds.items():
        places: set[int] = set()
        stack = [place]
        while stack:
            for source in record[stack.pop()].sources:
                if source not in held and source not in places:
                    places.add(source)
                    stack.append(source)
        own = record[place].layer
        names = dict.fromkeys(record[p].layer for p in sorted(places))
        found[value] = tuple(name for name in names if name != own)
    return found


@dataclasses.dataclass(frozen=True)
class Record:
    """What the layers return.

    Attributes:
        truth: In float64.
        own: In the model's own precision.
        epsilon: Spacing at 1 of the coarsest dtype that may be computed in.
    """

    truth: Sequence[Intermediate]
    own: Sequence[Intermediate]
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Match:
    """What a tensor holds.

    Attributes:
        place: Place of the layer's output, in the record.
        order: How the tensor's axes are to be read, an index of `ORDERS`.
    """

    place: int
    order: int


def best_match(array: np.ndarray, places: list[int], record: Record) -> Match | None:
    """Return which of some outputs a tensor holds: the nearest one.

    Args:
        array: The tensor's values.
        places: The places of the outputs that it may hold.
        record: What the layers return.

    Returns:
        None if nothing has its shape.
    """
    nearest, best = float("inf"), None
    for place in places:
        true = record.truth[place].values
        if true is None or array.dtype.kind != "f":
            continue
        for order in range(len(ORDERS)):
            held = arranged(array, order, true.shape)
            if held is None:
                continue
            distance = _distance(true, held)
            if best is None or distance <= nearest:  # the last of equals
                nearest, best = distance, Match(place, order)
    return best


def compared(value: str, array: np.ndarray, match: Match, record: Record) -> LayerParity:
    """Compare a tensor with the output that it is to hold.

    Args:
        value: Its name.
        array: Its values.
        match: The output.
        record: What the layers return, that output among them.
    """
    item, epsilon = record.truth[match.place], record.epsilon
    true, narrow = np.asarray(item.values), np.asarray(record.own[match.place].values)
    held = arranged(array, match.order, true.shape)
    found = np.full(true.shape, np.nan) if held is None else held
    scale = scale_of(true)
    keras, onnx = errors_of(true, narrow, scale), errors_of(true, found, scale)
    largest, _ = tolerances(keras, [], epsilon)
    agrees = onnx.max <= largest and bad_channel(true, narrow, [], [found], epsilon) is None
    rescaled = not agrees and np.isfinite(onnx.max) and is_rescaled(true, found)
    return LayerParity(
        layer=item.layer,
        kind=item.kind,
        value=value,
        folded=(),
        scale=scale,
        keras=keras.max,
        onnx=onnx.max,
        tolerance=largest,
        status="agrees" if agrees else "rescaled" if rescaled else "differs",
    )


def arranged(array: np.ndarray, order: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return an array with its axes in an order that gives a shape, but for axes of size 1.

    Args:
        array: The array.
        order: An index of `ORDERS`.
        shape: The shape.

    Returns:
        None if it does not give that.
    """
    if array.ndim < 3 and order:
        return None
    view = ORDERS[order](array)
    if [n for n in view.shape if n != 1] == [n for n in shape if n != 1]:
        return view.reshape(shape)
    merged = order == 0 and array.ndim != len(shape) and array.size == np.prod(shape)
    if merged and array.shape[-1:] == shape[-1:]:
        return array.reshape(shape)
    return None


def _distance(truth: np.ndarray, array: np.ndarray) -> float:
    """Return the root mean square difference; infinite if one of the two has NaN."""
    with np.errstate(all="ignore"):
        distance = float(np.sqrt(np.mean((array - truth) ** 2)))
    return distance if np.isfinite(distance) else float("inf")
