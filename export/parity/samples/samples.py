"""What to compare a Keras model on: drawn batches of each kind (`kinds.py`), or given samples."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...signature import Signature, signature_of
from ..batch_size import largest_batch
from ..reference.keras_runs import in_keras
from .distributions import distributions_of
from .given import split
from .kinds import Batch, Drawn, Result, draw_kinds, drawn_for, require_finite
from .refusal import cannot_run

__all__ = ["Sampling", "draw"]

EXPORTED_ON = (0, None, "float16")  # seed, ranges and precision of the draws of an export


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


class Sampling:
    """What a model is compared on: given samples, or some that are drawn, once for all who ask.

    Args:
        model: The model.
        input_signature: As for `export_onnx`.
        inputs: Given samples; None draws them.
        seed: Seed of the draws.
        ranges: Smallest and largest value to draw for some inputs, by name.
        precision: "keep", or what a file computes in.
    """

    def __init__(
        self,
        model: keras.Model,
        input_signature: Any = None,
        *,
        inputs: Any = None,
        seed: int = 0,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        precision: str = "keep",
    ) -> None:
        self.model, self.input_signature = model, input_signature
        self.precision: Any = precision
        self.inputs, self.seed, self.ranges = inputs, seed, ranges or None
        self._drawn: dict[Any, Drawn] = {}

    @functools.cached_property
    def signature(self) -> Signature:
        """What the model is called with."""
        return signature_of(self.model, self.input_signature)

    def hand_to(self, use: Callable[[Drawn], Result]) -> Result:
        """Return what somebody makes of the samples.

        Args:
            use: Takes them; raises `NothingFiniteError` where others should be drawn.

        Raises:
            ExportError: As `split`, `draw` and `use` do.
        """
        if self.inputs is None:
            return drawn_for(use, self._draw)
        return use((self._given, {}, []))

    def of_float16_file(self, second: Sequence[str]) -> list[dict[str, np.ndarray]]:
        """Return the batches that a float16 file is made on, as it takes them.

        Args:
            second: Names of inputs whose channels are at axis 1 in the file.
        """
        if self.inputs is None and (self.seed, self.ranges, self.precision) != EXPORTED_ON:
            exported = Sampling(self.model, self.input_signature, precision="float16")
            return exported.of_float16_file(second)
        run, names = in_keras(self.model, self.signature)

        def usable(drawn: Drawn) -> list[Batch]:
            if self.inputs is None:
                require_finite(names, run(drawn[0][0].arrays), drawn[0][0].case)
            return drawn[0]

        return [
            {
                spec.name: np.moveaxis(array, -1, 1) if spec.name in second else array
                for spec, array in zip(self.signature.specs, batch.arrays, strict=True)
            }
            for batch in self.hand_to(usable)
        ]

    @functools.cached_property
    def _given(self) -> list[Batch]:
        largest = functools.partial(largest_batch, self.model, self.signature)
        return list(split(self.inputs, self.signature.specs, largest))

    def _draw(self, limits: tuple[float, float] | None) -> Drawn:
        if limits not in self._drawn:
            self._drawn[limits] = draw(
                self.model,
                self.signature,
                seed=self.seed,
                ranges=self.ranges,
                precision=self.precision,
                otherwise=limits,
            )
        return self._drawn[limits]
