from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.promotion.difference import difference
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.promote import promote
from pipeline.promotion.registry import Registry
from tests.pipeline.promotion.finished_run import finished_run


def test_figures_settings_counts_and_classes_that_differ(tmp_path: Path) -> None:
    registry = Registry(FolderStorage(tmp_path / "registry"))
    promote(finished_run(tmp_path / "r1", "a", accuracy=0.75), registry)
    later = finished_run(
        tmp_path / "r2",
        "b",
        generation=1,
        accuracy=0.875,
        classes=("cat", "eel", "fox"),
        params={"train": {"backbone": "resnet50"}, "gate": {"min_accuracy": 0.5}},
    )
    promote(later, registry)

    found = difference(registry, 1, 2)

    assert (found["a"], found["b"], found["same_data"]) == (1, 2, True)
    assert found["metrics"]["accuracy"] == {
        "a": {"value": 0.75, "low": 0.75 - 0.08, "high": 0.75 + 0.07},
        "b": {"value": 0.875, "low": 0.875 - 0.08, "high": 0.875 + 0.07},
        "difference": 0.125,
    }
    assert found["metrics"]["roc_auc"]["difference"] is None
    assert found["params"].keys() == {"train.backbone"}
    assert found["params"]["train.backbone"][1] == "resnet50"
    assert found["images"] == {"cat": [2, 2], "dog": [2, None], "eel": [2, 2], "fox": [None, 2]}
    assert (found["appeared"], found["vanished"]) == (["fox"], ["dog"])
    assert found["data"]["classes"] == [3, 3]
    assert found["data"]["in quarantine"] == [2, 2]
    assert difference(registry, 2, 1)["metrics"]["accuracy"]["difference"] == pytest.approx(-0.125)
