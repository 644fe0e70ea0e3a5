"""One phase of training: Keras's `fit` under watch. The best weights by validation loss are the ones that stay."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from pipeline.errors import ModelError, TransientError
from pipeline.progress import meter
from pipeline.training import checkpoints, optimizers, rate_finder, schedules
from pipeline.training.checkpoints import Checkpoint, Running
from pipeline.training.devices import ALONE, Devices
from pipeline.training.fitted import Fitted
from pipeline.training.losses import SmoothedCrossentropy, accuracy
from pipeline.training.recipes import Phase
from pipeline.training.termination import Terminated, termination
from pipeline.training.watch import Watch

logger = logging.getLogger(__name__)


class _EachAnew(keras.utils.PyDataset):
    """Epoch after epoch of `training`, each made for itself.

    Keras begins and ends epochs of a PyDataset more often than it trains on them, so counting those tells nothing.
    """

    def __init__(self, training: Callable[[int], keras.utils.PyDataset], first: keras.utils.PyDataset) -> None:
        super().__init__(workers=first.workers, max_queue_size=first.max_queue_size)
        self.training, self.epoch = training, first

    def __len__(self) -> int:
        return len(self.epoch)

    def __getitem__(self, index: int) -> Any:
        return self.epoch[index]

    def begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = self.training(epoch)


class OutOfMemory(ModelError):
    """A batch does not fit into the device's memory; the model is as it was before the phase."""


def fit(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], Any],
    validation: Any,
    *,
    images: int,
    steps: int,
    batch_size: int,
    label_smoothing: float,
    rates: Mapping[str, float],
    logs: Path,
    checkpoint: Checkpoint | None,
    devices: Devices = ALONE,
    steps_at_once: int = 1,
) -> Fitted:
    """Train `model` (inputs to logits) and leave it with its best weights. An interrupted phase goes on.

    With EMA, averaged weights are validated, kept and returned; BatchNorm's statistics are the current ones.

    Args:
        training: gives batches of (inputs, class int64 or probabilities float32, weight float32): a PyDataset of the
            `steps` batches of that epoch (the first is 0), or an endless tf.data Dataset that begins with it. A
            phase resumes as if nothing had happened if what an epoch holds follows from its number alone.
        validation: batches of (inputs, class), or the two arrays, which are read `batch_size` rows at a time. It is
            not weighted: weights of rare classes would leave the early stopping to a handful of images.
        images: training images per epoch; steps: batches per epoch.
        rates: multiplier of the learning rate by variable path; 1 where missing.
        logs: folder for TensorBoard, one subfolder per phase.
        checkpoint: None trains without; after `checkpoint.finished`.
        devices: what this process trains on, maybe with others. Call this within their `scope`. `batch_size` and the
            batches of a PyDataset are the global ones; a tf.data Dataset gives this worker's share of each.
        steps_at_once: that the backend takes before Python hears of it; worth more than 1 where a step takes no longer
            than the call. Progress and SIGTERM are looked at in between only.

    Raises:
        ModelError: a curve is missing or not finite, or a learning rate was to be found and the loss never fell.
        OutOfMemory: the device's memory is too small for the batch.
        TransientError: SIGTERM came; the epochs that are done are in the checkpoint.
    """
    before = checkpoints.values(model.variables)
    watch: Watch | None = None
    try:
        with termination() as check:
            _compile(model, phase, steps, label_smoothing, rates, steps_at_once)
            resumed = None if checkpoint is None else _resume(model, phase, checkpoint, batch_size)
            connected = devices.connect(model)
            found = _rate(model, phase, training, steps, check, devices) if resumed is None else resumed.found
            shown = images // steps * steps
            first = 0 if resumed is None else resumed.epochs
            with meter(phase.epochs * shown, what=phase.name, unit="images", done=first * shown) as progress:
                watch = Watch(
                    phase,
                    progress,
                    images=images,
                    steps=steps,
                    batch_size=batch_size,
                    check=check,
                    found=found,
                    checkpoint=checkpoint,
                    resumed=resumed,
                )
                if watch.done:  # it was killed between its last epoch and `checkpoint.finish`
                    model.set_weights(watch.best)
                else:
                    _train(model, watch, training, validation, logs, devices, connected)
            check()
            return watch.fitted
    except (KeyboardInterrupt, Terminated) as error:
        stopped = error.with_traceback(None)
    except Exception as error:
        if not _out_of_memory(error):
            raise
        checkpoints.assign(model.variables, before)
        if checkpoint is not None:
            checkpoint.forget()
        raise OutOfMemory(
            f"Phase {phase.name}: the device's memory is too small for batches of {batch_size}.",
            fix="lower train.batch_size",
        ) from error
    if checkpoint is not None:
        checkpoint.flush()
    # Out here nothing refers to the frames of Keras any more, nor to tf.data's thread that reads a PyDataset: left to
    # the end of the process, it would wait for an interpreter that is gone, and the process for it.
    gc.collect()
    if isinstance(stopped, KeyboardInterrupt):
        raise stopped
    place = f"epoch {watch.epochs + 1}" if watch is not None and checkpoint is not None else "its start"
    raise TransientError(
        f"Training was told to stop (SIGTERM) in phase {phase.name}.",
        fix=f"run again, it continues at {place} of phase {phase.name}",
    )


