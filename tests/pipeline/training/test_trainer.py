from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline import files, settings
from pipeline.backbones import registry
from pipeline.dataset import records
from pipeline.dataset.shard_index import load_index
from pipeline.errors import DataError, ModelError
from pipeline.evaluation import metrics
from pipeline.evaluation.calibration import uncalibrated
from pipeline.settings import Filter, Settings
from pipeline.training import calibration, export, fitted, fitting, forms, parity, phases, trainer
from pipeline.training.devices import ALONE
from pipeline.training.roles import roles
from pipeline.training.trainer import Places
from tests.pipeline.training import tiny, workspace

PARAMS = settings.read_params(settings.code_root() / "params.yaml")


FROZEN = ("train.recipe=linear_probe",)


def quick(*overrides: str) -> Settings:
    """A tiny backbone on thumbnails: two epochs a phase, one block."""
    head_alone = set(FROZEN) & set(overrides)
    quickened = [
        "train.backbone=tiny",
        f"train.input_size={tiny.SIZE}",
        "train.batch_size=8",
        "train.views=1",
        "train.phases.head.epochs=2",
        "train.phases.head.learning_rate=0.01",
        *([] if head_alone else ["train.phases.finetune.unfreeze.top=1", "train.phases.finetune.epochs=2"]),
    ]
    return settings.parse(settings.with_overrides(PARAMS, [*quickened, *overrides]))


def train(
    root: Path, part: str, chosen: Settings, name: str = "run", assignment: pa.Table | None = None
) -> tuple[Path, dict[str, Any]]:
    places = Places(
        shards=root / "data/shards",
        warm_start=root / "warm_start.json",
        models=root / name / "models",
        logs=root / name / "logs",
        curves=root / name / "curves.csv",
        checkpoints=root / name / "checkpoints",
    )
    places.models.mkdir(parents=True, exist_ok=True)
    places.logs.mkdir(exist_ok=True)
    trainer.train(part, chosen, places, ALONE, assignment=assignment or files_table(root), environment={})
    return places.models, files.read_json(places.models / "history.json")


def files_table(root: Path) -> pa.Table:
    return pa.parquet.read_table(root / "data/assignment.parquet")


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tiny backbone in the place of the real ones, which take minutes, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(registry, "_entries", lambda: (tiny.ENTRY,))
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, registered: None) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    workspace.write(root)
    return root


def test_a_fold_is_neither_learned_from_nor_stopped_by(root: Path) -> None:
    table = files_table(root)
    rows = {row["image_id"]: row for row in table.to_pylist()}

    found = roles(table, "fold-1", 3)

    assert len(found.train) == 12
    assert len(found.val) == 3
    assert {(rows[image]["split"], rows[image]["fold"]) for image in found.train} == {("train", 0)}
    assert {(rows[image]["split"], rows[image]["fold"]) for image in found.val} == {("val", 0)}
    assert all(rows[image]["class"] == number for image, number in {**found.train, **found.val}.items())


def test_the_final_part_learns_from_all_folds_and_never_from_test_or_quarantine(root: Path) -> None:
    table = files_table(root)
    quarantined = pa.Table.from_pylist(
        [row | {"split": "quarantine" if row["group"] == "red-0" else row["split"]} for row in table.to_pylist()]
    )
    rows = {row["image_id"]: row for row in quarantined.to_pylist()}

    found = roles(quarantined, "final", 3)

    assert len(found.train) == 23
    assert {rows[image]["split"] for image in found.train} == {"train"}
    assert {rows[image]["split"] for image in found.val} == {"val"}


@pytest.mark.parametrize(
    ("gone", "problem"),
    [
        (lambda row: row["split"] == "train" and row["label"] == "green", "training images of every class.*number 1"),
        (lambda row: row["split"] == "val", "validation images, found none"),
    ],
    ids=["a class without training images", "no validation images"],
)
def test_parts_that_cannot_be_trained(root: Path, gone: Any, problem: str) -> None:
    left = pa.Table.from_pylist([row for row in files_table(root).to_pylist() if not gone(row)])

    with pytest.raises(DataError, match=problem):
        roles(left, "final", 3)


@pytest.fixture(scope="module")
def final(root: Path) -> tuple[Path, dict[str, Any]]:
    return train(root, "final", quick("train.phases.head.epochs=20"), "final")


