"""Buttons at tasks. They lead to pages of the plugin, which look whether there is something to show."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

import attrs
from airflow.sdk import BaseOperatorLink

from refit_review import app, board

CARD_TASKS = {"train", "evaluate", "gate", "approve", "promote"}
DATA_TASKS = {"validate"}
TRAINING_TASKS = {"train"}


def _named(module: str, name: str) -> type:
    """Stands for an operator class: Airflow looks at name and module alone, and the DAGs' folder need not be here."""
    return type(name, (), {"__module__": module})


STAGES = [_named("refit_command", "RunStage")]
ALL = [*STAGES, _named("refit_command", "StartRun"), _named("approval", "Approve")]


def _page(ti_key: Any, show: str) -> str:
    run = f"{app.PREFIX}/dags/{quote(ti_key.dag_id, '')}/runs/{quote(ti_key.run_id, '')}"
    return f"{app.base()}{run}/report?show={show}"


def _stage(ti_key: Any) -> str:
    """The task's own name, whatever group it is in."""
    return str(ti_key.task_id).rpartition(".")[2]


@attrs.define()
class ReportLink(BaseOperatorLink):
    name: ClassVar[str] = "Report"  # type: ignore[misc]
    operators: ClassVar[list[type]] = ALL

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _page(ti_key, "report")


@attrs.define()
class DataDocsLink(BaseOperatorLink):
    name: ClassVar[str] = "Data Docs"  # type: ignore[misc]
    operators: ClassVar[list[type]] = STAGES

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _page(ti_key, "rows") if _stage(ti_key) in DATA_TASKS else ""


@attrs.define()
class ModelCardLink(BaseOperatorLink):
    name: ClassVar[str] = "Model card"  # type: ignore[misc]
    operators: ClassVar[list[type]] = [*STAGES, ALL[-1]]

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _page(ti_key, "card") if _stage(ti_key) in CARD_TASKS else ""


@attrs.define()
class TensorBoardLink(BaseOperatorLink):
    """Absent unless `airflow.tensorboard_url` names a server that somebody runs."""

    name: ClassVar[str] = "TensorBoard"  # type: ignore[misc]
    operators: ClassVar[list[type]] = STAGES

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return board.address(str(ti_key.run_id)) if _stage(ti_key) in TRAINING_TASKS else ""


LINKS: list[BaseOperatorLink] = [ReportLink(), DataDocsLink(), ModelCardLink()]
if board.url():
    LINKS.append(TensorBoardLink())
