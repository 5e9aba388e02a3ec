"""Whether the kernel of this folder is there, and who may use it.

`pip install` builds it where it finds a C++ compiler. Without it, or where it cannot run, the layer
takes TensorFlow's kernel or the portable formula, with the same results.
"""

import ctypes
import functools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_bn.fused import is_compiled_by_xla, why_never_fused, why_not_fused

__all__ = ["Kernel", "kernel", "load", "why_not_native"]

SWITCH = "KERAS_BN_NATIVE"
LIBRARY = Path(__file__).with_name("_kernel.so")


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
    from keras_bn.layer import BatchNormalization

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
        threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
        library = ctypes.CDLL(str(LIBRARY))
        library.keras_bn_instruction_set.restype = ctypes.c_char_p
        return Kernel("native", f"{library.keras_bn_instruction_set().decode()}, {threads} threads")
    option = why_never_fused(layer)
    if option is not None:
        return Kernel("portable", f"{reason}, and {option}")
    return Kernel("tensorflow", reason)


def why_not_native(dtype: str) -> str | None:
    """Say why the native kernel cannot train on a tensor here and now, or None if it can.

    Args:
        dtype: Name of the input's dtype.

    Returns:
        None, or the reason as a clause that completes "because ...".
    """
    refused = why_not_fused(dtype, training=False)
    if refused is not None:
        return refused
    if is_compiled_by_xla():
        return "the function is compiled by XLA (`jit_compile=True`)"
    if any(device.device_type != "CPU" for device in tf.config.get_visible_devices()):
        return "TensorFlow sees an accelerator, and the native kernel runs on CPUs"
    operators, reason = load()
    return None if operators is not None else reason


@functools.cache
def load() -> tuple[Any, str]:
    """Load the native kernel, once in a process.

    Returns:
        The module of its operators, or None; and why it is None. A library that is there and cannot
        be loaded is a warning as well.
    """
    if os.environ.get(SWITCH, "1") == "0":
        return None, f"the environment variable {SWITCH} is 0"
    if not LIBRARY.exists():
        return None, "the native kernel is not built; installing this package with g++ builds it"
    try:
        operators = tf.load_op_library(str(LIBRARY))
        library = ctypes.CDLL(str(LIBRARY))
        library.keras_bn_failure.restype = ctypes.c_char_p
        failure = library.keras_bn_failure().decode()
    except (OSError, AttributeError, RuntimeError, tf.errors.OpError) as e:
        failure = str(e).split("\n", maxsplit=1)[0]
    if not failure:
        return operators, ""
    reason = f"the native kernel does not load: {failure}"
    warnings.warn(
        f"keras_bn: {reason}. The layer trains on TensorFlow's kernel. Set {SWITCH}=0 to silence "
        "this, or install keras-bn again to rebuild it.",
        RuntimeWarning,
        stacklevel=2,
    )
    return None, reason


def set_threads() -> None:
    """Let the native kernel use as many threads as TensorFlow's operators do."""
    set_threads_of_library(tf.config.threading.get_intra_op_parallelism_threads())


@functools.lru_cache(maxsize=1)
def set_threads_of_library(threads: int) -> None:
    """Set how many threads work on one operator; 0 stands for one a CPU."""
    ctypes.CDLL(str(LIBRARY)).keras_bn_set_threads(threads)