def test_the_final_part_is_trained_recorded_and_exported(root: Path, final: tuple[Path, dict[str, Any]]) -> None:
    models, history = final

    assert [phase["name"] for phase in history["phases"]] == ["head", "finetune"]
    for phase in history["phases"]:
        lengths = {len(phase[curve]) for curve in ("loss", "accuracy", "val_loss", "val_accuracy")}
        assert lengths == {len(phase["loss"])}
        assert phase["val_loss"][phase["best_epoch"]] == min(phase["val_loss"])
    assert history["classes"] == list(workspace.CLASSES)
    assert history["images"] == {"train": 24, "val": 6, "copies": 0}
    assert history["kept_phase"] == [phase["name"] for phase in history["phases"] if phase["kept"]][-1]

    index = load_index(root / "data/shards")
    ids = {row["image_id"]: row["class"] for row in files_table(root).to_pylist() if row["split"] in {"val", "test"}}
    found = list(records.dataset(root / "data/shards", index, ids, size=tiny.SIZE).as_numpy_iterator())
    model = export.load(models / "model.keras")
    answers = model.predict_on_batch(np.stack([image["image"] for image in found]))
    assert np.mean(answers.argmax(axis=1) == [image["class"] for image in found]) >= 8 / 9
    assert export.class_names(model) == workspace.CLASSES
    served = tf.saved_model.load(str(models / "saved_model"))
    assert set(served.signatures) == {"serving_default", "encoded", "classes"}
    assert list((root / "final/logs").rglob("events.out.tfevents*"))


@pytest.fixture(scope="module")
def doubtful(root: Path) -> pa.Table:
    """An assignment in which two of the six validation images bear wrong labels."""
    rows = files_table(root).to_pylist()
    for row in [row for row in rows if row["split"] == "val"][:2]:
        row["class"] = (row["class"] + 1) % 3
    return pa.Table.from_pylist(rows, files_table(root).schema)


