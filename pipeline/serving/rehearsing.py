"""The exported model, tried as it will be served: metrics/serving.json."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline import files
from pipeline.backbones import registry
from pipeline.dataset import records
from pipeline.dataset.shard_index import load_index
from pipeline.errors import DataError, SettingsError
from pipeline.evaluation import predictions
from pipeline.serving import container, input_contract, process, rest
from pipeline.serving.process import Found, Job
from pipeline.settings import Serve
from pipeline.training import export, forms, parity

logger = logging.getLogger(__name__)

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
BATCHES = (1, 32)
# The table's answers may come from a GPU that rounds (TensorFloat-32); classes nearer than this may change places.
_NEAR = 0.02
_AS_NUMBERS = 4  # images that the container gets as JSON numbers, about 0.6 MB each; as files it gets all


@dataclass(frozen=True)
class Reference:
    """What model.keras, which was measured, answers to `images`, uint8 [N, S, S, 3]: float32 [N, classes]."""

    images: NDArray[np.uint8]
    answers: NDArray[np.float32]
    classes: tuple[str, ...]


def rehearse(model: Path, shards: Path, answered: pa.Table, settings: Serve, *, run: Path) -> dict[str, Any]:
    """What metrics/serving.json holds. Whatever the served model does wrong is a finding in it.

    Args:
        model: models/final.
        answered: data/predictions.parquet.
        run: whose stage this is; containers that it left behind earlier are removed.

    Raises `ModelError` if model.keras cannot be read, `DataError` without a single image.
    """
    trained = export.load(model / forms.KERAS)
    history = files.read_json(model / "history.json")
    images, measured = _images(shards, answered, trained.input_shape[1], settings.images)
    with parity.float32():
        answers = np.asarray(parity.answering(trained)(images), np.float32)
    reference = Reference(images, answers, export.class_names(trained))
    contract = _contract(trained, history)
    parameters = int(trained.count_params())
    del trained
    keras.utils.clear_session()

    saved_model = model / "saved_model"
    found = process.run(_job(saved_model, settings, answers=True), images, limit=settings.timeout)
    return {
        "model_digest": files.sha256(model / forms.KERAS),
        "fresh_process": _fresh_process(found, reference, measured),
        "container": _container(saved_model, reference, settings, run),
        "latency": {
            "cpu": found.latency if isinstance(found, Found) else None,
            "gpu": _on_gpu(saved_model, images, settings),
        },
        "size": {
            "saved_model_bytes": sum(path.stat().st_size for path in saved_model.rglob("*") if path.is_file()),
            "keras_bytes": (model / forms.KERAS).stat().st_size,
            "parameters": parameters,
        },
        "input_contract": _with_served(contract, found) | {"scaling": _scaling(history)},
    }


def _images(
    shards: Path, answered: pa.Table, size: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Held-out images, the first by id, which is a digest: drawn by chance, and the same ones every time.

    With what data/predictions.parquet holds for them. Without a test set other images of the shards, and None.
    """
    index = load_index(shards)
    test = {row["image_id"]: row["probabilities"] for row in predictions.of_test(answered).to_pylist()}
    known = test or dict.fromkeys(answered["image_id"].to_pylist())
    chosen = sorted(known)[:count]
    with records.damage_named(shards, index):
        pictures = records.dataset(shards, index, dict.fromkeys(chosen, 0), size=size).as_numpy_iterator()
        found = {picture["id"].decode(): picture["image"] for picture in pictures}
    if not found or found.keys() != set(chosen):
        raise DataError(
            f"Expected {len(chosen)} measured images in the shards {shards}, found {len(found)} of them.",
            fix="run the stages shard and evaluate again",
        )
    images = np.stack([found[image_id] for image_id in chosen])
    return images, np.array([test[image_id] for image_id in chosen], np.float32) if test else None


def _job(saved_model: Path, settings: Serve, *, answers: bool) -> Job:
    return Job(
        saved_model=str(saved_model.absolute()),
        device="cpu" if answers else "gpu",
        answers=answers,
        batches=BATCHES,
        calls=settings.calls,
        seconds=settings.seconds,
    )


