"""Whether a model runs on the data at all, before it is measured on them.

Running a model runs the code of every layer, and that of its loss: whatever these raise about data
that do not suit them becomes one `ExportError`.
"""

import contextlib
import re
from collections.abc import Iterator

import keras
import tensorflow as tf

from ...errors import LONGEST_DETAIL, ExportError
from ...signature import input_specs
from .arrays import ModelData

__all__ = ["refusing_data", "run_once", "why_no_loss"]

TRIED = 2  # samples; with one alone, a target of another shape could be broadcast

# What a message of this package's own begins with.
OWN = (
    "adapt_statistics: ",
    "estimate_population_statistics: ",
    "measure_covariate_shift: ",
    "train_inference_gap: ",
)
# What TensorFlow and Keras put around what an error says.
PLACES = ("[[", "File ", "Detected at node", "Graph execution error")
ARGUMENTS = "Arguments received by "
NOISE = re.compile(r"\x1b\[\d*m|\{\{function_node [^}]*\}\} | \[Op:\w+\]| name: *$")


def why_no_loss(model: keras.Model, data: ModelData, not_compiled: str | None) -> str | None:
    """Return why the loss cannot be compared; None if it can.

    Args:
        model: The model as it was loaded.
        data: The data.
        not_compiled: What `load_compiled_model` said is missing.
    """
    if data.y is None:
        return "the data file has no targets"
    if not model.compiled:
        return not_compiled
    return "the model was compiled without a loss" if model.loss is None else None


def run_once(model: keras.Model, data: ModelData, *, with_loss: bool) -> None:
    """Run a model in inference on two samples, or on the first batch if its size is fixed.

    Args:
        model: The model; its state stays as it is.
        data: The data.
        with_loss: Whether to compute its loss too, which needs targets.

    Raises:
        ExportError: If the model or its loss raises.
    """
    rows = keras.tree.flatten(input_specs(model))[0].shape[0] or TRIED
    x, y = (
        keras.tree.map_structure(lambda array: tf.convert_to_tensor(array[:rows]), arrays)
        for arrays in (data.x, data.y if with_loss else ())
    )
    with keras.StatelessScope():
        try:
            outputs = model(x, training=False)
        except Exception as e:
            shapes = [tuple(array.shape) for array in keras.tree.flatten(x)]
            raise ExportError(
                f"the model must run on the data. Received: inputs {list(data.inputs)} of shapes "
                f"{shapes}: {type(e).__name__}: {_gist(e)}. Give data of a suitable shape."
            ) from e
        if not with_loss:
            return
        try:
            float(model.compute_loss(x=x, y=y, y_pred=outputs, training=False))
        except Exception as e:
            shapes = [tuple(array.shape) for array in keras.tree.flatten(y)]
            raise ExportError(
                f"the model's loss must be defined for the targets {list(data.targets)}. "
                f"Received: shapes {shapes}: {type(e).__name__}: {_gist(e)}. Give the targets that "
                "the model was trained on, or leave them out."
            ) from e


@contextlib.contextmanager
def refusing_data() -> Iterator[None]:
    """Turn what a measurement says against the model, the data or an option into `ExportError`."""
    try:
        yield
    except ExportError:
        raise
    except (ValueError, tf.errors.OpError) as e:
        if str(e).startswith(OWN):
            raise ExportError(" ".join(str(e).split())) from e
        raise ExportError(  # such as an index that an Embedding does not have
            f"the model must run on all of the data. Received: {type(e).__name__}: {_gist(e)}. "
            "Look at their values."
        ) from e


def _gist(error: Exception) -> str:
    """Return what an error says, without TensorFlow's account of where in the code it was."""
    said = str(error).rpartition(f"{type(error).__name__}: ")[2].partition(ARGUMENTS)[0]
    lines = [NOISE.sub("", line).strip() for line in said.splitlines()]
    gist = " ".join(line for line in lines if line and not line.startswith(PLACES))
    return gist[:LONGEST_DETAIL].rstrip(".")
