"""Where TensorBoard is, if somebody runs one: `airflow.tensorboard_url` of params.yaml.

Start it with `tensorboard --logdir $REFIT_HOME/runs`; the filter of its runs is part of its address.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

import yaml

from refit_review import places

ROOT = Path(__file__).resolve().parents[2]


def url() -> str | None:
    """None if none is set. That a value is wrong is told by the DAGs, whose setting it is."""
    own = places.home() / "params.yaml"
    try:
        found = yaml.safe_load((own if own.exists() else ROOT / "params.yaml").read_text())["airflow"][
            "tensorboard_url"
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and urlsplit(found).scheme in {"http", "https"} else None


def address(run_id: str) -> str:
    """Of the curves of one run."""
    there = url()
    if there is None:
        return ""
    pattern = quote(f"^{re.escape(places.safe_id(run_id))}/", safe="")
    return f"{there.rstrip('/')}/?runFilter={pattern}#timeseries"
