"""Temperature scaling: one number, fitted on validation images, by which the head's logits are divided.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017. The number becomes part of the head's weights, so every
form of the model is calibrated and none can be asked without. Which class is the most probable stays as it is.

Throughout: logits float [N, K], classes int64 [N].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from pipeline.training.classifier import LOGITS

LOWEST, HIGHEST = 0.05, 20.0  # temperatures


@dataclass(frozen=True)
class Calibration:
    """`before`, `after`: mean of -ln(probability of the right class) over the `images`, in nats."""

    temperature: float
    before: float
    after: float
    images: int

    def describe(self) -> dict[str, Any]:
        """For history.json."""
        return {
            "temperature": self.temperature,
            "val_log_loss_before": self.before,
            "val_log_loss_after": self.after,
            "val_images": self.images,
        }


def fit(logits: NDArray[np.float32], classes: NDArray[np.int64]) -> Calibration:
    """The temperature that minimises the log loss, or 1 if it does not lower it.

    As in Platt 1999 (Probabilistic outputs for support vector machines, section 2.2), the targets are not certain: one
    image in N + 2 counts as one of the class that the model finds the most probable beside the right one. Otherwise N
    answers that are all right would ask for probabilities of 1, a temperature of 0.
    """
    z = logits.astype(np.float64)
    rows = np.arange(len(z))
    if not len(z) or z.shape[1] < 2:
        return Calibration(1.0, 0.0, 0.0, len(z))
    right = z[rows, classes]
    others = z.copy()
    others[rows, classes] = -np.inf
    doubt = 1 / (len(z) + 2)
    target = (1 - doubt) * right + doubt * others.max(axis=1)

    def log_loss(temperature: float, wanted: NDArray[np.float64]) -> float:
        return float(np.mean(special.logsumexp(z / temperature, axis=1) - wanted / temperature))

    found = optimize.minimize_scalar(
        lambda exponent: log_loss(float(np.exp(exponent)), target),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature, before = float(np.exp(found.x)), log_loss(1.0, right)
    after = log_loss(temperature, right)
    return (
        Calibration(temperature, before, after, len(z)) if after < before else Calibration(1.0, before, before, len(z))
    )


def fold(model: keras.Model, temperature: float) -> None:
    """Divide the logits of a whole classifier by the temperature, in place."""
    layer = model.get_layer(LOGITS)
    layer.set_weights([weight / temperature for weight in layer.get_weights()])
