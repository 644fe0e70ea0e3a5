"""Links at tasks: for which operators, and where they lead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import yaml

RUN_ID = "manual__2026-03-01T02:15:00+00:00"
PAGE = "/refit/dags/retrain/runs/manual__2026-03-01T02%3A15%3A00%2B00%3A00/report?show="


def link(name: str, task_id: str) -> str:
    from refit_review import links

    [found] = [
        made()
        for made in (links.ReportLink, links.DataDocsLink, links.ModelCardLink, links.TensorBoardLink)
        if made.name == name
    ]
    key = SimpleNamespace(dag_id="retrain", run_id=RUN_ID, task_id=task_id, map_index=-1)
    return found.get_link(None, ti_key=key)


@pytest.mark.parametrize(
    ("name", "task_id", "expected"),
    [
        ("Report", "ingest", f"{PAGE}report"),
        ("Data Docs", "validate", f"{PAGE}rows"),
        ("Data Docs", "data.validate", f"{PAGE}rows"),
        ("Data Docs", "train", ""),
        ("Model card", "train", f"{PAGE}card"),
        ("Model card", "promote", f"{PAGE}card"),
        ("Model card", "ingest", ""),
        ("TensorBoard", "train", ""),  # none is named
    ],
)
def test_where_links_lead(name: str, task_id: str, expected: str) -> None:
    assert link(name, task_id) == expected


@pytest.mark.parametrize(
    ("url", "expected"), [("https://board.example/x/", True), ("javascript:alert(1)", False), (7, False)]
)
def test_tensorboard_is_linked_where_it_is_named(url: object, expected: bool, refit_home: Path) -> None:
    refit_home.mkdir()
    (refit_home / "params.yaml").write_text(yaml.safe_dump({"airflow": {"tensorboard_url": url}}))
    found = link("TensorBoard", "train")
    pattern = r"^manual__2026\-03\-01T02_15_00_00_00/"
    assert found == (f"https://board.example/x/?runFilter={quote(pattern, safe='')}#timeseries" if expected else "")
    assert link("TensorBoard", "evaluate") == ""


def test_links_are_at_the_operators_that_dags_are_made_of() -> None:
    """Airflow compares module and name of the class."""
    from approval import Approve
    from refit_execution import operators
    from refit_review import links
    from refit_settings import load

    found: Any = operators(load().execution)
    classes = {(made.__module__, made.__name__) for made in (found.StartRun, found.RunStage, Approve)}
    assert {(made.__module__, made.__name__) for made in links.ALL} == classes