def _compile(
    model: keras.Model,
    phase: Phase,
    steps: int,
    label_smoothing: float,
    rates: Mapping[str, float],
    steps_at_once: int,
) -> None:
    peak = rate_finder.LOWEST if isinstance(phase.learning_rate, str) else phase.learning_rate
    schedule = schedules.of(phase, steps)
    model.compile(
        optimizer=optimizers.of(phase, peak=peak, schedule=schedule, rates=rates),
        loss=SmoothedCrossentropy(label_smoothing),
        metrics=[keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")],
        jit_compile="auto",
        steps_per_execution=steps_at_once,
    )
    model.optimizer.build(model.trainable_variables)


def _resume(model: keras.Model, phase: Phase, checkpoint: Checkpoint, batch_size: int) -> Running | None:
    """Put `model` and its optimizer where the phase was interrupted."""
    running = checkpoint.running(phase.name, batch_size)
    if running is None:
        return None
    state = [*model.variables, *model.optimizer.variables, *model.weights]
    if not checkpoints.fits(state, [*running.model, *running.optimizer, *running.best]):
        logger.warning("the checkpoint of phase %s is of another model: the phase starts anew", phase.name)
        checkpoint.forget()
        return None
    checkpoints.assign(model.variables, running.model)
    checkpoints.assign(model.optimizer.variables, running.optimizer)
    logger.info("phase %s continues at epoch %d", phase.name, running.epochs + 1)
    return running


def _rate(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], Any],
    steps: int,
    check: Callable[[], None],
    devices: Devices,
) -> tuple[float, rate_finder.Curve]:
    """The highest learning rate, which the optimizer then has, and how it was found."""
    if not isinstance(phase.learning_rate, str):
        return phase.learning_rate, ()
    first = training(0)
    rate, curve = rate_finder.find(
        model,
        devices.feed(first) if isinstance(first, keras.utils.PyDataset) else first,
        name=phase.name,
        steps=steps,
        check=check,
        mean=lambda loss: float(devices.mean([loss])[0]),
    )
    logger.info("phase %s: learning rate %.2g, by a range test of %d steps", phase.name, rate, len(curve))
    optimizers.within(model).peak.assign(rate)
    return rate, curve


def _train(
    model: keras.Model,
    watch: Watch,
    training: Callable[[int], Any],
    validation: Any,
    logs: Path,
    devices: Devices,
    connected: list[keras.callbacks.Callback],
) -> None:
    # The board reads the learning rate, so it comes before the watch, which lowers that on a plateau.
    board = keras.callbacks.TensorBoard(str(logs / watch.phase.name), write_graph=False, profile_batch=0)
    callbacks: list[keras.callbacks.Callback] = [*connected, board, watch]
    steps: int | None = None
    size: int | None = None
    if isinstance(validation, tuple):
        validation, size = devices.feed(validation), devices.share(watch.batch_size)
    if isinstance(epochs := training(watch.first), keras.utils.PyDataset):
        anew = _EachAnew(training, epochs)
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=anew.begin))
        epochs = devices.feed(anew)
    else:
        steps = watch.steps  # a PyDataset knows; told it again, Keras would not begin its epochs one by one
    model.fit(
        epochs,
        validation_data=validation,
        validation_batch_size=size,
        initial_epoch=watch.first,
        epochs=watch.phase.epochs,
        steps_per_epoch=steps,
        shuffle=False,  # `training` is shuffled as the seed says
        callbacks=callbacks,
        verbose=0,
    )


def _out_of_memory(error: Exception) -> bool:
    """By name and text, as neither TensorFlow nor JAX is imported here."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "ResourceExhaustedError" in kinds or "RESOURCE_EXHAUSTED" in str(error)
