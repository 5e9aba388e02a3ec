"""Whether the kernel of this folder is there, and who may use it.

`pip install` builds it where it finds a C++ compiler. Without it, or where it cannot run, the layer
takes TensorFlow's kernel or the portable formula, with the same results.
"""

import ctypes
import functools
import os
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_bn.fused import why_not_fused
from keras_bn.interception import is_compiled_by_xla

__all__ = ["instruction_set", "load", "set_threads", "threads", "why_not_native"]

SWITCH = "KERAS_BN_NATIVE"
LIBRARY = Path(__file__).with_name("_kernel.so")


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


def instruction_set() -> str:
    """Return the instruction set that the native kernel takes on this CPU, by name."""
    library = ctypes.CDLL(str(LIBRARY))
    library.keras_bn_instruction_set.restype = ctypes.c_char_p
    return str(library.keras_bn_instruction_set().decode())


def threads() -> int:
    """Return how many threads work on one operator."""
    own = len(os.sched_getaffinity(0))  # as the pool counts them
    return int(tf.config.threading.get_intra_op_parallelism_threads() or own)


def set_threads() -> None:
    """Let the native kernel use as many threads as TensorFlow's operators do."""
    set_threads_of_library(tf.config.threading.get_intra_op_parallelism_threads())


@functools.lru_cache(maxsize=1)
def set_threads_of_library(threads: int) -> None:
    """Set how many threads work on one operator; 0 stands for one a CPU."""
    ctypes.CDLL(str(LIBRARY)).keras_bn_set_threads(threads)
