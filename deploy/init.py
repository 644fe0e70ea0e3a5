"""Prepare Airflow's database for use: the first administrator and the pool `gpu`. What exists is left as it is.

Run after `airflow db migrate`, with the file that holds the password: not by `airflow users create`, which takes it on
its command line, where every process can read it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.models.pool import Pool
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.utils.session import create_session
from sqlalchemy import select

USER = "admin"
POOLS = {"gpu": 1}  # one slot: training parts run one after the other


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: init.py PASSWORD_FILE", file=sys.stderr)
        return 2
    password = Path(sys.argv[1]).read_text().strip()
    with get_application_builder() as builder:
        manager = builder.sm
        if manager.find_user(USER) is None:
            role = manager.find_role("Admin")
            if not manager.add_user(USER, "Refit", "Administrator", f"{USER}@localhost", role, password):
                print("error: The administrator could not be created; the lines above say why.", file=sys.stderr)
                return 1
    with create_session() as session:
        existing = set(session.scalars(select(Pool.pool)))
        for name, slots in POOLS.items():
            if name not in existing:
                session.add(Pool(pool=name, slots=slots, description="Training", include_deferred=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
