"""One phase of training: Keras's `fit` under watch. The best weights by validation loss are the ones that stay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from pipeline.errors import ModelError, TransientError
from pipeline.progress import meter
from pipeline.training import checkpoints, optimizers, rate_finder, schedules
from pipeline.training.checkpoints import Checkpoint, Running
from pipeline.training.fitted import Fitted
from pipeline.training.losses import SmoothedCrossentropy, accuracy
from pipeline.training.recipes import Phase
from pipeline.training.termination import Terminated, termination
from pipeline.training.watch import Watch

logger = logging.getLogger(__name__)

FIND = "find"


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
) -> Fitted:
    """Train `model` (inputs to logits) and leave it with its best weights. An interrupted phase goes on.

    With EMA, averaged weights are validated, kept and returned; BatchNorm's statistics are the current ones.

    Args:
        training: gives what Keras takes as x, from that epoch on (the first is 0): batches of (inputs, class int64 or
            probabilities float32, weight float32), as a PyDataset of `steps` batches or an endless tf.data Dataset.
            To resume as if nothing had happened, what an epoch holds must follow from its number.
        validation: batches of (inputs, class), or the two arrays, which are read `batch_size` rows at a time. It is
            not weighted: weights of rare classes would leave the early stopping to a handful of images.
        images: training images per epoch; steps: batches per epoch.
        rates: multiplier of the learning rate by variable path; 1 where missing.
        logs: folder for TensorBoard, one subfolder per phase.
        checkpoint: None trains without; after `checkpoint.finished`.

    Raises:
        ModelError: a curve is missing or not finite, or a learning rate was to be found and the loss never fell.
        OutOfMemory: the device's memory is too small for the batch.
        TransientError: SIGTERM came; the epochs that are done are in the checkpoint.
    """
    before = checkpoints.values(model.variables)
    watch: Watch | None = None
    try:
        with termination() as check:
            _compile(model, phase, steps=steps, label_smoothing=label_smoothing, rates=rates)
            resumed = None if checkpoint is None else _resume(model, phase, checkpoint, batch_size)
            found = _rate(model, phase, training, steps, check) if resumed is None else resumed.found
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
                    _train(model, watch, training(first), validation, logs)
            check()
            return watch.fitted
    except (KeyboardInterrupt, Terminated) as error:
        if checkpoint is not None:
            checkpoint.flush()
        if isinstance(error, KeyboardInterrupt):
            raise
        place = f"epoch {watch.epochs + 1}" if watch is not None and checkpoint is not None else "its start"
        raise TransientError(
            f"Training was told to stop (SIGTERM) in phase {phase.name}.",
            fix=f"run again, it continues at {place} of phase {phase.name}",
        ) from error
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


def _compile(
    model: keras.Model, phase: Phase, *, steps: int, label_smoothing: float, rates: Mapping[str, float]
) -> None:
    peak = rate_finder.LOWEST if phase.learning_rate == FIND else phase.learning_rate
    schedule = schedules.of(phase, steps)
    model.compile(
        optimizer=optimizers.of(phase, peak=peak, schedule=schedule, rates=rates),
        loss=SmoothedCrossentropy(label_smoothing),
        metrics=[keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")],
        jit_compile="auto",
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
    model: keras.Model, phase: Phase, training: Callable[[int], Any], steps: int, check: Callable[[], None]
) -> tuple[float, rate_finder.Curve]:
    """The highest learning rate, which the optimizer then has, and how it was found."""
    if phase.learning_rate != FIND:
        return phase.learning_rate, ()
    rate, curve = rate_finder.find(model, training(0), name=phase.name, steps=steps, check=check)
    logger.info("phase %s: learning rate %.2g, by a range test of %d steps", phase.name, rate, len(curve))
    optimizers.within(model).peak.assign(rate)
    return rate, curve


def _train(model: keras.Model, watch: Watch, training: Any, validation: Any, logs: Path) -> None:
    # The board reads the learning rate, so it comes before the watch, which lowers that on a plateau.
    board = keras.callbacks.TensorBoard(str(logs / watch.phase.name), write_graph=False, profile_batch=0)
    model.fit(
        training,
        validation_data=validation,
        validation_batch_size=watch.batch_size if isinstance(validation, tuple) else None,
        initial_epoch=watch.first,
        epochs=watch.phase.epochs,
        # A PyDataset knows its length; told it a second time, Keras would not begin its epochs one by one.
        steps_per_epoch=None if isinstance(training, keras.utils.PyDataset) else watch.steps,
        shuffle=False,  # `training` is shuffled as the seed says
        callbacks=[board, watch],
        verbose=0,
    )


def _out_of_memory(error: Exception) -> bool:
    """By name and text, as neither TensorFlow nor JAX is imported here."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "ResourceExhaustedError" in kinds or "RESOURCE_EXHAUSTED" in str(error)
