"""Two phases as history.json holds them."""

from __future__ import annotations

from typing import Any

HEAD = {
    "name": "head",
    "loss": [1.5, 1.0],
    "accuracy": [0.25, 0.5],
    "val_loss": [1.25, 1.125],
    "val_accuracy": [0.375, 0.625],
    "learning_rate": [0.01, 0.005],
}
FINETUNE: dict[str, Any] = {
    "name": "finetune",
    "loss": [0.5],
    "accuracy": [0.75],
    "val_loss": [0.875],
    "val_accuracy": [1.0],
}
