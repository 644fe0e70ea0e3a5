"""Where TensorBoard is, if somebody runs one: `airflow.tensorboard_url` of params.yaml.

Start it with `tensorboard --logdir $REFIT_HOME/runs`; the filter of its runs is part of its address.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from refit_review import places


def url() -> str | None:
    """None if none is set. That a value is wrong is told by the DAGs, whose setting it is."""
    airflow = places.params().get("airflow")
    found = airflow.get("tensorboard_url") if isinstance(airflow, dict) else None
    return found if isinstance(found, str) and urlsplit(found).scheme in {"http", "https"} else None


def address(run_id: str) -> str:
    """Of the curves of one run."""
    there = url()
    if there is None:
        return ""
    pattern = quote(f"^{re.escape(places.safe_id(run_id))}/", safe="")
    return f"{there.rstrip('/')}/?runFilter={pattern}#timeseries"
