from __future__ import annotations

from pathlib import Path

import pytest

from components import serve
from pipeline import files
from pipeline.backbones import registry
from tests.pipeline.serving import exported
from tests.pipeline.training import tiny


def test_writes_the_declared_outputs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "get", lambda name: tiny.ENTRY)
    monkeypatch.setenv("PATH", str(run))  # no Docker
    exported.write(run)

    serve.main()

    found = files.read_json(Path("metrics/serving.json"))
    assert set(found) == {"model_digest", "fresh_process", "container", "latency", "size", "input_contract"}
    assert found["fresh_process"]["status"] == "passed"
    assert found["container"]["status"] == "skipped"
    assert found["input_contract"]["passed"]
