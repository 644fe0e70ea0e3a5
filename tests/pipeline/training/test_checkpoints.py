from __future__ import annotations

import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.training import checkpoints
from pipeline.training.checkpoints import FINISHED, RUNNING, Checkpoint, Running
from pipeline.training.fitted import CURVES, Fitted

FITTED = Fitted("head", {curve: [0.1, 1 / 3] for curve in CURVES}, 1, 12.5, 99.0, 3e-4, ((1e-6, 0.7), (2e-6, 0.6)))


def variables(value: float) -> list[keras.Variable]:
    return [keras.Variable(np.full(shape, value, np.float32)) for shape in [(2, 3), (), (4,)]]


def running(name: str = "finetune", epochs: int = 2) -> Running:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8], np.uint32)]
    return Running(
        name=name,
        batch_size=16,
        learning_rate=0.1,
        range_test=((1e-6, 0.7), (2e-6, 0.6)),
        curves={curve: [0.5] * epochs for curve in CURVES},
        best_epoch=0,
        seconds=3.5,
        paces=[1.0] * epochs,
        model=arrays,
        optimizer=[np.array(3, np.int64)],
        best=arrays[:1],
    )


def same(found: Running | None, expected: Running) -> bool:
    assert found is not None
    lists = [(getattr(found, part), getattr(expected, part)) for part in ("model", "optimizer", "best")]
    for ours, theirs in lists:
        assert [array.dtype for array in ours] == [array.dtype for array in theirs]
        np.testing.assert_equal(ours, theirs)
    plain = replace(found, model=[], optimizer=[], best=[])
    return plain == replace(expected, model=[], optimizer=[], best=[])


def test_finished_phases_come_back_with_the_weights(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "part", "settings")
    assert checkpoint.finished(variables(0)) == []
    checkpoint.finish(FITTED, variables(1))
    checkpoint.finish(replace(FITTED, name="finetune"), variables(2))

    model = variables(0)
    assert Checkpoint(tmp_path / "part", "settings").finished(model) == [FITTED, replace(FITTED, name="finetune")]
    for variable in model:
        assert np.all(variable.numpy() == 2)


def test_a_running_phase_comes_back(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "x").keep(running())

    checkpoint = Checkpoint(tmp_path, "x")
    assert checkpoint.batch_size == 16
    assert same(checkpoint.running("finetune", 16), running())


def test_the_phase_that_runs_comes_after_those_that_are_finished(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "x")
    checkpoint.finish(FITTED, variables(1))
    checkpoint.keep(running())

    again = Checkpoint(tmp_path, "x")
    again.finished(variables(0))
    assert same(again.running("finetune", 16), running())


def test_a_phase_that_was_finished_before_its_state_was_removed_does_not_run_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "x")
    checkpoint.keep(running("head"))
    state = (tmp_path / RUNNING).read_bytes()
    checkpoint.finish(FITTED, variables(1))
    assert not (tmp_path / RUNNING).exists()
    (tmp_path / RUNNING).write_bytes(state)  # as if the process had died in between

    again = Checkpoint(tmp_path, "x")
    again.finished(variables(0))
    assert again.running("head", 16) is None


@pytest.mark.parametrize(("name", "batch_size"), [("finetune", 8), ("last", 16)])
def test_the_state_of_another_phase_or_batch_size_is_discarded(tmp_path: Path, name: str, batch_size: int) -> None:
    Checkpoint(tmp_path, "x").keep(running())

    assert Checkpoint(tmp_path, "x").running(name, batch_size) is None
    assert Checkpoint(tmp_path, "x").batch_size is None


def test_what_other_settings_left_is_discarded_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Checkpoint(tmp_path, "x")
    checkpoint.finish(FITTED, variables(1))
    checkpoint.keep(running())
    model = variables(0)

    other = Checkpoint(tmp_path, "y")
    with caplog.at_level(logging.INFO, logger="pipeline.training.checkpoints"):
        assert other.finished(model) == []
        assert other.running("finetune", 16) is None
    assert [np.all(variable.numpy() == 0) for variable in model] == [True] * 3
    assert all("is of other settings or data: training starts anew" in line for line in caplog.messages)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [FINISHED, RUNNING])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_file_is_discarded_with_a_warning(
    tmp_path: Path, name: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path, "x")
    checkpoint.keep(running("head")) if name == RUNNING else checkpoint.finish(FITTED, variables(1))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    model = variables(0)

    again = Checkpoint(tmp_path, "x")
    assert again.finished(model) == []
    assert again.running("head", 16) is None
    assert [np.all(variable.numpy() == 0) for variable in model] == [True] * 3
    assert "is damaged" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_flipped_bytes_are_noticed_or_harmless(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "x").finish(FITTED, variables(1))
    content, draw = (tmp_path / FINISHED).read_bytes(), random.Random(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (tmp_path / FINISHED).write_bytes(damaged)
        model = variables(0)
        found = Checkpoint(tmp_path, "x").finished(model)
        assert found in ([], [FITTED])
        assert {float(variable.numpy().max()) for variable in model} == {float(len(found))}


def test_weights_of_another_model_are_discarded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoint(tmp_path, "x").finish(FITTED, variables(1))

    assert Checkpoint(tmp_path, "x").finished(variables(0)[:2]) == []
    assert "expected 2 arrays in the model's shapes, received 3" in caplog.text


def test_states_that_follow_closely_are_held_and_flushed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "x", every=1000)
    checkpoint.keep(running(epochs=1))
    checkpoint.keep(running(epochs=2))
    assert same(Checkpoint(tmp_path, "x").running("finetune", 16), running(epochs=1))

    checkpoint.flush()
    assert same(Checkpoint(tmp_path, "x").running("finetune", 16), running(epochs=2))


def test_no_code_is_in_a_checkpoint(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "x").keep(running())
    with np.load(tmp_path / RUNNING, allow_pickle=False) as archive:
        assert json.loads(archive["json"].tobytes())["identity"] == "x"
        assert {archive[name].dtype.kind for name in archive.files} <= {"f", "i", "u"}


def test_what_is_copied_does_not_change_with_the_variable() -> None:
    variable = keras.Variable(np.ones(3, np.float32))
    (copy,) = checkpoints.values([variable])
    variable.assign(np.zeros(3, np.float32))
    assert copy.tolist() == [1, 1, 1]


def test_clear_removes_everything(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "part", "x")
    checkpoint.keep(running())
    checkpoint.clear()
    assert list(tmp_path.iterdir()) == []
