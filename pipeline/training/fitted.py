"""What came of one phase of training."""

from __future__ import annotations

from dataclasses import dataclass

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


@dataclass(frozen=True)
class Fitted:
    """A phase as it went.

    curves: learning curves (`CURVES`), one value per epoch; the learning rate is that of the epoch's last step.
    best_epoch: whose weights were kept; counts from 0.
    seconds: of the whole phase, all runs that it was spread over together.
    images_per_second: of the training steps alone, in the median epoch.
    learning_rate: the highest that the schedule was to reach, given or found.
    range_test: (rate, smoothed loss) of the search for it; empty without one.
    batch_size: images in a step.
    kept: whether its weights are better than those before it.
    """

    name: str
    curves: dict[str, list[float]]
    best_epoch: int
    seconds: float
    images_per_second: float
    learning_rate: float
    range_test: tuple[tuple[float, float], ...] = ()
    batch_size: int = 0
    kept: bool = True

    @property
    def best_loss(self) -> float:
        """Validation loss of the weights that were kept."""
        return self.curves["val_loss"][self.best_epoch]
