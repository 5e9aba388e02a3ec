"""A model and its data, and whether it runs on them at all, before it is measured.

Running a model runs the code of every layer, and that of its loss: whatever these raise about data
that do not suit them becomes one `ExportError`.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ...errors import LONGEST_DETAIL, ExportError
from ...files.provenance import SourceFile
from ...signature import input_specs
from .arrays import ModelData, batch_size_for, select_arrays

__all__ = ["Subject", "refusing_data", "run_once", "why_no_loss"]

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


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and the data to measure it on, of two files.

    Attributes:
        model: The model, with its loss and optimizer where they can be restored.
        missing: Why it is without one of them; None if it has both.
        data: What it takes of the data file.
        batch_size: Samples a batch.
        sources: The two files.
    """

    model: keras.Model
    missing: str | None
    data: ModelData
    batch_size: int
    sources: tuple[SourceFile, SourceFile]

    @classmethod
    def of(
        cls,
        loaded: tuple[keras.Model, str | None],
        model_path: Path,
        data_path: Path,
        arrays: dict[str, np.ndarray],
        batch_size: int | None,
    ) -> "Subject":
        """Select the arrays of a model.

        Args:
            loaded: The model and what it lacks, as `KerasFile.load_compiled` returns them.
            model_path: The model's file.
            data_path: The data file.
            arrays: Its arrays by name.
            batch_size: Samples a batch; None for 32, or what the model fixes.

        Raises:
            ExportError: If the data or the batch size cannot be used.
        """
        sources = SourceFile.of(model_path), SourceFile.of(data_path)
        model, missing = loaded
        data = select_arrays(arrays, model)
        size = batch_size_for(model, data.samples, batch_size)
        return cls(model, missing, data, size, sources)


def why_no_loss(subject: Subject) -> str | None:
    """Return why the loss cannot be compared; None if it can."""
    if subject.data.y is None:
        return "the data file has no targets"
    if not subject.model.compiled:
        return subject.missing
    return "the model was compiled without a loss" if subject.model.loss is None else None


def run_once(subject: Subject, *, with_loss: bool) -> None:
    """Run a model in inference on two samples, or on the first batch if its size is fixed.

    Args:
        subject: The model, whose state stays as it is, and the data.
        with_loss: Whether to compute its loss too, which needs targets.

    Raises:
        ExportError: If the model or its loss raises.
    """
    model, data = subject.model, subject.data
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
