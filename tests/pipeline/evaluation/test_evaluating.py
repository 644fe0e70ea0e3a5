"""Real models on real shards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from pipeline import files
from pipeline.dataset import shard_index
from pipeline.dataset.duplicate_links import Links
from pipeline.errors import DataError, ModelError, SettingsError
from pipeline.evaluation import evaluating, measuring, predictions
from pipeline.settings import Evaluate
from tests.pipeline.evaluation.colours import CLASSES, IMAGES, attributes, features, manifest_rows, model, uri, write

SETTINGS = Evaluate(batch_size=4, resamples=100, confidence=0.95, seed=1, top_k=(2, 3), slices=("camera",), min_slice=2)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> evaluating.Candidate:
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", str(root / "home"))
        table = write(root)
        return evaluating.Candidate(
            models=root / "models",
            shards=root / "data/shards",
            manifest=manifest_rows(),
            assignment=table,
            features=features(),
            attributes=attributes(),
            links=Links((), {}),
            folds=2,
        )


@pytest.fixture(scope="module")
def first(candidate: evaluating.Candidate) -> tuple[pa.Table, dict[str, Any]]:
    """The measurement without a live model."""
    return evaluating.evaluate(candidate, None, SETTINGS)


def ids_of(candidate: evaluating.Candidate, split: str) -> list[str]:
    return [row["image_id"] for row in candidate.assignment.to_pylist() if row["split"] == split]


def test_first_model(first: tuple[pa.Table, dict[str, Any]]) -> None:
    table, metrics = first
    assert table.schema == predictions.SCHEMA
    assert table["source"].to_pylist() == ["fold-0"] * 6 + ["fold-1"] * 7 + ["test"] * 7
    assert metrics["live"] is None
    assert metrics["test"]["images"] == 7
    assert metrics["test"]["accuracy"] == pytest.approx(6 / 7)
    assert metrics["test"]["balanced_accuracy"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert [fold["images"] for fold in metrics["cross_validation"]["folds"]] == [6, 7]
    assert metrics["cross_validation"]["folds"][1]["accuracy"] == pytest.approx(6 / 7)
    (wrong,) = [row for row in predictions.of_test(table).to_pylist() if row["label"] != row["predicted"]]
    assert (wrong["label"], wrong["predicted"], wrong["uri"]) == ("green", "red", uri(len(IMAGES) - 2))
    assert wrong["live_predicted"] is None
    for row in table.to_pylist():
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["confidence"] == pytest.approx(max(row["probabilities"]))
        assert CLASSES[int(np.argmax(row["probabilities"]))] == row["predicted"]


def test_slices_of_the_test_set(first: tuple[pa.Table, dict[str, Any]]) -> None:
    table, metrics = first
    right = {
        (each["by"], each["value"]): (each["images"], each["accuracy"], each["compared"]) for each in metrics["slices"]
    }
    assert right["label", "green"] == (3, pytest.approx(2 / 3), 0)
    assert right["size", "short side 20 px"][0] + right["size", "short side 21 px"][0] == 7
    assert right["camera", "left"][0] + right["camera", "right"][0] == 7
    assert len([by for by, _ in right if by == "brightness"]) == 3
    assert "batch" not in {by for by, _ in right}  # all are of one batch
    assert metrics["slices_left_out"] == []
    assert set(predictions.of_test(table)["group"].to_pylist()) <= {f"group-{number}" for number in range(len(IMAGES))}


def test_slices_by_a_column_that_is_none_are_refused_before_anything_is_measured(
    candidate: evaluating.Candidate, tmp_path: Path
) -> None:
    nothing = replace(candidate, models=tmp_path)
    with pytest.raises(SettingsError, match="It has camera"):
        evaluating.evaluate(nothing, None, SETTINGS.model_copy(update={"slices": ("weather",)}))


def test_leakage_names_the_pictures(candidate: evaluating.Candidate) -> None:
    tested, trained = ids_of(candidate, "test")[0], ids_of(candidate, "train")[0]
    leaking = replace(candidate, links=Links(((tested, trained),), {}))
    found = evaluating.evaluate(leaking, None, SETTINGS)[1]["leakage"]
    named = dict(zip(*(candidate.manifest[name].to_pylist() for name in ("image_id", "uri")), strict=True))
    assert (found["groups"], found["images"]) == (1, 1)
    assert found["examples"] == [[named[tested], named[trained]]]


def test_the_temperature_comes_from_the_history_and_is_taken_back(
    candidate: evaluating.Candidate, first: tuple[pa.Table, dict[str, Any]]
) -> None:
    assert first[1]["calibration"]["temperature"] is None
    assert first[1]["calibration"]["error_before"] is None
    history = candidate.models / "final/history.json"
    files.write_json(history, {"calibration": {"temperature": 2.0}})
    try:
        table, metrics = evaluating.evaluate(candidate, None, SETTINGS)
    finally:
        history.unlink()
    found = metrics["calibration"]
    assert (found["temperature"], found["error"]) == (2.0, metrics["test"]["calibration_error"])
    losses = [
        -np.log(row["probabilities"][CLASSES.index(row["label"])] ** 2 / np.square(row["probabilities"]).sum())
        for row in predictions.of_test(table).to_pylist()
    ]
    assert found["log_loss_before"] == pytest.approx(np.mean(losses))


def test_nothing_in_quarantine_is_measured(
    candidate: evaluating.Candidate, first: tuple[pa.Table, dict[str, Any]]
) -> None:
    table, _ = first
    assert not set(table["image_id"].to_pylist()) & set(ids_of(candidate, "quarantine"))
    assert table.num_rows == len(IMAGES) - 1


def test_live_is_scored_on_what_it_has_not_seen_and_wrong_about_a_new_class(
    candidate: evaluating.Candidate, tmp_path: Path
) -> None:
    (tmp_path / "3").mkdir()
    model(tmp_path / "3/model.keras", ("red", "green"), 16)
    files.write_json(tmp_path / "3/card.json", {"classes": ["red", "green"]})
    seen = ids_of(candidate, "train") + ids_of(candidate, "test")[:2]
    files.write_table(tmp_path / "3/training.parquet", pa.table({"image_id": seen}))
    pointer = {"version": 3, "generation": 4, "path": str(tmp_path / "3"), "digest": "x"}
    live = evaluating.read_live(pointer)
    assert live is not None
    table, metrics = evaluating.evaluate(candidate, live, SETTINGS)
    found = metrics["live"]
    assert (found["version"], found["images"], found["excluded"]) == (3, 5, 2)
    assert found["new_classes"] == ["blue"]
    assert found["per_class"]["blue"]["live_recall"] in {0, None}
    rows = predictions.of_test(table).to_pylist()
    unseen = [row for row in rows if row["live_predicted"] is not None]
    assert {row["image_id"] for row in rows} - {row["image_id"] for row in unseen} == set(seen[-2:])
    assert {row["live_predicted"] for row in unseen} <= {"red", "green"}
    assert found["accuracy"] == pytest.approx(np.mean([row["label"] == row["live_predicted"] for row in unseen]))
    assert found["candidate_accuracy"] == pytest.approx(np.mean([row["label"] == row["predicted"] for row in unseen]))
    known = [row for row in unseen if row["label"] in {"red", "green"}]
    assert found["log_loss_images"] == len(known)
    losses = [-np.log(row["live_probabilities"][("red", "green").index(row["label"])]) for row in known]
    assert found["log_loss"] == pytest.approx(np.mean(losses))
    by_label = {each["value"]: each for each in metrics["slices"] if each["by"] == "label"}
    assert sum(each["compared"] for each in by_label.values()) == len(known)
    assert (by_label["blue"]["compared"], by_label["blue"]["difference"]) == (0, None)
    for by in ("size", "camera", "brightness"):
        assert sum(each["compared"] for each in metrics["slices"] if each["by"] == by) == len(known) < 5


def test_live_that_has_seen_all_test_images_is_compared_with_on_none(
    candidate: evaluating.Candidate, tmp_path: Path
) -> None:
    model(tmp_path / "model.keras", CLASSES, 16)
    live = evaluating.Live(3, tmp_path / "model.keras", CLASSES, frozenset(ids_of(candidate, "test")))
    _, metrics = evaluating.evaluate(candidate, live, SETTINGS)
    found = metrics["live"]
    assert (found["images"], found["excluded"], found["log_loss_images"]) == (0, 7, 0)
    assert found["difference"] is found["accuracy_difference_low"] is found["mcnemar"]["p_value"] is None
    assert {each["compared"] for each in metrics["slices"]} == {0}
    json.dumps(metrics, allow_nan=False)


def test_no_live_model() -> None:
    assert evaluating.read_live({"version": None, "generation": 0, "path": None, "digest": None}) is None


def test_a_model_of_other_classes_is_refused(candidate: evaluating.Candidate, tmp_path: Path) -> None:
    model(tmp_path / "model.keras", ("red", "green"), 16)
    index = shard_index.load_index(candidate.shards)
    with pytest.raises(ModelError, match="Expected 3 probabilities"):
        measuring.predict(tmp_path / "model.keras", 3, candidate.shards, index, [], batch_size=4, what="x")


def test_an_image_that_the_shards_lack_is_an_error(candidate: evaluating.Candidate) -> None:
    index = shard_index.load_index(candidate.shards)
    ids = [*ids_of(candidate, "test"), "0" * 64]
    with pytest.raises(DataError, match=r"Expected 8 images in the shards .* found 7"):
        measuring.predict(
            candidate.models / "final/model.keras", 3, candidate.shards, index, ids, batch_size=4, what="x"
        )


def test_a_model_that_answers_nan_is_refused(candidate: evaluating.Candidate, tmp_path: Path) -> None:
    model(tmp_path / "model.keras", CLASSES, 16)
    network = keras.saving.load_model(tmp_path / "model.keras")
    network.layers[-1].set_weights([np.full((3, 3), np.nan, np.float32), np.zeros(3, np.float32)])
    network.save(tmp_path / "model.keras")
    index = shard_index.load_index(candidate.shards)
    ids = ids_of(candidate, "test")
    with pytest.raises(ModelError, match="NaN"):
        measuring.predict(tmp_path / "model.keras", 3, candidate.shards, index, ids, batch_size=4, what="x")


def test_confusion_pairs(first: tuple[pa.Table, dict[str, Any]]) -> None:
    pairs = predictions.confusion_pairs(first[0]).to_pylist()
    assert len(pairs) == 7
    assert pairs.count({"actual": "green", "predicted": "red"}) == 1


def test_measuring_is_repeatable(candidate: evaluating.Candidate, first: tuple[pa.Table, dict[str, Any]]) -> None:
    table, metrics = evaluating.evaluate(candidate, None, SETTINGS)
    assert table.equals(first[0])
    assert metrics == first[1]
