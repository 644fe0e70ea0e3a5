"""`python -m embedded up` starts Airflow for $REFIT_HOME and leaves it running; `down` ends it."""

from __future__ import annotations

import argparse
import sys

from embedded import server
from embedded.client import ApiError
from embedded.config import USER

# All: without a schedule in params.yaml a DAG runs only when somebody triggers it, and a paused one not even then.
DAG_IDS = ("retrain", "watch", "rollback", "maintenance")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m embedded", description=__doc__)
    parser.add_argument("action", choices=["up", "down"])
    action = parser.parse_args().action
    home = server.refit_home()
    if action == "down":
        print("Airflow was stopped." if server.stop(home) else "Airflow was not running.")
        return 0
    try:
        started = server.start(home)
        with started.client() as client:
            for dag_id in DAG_IDS:
                client.unpause(dag_id)
    except (server.ServerError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Airflow: {started.url}   user {USER}, password {started.password}")
    print(f"Runs:    {home / 'runs'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
