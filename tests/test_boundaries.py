"""What may import what, and whether dvc.yaml knows all the code that a stage depends on."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Files that code reads from its own folder, which an import closure cannot see.
DATA_FILES = {
    path.relative_to(ROOT).as_posix(): path.parent.relative_to(ROOT).as_posix()
    for path in (ROOT / "pipeline").rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc"}
}


def module_file(module: str) -> str | None:
    path = ROOT / module.replace(".", "/")
    if path.with_suffix(".py").exists():
        return path.with_suffix(".py").relative_to(ROOT).as_posix()
    return None


def imports_of(path: str) -> set[str]:
    """Files of ours that a file imports, anywhere in it: late imports count too."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {found for name in names if name.startswith("pipeline") and (found := module_file(name))}


def closure(path: str) -> set[str]:
    seen: set[str] = set()
    waiting = {path}
    while waiting:
        seen |= waiting
        waiting = {found for known in waiting for found in imports_of(known)} - seen
    folders = {Path(known).parent.as_posix() for known in seen}
    return seen | {data for data, folder in DATA_FILES.items() if folder in folders}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_all_code_that_it_imports(stage: str) -> None:
    declared = {dep for dep in STAGES[stage].get("deps", []) if dep.startswith(("pipeline", "components"))}
    expected = closure(f"components/{stage}.py")
    assert declared == expected, "\n".join(
        ["dvc.yaml, expected deps:", *(f"      - {path}" for path in sorted(expected))]
    )


@pytest.fixture
def imported_by(tmp_path: Path) -> Callable[[str], set[str]]:
    """Top-level packages in a fresh interpreter after a statement."""

    def call(statement: str) -> set[str]:
        code = f"import sys; {statement}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
        environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}  # importing Airflow makes it a home
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
        )
        return set(done.stdout.split())

    return call


HEAVY = {"tensorflow", "keras", "tensorflow_data_validation", "great_expectations", "airflow", "sklearn", "dvc"}


@pytest.mark.parametrize(
    "module",
    [
        "pipeline.cli.main",
        "pipeline.ingestion.ingest",
        "pipeline.dataset.splits",
        "pipeline.dataset.assignment",
        "pipeline.promotion.gate",
        "pipeline.promotion.promote",
        "pipeline.report.build",
        "pipeline.profiling.features",
    ],
)
def test_light_modules_stay_light(module: str, imported_by: Callable[[str], set[str]]) -> None:
    assert not imported_by(f"import {module}") & HEAVY


def test_dag_files_import_nothing_of_the_pipeline(imported_by: Callable[[str], set[str]]) -> None:
    loaded = imported_by("sys.path.insert(0, 'dags'); import retrain")
    assert not loaded & {"pipeline", "components", "tensorflow", "keras", "boto3", "dvc", "pandas"}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "components").glob("[a-z]*.py")))
def test_importing_a_component_does_no_work(name: str, imported_by: Callable[[str], set[str]]) -> None:
    assert "airflow" not in imported_by(f"import components.{name}")


@pytest.mark.parametrize("module", ["pipeline.training.trainer", "pipeline.evaluation.evaluating"])
def test_training_needs_nothing_that_only_the_data_image_has(
    module: str, imported_by: Callable[[str], set[str]]
) -> None:
    assert not imported_by(f"import {module}") & {"simplejpeg", "cleanlab", "tensorflow_data_validation", "tfx_bsl"}
