"""The Kubeflow package, by kfp's own compiler and local runner."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli.main import app

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "dags"))

from stage_graph import read_stages  # noqa: E402

CONDITION = "comp-condition-1"


@pytest.fixture(scope="module")
def interpreter() -> str:
    found = os.environ.get("REFIT_KFP_PYTHON")
    if not found:
        pytest.skip("REFIT_KFP_PYTHON names no interpreter that has kfp: make test-kfp")
    return found


@pytest.fixture(scope="module")
def package(interpreter: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The package's documents: the pipeline, and what only Kubernetes knows."""
    path = tmp_path_factory.mktemp("kfp") / "refit.yaml"
    options = ["--image-data", "registry/data:1", "--image-train", "registry/train:1", "--claim", "refit-home"]
    result = CliRunner().invoke(
        app, ["kfp", "compile", "--output", str(path), *options, "--secret", "keys", "--gpus", "2", "--parallel", "3"]
    )
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.kfp
def test_its_edges_are_those_of_dvc_yaml(package: list[dict[str, Any]]) -> None:
    pipeline, _ = package
    outer, inner = pipeline["root"]["dag"]["tasks"], pipeline["components"][CONDITION]["dag"]["tasks"]
    stages = read_stages(ROOT / "dvc.yaml")
    [first] = [stage.name for stage in stages if not stage.upstream]
    edges = {name: set(task.get("dependentTasks", ())) for name, task in inner.items()}
    assert edges.pop("promote") == {"gate"}
    # All of them follow the first stage, by the condition that they lie in.
    assert edges == {stage.name: set(stage.upstream) - {first} for stage in stages if stage.name != first}
    assert set(outer["condition-1"]["dependentTasks"]) == {"start", first}
    assert outer[first]["dependentTasks"] == ["start"]
    assert "dependentTasks" not in outer["start"]


@pytest.mark.kfp
def test_each_stage_is_a_container_that_runs_refit(package: list[dict[str, Any]]) -> None:
    pipeline, _ = package
    containers = {
        name.removeprefix("exec-"): executor["container"]
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
    }
    names = {stage.name if not stage.mapped else f"{stage.name}-part" for stage in read_stages(ROOT / "dvc.yaml")}
    assert set(containers) == names | {"start", "promote"}
    run, part = "{{$.inputs.parameters['run_id']}}", "{{$.inputs.parameters['part']}}"
    assert containers["train-part"]["command"] == ["refit"]
    assert containers["train-part"]["args"] == ["stage", "train", "--run-id", run, "--part", part]
    assert containers["train-part"]["image"] == containers["gate"]["image"] == "registry/train:1"
    assert containers["shard"]["image"] == containers["start"]["image"] == "registry/data:1"
    assert containers["train-part"]["resources"]["accelerator"]["resourceCount"] == "2"
    assert "accelerator" not in containers["evaluate"].get("resources", {})


@pytest.mark.kfp
def test_parts_are_trained_as_start_says_and_in_parallel(package: list[dict[str, Any]]) -> None:
    pipeline, _ = package
    [loop] = pipeline["components"]["comp-train"]["dag"]["tasks"].values()
    assert loop["iteratorPolicy"] == {"parallelismLimit": 3}
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--parts"} or loop[
        "parameterIterator"
    ]["items"]["inputParameter"].endswith("parts")
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert {name: kind["parameterType"] for name, kind in parameters.items()} == {
        "model": "STRING",
        "run_id": "STRING",
        "set": "LIST",
        "source": "STRING",
    }


@pytest.mark.kfp
def test_every_step_has_the_workspace_and_the_keys(package: list[dict[str, Any]]) -> None:
    pipeline, platform = package
    steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(steps) == set(pipeline["deploymentSpec"]["executors"])
    for step in steps.values():
        [mount] = step["pvcMount"]
        assert (mount["constant"], mount["mountPath"]) == ("refit-home", "/refit")
        [secret] = step["secretAsEnv"]
        assert {item["envVar"] for item in secret["keyToEnv"]} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_without_kfp_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFIT_KFP_PYTHON", raising=False)
    result = CliRunner().invoke(app, ["kfp", "compile", "--python", sys.executable, "--output", str(tmp_path / "p")])
    assert result.exit_code == 78
    assert "No module named 'kfp'" in result.output
    assert "install kfp" in result.output
