"""Checkpoints of one part: training that was killed goes on from the last epoch that was written.

Each file is one .npz archive, read without pickle, with its description as JSON (UTF-8 bytes) in the entry `json`, so
that weights and description cannot come apart:

    finished.npz   the phases that are done and the variables of the whole model after them
    running.npz    state of the phase after them at the end of an epoch
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline import files
from pipeline.training.fitted import Fitted

logger = logging.getLogger(__name__)

FILES = FINISHED, RUNNING = "finished.npz", "running.npz"
EVERY_SECONDS = 30.0
# What reading a damaged archive raises; RuntimeError where a flipped bit claims encryption or another compression.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError)
_BROKEN_ARCHIVE = (*_DAMAGE, zipfile.BadZipFile, zlib.error, struct.error)

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Running:
    """A phase at the end of an epoch.

    epochs: that are done. curves: one value for each of them. model, optimizer: values of all variables, among them
    the state of random generators, moments and averaged weights. best: weights of `best_epoch`.
    seconds: so far; paces: those of the training steps in each epoch.
    """

    name: str
    batch_size: int
    learning_rate: float
    range_test: tuple[tuple[float, float], ...]
    curves: dict[str, list[float]]
    best_epoch: int
    seconds: float
    paces: list[float]
    model: Arrays
    optimizer: Arrays
    best: Arrays

    @property
    def epochs(self) -> int:
        return len(self.curves["val_loss"])

    @property
    def found(self) -> tuple[float, tuple[tuple[float, float], ...]]:
        """The learning rate and its range test."""
        return self.learning_rate, self.range_test


class Checkpoint:
    """What `fitting.fit` writes to `folder`, which belongs to this part alone, and finds there when it is run again.

    Args:
        folder: is made when something is written.
        identity: digest of the settings and data that training follows from; what another identity left is discarded.
        every: seconds that lie at least between two writings, so that phases of tiny epochs do not pay for them.
    """

    def __init__(self, folder: Path, identity: str, *, every: float = EVERY_SECONDS) -> None:
        self.folder, self.identity, self.every = folder, identity, every
        self._done: list[Fitted] = []
        self._pending: Running | None = None
        self._written = -np.inf
        if folder.is_dir():
            files.clear_temporaries(folder)

    def finished(self, variables: Sequence[Any]) -> list[Fitted]:
        """The phases that are done, whose outcome is put into `variables`: all of the whole model's, in order.

        Call it once, before the first `fit`. Nothing is done, and the list is empty, where there is no checkpoint or
        it cannot be used, which is logged.
        """
        found = self._read(FINISHED)
        if found is not None:
            described, arrays = found
            try:
                done = [_fitted(phase) for phase in described["phases"]]
                assign(variables, _listed(arrays, "model"))
                self._done = done
                logger.info("training continues after phase %s", self._done[-1].name)
            except _DAMAGE as error:
                self._discard(FINISHED, f"is damaged ({error})")
        return list(self._done)

    def finish(self, fitted: Fitted, variables: Sequence[Any]) -> None:
        """Record that a phase is done and what `variables`, all of the whole model's, are after it."""
        self._done.append(fitted)
        self._pending = None
        self._write(FINISHED, {"phases": [asdict(phase) for phase in self._done]}, {"model": values(variables)})
        (self.folder / RUNNING).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder: the part is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def batch_size(self) -> int | None:
        """Batch size of the phase that was interrupted, which may be lower than the setting; None if there is none."""
        running = self._running()
        return None if running is None else running.batch_size

    def running(self, name: str, batch_size: int) -> Running | None:
        """The interrupted phase, if it is `name` and was trained with this batch size; otherwise it is discarded."""
        running = self._running()
        if running is not None and (running.name, running.batch_size) != (name, batch_size):
            self._discard(
                RUNNING,
                f"is of phase {running.name} with batches of {running.batch_size}, not of {name} with {batch_size}",
            )
            return None
        return running

    def forget(self) -> None:
        """Discard the running phase."""
        self._pending = None
        (self.folder / RUNNING).unlink(missing_ok=True)

    def keep(self, running: Running) -> None:
        """Write the state of a phase, or hold it until `flush` if the last writing was less than `every` s ago."""
        self._pending = running
        if time.monotonic() - self._written >= self.every:
            self.flush()

    def flush(self) -> None:
        """Write what `keep` has held."""
        if (running := self._pending) is None:
            return
        described = {name: value for name, value in vars(running).items() if name not in ("model", "optimizer", "best")}
        arrays = {"model": running.model, "optimizer": running.optimizer, "best": running.best}
        self._write(RUNNING, described | {"position": len(self._done)}, arrays)
        self._pending, self._written = None, time.monotonic()

    def _running(self) -> Running | None:
        found = self._read(RUNNING)
        if found is None:
            return None
        described, arrays = found
        try:
            if described.pop("position") != len(self._done):
                self.forget()  # its phase has been finished since
                return None
            lists: dict[str, Any] = {part: _listed(arrays, part) for part in ("model", "optimizer", "best")}
            described["range_test"] = _pairs(described["range_test"])
            return Running(**described, **lists)
        except _DAMAGE as error:
            self._discard(RUNNING, f"is damaged ({error})")
            return None

    def _write(self, name: str, described: Mapping[str, Any], lists: Mapping[str, Arrays]) -> None:
        text = json.dumps({"identity": self.identity, **described}, allow_nan=False)
        arrays = {f"{part}/{i}": array for part, listed in lists.items() for i, array in enumerate(listed)}
        with files.replacing(self.folder / name) as temporary:
            np.savez(temporary, json=np.frombuffer(text.encode(), np.uint8), **arrays)

    def _read(self, name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """The description without the identity, and the arrays; None if there is nothing to use."""
        try:
            # Opened here, because np.load leaves open what turns out to be no archive.
            with (self.folder / name).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {entry: archive[entry] for entry in archive.files}  # zip checks each one's CRC
            described = json.loads(arrays.pop("json").tobytes())
            identity = described.pop("identity")
        except FileNotFoundError:
            return None
        except _BROKEN_ARCHIVE as error:
            self._discard(name, f"is damaged ({error})")
            return None
        if identity != self.identity:
            logger.info("checkpoint %s is of other settings or data: training starts anew", self.folder / name)
            (self.folder / name).unlink(missing_ok=True)
            return None
        return described, arrays

    def _discard(self, name: str, why: str) -> None:
        logger.warning("checkpoint %s %s: it is discarded", self.folder / name, why)
        (self.folder / name).unlink(missing_ok=True)


def values(variables: Sequence[Any]) -> Arrays:
    """Copies: the backend may go on to use the memory that it shows."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def fits(variables: Sequence[Any], arrays: Sequence[NDArray[Any]]) -> bool:
    """Whether there are as many, of the same shapes."""
    return [tuple(variable.shape) for variable in variables] == [array.shape for array in arrays]


def assign(variables: Sequence[Any], arrays: Sequence[NDArray[Any]]) -> None:
    """Raises `ValueError`, before anything is assigned, if they do not fit."""
    if not fits(variables, arrays):
        raise ValueError(f"expected {len(variables)} arrays in the model's shapes, received {len(arrays)}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _listed(arrays: Mapping[str, NDArray[Any]], part: str) -> Arrays:
    number = sum(name.startswith(f"{part}/") for name in arrays)
    return [arrays[f"{part}/{i}"] for i in range(number)]


def _fitted(described: dict[str, Any]) -> Fitted:
    return Fitted(**described | {"range_test": _pairs(described["range_test"])})


def _pairs(listed: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((rate, loss) for rate, loss in listed)
