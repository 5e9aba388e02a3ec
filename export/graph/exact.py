"""Constants held exactly, at no cost until they are written.

A weight that a Transpose rearranges and batch norms scale is, for each element,

    value = base * factor_1 * factor_2 * ...

`base` is the array as it was found, a strided view in its own dtype; each factor is a float64 array
that is much smaller and broadcasts against it, such as one number for each output channel. Nothing
of the weight's size is computed, or held in float64, until its bytes are asked for; then each
element is multiplied in float64 and rounded once. A factor that is not much smaller than the base
is multiplied into it at once, in float64.

Whether every element stays finite is known without computing them: multiplying by a number and
rounding keep the order of magnitudes, so the largest of each slice that shares its factor decides.
With several factors that gives an upper bound; above the dtype's range the elements are computed,
a block at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = [
    "FLOATING",
    "FLOATS",
    "ExactTensor",
    "blocks",
    "constant",
    "exact",
    "is_constant",
    "rearranged",
]

FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT})
FLOATING = FLOATS | {ir.DataType.DOUBLE}
HELD = frozenset(dtype.numpy() for dtype in FLOATING)
SMALLER = 8  # a factor is kept apart if it has this many times fewer elements than the base
BLOCK = 2**22  # bytes of the base that are computed at a time

Factors = Sequence[np.ndarray]
DOUBLE = np.dtype(np.float64)


class ExactTensor(ir.LazyTensor):
    """A constant kept exactly and rounded once, when it is read as a tensor of its dtype.

    Args:
        value: The exact value, any shape; an array of another dtype than float16, bfloat16,
            float32 and float64 is converted to float64. It is never changed, so it may be a view.
        dtype: The dtype that the graph sees: float16, bfloat16, float32 or float64.
        factors: What `value` is yet to be multiplied by: float64, of the rank of `value`, and along
            each axis of its size or of size 1.
    """

    def __init__(self, value: Any, dtype: ir.DataType, factors: Factors = ()) -> None:
        array = np.asarray(value)
        self.base = array if array.dtype in HELD else array.astype(np.float64)
        self.factors = tuple(factors)
        self._peaks: dict[tuple[int, ...], np.ndarray] = {}
        super().__init__(self._round, dtype=dtype, shape=ir.Shape(array.shape))

    @classmethod
    def of(cls, tensor: ir.TensorProtocol) -> "ExactTensor":
        """Return a floating-point constant as one that is held exactly; copies nothing."""
        return tensor if isinstance(tensor, cls) else cls(tensor.numpy(), tensor.dtype)

    def __repr__(self) -> str:
        return f"ExactTensor(shape={self.base.shape}, dtype={self.dtype})"

    @property
    def exact(self) -> np.ndarray:
        """The exact value in float64, computed anew. For small constants; it may not be changed."""
        return _multiplied(self.base, self.factors, DOUBLE)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.base.ndim

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of each axis."""
        return tuple(self.base.shape)

    def with_dtype(self, dtype: ir.DataType) -> "ExactTensor":
        """Return the same exact value, to be rounded to another dtype."""
        other = ExactTensor(self.base, dtype, self.factors)
        other._peaks = self._peaks  # of the same base
        return other

    def __mul__(self, factor: np.ndarray) -> "ExactTensor":
        """Multiply by an array that broadcasts to this shape; rounds nothing."""
        factor = np.asarray(factor, np.float64)
        factor = factor.reshape((1,) * (self.base.ndim - factor.ndim) + factor.shape)
        if not self.outweighs(factor.size):
            return ExactTensor(_multiplied(self.exact, [factor], DOUBLE), self.dtype)
        product = ExactTensor(self.base, self.dtype, _joined(self.factors, factor))
        product._peaks = self._peaks  # of the same base
        return product

    def outweighs(self, size: int) -> bool:
        """Say whether a factor of so many elements would be kept apart."""
        return size * SMALLER <= self.base.size

    def is_finite(self) -> bool:
        """Say whether every element is finite once it is rounded; computes no large array."""
        dtype, ndim = self.dtype.numpy(), self.base.ndim
        if len(self.factors) < 2:
            kept = tuple(a for a in range(ndim) if any(f.shape[a] > 1 for f in self.factors))
            return _is_finite(_multiplied(self._peak(kept), self.factors, dtype))
        largest = [np.abs(factor).max(initial=0.0, keepdims=True) for factor in self.factors]
        if _is_finite(_multiplied(self._peak(()), largest, dtype)):
            return True
        return all(_is_finite(_multiplied(*p, dtype)) for p in _parts(self.base, self.factors))

    def peaks(self, axis: int) -> np.ndarray:
        """Return the largest magnitude of each slice along an axis; computes no large array.

        Args:
            axis: Such as that of the output channels; negative from the back.

        Returns:
            Shape (size of the axis,), float64: of the elements as they are once rounded, so Inf
            where one overflows, NaN where one is NaN, and 0 where there is none.
        """
        axis, ndim = axis % self.base.ndim, self.base.ndim
        kept = tuple(
            a for a in range(ndim) if a == axis or any(f.shape[a] > 1 for f in self.factors)
        )
        finite = all(map(_is_finite, self.factors))  # else zeros matter: 0 * Inf is NaN
        if finite and self.outweighs(math.prod(self.base.shape[a] for a in kept)):
            base = self._peak(kept)
        else:
            base = self.base
        factors = [np.moveaxis(factor, axis, 0) for factor in self.factors]
        return _largest_of_rows(np.moveaxis(base, axis, 0), factors, self.dtype.numpy())

    def _peak(self, kept: tuple[int, ...]) -> np.ndarray:
        """Return the largest magnitudes of the base over all axes but `kept`; NaN propagates."""
        if kept not in self._peaks:
            axes = tuple(axis for axis in range(self.base.ndim) if axis not in kept)
            largest = self.base.max(axes, keepdims=True, initial=0)
            smallest = self.base.min(axes, keepdims=True, initial=0)
            self._peaks[kept] = np.maximum(largest, -smallest)
        return self._peaks[kept]

    def _round(self) -> ir.TensorProtocol:
        array = _multiplied(self.base, self.factors, self.dtype.numpy())
        return ir.Tensor(array, dtype=self.dtype)


