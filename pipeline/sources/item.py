"""What a source lists: one file, with the label that its folder gives it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

NO_LABEL = "no-label"
NO_FOLDER = (NO_LABEL, "lies in no class folder")


@dataclass(frozen=True)
class Item:
    """One listed file. `version` changes when its content does."""

    uri: str
    key: str  # how the source finds it: a path, or an S3 key
    version: str
    label: str | None
    bytes: int
    group: str | None = None  # images of one group (patient, product, scene) are never split apart
    problem: tuple[str, str] | None = None  # reason and detail of what is not worth reading
    # Column and value, of the further columns of a labels file. They do not make another file of it.
    attributes: tuple[tuple[str, str], ...] = field(default=(), compare=False)


def folder_label(folders: Sequence[str]) -> str | None:
    """The innermost folder's name as a label; None right below the source, and for a name of spaces only."""
    return (tidy(printable(folders[-1])) or None) if folders else None


def tidy(text: str) -> str:
    """Composed (NFC) and stripped: macOS decomposes names, so equal-looking labels would be two classes."""
    return unicodedata.normalize("NFC", text).strip()


def printable(path: str) -> str:
    """File names are bytes; those that are no UTF-8 are shown with escapes, since tables hold only text."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
