"""Why a listed file is not among the images, and what would bring it back."""

from __future__ import annotations

from pipeline.sources.item import NO_LABEL

CONFLICT = "label-conflict"
DUPLICATE = "exact-duplicate"
TOO_MANY_BYTES = "too-many-bytes"
UNREADABLE_FILE = "unreadable-file"

# Verdicts on the bytes alone: the same file need not be read again.
OF_BYTES = frozenset({"empty", "git-lfs-pointer", "html-page", "not-an-image", "damaged"})
# Verdicts that another setting may change.
OF_LIMITS = frozenset({"too-many-pixels", "too-small"})
# What a person can settle by naming the label.
RELEASABLE = frozenset({CONFLICT, NO_LABEL})

CURES = {
    CONFLICT: "delete all copies but those of one class, or name the label: refit quarantine release",
    DUPLICATE: "nothing is lost: its copy is in the dataset, and this file takes its place when that one is deleted",
    NO_LABEL: "put it into a class folder or into the labels file, or name the label: refit quarantine release",
    "not-a-file": "replace it by the image itself",
    "missing-file": "put the image where the labels file says it is, or take its row out",
    "unsafe-name": "give it a name without such parts, inside the source",
    "empty": "upload it again; it comes back when it has content",
    "git-lfs-pointer": "fetch the image behind the pointer: git lfs pull",
    "html-page": "download it again: what was saved is a web page, most likely an error message",
    "not-an-image": "replace it by a JPEG, PNG, GIF, BMP, WebP or TIFF image",
    "damaged": "replace it by a complete copy",
    "too-many-pixels": "scale it down, or raise ingest.max_pixels if it is meant to be that large",
    "too-small": "replace it by a larger image, or lower ingest.min_side",
    TOO_MANY_BYTES: "shrink the file, or raise ingest.max_bytes if it is meant to be that large",
    UNREADABLE_FILE: "make it readable for the user that runs ingest; it is tried again each time",
}
