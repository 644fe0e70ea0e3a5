"""AdamW and SGD with what fine-tuning adds: a rate per variable, decay of kernels only, clipping, averaged weights.

Everything happens in `update_step`, so it holds under tf.distribute and inside Keras's LossScaleOptimizer too. Keras
clips each replica's gradients before it sums them up; `devices.connect` makes it clip the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.training.recipes import Phase
from pipeline.training.schedules import Schedule

MOMENTUM = 0.9


class _FineTuning(keras.optimizers.Optimizer):
    """Comes before a Keras optimizer among the bases of a class.

    Its state, beside that optimizer's: `peak`, the highest learning rate; `follows`, 1 where the schedule applies and
    0 where every step is taken at the peak; an average of each variable.
    """

    def __init__(
        self,
        *,
        peak: float,
        schedule: Schedule,
        rates: Mapping[str, float],
        decay: float,
        clip_norm: float,
        ema: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=self._current_rate, global_clipnorm=clip_norm or None, **kwargs)
        self.schedule, self.decay, self.ema = schedule, decay, ema
        self.multipliers = dict(rates)
        self.peak = self._scalar(peak, "peak")
        self.follows = self._scalar(1.0, "follows")

    def _scalar(self, value: float, name: str) -> Any:
        constant = keras.initializers.Constant(value)
        return self.add_variable((), initializer=constant, name=name, aggregation="only_first_replica")

    def _current_rate(self) -> Any:
        return self._rate(self.iterations)

    def _rate(self, step: Any) -> Any:
        return self.peak * (1 + self.follows * (self.schedule(step) - 1))

    @property
    def last_rate(self) -> float:
        """Learning rate of the last step that was taken."""
        return float(ops.convert_to_numpy(self._rate(ops.maximum(self.iterations - 1, 0))))

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.rates = tuple(self.multipliers.get(variable.path, 1.0) for variable in variables)
        self.decays = tuple(self.decay if "kernel" in variable.name else 0.0 for variable in variables)
        self.averages = self.add_optimizer_variables(variables, "average") if self.ema else []
        for variable, average in zip(variables, self.averages, strict=self.ema > 0):
            average.assign(_copied(variable))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.rates[index]
        if self.decays[index]:
            self.assign_sub(variable, ops.multiply(variable, rate * self.decays[index]))
        super().update_step(gradient, variable, rate)
        if self.ema:
            average = self.averages[index]
            done = ops.cast(self.iterations, average.dtype)
            # From the first step on an average of what was seen, not of where it began.
            kept = ops.minimum(self.ema, (1 + done) / (10 + done))
            self.assign_sub(average, ops.multiply(ops.subtract(average, variable), 1 - kept))

    def exchange(self) -> None:
        """Give the model the averaged weights and keep its own; a second call gives them back. Nothing without EMA."""
        for variable, average in zip(self._trainable_variables, self.averages, strict=self.ema > 0):
            mine, averaged = _copied(variable), _copied(average)
            variable.assign(averaged)
            average.assign(mine)


def _copied(variable: Any) -> NDArray[Any]:
    """Tensors would do, but TensorFlow assigns in place to what they show, and JAX gives it away to the next step."""
    return np.array(ops.convert_to_numpy(variable))


class AdamW(_FineTuning, keras.optimizers.Adam):
    """Loshchilov & Hutter 2019."""


class SGD(_FineTuning, keras.optimizers.SGD):
    """With Nesterov's momentum; the decay is decoupled as AdamW's (SGDW of the same paper)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(momentum=MOMENTUM, nesterov=True, **kwargs)


def of(phase: Phase, *, peak: float, schedule: Schedule, rates: Mapping[str, float]) -> AdamW | SGD:
    """The optimizer of a phase. `rates`: multiplier of the learning rate by variable path; 1 where missing."""
    kind = AdamW if phase.optimizer == "adamw" else SGD
    return kind(
        peak=peak, schedule=schedule, rates=rates, decay=phase.weight_decay, clip_norm=phase.clip_norm, ema=phase.ema
    )


def within(model: keras.Model) -> AdamW | SGD:
    """The optimizer that `model` was compiled with, out of the LossScaleOptimizer that float16 puts around it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)
