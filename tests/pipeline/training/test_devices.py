from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline import settings
from pipeline.errors import SettingsError
from pipeline.training import devices
from pipeline.training.devices import Devices
from tests.pipeline.training import devices_script
from tests.servers import free_ports

SCRIPT = [sys.executable, "-m", "tests.pipeline.training.devices_script"]
QUIET = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
SAME = ("clipped", "averaged", "endless")
PATIENCE = 240.0  # seconds; two cores may be shared with other tests


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Processes that are gone when the test is over."""
    with contextlib.ExitStack() as stack:

        def call(*arguments: str, **environment: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*SCRIPT, *arguments],
                cwd=tmp_path,
                env=os.environ | QUIET | {"PYTHONPATH": str(settings.code_root())} | environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield call


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors


def cluster(index: int, ports: list[int]) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def weights(found: dict[str, Any], way: str) -> np.ndarray:
    return np.concatenate([np.array(array, np.float64).ravel() for array in found[way]["weights"]])


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return {way: devices_script.fit(Devices(("CPU:0",)), way) for way in (*SAME, "normalised", "half")}


def same(found: dict[str, Any], alone: dict[str, Any], way: str, *, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(weights(found, way), weights(alone, way), atol=atol, err_msg=way)
    for curve, values in alone[way]["curves"].items():
        np.testing.assert_allclose(found[way]["curves"][curve], values, atol=atol, err_msg=f"{way} {curve}")


@pytest.mark.processes
def test_two_workers_learn_what_one_process_learns(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], alone: dict[str, Any]
) -> None:
    """The same global batches give the same weights and curves, with clipped gradients and averaged weights too, from
    a PyDataset as from tf.data, and with a validation set that cannot be dealt out evenly."""
    ports = free_ports(2)
    workers = [
        start("on_two", str(tmp_path / f"{index}.json"), *SAME, "normalised", "half", TF_CONFIG=cluster(index, ports))
        for index in range(2)
    ]
    finish(*workers)

    first, second = (json.loads((tmp_path / f"{index}.json").read_text()) for index in range(2))
    for way in SAME:
        same(first, alone, way)
    same(first, alone, "half", atol=1e-3)
    # Workers agree to the last bit, or they would stop in different epochs; under mixed_float16 steps are skipped.
    for way in alone:
        assert first[way] == second[way], way
    # BatchNorm stands on the inputs, so its moving mean is that of the global batches. Its variance is a worker's.
    moving_mean = [np.array(found["normalised"]["weights"][2]) for found in (alone, first)]
    np.testing.assert_allclose(moving_mean[1], moving_mean[0], atol=1e-5)
    assert np.abs(moving_mean[0]).max() > 0.01
    assert first["described"] == {"strategy": "workers", "devices": ["CPU:0"], "workers": 2, "replicas": 2}
    assert first["agreed"] == second["agreed"] == [0.0, float(2**40)]
    assert first["handed"] == second["handed"] == [True, True]
    assert (tmp_path / "written/by.txt").read_text() == "0"


@pytest.mark.processes
def test_two_replicas_learn_what_one_learns(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], alone: dict[str, Any]
) -> None:
    """Two logical CPUs stand for two GPUs."""
    finish(start("on_two", str(tmp_path / "replicas.json"), "clipped", "endless"))

    found = json.loads((tmp_path / "replicas.json").read_text())
    same(found, alone, "clipped")
    same(found, alone, "endless")
    assert found["described"] == {
        "strategy": "mirrored",
        "devices": ["CPU:0", "CPU:1"],
        "workers": 1,
        "replicas": 2,
    }


@pytest.mark.processes
def test_a_worker_that_loses_another_ends_so_that_a_retry_helps(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    ports = free_ports(2)
    marks = [tmp_path / "0", tmp_path / "1"]
    left, lost = (start("forever", str(marks[index]), TF_CONFIG=cluster(index, ports)) for index in range(2))
    deadline = time.monotonic() + PATIENCE
    while not all(mark.exists() for mark in marks):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    lost.terminate()
    lost.wait(timeout=PATIENCE)
    _, errors = left.communicate(timeout=PATIENCE)

    assert lost.returncode == -signal.SIGTERM
    assert left.returncode == 75, errors
    assert "error: Worker 0 of 2 lost another one: " in errors


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_two_devices_of_jax_learn_what_one_learns(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    ways = ("clipped", "normalised")
    finish(start("on_two", str(tmp_path / "alone.json"), *ways, **environment))
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    finish(start("on_two", str(tmp_path / "both.json"), *ways, **environment))

    alone, both = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("alone", "both"))
    assert both["described"]["replicas"] == 2
    assert both["described"]["strategy"] == "data_parallel"
    for way in ways:
        np.testing.assert_allclose(weights(both, way), weights(alone, way), atol=1e-5, err_msg=way)
        np.testing.assert_allclose(both[way]["curves"]["loss"], alone[way]["curves"]["loss"], atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        '{"cluster": ["a:1", "b:1"], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": "a:1", "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "one"}}',
    ],
    ids=["empty", "no JSON", "a list", "no task", "index", "job", "parameter server", "no jobs", "no number"],
)
def test_a_cluster_that_is_none(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config)

    with pytest.raises(
        SettingsError, match=r"^TF_CONFIG: expected a cluster of workers.*Fix: unset it, or set it like"
    ):
        devices.current()


@pytest.mark.parametrize(
    "config",
    [None, "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'],
    ids=["none", "no cluster", "one worker"],
)
def test_one_worker_is_alone(config: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)

    found = devices.current()

    assert found.describe() == {"strategy": "alone", "devices": ["CPU:0"], "workers": 1, "replicas": 1}
    assert found.chief
    assert (found.worker.number, found.worker.count) == (0, 1)


def test_a_chief_comes_before_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    places = []
    for task in ({"type": "chief", "index": 0}, {"type": "worker", "index": 0}, {"type": "worker", "index": 1}):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": addresses, "task": task}))
        places.append(devices._place_in_cluster())

    assert places == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(("replicas", "wanted", "expected"), [(1, 7, 7), (4, 32, 32), (4, 33, 36), (3, 1, 3)], ids=str)
def test_a_global_batch_is_a_multiple_of_the_replicas(replicas: int, wanted: int, expected: int) -> None:
    found = Devices(("CPU:0",), "workers", count=replicas, replicas=replicas)

    assert found.batch_size(wanted) == expected
    assert found.share(expected) * replicas == expected


class Counted(keras.utils.PyDataset):
    def __init__(self) -> None:
        super().__init__()
        self.begun, self.ended = 0, 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rows = np.arange(6) + 10 * index
        return {"image": rows}, -rows

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def on_epoch_end(self) -> None:
        self.ended += 1


def test_workers_share_every_batch_out() -> None:
    whole = Counted()
    parts = [Devices(("CPU:0",), "workers", number, 3, 3).feed(whole) for number in range(3)]

    shared = [part[1] for part in parts]

    assert [inputs["image"].tolist() for inputs, _ in shared] == [[10, 13], [11, 14], [12, 15]]
    assert [classes.tolist() for _, classes in shared] == [[-10, -13], [-11, -14], [-12, -15]]
    assert len(parts[0]) == 2
    parts[0].on_epoch_begin()
    parts[0].on_epoch_end()
    assert (whole.begun, whole.ended) == (1, 1)


def test_workers_share_arrays_out_unless_there_are_too_few() -> None:
    second = Devices(("CPU:0",), "workers", 1, 3, 3)

    assert [rows.tolist() for rows in second.feed((np.arange(5), np.arange(5) * 2))] == [[1, 4], [2, 8]]
    assert [rows.tolist() for rows in second.feed((np.arange(2), np.arange(2)))] == [[0, 1], [0, 1]]


def test_jax_measures_on_what_it_can_deal_out_evenly() -> None:
    four = Devices(("gpu:0",), "data_parallel", replicas=4)

    assert [rows.tolist() for rows in four.feed((np.arange(7), np.arange(7)))] == [[0, 1, 2, 3]] * 2
    assert (four.even(8), four.even(3)) == (8, 0)


def test_alone_all_is_as_it_would_be_without(tmp_path: Path) -> None:
    alone = Devices(("CPU:0",))
    whole, arrays = Counted(), (np.arange(3), np.arange(3))

    assert alone.feed(whole) is whole
    assert [rows.tolist() for rows in alone.feed(arrays)] == [[0, 1, 2], [0, 1, 2]]
    assert alone.mean([2.5])[0] == 2.5
    assert alone.first([np.arange(3)])[0].tolist() == [0, 1, 2]
    with alone.scope(), alone.watched(), alone.directory(tmp_path / "written") as folder:
        (folder / "model").touch()
    assert (tmp_path / "written/model").exists()
