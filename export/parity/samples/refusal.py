"""Why Keras cannot run a model on samples: their shape, or this CPU."""

import re
import traceback
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from ...errors import ExportError, UnfitSizesError, one_line

__all__ = ["cannot_run"]

IN_ERRORS = re.compile(r"\{\{.*?\}\}|\[Op:\w+\](?: name:)?")  # TensorFlow's own names
# How TensorFlow says that it has an operator for other devices only, or none for a dtype.
OF_THIS_CPU = re.compile(r"UnimplementedError|\bCPU\b|only supports NHWC|Could not find device")


def cannot_run(shapes: Iterable[Iterable[int]], error: Exception) -> ExportError:
    """Return the error of a model that Keras cannot run on samples, from that of `in_keras`."""
    found = " ".join(IN_ERRORS.sub(" ", one_line(error)).split()).rstrip(".")
    layer = _layer_of(error)
    if layer is not None:
        found = f"layer {layer.name!r} ({type(layer).__name__}): {found}"
    if isinstance(error, tf.errors.OpError) and OF_THIS_CPU.search(found):
        return ExportError(
            "check: TensorFlow must be able to run the model on this CPU. "
            f"Received: {found}. Export with `check=False`, and prove the file where it can."
        )
    return UnfitSizesError(
        "check: Keras must be able to run the model on the samples. Received: "
        f"{[tuple(shape) for shape in shapes]}: {found}. "
        "Give samples of a suitable shape, with indices that tables have, by `inputs` or --input."
    )


def _layer_of(error: Exception) -> Any:
    """Return the innermost layer that an error came through; None if there was none."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    owners = [frame.f_locals.get("self") for frame in frames]
    layers = [owner for owner in owners if isinstance(owner, keras.Layer)]
    return layers[-1] if layers else None
