from __future__ import annotations

import json
import os
import platform
import stat
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pipeline.training import environment


def describe(**changed: Any) -> dict[str, Any]:
    given = {"seed": 7, "precision": "float32", "deterministic": True, "variables": {}, "path": ""}
    return environment.describe(**{**given, **changed})


def tool(folder: Path, script: str) -> str:
    """An nvidia-smi that runs `script`; returns the path to look for it."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def test_it_names_the_software_and_the_machine_and_is_json() -> None:
    found = json.loads(json.dumps(describe(), allow_nan=False))

    assert found["python"] == platform.python_version()
    for name in ("keras", "tensorflow", "numpy", "scikit-learn", "ml-dtypes"):
        assert found["packages"][name] == metadata.version(name)
    assert "pytest" not in found["packages"]
    assert found["cpu"]["cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]["memory_gib"] > 0
    assert found["cpu"]["model"]
    assert (found["seed"], found["precision"], found["deterministic"]) == (7, "float32", True)


def test_every_installed_distribution_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe()["installed"]
    assert before["count"] == len({(one.name, one.version) for one in metadata.distributions()})

    (tmp_path / "nvidia_cudnn_cu12-9.3.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    after = describe()

    assert after["installed"]["count"] == before["count"] + 1
    assert after["installed"]["sha256"] != before["sha256"]
    assert after["packages"]["nvidia-cudnn-cu12"] == "9.3.0"


def test_only_variables_that_change_results_are_kept() -> None:
    variables = {"XLA_FLAGS": "--x", "AWS_SECRET_ACCESS_KEY": "secret", "OMP_NUM_THREADS": "1"}

    assert describe(variables=variables)["variables"] == {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--x"}


def test_gpus_come_from_the_driver(tmp_path: Path) -> None:
    lines = "echo 'NVIDIA H100 80GB HBM3, 81559, 570.86.15'; echo 'NVIDIA A30 MIG 1g.6gb, [N/A], 570.86.15'"

    assert describe(path=tool(tmp_path, lines))["gpus"] == [
        {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "driver": "570.86.15"},
        {"name": "NVIDIA A30 MIG 1g.6gb", "memory_mib": None, "driver": "570.86.15"},
    ]


@pytest.mark.parametrize("script", ["exit 9", "exec sleep 60", "echo 'No devices were found'; exit 6"])
def test_a_driver_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(environment, "_GPU_SECONDS", 0.3)

    assert describe(path=tool(tmp_path, script))["gpus"] == []
