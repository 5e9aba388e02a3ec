"""The algebra of per-channel affine maps, in NumPy float64, without any graph.

Inference-time batch norm, and a constant Mul, Add, Sub or Div, are one map for each channel:

    y = scale * x + shift

After a linear operator, x = W z + c, it disappears into the operator's own weights:

    y = scale * (W z + c) + shift = (scale * W) z + (scale * c + shift)

with `scale` along the axis of W that makes the output channels. This holds for a convolution of
any rank, grouped or depthwise, because each output channel has its own slice of the kernel.
"""

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Affine", "absorb", "batch_norm"]

Array = NDArray[np.float64]


class Weight(Protocol):
    """What can be scaled: an array, or a weight that is held with its scales (`exact.py`)."""

    @property
    def ndim(self) -> int: ...
    def __mul__(self, factor: Array, /) -> Self: ...


W = TypeVar("W", bound=Weight)


@dataclass(frozen=True)
class Affine:
    """The map y = scale * x + shift.

    Attributes:
        scale: Shape (C,), float64.
        shift: Shape (C,), float64, in the units of y.
    """

    scale: Array
    shift: Array


def batch_norm(gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> Affine:
    """Write inference-time batch norm as an affine map.

        scale = gamma / sqrt(variance + epsilon),  shift = beta - scale * mean

    Args:
        gamma: Shape (C,), float64; ONNX calls it `scale`.
        beta: Shape (C,), float64; ONNX calls it `B`.
        mean: Shape (C,), float64.
        variance: Shape (C,), float64, in units of x squared. Below -epsilon the map is NaN.
        epsilon: Added to `variance`, same units.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 11.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
        return Affine(scale, beta - scale * mean)


def absorb(weight: W, bias: Array | None, after: Affine, axis: int) -> tuple[W, Array | None]:
    """Absorb an affine map into the linear operator before it.

    Args:
        weight: W, any shape with the C output channels along `axis`; scaled in float64.
        bias: c, shape (C,), float64; None stands for zero.
        after: The map applied to the operator's output.
        axis: Axis of the output channels in `weight`.

    Returns:
        The new weight, and the new bias, None where it is zero and there was none.
    """
    along = [1] * weight.ndim
    along[axis] = -1
    with np.errstate(invalid="ignore", over="ignore"):
        new_weight = weight * after.scale.reshape(along)
        if bias is None:
            return new_weight, after.shift if after.shift.any() else None
        return new_weight, after.scale * bias + after.shift