def _fresh_process(found: Found | str, reference: Reference, measured: NDArray[np.float32] | None) -> dict[str, Any]:
    nothing = dict.fromkeys(
        (
            "tolerance",
            "max_difference",
            "same_answers",
            "bytes_difference",
            "same_classes",
            "load_seconds",
            "peak_memory_mib",
        )
    )
    if isinstance(found, str):
        return {"status": FAILED, "reason": found, "images": len(reference.images)} | nothing
    by_image, by_file = (apart(reference.answers, answers) for answers in (found.by_image, found.by_file))
    same_classes = found.classes == reference.classes
    same = measured is None or _same_classes(measured, found.by_image)
    problems = [
        *_difference("serving_default", by_image),
        *_difference("encoded", by_file),
        *([] if same_classes else ["The signature classes names others than the trained model."]),
        *([] if same else ["Images get other classes than in data/predictions.parquet."]),
    ]
    return {
        "status": FAILED if problems else PASSED,
        "reason": " ".join(problems) or None,
        "images": len(reference.images),
        "tolerance": parity.TOLERANCE,
        "max_difference": by_image,
        "same_answers": same,
        "bytes_difference": by_file,
        "same_classes": same_classes,
        "load_seconds": found.load_seconds,
        "peak_memory_mib": found.peak_memory_mib,
    }


def apart(expected: NDArray[np.float32], answers: NDArray[np.float32] | None) -> float | None:
    """Largest difference of a probability; None for answers of another shape or that are not finite."""
    if answers is None or answers.shape != expected.shape or not np.isfinite(answers).all():
        return None
    return float(np.abs(expected - answers).max())


def _difference(signature: str, difference: float | None) -> list[str]:
    if difference is None:
        return [f"Signature {signature}: the answers are not finite or of another shape."]
    if difference > parity.TOLERANCE:
        return [f"Signature {signature}: the answers differ by {difference:.2g} from model.keras's."]
    return []


def _same_classes(measured: NDArray[np.float32], served: NDArray[np.float32] | None) -> bool:
    if served is None or measured.shape != served.shape:
        return False
    rows = np.arange(len(measured))
    lead = measured.max(axis=1) - measured[rows, served.argmax(axis=1)]
    return bool((lead <= _NEAR).all())


def _on_gpu(saved_model: Path, images: NDArray[np.uint8], settings: Serve) -> dict[str, dict[str, float]] | None:
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return None
    found = process.run(_job(saved_model, settings, answers=False), images, limit=settings.timeout)
    if isinstance(found, Found):
        return found.latency
    logger.warning("serve: no latency on the GPU: %s", found)
    return None


def _contract(model: keras.Model, history: Mapping[str, Any]) -> input_contract.Finding:
    try:
        backbone = registry.get(history["backbone"])
        return input_contract.check(model, backbone, history["filters"])
    except SettingsError as error:
        return input_contract.Finding(False, error.problem)
    except Exception as error:  # a model of another build: whatever it does is what is to be found out
        return input_contract.Finding(False, f"The check could not be carried out: {error!r:.300}")


def _with_served(contract: input_contract.Finding, found: Found | str) -> dict[str, Any]:
    if contract.passed and isinstance(found, Found) and not found.floats_refused:
        contract = input_contract.Finding(False, "Expected the SavedModel to refuse floats in 0-1, it answers.")
    return {"passed": contract.passed, "detail": contract.detail}


def _scaling(history: Mapping[str, Any]) -> str | None:
    try:
        return registry.get(history["backbone"]).scaling
    except SettingsError:
        return None


def _container(saved_model: Path, reference: Reference, settings: Serve, run: Path) -> dict[str, Any]:
    answer: dict[str, Any] = {"status": SKIPPED, "reason": None, "image": settings.image, "max_difference": None}
    if settings.container == "never":
        return answer | {"reason": "serve.container is never."}
    try:
        container.check(settings.image, pull=settings.pull)
        with container.serving(settings.image, saved_model, owner=run) as server:
            return answer | asked(server, reference, settings.timeout)
    except container.Unavailable as error:
        status = FAILED if settings.container == "required" else SKIPPED
        return answer | {"status": status, "reason": str(error)}


def asked(server: container.Server, reference: Reference, limit: float) -> dict[str, Any]:
    """`status`, `reason` and `max_difference` of a server that has been started."""
    try:
        rest.wait(server.port, container.MODEL, limit=limit, alive=server.alive)
        few = reference.images[:_AS_NUMBERS]
        by_image = rest.by_image(server.port, container.MODEL, few)
        by_file = rest.by_file(server.port, container.MODEL, _files(reference.images))
    except rest.NoAnswer as error:
        words = server.last_words()
        return {"status": FAILED, "reason": f"{error} {f'It said: {words}' if words else ''}".strip()}
    differences = apart(reference.answers[: len(few)], by_image), apart(reference.answers, by_file)
    problems = [*_difference("serving_default", differences[0]), *_difference("encoded", differences[1])]
    known = [difference for difference in differences if difference is not None]
    return {
        "status": FAILED if problems else PASSED,
        "reason": " ".join(problems) or None,
        "tolerance": parity.TOLERANCE,
        "max_difference": max(known) if len(known) == len(differences) else None,
    }


def _files(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> list[bytes]:
    contents = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    return contents
