"""Learning curves as a table that `dvc plots show` draws."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files

# Quantities of an epoch. The rate is the one that its last step was made with; empty where it was not recorded.
QUANTITIES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def write(target: Path, phases: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with a row an epoch: `phase`, `epoch` (from 1, on through all phases) and `QUANTITIES`.

    Args:
        phases: as in history.json: `name`, and for each quantity a list with a number an epoch.

    Raises `ValueError` when the lists of a phase differ in length.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["phase", "epoch", *QUANTITIES])
    epoch = 0
    for phase in phases:
        unknown = [""] * len(phase["loss"])
        for values in zip(*(phase.get(quantity, unknown) for quantity in QUANTITIES), strict=True):
            epoch += 1
            table.writerow([phase["name"], epoch, *values])
    files.write_text(target, text.getvalue())
