"""What a new estimate did to a model's statistics, and the way back."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_bn.reporting import DataReport, jsonable, table

__all__ = ["LayerMovement", "StatisticsReport", "assign"]

MEANING = (
    "|mean| moved: in old deviations; ln variance ratio: of the new variance to the old one",
    "each as the mean over the channels, and at most",
)


@dataclasses.dataclass(frozen=True)
class LayerMovement:
    """How far the statistics of one layer moved.

    Attributes:
        layer: Path of the layer.
        mean_shift: (new mean - old mean) / sqrt(old variance + epsilon), shape (C,).
        log_variance_ratio: ln((new variance + epsilon) / (old variance + epsilon)), shape (C,).
        values: Number of values a channel was estimated from; with weights, the effective number.
    """

    layer: str
    mean_shift: np.ndarray
    log_variance_ratio: np.ndarray
    values: float

    def to_dict(self) -> dict[str, Any]:
        """Return the movement as JSON-compatible data."""
        data: dict[str, Any] = jsonable(dataclasses.asdict(self))
        return data


@dataclasses.dataclass(frozen=True)
class StatisticsReport(DataReport):
    """What a new estimate changed, and on which data; prints as a table.

    Attributes:
        layers: The layers that have new statistics, in the order in which the model calls them.
    """

    layers: tuple[LayerMovement, ...]
    _before: tuple[tuple[Any, np.ndarray], ...] = dataclasses.field(repr=False)

    def undo(self) -> None:
        """Give the layers the statistics that they had before, to the last bit."""
        assign(self._before)

    def _draw(self) -> Any:
        from keras_bn.statistics.plots import plot_movement

        return plot_movement(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data."""
        return self.data_to_dict(self.layers)

    def __str__(self) -> str:
        head = (
            f"{len(self.layers)} layers have new statistics, {len(self.unchanged)} left alone; "
            f"{self.data_used}"
        )
        rows = [
            (
                layer.layer,
                f"{np.abs(layer.mean_shift).mean():.3f}",
                f"{np.abs(layer.mean_shift).max():.3f}",
                f"{layer.log_variance_ratio.mean():+.3f}",
                f"{np.abs(layer.log_variance_ratio).max():.3f}",
            )
            for layer in self.layers
        ]
        header = ("layer", "|mean| moved", "at most", "ln variance ratio", "|ln| at most")
        return "\n".join([head, *table(header, rows, MEANING), *self.left_alone()])


def assign(pairs: Sequence[tuple[Any, np.ndarray]]) -> None:
    """Give variables new values."""
    for variable, value in pairs:
        variable.assign(value)
