"""Airflow reads its settings when it is imported, so it gets a home of its own before any test does that."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="refit-test-airflow-")
sys.path.append(str(ROOT / "dags"))  # as Airflow itself does with its DAG folder
