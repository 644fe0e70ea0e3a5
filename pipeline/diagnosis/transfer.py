"""Fine-tuning that did not help: what the backbone knew was lost, or there is nothing to gain."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.diagnosis.cause import Cause, need, ramp
from pipeline.diagnosis.facts import Facts


def find(facts: Facts) -> Iterator[Cause]:
    """Score: need x ramp of the fine-tuned model's higher validation loss, relative to the frozen one's, 0 to 50 %."""
    frozen = [phase for phase in facts.phases if not facts.unfrozen(phase.name)]
    learned = [phase for phase in facts.phases if facts.unfrozen(phase.name)]
    if not frozen or not learned:
        return
    head, tuned = frozen[-1], min(learned, key=lambda phase: phase.val_loss[phase.best])
    before, after = head.val_loss[head.best], tuned.val_loss[tuned.best]
    rise = (after - before) / max(before, 1e-6)
    yield Cause(
        "fine-tuning harms",
        need(facts) * ramp(rise, 0, 0.5),
        (
            f"Validation loss is {before:.3f} with the frozen backbone and at best {after:.3f} after fine-tuning "
            f"{facts.unfrozen(tuned.name)} blocks at rate {tuned.learning_rate:g}.",
            f"Validation accuracy goes from {head.val_accuracy[head.best]:.3f} to "
            f"{tuned.val_accuracy[tuned.best]:.3f}.",
        ),
        "Fine-tune more gently; with few images a frozen backbone is often the best there is.",
        {f"train.phases.{tuned.name}.learning_rate": float(f"{tuned.learning_rate / 4:.2g}")},
    )
