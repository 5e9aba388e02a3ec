"""What to compare a Keras model on: drawn batches of each kind (`kinds.py`), or given samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...signature import Signature, signature_of
from ..reference.keras_runs import in_keras
from .distributions import distributions_of
from .given import split
from .kinds import Batch, Drawn, draw_kinds, drawn_for, require_finite
from .refusal import cannot_run

__all__ = ["draw", "samples_of"]


def draw(
    model: keras.Model,
    signature: Signature,
    *,
    seed: int,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    precision: str = "keep",
    otherwise: tuple[float, float] | None = None,
) -> Drawn:
    """Draw batches of every kind.

    Args:
        model: The model.
        signature: What it is called with.
        seed: Seed of the draws.
        ranges: Smallest and largest value of some inputs, by name.
        precision: "keep", or what a file computes in.
        otherwise: What floats without a range are drawn from; None for normal ones.

    Returns:
        The batches; in words, what was drawn for each input, by name; and what else to note.

    Raises:
        ExportError: If `ranges` or `seed` is wrong, or Keras cannot run at any of the sizes.
    """
    distributions = distributions_of(model, signature.specs, ranges or {}, otherwise)
    run, _ = in_keras(model, signature)
    return draw_kinds(
        signature.specs, distributions, run, cannot_run, seed=seed, precision=precision
    )


def samples_of(
    model: keras.Model, input_signature: Any, inputs: Any, second: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """Return the batches of a check as a float16 file takes them.

    Args:
        model: The model.
        input_signature: As for `export_onnx`.
        inputs: Given samples; None draws them.
        second: Names of inputs whose channels are at axis 1 in the file.
    """
    signature = signature_of(model, input_signature)
    specs = signature.specs
    if inputs is not None:
        batches = list(split(inputs, specs))
    else:
        run, names = in_keras(model, signature)

        def usable(drawn: Drawn) -> list[Batch]:
            require_finite(names, run(drawn[0][0].arrays), drawn[0][0].case)
            return drawn[0]

        batches = drawn_for(
            usable,
            lambda limits: draw(model, signature, seed=0, precision="float16", otherwise=limits),
        )
    return [
        {
            spec.name: np.moveaxis(array, -1, 1) if spec.name in second else array
            for spec, array in zip(specs, batch.arrays, strict=True)
        }
        for batch in batches
    ]
