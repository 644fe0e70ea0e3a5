"""Airflow reads its settings when it is imported, so it gets a home of its own before any test does that."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="refit-test-airflow-"))