def validation(root: Path, models: Path, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Classes of the validation images, and what model.keras answers."""
    index = load_index(root / "data/shards")
    ids = {row["image_id"]: row["class"] for row in table.to_pylist() if row["split"] == "val"}
    found = list(records.dataset(root / "data/shards", index, ids, size=tiny.SIZE).as_numpy_iterator())
    model = export.load(models / "model.keras")
    probabilities = model.predict_on_batch(np.stack([image["image"] for image in found])).astype(np.float64)
    return np.array([ids[image["id"].decode()] for image in found]), probabilities


def test_an_overconfident_model_is_calibrated_in_its_file(
    root: Path, doubtful: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = phases.run

    def overconfident(session: phases.Session, planned: Any) -> Any:
        fitted = whole(session, planned)
        calibration.fold(session.model.whole, 0.05)
        return fitted

    monkeypatch.setattr(phases, "run", overconfident)
    models, history = train(root, "final", quick(*FROZEN), "overconfident", doubtful)

    found = history["calibration"]
    assert found["temperature"] > 2
    assert found["val_images"] == 6
    assert found["val_log_loss_after"] < found["val_log_loss_before"]
    classes, after = validation(root, models, doubtful)
    before = uncalibrated(after, found["temperature"])
    # Features are kept as float16, and logits were twenty times as large.
    assert metrics.log_loss(classes, after) == pytest.approx(found["val_log_loss_after"], rel=0.02)
    accuracy = np.mean(after.argmax(axis=1) == classes)
    # Six images are one bin of the calibration error.
    assert abs(after.max(axis=1).mean() - accuracy) < 0.5 * abs(before.max(axis=1).mean() - accuracy)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))


def test_training_that_ends_before_its_files_are_written_comes_to_the_same_temperature(
    root: Path, doubtful: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = quick("train.cache_gigabytes=0")  # so that nothing else is left from before
    whole, history = train(root, "final", chosen, "whole", doubtful)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forms, "write", _stopped)
        train(root, "final", chosen, "stopped", doubtful)
    assert (root / "stopped/checkpoints/finished.npz").exists()

    resumed, again = train(root, "final", chosen, "stopped", doubtful)

    assert again["calibration"] == history["calibration"]
    assert again["calibration"]["temperature"] != 1
    for one, other in zip(_weights(whole), _weights(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


def _stopped(*arguments: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def fold(root: Path, registered: None) -> tuple[Path, dict[str, Any]]:
    return train(root, "fold-0", quick(), "fold")


def test_the_same_seed_gives_the_same_model(root: Path, fold: tuple[Path, dict[str, Any]]) -> None:
    models, history = train(root, "fold-0", quick(), "again")

    timeless = {"seconds": 0, "images_per_second": 0}
    for phase, again in zip(fold[1]["phases"], history["phases"], strict=True):
        assert phase | timeless == again | timeless
    for one, other in zip(_weights(fold[0]), _weights(models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_whose_inputs_fit_nowhere_are_trained_online(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        _, history = train(root, "fold-0", quick("train.cache_gigabytes=1.0e-5"), "online")

    assert any("computed anew in each epoch" in message for message in caplog.messages)
    assert [phase["cached"] for phase in history["phases"]] == [True, False]
    assert len(history["phases"][1]["val_loss"]) == 2


def test_mixed_images_are_trained_on_without_keeping_them(root: Path) -> None:
    _, history = train(root, "fold-0", quick("augment.preset=strong"), "mixed")

    finetune = history["phases"][1]
    assert not finetune["cached"]
    for curve in fitted.CURVES:
        assert len(finetune[curve]) == 2
        assert np.isfinite(finetune[curve]).all()


def test_stored_copies_are_learned_from_and_counted(tmp_path: Path) -> None:
    workspace.write(tmp_path, of_red=2)

    _, history = train(tmp_path, "fold-1", quick(*FROZEN))

    assert history["images"] == {"train": 12, "val": 3, "copies": 8}  # two of each of four red ones outside the fold


def test_a_second_phase_that_makes_it_worse_is_undone(root: Path, fold: tuple[Path, dict[str, Any]]) -> None:
    """At this rate the last block is wrecked. The first phase is that of `fold`, which had the same seed."""
    models, history = train(root, "fold-0", quick("train.phases.finetune.learning_rate=5.0"), "worse")

    head, finetune = history["phases"]
    assert min(finetune["val_loss"]) >= min(head["val_loss"])
    assert history["kept_phase"] == "head"
    kept, _ = train(root, "fold-0", quick(*FROZEN), "head-only")
    backbone = export.load(models / "model.keras").get_layer("tiny")
    untouched = export.load(kept / "model.keras").get_layer("tiny")
    for one, other in zip(backbone.get_weights(), untouched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_that_do_not_fit_are_halved_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU whose memory takes four images."""
    whole, tried = fitting.fit, []

    def scarce(*arguments: Any, batch_size: int, **more: Any) -> Any:
        tried.append(batch_size)
        if batch_size > 4:
            raise fitting.OutOfMemory("too small", fix="lower train.batch_size")
        return whole(*arguments, batch_size=batch_size, **more)

    monkeypatch.setattr(fitting, "fit", scarce)
    _, history = train(root, "fold-1", quick(*FROZEN), "scarce")

    assert tried == [8, 4]
    assert [phase["batch_size"] for phase in history["phases"]] == [4]
    assert any("halved to 4 images" in message for message in caplog.messages)
    with pytest.raises(ModelError, match="too small"):
        train(root, "fold-1", quick(*FROZEN, "train.batch_size=16"), "scarcer")


def test_a_final_model_starts_from_the_live_one_and_a_fold_does_not(
    root: Path, final: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    live, _ = final
    learned = export.load(live / "model.keras").get_layer("tiny").get_weights()
    original = tiny.build(tiny.SIZE, pretrained=True).get_weights()
    files.write_json(root / "warm_start.json", {"model": str(live / "model.keras")})
    try:
        warm, history = train(root, "final", quick("train.weights=live", *FROZEN), "warm")
        with caplog.at_level("INFO"):
            _, of_fold = train(root, "fold-0", quick("train.weights=live", *FROZEN), "warm-fold")
    finally:
        files.write_json(root / "warm_start.json", {})

    kept = export.load(warm / "model.keras").get_layer("tiny").get_weights()
    for one, other in zip(kept, learned, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(one, other) for one, other in zip(kept, original, strict=True))
    assert history["weights"] == str(live / "model.keras")
    assert of_fold["weights"] == "imagenet"
    assert any("as folds must" in message for message in caplog.messages)


def test_no_blocks_means_no_second_phase(root: Path) -> None:
    _, history = train(root, "fold-1", quick(*FROZEN), "frozen")

    assert [phase["name"] for phase in history["phases"]] == ["head"]
    assert history["kept_phase"] == "head"


@pytest.mark.parametrize("filters", [["grayscale", "contours"], ["clahe", "edges"]], ids="-".join)
def test_filters_are_part_of_what_is_exported(root: Path, filters: list[Filter]) -> None:
    models, history = train(root, "final", quick(f"train.filters={filters}", *FROZEN), "-".join(filters))

    assert history["filters"] == filters
    images, _, _ = tiny.pictures(6, seed=3)
    model = export.load(models / "model.keras")
    assert [layer.name for layer in model.layers if layer.name in filters] == filters
    answers = model.predict_on_batch(images)
    served = tf.saved_model.load(str(models / "saved_model")).signatures
    by_image = served["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(by_image, answers, atol=parity.TOLERANCE)
    by_file = served["encoded"](encoded=tf.constant([tf.io.encode_png(image).numpy() for image in images]))
    np.testing.assert_allclose(by_file["probabilities"], answers, atol=parity.TOLERANCE)


def test_training_that_diverges_leaves_no_model(root: Path) -> None:
    with pytest.raises(ModelError, match=r"train\.phases\.head\.learning_rate"):
        train(root, "fold-0", quick("train.phases.head.learning_rate=1.0e+38"), "diverged")

    assert not (root / "diverged/models/model.keras").exists()


def _weights(models: Path) -> list[np.ndarray]:
    return export.load(models / "model.keras").get_weights()
