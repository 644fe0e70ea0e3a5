"""Early stopping that fails loudly, progress within and between epochs, and state for a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pipeline.errors import ModelError
from pipeline.progress import Meter
from pipeline.training import checkpoints, optimizers, schedules
from pipeline.training.checkpoints import Checkpoint, Running
from pipeline.training.fitted import CURVES, Fitted
from pipeline.training.recipes import Phase


class Watch(keras.callbacks.Callback):
    """Keeps the best weights by validation loss, with EMA the averaged ones, and puts them back at the end.

    Keras's own EarlyStopping only warns when its metric is missing, and TerminateOnNaN ends a run as if all were well.

    Args:
        check: is called between steps; what it raises ends the training.
        found: learning rate and range test, for the checkpoint.
        resumed: where the phase goes on, with the model and the optimizer as they were then.
    """

    def __init__(
        self,
        phase: Phase,
        meter: Meter,
        *,
        images: int,
        steps: int,
        batch_size: int,
        check: Callable[[], None],
        found: tuple[float, tuple[tuple[float, float], ...]],
        checkpoint: Checkpoint | None,
        resumed: Running | None,
    ) -> None:
        super().__init__()
        self.phase, self.meter, self.check, self.found, self.checkpoint = phase, meter, check, found, checkpoint
        self.images, self.steps, self.batch_size = images, steps, batch_size
        self.curves: dict[str, list[float]] = {curve: [] for curve in CURVES}
        self.best_epoch, self.best, self.paces = -1, list[Any](), list[float]()
        self.start = time.monotonic()
        self.first = 0
        if resumed is not None:
            self.curves = {curve: list(resumed.curves[curve]) for curve in CURVES}
            self.best_epoch, self.best, self.paces = resumed.best_epoch, resumed.best, list(resumed.paces)
            self.start -= resumed.seconds
            self.first = resumed.epochs

    @property
    def epochs(self) -> int:
        """How many are done."""
        return len(self.curves["val_loss"])

    @property
    def done(self) -> bool:
        """Whether all epochs, or as many as patience allows, are done."""
        return self.epochs >= self.phase.epochs or self.epochs - 1 - self.best_epoch >= self.phase.patience > 0

    @property
    def seconds(self) -> float:
        """Of the phase, in all the processes that it was spread over."""
        return time.monotonic() - self.start

    @property
    def fitted(self) -> Fitted:
        """The phase, when it is done."""
        rate, range_test = self.found
        speed = self.images / float(np.median(self.paces))
        return Fitted(
            self.phase.name, self.curves, self.best_epoch, self.seconds, speed, rate, range_test, self.batch_size
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.began, self.validates, self.taken = time.monotonic(), False, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Keras keeps the mean over the epoch on the device; reading it at every step would make it wait.
        number, self.taken = batch + 1 - self.taken, batch + 1
        self.meter.advance(
            number * (self.images // self.steps), f"{self.phase.name} {self.epochs + 1}/{self.phase.epochs}"
        )
        if self.meter.due:
            loss = self._finite("loss", (logs or {}).get("loss", np.nan))
            self.meter.say(
                f"{self.phase.name} {self.epochs + 1}/{self.phase.epochs}: step {batch + 1} of {self.steps}, "
                f"loss {loss:.3f}, {self.meter.rate:.0f} images/s, at most {self.meter.left:.0f} s left"
            )
        self.check()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.validates, self.validated = True, time.monotonic()
        optimizers.within(self.model).exchange()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.check()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = (self.validated if self.validates else time.monotonic()) - self.began
        optimizer = optimizers.within(self.model)
        found = {**(logs or {}), "learning_rate": optimizer.last_rate}
        for curve in CURVES:
            if curve not in found:
                raise ModelError(
                    f"Phase {self.phase.name}: expected the metric {curve}, Keras reported {sorted(logs or {})}.",
                    fix="give the phase training and validation images",
                )
            self.curves[curve].append(self._finite(curve, found[curve]))
        losses = self.curves["val_loss"]
        if self.best_epoch < 0 or losses[-1] < losses[self.best_epoch]:
            self.best_epoch, self.best = epoch, self._weights()
        optimizer.exchange()
        if self.phase.schedule == "plateau":
            number = schedules.cuts(losses, self.phase.patience)
            optimizer.peak.assign(self.found[0] / schedules.PLATEAU_DIVISOR**number)
        self.paces.append(max(seconds, 1e-9))
        self.model.stop_training = self.done
        self._say(self.images / self.paces[-1])
        if self.checkpoint is not None:
            self.checkpoint.keep(self._running())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model.set_weights(self.best)

    def _weights(self) -> list[Any]:
        return checkpoints.values(self.model.weights)

    def _finite(self, curve: str, value: Any) -> float:
        if not np.isfinite(number := float(value)):
            raise ModelError(
                f"Phase {self.phase.name}: {curve} became {number} in epoch {self.epochs + 1}.",
                fix=f"lower train.phases.{self.phase.name}.learning_rate",
            )
        return number

    def _running(self) -> Running:
        return Running(
            name=self.phase.name,
            batch_size=self.batch_size,
            learning_rate=self.found[0],
            range_test=self.found[1],
            curves={curve: list(values) for curve, values in self.curves.items()},
            best_epoch=self.best_epoch,
            seconds=self.seconds,
            paces=list(self.paces),
            model=checkpoints.values(self.model.variables),
            optimizer=checkpoints.values(self.model.optimizer.variables),
            best=self.best,
        )

    def _say(self, speed: float) -> None:
        if self.epochs == self.first + 1 or self.done or self.meter.due:
            loss, accuracy, val_loss, val_accuracy, _ = (self.curves[curve][-1] for curve in CURVES)
            best = f" (best epoch {self.best_epoch + 1})" if self.done else ""
            self.meter.say(
                f"{self.phase.name} {self.epochs}/{self.phase.epochs}: loss {loss:.3f}, accuracy {accuracy:.3f}, "
                f"validation loss {val_loss:.3f}, accuracy {val_accuracy:.3f}, {speed:.0f} images/s{best}"
            )