def is_constant(value: ir.Value | None) -> bool:
    """Say whether a value is the same in every run: an initializer that is no graph input."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def exact(value: ir.Value) -> np.ndarray:
    """Return a floating-point constant in float64, or any other constant as it is."""
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"exact: `value` must be a constant. Received: value={value}.")
    if isinstance(tensor, ExactTensor):
        return tensor.exact
    array = tensor.numpy()
    return array.astype(np.float64) if tensor.dtype in FLOATS else array


def constant(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Return a value for a constant, ready to be registered as an initializer."""
    dtype = ir.TensorType(tensor.dtype)
    shape = ir.Shape(tensor.shape.numpy())
    return ir.Value(name=name, shape=shape, type=dtype, const_value=tensor)


def rearranged(
    tensor: ir.TensorProtocol, move: Callable[[np.ndarray], np.ndarray]
) -> ir.TensorProtocol:
    """Return a constant with its elements moved, a view where `move` gives one.

    Args:
        tensor: Any constant; an exact one stays exact.
        move: Moves elements by their place alone, whatever they are: a transpose, a reshape, ...
    """
    if not isinstance(tensor, ExactTensor):
        return ir.Tensor(move(tensor.numpy()), dtype=tensor.dtype)
    moved = ExactTensor(move(tensor.base), tensor.dtype)
    for factor in tensor.factors:
        moved *= _without_repeats(move(np.broadcast_to(factor, tensor.base.shape)))
    return moved


def blocks(tensor: ir.TensorProtocol) -> Iterator[memoryview]:
    """Yield a constant's bytes in order, a few megabytes at a time."""
    if isinstance(tensor, ExactTensor):
        for part in _parts(tensor.base, tensor.factors):
            yield _as_bytes(_multiplied(*part, tensor.dtype.numpy()))
        return
    array = tensor.numpy()
    if array.dtype.itemsize != tensor.dtype.itemsize:  # several elements to a byte
        yield memoryview(tensor.tobytes())
        return
    for rows, _ in _parts(array, ()):
        yield _as_bytes(rows)


def _multiplied(base: np.ndarray, factors: Factors, dtype: np.dtype[Any]) -> np.ndarray:
    """Multiply in float64 and round to `dtype`, once."""
    with np.errstate(over="ignore", invalid="ignore"):  # seen as Inf and NaN
        if not factors:
            return base.astype(dtype, order="C", copy=False)
        *others, last = factors
        for factor in others:
            base = np.multiply(base, factor, dtype=np.float64)
        out = np.empty(base.shape, dtype)  # NumPy converts in pieces that fit the cache
        np.multiply(base, last, out=out, dtype=np.float64, casting="unsafe")
    return out


def _joined(factors: Factors, new: np.ndarray) -> Factors:
    """Add a factor, multiplied into one that has the same axes if there is one."""
    for i, factor in enumerate(factors):
        if np.broadcast_shapes(factor.shape, new.shape) in (factor.shape, new.shape):
            with np.errstate(over="ignore", invalid="ignore"):
                return [*factors[:i], factor * new, *factors[i + 1 :]]
    return [*factors, new]


def _without_repeats(array: np.ndarray) -> np.ndarray:
    """Cut to size 1 the axes along which a broadcast view repeats itself."""
    return array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]


def _is_finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())


def _parts(base: np.ndarray, factors: Factors) -> Iterator[tuple[np.ndarray, Factors]]:
    """Cut an array, and its factors alike, along its leading axes into blocks, in order."""
    if base.nbytes <= BLOCK:
        yield base, factors
        return
    rows = BLOCK // (base.nbytes // len(base))
    for start in range(0, len(base), rows or 1):
        cut = slice(start, start + rows) if rows else start
        one = slice(None) if rows else 0  # of a factor that is the same for all rows
        parts = [factor[cut if len(factor) > 1 else one] for factor in factors]
        if rows:
            yield base[cut], parts
        else:
            yield from _parts(base[cut], parts)


def _largest_of_rows(base: np.ndarray, factors: Factors, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the largest magnitude in each row of a product, a block at a time."""
    largest, seen, row = np.zeros(len(base)), 0, math.prod(base.shape[1:])
    if base.size == 0:
        return largest
    for part in _parts(base, factors):
        count = max(part[0].size // row, 1)  # whole rows, or a piece of one
        rows = _multiplied(*part, dtype).reshape(count, -1)
        here = slice(seen // row, seen // row + count)
        largest[here] = np.maximum(largest[here], np.maximum(rows.max(axis=1), -rows.min(axis=1)))
        seen += rows.size
    return largest


def _as_bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
