"""Run by test_resuming.py: two phases with all that has state. Arguments: folder, outcome (.npz), pause.

In the epoch `pause` ("phase epoch", or "never") it says "waiting" on stdout and waits to be killed, before the second
batch for a minute or, if states are held, before each later one for half a second.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import stage
from pipeline.training import checkpoints
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.recipes import Phase
from tests.pipeline.training import problem

PHASES = (
    Phase("head", epochs=6, patience=6, learning_rate="find", schedule="plateau", warmup=0.1, ema=0.9, clip_norm=1.0),
    Phase("last", epochs=6, patience=6, optimizer="sgd", learning_rate=0.05, warmup=0.1, weight_decay=0.01),
)


def run(folder: Path, outcome: Path, pause: str = "never", every: float = 0.0) -> None:
    class Slow(problem.Epochs):
        said = False

        def __getitem__(self, index: int) -> Any:
            if pause == f"{phase.name} {self.epoch}" and index > 0:
                if not self.said:
                    self.said = True
                    print("waiting", flush=True)
                time.sleep(0.5 if every else 60)
            return super().__getitem__(index)

    model = problem.network(hidden=8, dropout=0.3)
    checkpoint = Checkpoint(folder / "checkpoint", "same", every=every)
    done = checkpoint.finished(model.variables)
    for phase in PHASES[len(done) :]:
        fitted = problem.fit(model, phase, folder, training=Slow, checkpoint=checkpoint)
        checkpoint.finish(fitted, model.variables)
        done.append(fitted)
    curves = {f"{fitted.name} {name}": curve for fitted in done for name, curve in asdict(fitted)["curves"].items()}
    weights = {f"weights {i}": value for i, value in enumerate(checkpoints.values(model.variables))}
    rates = {f"{fitted.name} rate": fitted.learning_rate for fitted in done}
    np.savez(outcome, **curves, **weights, **rates)
    checkpoint.clear()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes what it runs in the background ignore it
    folder, outcome, pause, every = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    stage.run(lambda: run(folder, outcome, pause, every))
