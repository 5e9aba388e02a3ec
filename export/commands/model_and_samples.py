"""What `keras-bn export` and `keras-bn check` begin with: a model, and samples to compare on.

Nothing here imports TensorFlow before it is asked to.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError
from ..files.arrays_file import TARGETS, in_words, load_samples
from ..files.keras_file import KerasFile
from .console import quiet_tensorflow

if TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = ["load_with_samples", "named_samples", "samples_from"]

# What the arrays are for a model, and what to note about them.
Given = Callable[["keras.Model"], tuple["dict[str, np.ndarray] | None", tuple[str, ...]]]


def samples_from(
    path: Path | None, preprocess: str | None, input_names: list[str], output_names: list[str]
) -> Given:
    """Return a function from a model to its samples, having read what needs no model.

    Args:
        path: A file of arrays, or a folder of images; None for samples that are to be drawn.
        preprocess: How images become inputs.
        input_names: Names of the model's inputs, as far as its file tells them.
        output_names: Likewise what its outputs may be called.

    Raises:
        ExportError: If the file cannot be used, or `preprocess` is given for no folder.
    """
    if path is not None and os.path.isdir(path):

        def images(model: "keras.Model") -> "tuple[dict[str, np.ndarray], tuple[str, ...]]":
            from ..parity.samples.images import load_images

            arrays, note = load_images(path, model, preprocess=preprocess)
            return arrays, (note,)

        return images
    if preprocess is not None:
        raise ExportError(
            "--preprocess must be given with a folder of images as --input. "
            f"Received: --preprocess {preprocess} and {f'the file {path}' if path else 'none'}."
        )
    if path is None:
        return lambda _: (None, ())
    arrays = load_samples(path)
    _require_inputs(arrays, input_names, output_names)

    def selected(model: "keras.Model") -> "tuple[dict[str, np.ndarray], tuple[str, ...]]":
        from .statistics.arrays import inputs_among

        return inputs_among(arrays, model), ()

    return selected


def _require_inputs(arrays: "dict[str, np.ndarray]", names: list[str], outputs: list[str]) -> None:
    """Raise `ExportError` if an input lacks an array; a model's only one may take another."""
    others = set(arrays) - {TARGETS, *outputs}
    is_told = len(names) != 1 or len(others) < 2 or not others.isdisjoint({names[0], "x"})
    if not is_told or (len(names) > 1 and not set(names) <= set(arrays)):
        rule = "" if is_told else ', or one named "x"'
        raise ExportError(
            f"the samples must have an array for each of the inputs {names}{rule}. "
            f"Received: {in_words(arrays)}."
        )


def load_with_samples(
    file: KerasFile, given: Given, step: Callable[[str], None]
) -> "tuple[keras.Model, dict[str, np.ndarray] | None, tuple[str, ...]]":
    """Start TensorFlow and load a model and its samples.

    Args:
        file: The model's file.
        given: What `samples_from` returned.
        step: Takes what is being done, in words.

    Returns:
        The model, its samples, and what to note about them.
    """
    step("starting TensorFlow")
    with quiet_tensorflow():
        import keras  # noqa: F401  which all that follows imports
    step(f"loading {file.path}")
    model = file.load()
    return model, *given(model)


def named_samples(path: Path | None) -> tuple[tuple[Path, str], ...]:
    """Return --input with its name, for `require_another_file`; nothing if it is not given."""
    return () if path is None else ((path, "--input"),)
