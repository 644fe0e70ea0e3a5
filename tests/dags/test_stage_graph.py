from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from stage_graph import read_stages

CASES = {
    "equal": ("data/a", "data/a", True),
    "below an output": ("data/a/part.json", "data/a", True),
    "above an output": ("data", "data/a", True),
    "beside an output": ("data/b", "data/a", False),
    "a longer name": ("data/ab", "data/a", False),
    "one item's output": ("models/final", "models/${item.part}", True),
    "all items' outputs": ("models", "models/${item.part}", True),
    "not the items' folder": ("model", "models/${item.part}", False),
}


@pytest.mark.parametrize(("dep", "out", "connected"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("key", ["outs", "metrics", "plots"])
def test_a_dep_connects_to_what_it_overlaps(key: str, dep: str, out: str, connected: bool, tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text(yaml.safe_dump({"stages": {"first": {key: [{out: {"cache": False}}]}, "second": {"deps": [dep]}}}))
    first, second = read_stages(path)
    assert first.upstream == frozenset()
    assert second.upstream == (frozenset({"first"}) if connected else frozenset())
