"""The DAG as Airflow parses it, against DVC's own reading of dvc.yaml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowTaskTimeout
from dvc.repo import Repo
from refit_command import RefitFailure, TransientFailure

# DVC's own affair.

ROOT = Path(__file__).parents[2]

FACTS = """
import json, pathlib, sys
import airflow.sdk
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(dag_folder=sys.argv[1], bundle_path=pathlib.Path(sys.argv[1]), bundle_name="dags")
dag = bag.dags["retrain"]
print(json.dumps({
    "errors": {str(path): text for path, text in bag.import_errors.items()},
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "max_active_runs": dag.max_active_runs,
    "tasks": {
        task.task_id: {
            "upstream": sorted(task.upstream_task_ids),
            "mapped": task.is_mapped,
            "pool": task.pool,
            "retries": task.retries,
            "timeout": task.execution_timeout.total_seconds(),
            "doc": task.doc_md,
        }
        for task in dag.tasks
    },
}))
"""


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process, such as Airflow's DAG processor, makes of dags/."""
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}
    command = [sys.executable, "-c", FACTS, str(ROOT / "dags")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


@pytest.fixture(scope="module")
def dvc_edges(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(stage, stage that needs it) from DVC's own graph, parts of one matrix taken together."""
    folder = tmp_path_factory.mktemp("graph")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    with Repo.init(str(folder), no_scm=True) as repo:
        found = {(needed.name, stage.name) for stage, needed in repo.index.graph.edges}
    return {(one.partition("@")[0], other.partition("@")[0]) for one, other in found}


def test_the_dag_folder_parses_without_errors(dag: dict[str, Any]) -> None:
    assert dag["errors"] == {}


def test_edges_are_those_of_dvc(dag: dict[str, Any], dvc_edges: set[tuple[str, str]]) -> None:
    ours = {(upstream, task) for task, facts in dag["tasks"].items() for upstream in facts["upstream"]}
    extra = {("start", "ingest"), ("start", "train")}  # train gets its parts from start
    extra |= {("gate", "approve"), ("approve", "promote")}
    assert ours - extra == dvc_edges
    assert extra <= ours


def test_there_is_one_task_per_stage(dag: dict[str, Any]) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(dag["tasks"]) == {*stages, "start", "approve", "promote"}
    assert {name: dag["tasks"][name]["doc"] for name in stages} == {name: s["desc"] for name, s in stages.items()}


def test_only_training_is_mapped_and_takes_a_gpu_slot(dag: dict[str, Any]) -> None:
    assert [name for name, facts in dag["tasks"].items() if facts["mapped"]] == ["train"]
    assert [name for name, facts in dag["tasks"].items() if facts["pool"] == "gpu"] == ["train"]


def test_every_task_ends_some_day(dag: dict[str, Any]) -> None:
    assert all(facts["timeout"] > 0 and facts["retries"] > 0 for facts in dag["tasks"].values())
    assert dag["max_active_runs"] == 1


def test_parsing_is_light(dag: dict[str, Any]) -> None:
    # It happens at the start of every task.
    heavy = {"pipeline", "components", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "boto3", "dvc", "sklearn"}
    assert not heavy & set(dag["modules"])


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (TransientFailure("busy"), RetryAction.RETRY),
        (RefitFailure("bad input"), RetryAction.FAIL),
        (AirflowTaskTimeout("slow"), RetryAction.FAIL),
        (RuntimeError("bug"), RetryAction.FAIL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
def test_only_what_may_pass_is_retried(error: BaseException, action: RetryAction) -> None:
    from retrain import dag

    for task in dag.tasks:
        policy = task.partial_kwargs["retry_policy"] if task.is_mapped else task.retry_policy
        assert policy.evaluate(error, try_number=1, max_tries=2).action is action
