"""What tests publish instead of a trained model."""

from __future__ import annotations

from pathlib import Path

from pipeline.promotion.registry import MODEL, Registry


def content(folder: Path, text: str) -> dict[str, Path]:
    """A model whose files say `text`."""
    (folder / "variables").mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_text(text)
    (folder / "saved_model.pb").write_text(f"graph of {text}")
    (folder / "variables/variables.index").write_text("i")
    return {name: folder / name for name in (MODEL, "saved_model.pb", "variables")}


def go_live(registry: Registry, folder: Path, *texts: str) -> None:
    """Publish and promote one after the other."""
    for text in texts:
        version = registry.publish(content(folder / text, text))
        registry.move_live(version, expected_generation=registry.pointer().generation, reason=f"promote {text}")
