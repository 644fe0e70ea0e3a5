"""A run directory as the stages leave it, written stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image

from pipeline import files
from pipeline.dataset import manifest, store
from pipeline.evaluation import comparing, predictions, results, slices
from pipeline.evaluation.intervals import Resampling
from pipeline.settings import code_root, read_params, with_overrides
from pipeline.stage import DONE

CLASSES = ("carriage", "crazing", "inclusion", "patches", "pitted surface", "rolled-in scale", "scratches", "unlisted")
HOW = Resampling(resamples=200, confidence=0.95, seed=0)
PARTS = ("fold-0", "fold-1", "fold-2", "final")


@dataclass(frozen=True)
class Workspace:
    """`images` test images in `classes`; with a `live` model or without. Images go to $REFIT_HOME."""

    path: Path
    classes: tuple[str, ...] = CLASSES
    images: int = 240
    live: bool = True
    message: str = "the run's own words"  # stands wherever a stage may quote what came from outside
    overrides: tuple[str, ...] = ("ingest.source=/photos/steel", "train.phases.finetune.unfreeze.top=5")

    def stages(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("create", self.create),
            ("ingest", self.ingest),
            ("profile", self.profile),
            ("validate", self.validate),
            ("shard", self.shard),
            *((f"train@{part}", lambda part=part: self.train(part)) for part in PARTS),  # type: ignore[misc]
            ("evaluate", self.evaluate),
            ("diagnose", self.diagnose),
            ("serve", self.serve),
            ("gate", self.gate),
            ("promote", self.promote),
        ]

    def until(self, last: str) -> Workspace:
        """Write everything up to and including the stage `last`."""
        for name, write in self.stages():
            write()
            files.write_text(self.path / DONE / name, "")
            if name == last:
                return self
        raise ValueError(last)

    def write(self, name: str, content: Any) -> None:
        files.write_json(self.path / name, content)

    def create(self) -> None:
        params = with_overrides(read_params(code_root() / "params.yaml"), self.overrides)
        files.write_text(self.path / "params.yaml", yaml.safe_dump(params))
        self.status("running")
        live = {"version": 3, "generation": 5, "path": "/registry/classifier/3", "digest": "ab" * 32}
        self.write("live.json", live if self.live else dict.fromkeys(live) | {"generation": 0})

    def status(self, status: str) -> None:
        record = {
            "run_id": "20260301-021500-123",
            "status": status,
            "created_at": "2026-03-01T02:15:00.123+00:00",
            "model": "steel",
            "parent": "20260222-021500-007" if self.live else None,
            "fingerprint": "cd" * 32,
            "owner": None,
        }
        self.write("run.json", record)

    def ingest(self) -> None:
        rows = [
            {
                "uri": f"/photos/steel/{self.classes[number % len(self.classes)]}/{number:04d}.jpg",
                "source_version": "1",
                "label": self.classes[number % len(self.classes)],
                "bytes": 10,
                "batch": "0002",
                "reason": ("damaged", "exact-duplicate", "not-an-image")[number % 3],
                "detail": self.message,
            }
            for number in range(130)
        ]
        table = pa.Table.from_pylist(rows, manifest.QUARANTINE_SCHEMA)
        files.write_table(self.path / "data/quarantine/current.parquet", table)
        batches = [
            {"batch": "0001", "listed": 1400, "known": 0, "accepted": 1400, "removed": 0, "quarantined": {}},
            {
                "batch": "0002",
                "listed": 1730,
                "known": 1400,
                "accepted": 200,
                "removed": 3,
                "quarantined": {"damaged": 44, "exact-duplicate": 43, "not-an-image": 43},
            },
        ]
        self.write(
            "metrics/ingest.json", {"images": 1600, "classes": dict.fromkeys(self.classes, 200), "batches": batches}
        )

    def profile(self) -> None:
        feature = {"median": 200.0, "p05": 64.0, "p95": 640.5, "live_median": 198.0 if self.live else None}
        against = {"against": "live", "threshold": 0.12, "detail": None}
        drift = [
            against | {"feature": "brightness", "distance": 0.31, "p_value": 0.00012, "drifted": True},
            against | {"feature": "contrast", "distance": 0.04, "p_value": 0.7, "drifted": False},
        ]
        content = {
            "images": 1600,
            "new_images": 200,
            "live_classes": dict.fromkeys(self.classes[:-1], 120) if self.live else None,
            "features": {name: feature | {"imagenet": 375.0} for name in ("width", "height", "brightness")},
            "drift": drift if self.live else [],
            "imagenet_gap": [
                "97% of the images are grey; of ImageNet's 2% are.",
                "The median image is 200 pixels high, half of ImageNet's 375.",
            ],
            "domain_gap": {"score": 0.61, "words": "another kind of picture", "images": 1600, "parts": {}},
        }
        self.write("metrics/profile.json", content)

    def validate(self, severity: str = "warn") -> None:
        finding = {
            "check": "drift",
            "severity": severity,
            "message": "the 200 new images differ from what the live model was trained on in brightness",
            "fix": self.message,
            "numbers": {"brightness": 0.31},
            "examples": ["/photos/steel/crazing/0007.jpg"],
        }
        self.write("reports/validation/verdict.json", {"verdict": severity, "findings": [finding]})

    def augmentation(self) -> None:
        """Strips of two tiles: one class whose name must be escaped, and mixed images."""
        folder = self.path / "reports/augmentation"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            strip = np.full((144, 288, 3), 60 * (number + 1), np.uint8)
            Image.fromarray(strip).save(folder / f"{number:02d}.jpg", "JPEG")
        rows = [{"label": self.classes[0], "file": "00.jpg"}, {"label": "", "file": "01.jpg"}]
        self.write("reports/augmentation/index.json", {"rows": rows, "views": 2, "tile": 144})

    def shard(self) -> None:
        self.augmentation()
        # One image of each class came to be a near duplicate of a test image.
        counts = {"train": 139, "val": 30, "test": 30, "quarantine": 1}
        content = {
            "images": {split: count * len(self.classes) for split, count in counts.items()},
            "classes": {split: dict.fromkeys(self.classes, count) for split, count in counts.items()},
            "shares": {
                "train": {"wanted": 0.7, "got": 139 / 199},
                "val": {"wanted": 0.15, "got": 30 / 199},
                "test": {"wanted": 0.15, "got": 30 / 199},
            },
            "groups": 1490,
            "groups_in": {"train": 1042, "val": 224, "test": 224},
            "largest_group": 7,
            "folds": [],
            "quarantined": {"train image, near duplicate of a test image": len(self.classes)},
            "shortfalls": [
                f"class {self.classes[0]!r}: 1 of 2 wanted test images: its 9 images are 2 groups",
                self.message,
            ],
        }
        self.write("metrics/shard.json", content)

    def train(self, part: str) -> None:
        (self.path / "logs" / part).mkdir(parents=True, exist_ok=True)
        phases = [_phase("head", 34, 1.9, 0.42, 25), _phase("finetune", 10, 0.45, 0.19, 8)]
        content = {
            "phases": phases,
            "kept_phase": "finetune",
            "classes": list(self.classes),
            "images": {"train": 1120, "val": 240},
            "environment": {
                "python": "3.11.7",
                "backend": "tensorflow",
                "cpu": {"model": "Xeon", "cores": 2},
                "gpus": [],
                "devices": ["cpu:0"],
                "packages": {"keras": "3.15.0", "tensorflow": "2.16.2"},
            },
        }
        self.write(f"models/{part}/history.json", content)

    def answers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels [N], probabilities [N, C], and the live model's answers [N]; right nine times of ten."""
        generator = np.random.default_rng(3)
        labels = np.arange(self.images) % max(len(self.classes) - 1, 1)  # the last class has no test image
        logits = generator.normal(size=(self.images, len(self.classes)))
        logits[np.arange(self.images), labels] += 3.2
        logits[:, 1] += 0.8 * (labels == 2)
        exponentials = np.exp(2 * logits)
        theirs = np.where(
            generator.random(self.images) < 0.88, labels, generator.integers(0, len(self.classes), self.images)
        )
        return labels, exponentials / exponentials.sum(axis=1, keepdims=True), theirs

    def evaluate(self) -> None:
        labels, probabilities, theirs = self.answers()
        ours = probabilities.argmax(axis=1)
        ids = [
            self.picture(number) if ours[number] != labels[number] else f"{number:064d}"
            for number in range(self.images)
        ]
        rows = [
            {
                "image_id": ids[number],
                "uri": f"/photos/steel/{self.classes[labels[number]]}/{number:04d}.jpg",
                "label": self.classes[labels[number]],
                "predicted": self.classes[ours[number]],
                "confidence": float(probabilities[number].max()),
                "probabilities": probabilities[number].tolist(),
                "live_predicted": self.classes[theirs[number]] if self.live else None,
                "live_confidence": 0.8 if self.live else None,
                "source": predictions.TEST,
                "group": f"{number:064d}",
            }
            for number in range(self.images)
        ]
        files.write_table(self.path / "data/predictions.parquet", pa.Table.from_pylist(rows, predictions.SCHEMA))
        groups = np.arange(self.images)
        folds = [
            {"fold": fold, "images": 453, "accuracy": score + 0.01, "balanced_accuracy": score}
            for fold, score in enumerate((0.921, 0.905, 0.938))
        ]
        test, calibration = results.of_test(
            labels, probabilities, groups, self.classes, temperature=1.4, top_k=(3, 5), how=HOW
        )
        camera = slices.named("camera", [("left", self.message)[number % 2] for number in range(self.images)])
        parts, left_out = slices.measure(
            [camera],
            ours == labels,
            dict(enumerate(theirs == labels)) if self.live else None,
            groups,
            smallest=10,
            how=HOW,
        )
        numbers = {
            "test": test,
            "calibration": calibration,
            "cross_validation": results.of_folds(folds),
            "live": None,
            "slices": parts,
            "slices_left_out": [
                *left_out,
                {"by": self.message, "value": self.message, "images": 3, "reason": slices.FEW_IMAGES},
            ],
            "leakage": {"groups": 1, "images": 2, "folds": 0, "examples": [["/photos/a.jpg", self.message]]},
        }
        if self.live:
            live_classes = (*self.classes[:-1], "slag")
            numbers["live"] = {
                "version": 3,
                "excluded": 4,
                **comparing.compare(
                    labels,
                    [self.classes[number] for number in ours],
                    [self.classes[number] for number in theirs],
                    groups,
                    classes=self.classes,
                    live_classes=live_classes,
                    how=HOW,
                ),
                **comparing.log_losses(
                    labels,
                    probabilities,
                    np.eye(len(self.classes))[theirs],
                    classes=self.classes,
                    live_classes=live_classes,
                ),
            }
        self.write("metrics/evaluate.json", results.without_nan(numbers))

    def picture(self, number: int) -> str:
        """A photograph-like picture in the store; returns its id."""
        generator = np.random.default_rng(number)
        coarse = Image.fromarray(generator.integers(60, 200, (12, 12), dtype=np.uint8))
        target = self.path / "picture.jpg"
        coarse.resize((200, 200), Image.Resampling.BICUBIC).save(target, quality=90)
        return store.put(target.read_bytes())

    def diagnose(self) -> None:
        causes = [
            {
                "cause": "confused classes",
                "score": 0.62,
                "evidence": ["18 of 31 mistakes are between crazing and inclusion.", self.message],
                "change": {},
                "advice": "Check whether crazing and inclusion can be told apart by eye at the input size.",
            },
            {
                "cause": "too few images",
                "score": 0.21,
                "evidence": ["Half of the 8 classes have 62 different training pictures or fewer."],
                "change": {"train.views": 4},
                "advice": "Collect images, first of unlisted.",
            },
        ]
        self.write("reports/diagnosis.json", {"causes": causes})

    def serve(self) -> None:
        timed = {"calls": 200, "p50_ms": 11.2, "p99_ms": 19.7, "images_per_second": 88.1}
        content = {
            "model_digest": "12" * 32,
            "fresh_process": {
                "status": "passed",
                "reason": None,
                "images": 32,
                "max_difference": 2.4e-7,
                "bytes_difference": 3.1e-7,
                "same_answers": True,
                "same_classes": True,
                "load_seconds": 1.2,
                "peak_memory_mib": 812.5,
                "tolerance": 1e-4,
            },
            "container": {"status": "skipped", "reason": self.message, "image": "serving", "max_difference": None},
            "latency": {"cpu": {"1": timed, "32": timed}, "gpu": None},
            "size": {"saved_model_bytes": 29_517_151, "keras_bytes": 14_367_250, "parameters": 3_443_238},
            "input_contract": {"passed": True, "detail": self.message, "scaling": "lite"},
        }
        self.write("metrics/serving.json", content)

    def gate(self, promote: bool = True) -> None:
        rules = [
            _rule("data verdict", True, "warn", "pass or warn", "The data validation says warn."),
            _rule(
                "test images", True, self.images, 20, f"{self.images} images are held out for the test, at least 20."
            ),
            _rule("balanced accuracy floor", True, 0.912, 0.5, "0.912 test balanced accuracy, at least 0.500."),
            _rule("gain over live", promote, 0.024, 0.0, self.message),
            _rule("fold spread", False, None, 0.25, "There is no figure for: fold spread."),
        ]
        decision = {
            "promote": promote,
            "summary": f"Promote: {self.message}" if promote else f"Refused: {self.message}",
            "rules": rules,
            "warnings": [self.message],
            "borderline": True,
            "model_digest": "12" * 32,
            "forms_digest": "78" * 32,
            "test_uses": {"median": 2.0, "images": self.images, "unused": 0},
            "live_version": 3 if self.live else None,
            "live_generation": 5 if self.live else 0,
            "data_digest": "34" * 32,
            "code_digest": "56" * 32,
        }
        self.write("decision.json", decision)

    def promote(self) -> None:
        moved = {
            "promoted": True,
            "version": 4,
            "generation": 6,
            "reason": "Promote: better.",
            "at": "2026-03-01T02:31:00",
        }
        self.write("promotion.json", moved)
        self.status("promoted")

    def fail(self, problem: str, fix: str) -> None:
        self.write("failure.json", {"problem": problem, "fix": fix, "exit_status": 65})
        self.status("failed")


def _phase(name: str, epochs: int, start: float, end: float, best: int) -> dict[str, Any]:
    generator = np.random.default_rng(epochs)
    fall = np.exp(-np.arange(epochs) / (epochs / 5))
    loss = end + (start - end) * fall
    accuracy = 0.97 - 0.7 * fall * start / 2
    return {
        "name": name,
        "loss": loss.tolist(),
        "accuracy": accuracy.tolist(),
        "val_loss": (loss * 1.12 + generator.normal(0, 0.015, epochs)).tolist(),
        "val_accuracy": (accuracy - 0.03 + generator.normal(0, 0.01, epochs)).tolist(),
        "best_epoch": best,
        "peak_learning_rate": 0.001,
        "seconds": 41.3,
    }


def _rule(rule: str, passed: bool, value: Any, threshold: Any, explanation: str) -> dict[str, Any]:
    return {
        "rule": rule,
        "passed": passed,
        "value": value,
        "threshold": threshold,
        "explanation": explanation,
        "borderline": False,
    }
