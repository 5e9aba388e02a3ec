"""Which kernel a layer trains on: this package's own, TensorFlow's, or the portable formula."""

from dataclasses import dataclass
from typing import Any

from keras_bn.fused import why_never_fused, why_not_fused
from keras_bn.layer import BatchNormalization
from keras_bn.native.library import instruction_set, threads, why_not_native

__all__ = ["Kernel", "kernel"]


@dataclass(frozen=True)
class Kernel:
    """What normalises a batch in training.

    Attributes:
        name: "native", this package's own; "tensorflow", the fused kernel of TensorFlow; or
            "portable", a formula of TensorFlow operators.
        reason: Why not the one before, or what the native kernel uses.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def kernel(layer: Any = None) -> Kernel:
    """Say which kernel a layer trains on in this process, outside functions that XLA compiles.

    Args:
        layer: A `BatchNormalization` of this package; None asks for one with default arguments.

    Returns:
        The kernel, with the reason.

    Raises:
        TypeError: If `layer` is no `BatchNormalization` of this package.

    Example:
        >>> import keras_bn
        >>> keras_bn.kernel(keras_bn.BatchNormalization(dtype="float64")).name
        'portable'
    """
    if layer is not None and not isinstance(layer, BatchNormalization):
        raise TypeError(
            "kernel: `layer` must be None or a keras_bn.BatchNormalization. Received: "
            f"{type(layer).__name__}."
        )
    layer = BatchNormalization() if layer is None else layer
    if layer.fused is False:
        return Kernel("portable", "`fused` is False")
    refused = why_not_fused(layer.compute_dtype, training=True)
    if refused is not None:
        return Kernel("portable", refused)
    reason = why_not_native(layer.compute_dtype)
    if reason is None:
        return Kernel("native", f"{instruction_set()}, {threads()} threads")
    option = why_never_fused(layer)
    if option is not None:
        return Kernel("portable", f"{reason}, and {option}")
    return Kernel("tensorflow", reason)
