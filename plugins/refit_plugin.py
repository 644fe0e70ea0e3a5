"""What Refit adds to Airflow's pages: reports of runs, the page of models, links at tasks (docs/review.md)."""

from __future__ import annotations

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin
from refit_review.app import PREFIX, create
from refit_review.links import LINKS


class RefitReview(AirflowPlugin):
    name = "refit_review"
    fastapi_apps: ClassVar = [{"app": create(), "url_prefix": PREFIX, "name": "Refit review"}]
    external_views: ClassVar = [
        {
            "name": "Report",
            "href": f"{PREFIX}/dags/{{DAG_ID}}/runs/{{RUN_ID}}/report",
            "destination": "dag_run",
            "url_route": "report",
        },
        {
            "name": "Latest report",
            "href": f"{PREFIX}/dags/{{DAG_ID}}/report",
            "destination": "dag",
            "url_route": "latest-report",
        },
        {
            "name": "Models",
            "href": f"{PREFIX}/models",
            "destination": "nav",
            "url_route": "models",
            "nav_top_level": True,
        },
    ]
    operator_extra_links = LINKS
