"""Airflow on PostgreSQL, and on Celery's workers."""

from __future__ import annotations

from embedded.server import Deployment

WORKERS = ("worker-one", "worker-two")


def local(database: str) -> Deployment:
    return Deployment({"database": {"sql_alchemy_conn": database}})


def celery(database: str, broker: str, **sections: dict[str, object]) -> Deployment:
    return Deployment(
        settings={
            "core": {"executor": "CeleryExecutor"},
            "database": {"sql_alchemy_conn": database},
            "celery": {
                "broker_url": broker,
                "result_backend": database.replace("postgresql", "db+postgresql", 1),
                "worker_concurrency": 2,
            },
            "celery_broker_transport_options": {"visibility_timeout": 7 * 86400},
            **sections,
        },
        processes={
            name: [
                *("celery", "worker", "--celery-hostname", name),
                *("--skip-serve-logs", "--without-mingle", "--without-gossip"),
            ]
            for name in WORKERS
        },
    )
