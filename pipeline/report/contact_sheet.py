"""The strips of reports/augmentation, as `data:` URIs for the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

from pipeline import files

MAX_BYTES = 200_000  # of one strip; those of the stage take a quarter


def strips(folder: Path) -> Iterator[dict[str, str]]:
    """`label` (empty: mixed images) and `picture` of every row; nothing if there is no sheet."""
    index = folder / "index.json"
    if not index.exists():
        return
    for row in files.read_json(index)["rows"]:
        content = (folder / Path(row["file"]).name).read_bytes()
        if len(content) <= MAX_BYTES:
            yield {
                "label": row["label"],
                "picture": f"data:image/jpeg;base64,{base64.b64encode(content).decode()}",
            }
