"""Airflow on PostgreSQL, and on Celery's workers."""

from __future__ import annotations

from embedded.server import Deployment

WORKERS = ("worker-one", "worker-two")


def local(database: str, **sections: dict[str, object]) -> Deployment:
    return Deployment({"database": {"sql_alchemy_conn": database}, **sections})


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
            # As deploy/airflow.cfg: an API server that is started again is waited for.
            "workers": {"min_heartbeat_interval": 1, "max_failed_heartbeats": 60, "execution_api_retries": 10},
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
