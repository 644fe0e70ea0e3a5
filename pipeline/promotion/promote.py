"""Acts on the world: publishes the candidate and moves the live pointer, if the decision says so."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import files
from pipeline.dataset import manifest
from pipeline.errors import PromotionRefused
from pipeline.profiling import batches
from pipeline.promotion import approval, audit, card, card_text
from pipeline.promotion.approval import DECISION, Approval
from pipeline.promotion.registry import CARD, MODEL, Registry

FINAL = "models/final"
_FORMS = ("model.tflite", "model.onnx")
_AGAIN = "run the stages evaluate and gate again"


def promote(
    run: Path, registry: Registry, *, reason: str | None = None, answer: Approval | None = None
) -> dict[str, Any]:
    """Carry out `decision.json` of a run; writes and returns its promotion.json.

    `reason` goes into the audit log instead of the decision's summary. `answer` is that of the person whom the
    decision asks, if it asks one; a rejection is recorded and changes nothing else.

    Raises `PromotionRefused` if there is no decision, the decision is about another model or asks for an approval
    that is not there, or the live model is no longer the one that the candidate was compared with. Repeating a
    promotion changes nothing, also after others have moved the pointer on.
    """
    if not (run / DECISION).exists():
        raise PromotionRefused("This run has no decision.", fix="run its gate stage first")
    decision = files.read_json(run / DECISION)
    if not decision["promote"]:
        return _record(run, None, decision["summary"])
    _require_decided(run / FINAL, decision)
    done = _carried_out(registry, decision)
    if done is not None and (answer is None or answer.approved):
        return _record(run, done, done["reason"])
    approval.require(decision, answer, run)
    if answer is not None and not answer.approved:
        if done is not None:
            raise PromotionRefused(
                f"It is too late to reject this run: {audit.told(done)}", fix="refit rollback --reason TEXT"
            )
        return _reject(run, registry, decision, answer)
    with tempfile.TemporaryDirectory() as scratch:
        version = registry.publish(_content(run, Path(scratch)))
    why = reason or decision["summary"]
    try:
        live = registry.move_live(
            version,
            expected_generation=decision["live_generation"],
            reason=why,
            kind=audit.PROMOTE,
            run=run.name,
            approval=answer.as_json() if answer else None,
        )
    except PromotionRefused:
        if (done := _carried_out(registry, decision)) is None:
            raise
        return _record(run, done, done["reason"])  # by a twin of this process
    said = answer.as_json() if answer else None
    return _record(run, {"version": live.version, "generation": live.generation, "approval": said}, why)


def _reject(run: Path, registry: Registry, decision: Mapping[str, Any], answer: Approval) -> dict[str, Any]:
    said = {key: value for key, value in answer.as_json().items() if key != "approved"}
    registry.storage.add_rejection(
        {"run": run.name, "digest": decision["model_digest"], "live_version": decision["live_version"], **said}
    )
    return _record(run, None, f"Rejected by {answer.by}: {answer.reason}", answer.as_json())


def _require_decided(final: Path, decision: Mapping[str, Any]) -> None:
    """The decision binds the model in all of its forms. Raises `PromotionRefused`."""
    if not (final / MODEL).exists():
        raise PromotionRefused(f"Expected the decided model in {final}, found none.", fix="run the stage train again")
    digest = files.sha256(final / MODEL)
    if digest != decision["model_digest"]:
        raise PromotionRefused(
            f"The decision is about the model {decision['model_digest'][:12]}, {FINAL} holds {digest[:12]}.", fix=_AGAIN
        )
    forms = decision.get("forms_digest")
    if forms is not None and (found := files.sha256_tree(final)) != forms:
        raise PromotionRefused(
            f"The decision is about the exported forms {forms[:12]}, {FINAL} holds {found[:12]}.", fix=_AGAIN
        )


def _carried_out(registry: Registry, decision: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The move that has carried out this decision. A generation is given once, so it can be no other's."""
    generation = decision["live_generation"] + 1
    if generation in registry.storage.generations():
        move = registry.storage.move(generation)
        return move if move["digest"] == decision["model_digest"] else None
    live = registry.pointer()
    return registry.storage.move(live.generation) if live.digest == decision["model_digest"] else None


def _record(
    run: Path, move: Mapping[str, Any] | None, reason: str, answer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`move`: the one that carried the decision out, if any."""
    move = move or {}
    promotion = {
        "promoted": bool(move),
        "version": move.get("version"),
        "generation": move.get("generation"),
        "reason": reason,
        "approval": move.get("approval") or answer,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_json(run / "promotion.json", promotion)
    return promotion


def _content(run: Path, scratch: Path) -> dict[str, Path]:
    final = run / FINAL
    known = card.collect(run)
    files.write_json(scratch / CARD, known)
    stub = final / "card.md"
    files.write_text(scratch / "card.md", card_text.complete(stub.read_text() if stub.exists() else "", known))
    files.write_table(scratch / "training.parquet", _training_rows(run))
    return {
        MODEL: final / MODEL,
        **{name: final / name for name in _FORMS if (final / name).exists()},
        **{name: scratch / name for name in (CARD, "card.md", "training.parquet")},
        **{name: run / name for name in ("decision.json", "params.yaml", "dvc.lock")},
        **{path.name: path for path in sorted((final / "saved_model").iterdir())},
    }


def _training_rows(run: Path) -> pa.Table:
    """Feature rows of the images that the model learned from or was selected by."""
    assignment = pq.read_table(run / "data/assignment.parquet")
    used = assignment.filter(pc.is_in(assignment["split"], pa.array(["train", "val"])))["image_id"]
    features = batches.current(
        manifest.read_batches(run / "data/manifest"), manifest.read_batches(run / "data/features")
    )
    return features.filter(pc.is_in(features["image_id"], used.combine_chunks()))
