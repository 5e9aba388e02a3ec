"""What a pass over data comes to: batches taken, left out and why, and how far it is."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_bn.statistics.batches import batch_size_of, batches, number_of_batches

__all__ = ["Tally"]


class Tally:
    """Which batches were used and which were left out, with a progress bar.

    Attributes:
        batches: Number of batches used.
        skipped: Number of batches left out.
        samples: Number of samples in the batches used.
    """

    def __init__(self, where: str, verbose: int) -> None:
        """Start at zero.

        Args:
            where: Name of the function that was called, for messages.
            verbose: 1 for a progress bar, 0 for none.
        """
        self.batches = self.skipped = self.samples = 0
        self._where = where
        self._progress = keras.utils.Progbar(None, verbose=verbose, unit_name="batch")
        self._seen = 0

    def batches_of(self, data: Any, **cut: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Yield all batches as `batches` does; then raise `ValueError` if none could be used."""
        self.expect(number_of_batches(data, **cut))
        yield from batches(self._where, data, **cut)
        self.finish()
        self.require_some()

    def take(self, inputs: Any, moments: Any) -> bool:
        """Count a batch, and say whether it can be used.

        Args:
            inputs: The batch's inputs.
            moments: For each layer, for each time that it was called, what `record_moments` took.

        Returns:
            What `is_usable` says.
        """
        used = self.is_usable(inputs, moments)
        self.batches += used
        self.skipped += not used
        self.samples += used * batch_size_of(inputs)
        self._seen += 1
        self._progress.update(self._seen)
        return used

    @staticmethod
    def is_usable(inputs: Any, moments: Any) -> bool:
        """Say whether a batch has samples, and finite moments and some weight at every layer."""
        return batch_size_of(inputs) > 0 and all(
            np.isfinite(record).all() and (record[0] > 0).any()
            for uses in moments
            for record in map(np.stack, uses)
        )

    def expect(self, batches: int | None) -> None:
        """Say how many batches there will be, if that is known."""
        self._progress.target = batches

    def restart(self) -> None:
        """Count another pass over the same data; the progress bar goes on."""
        self.batches = self.skipped = self.samples = 0

    def finish(self) -> None:
        """End the progress bar."""
        if self._progress.target is None:  # otherwise the bar knows its end
            self._progress.update(self._seen, finalize=True)

    def counts(self) -> dict[str, int]:
        """Return the fields of a `reporting.DataReport` that count."""
        return {
            "batches": self.batches,
            "skipped_batches": self.skipped,
            "samples": self.samples,
        }

    def require_some(self) -> None:
        """Raise `ValueError` if no batch could be used."""
        if self.batches == 0:
            raise ValueError(
                f"{self._where}: `data` must have a batch with finite values and some weight. "
                f"Received: {self.skipped} batches, none of them usable at every layer. Look for "
                "NaN or Inf in the data and in the model's weights, and for values so large that "
                "they overflow."
            )
