"""The three tables that the rules are held against, one row for each image, listed file and class.

Every table has the column `item`, which names its rows for people: the uri of an image or a file, the label of a
class.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.dataset import near_duplicates
from pipeline.ingestion.reasons import DUPLICATE
from pipeline.validation import quality

ACCEPTED = "accepted"  # the status of a file that is not in quarantine
# What can part the words of a label: white space, underscores, all of Unicode's dashes.
_SEPARATORS = r"[\s_\-\u2010-\u2015\u2212]+"


@dataclass(frozen=True)
class Tables:
    """Columns besides `item`.

    images: `image_id`, `uri`, `label`, `bytes`, `short_side` (pixels), `elongation` (long side / short side),
        `blank`, `dark`, `bright`, `blurred` (bool), `picture` (None, or what near duplicates have in common),
        `copies` (images of this picture, itself included), `classes_of_copies`, `suggested_label` (None where the
        label is not suspected).
    files: `label`, `image_id` (None if it was not read), `batch`, `status` (`ACCEPTED`, or the reason of the
        quarantine), `unusable` (1.0 or 0.0; a second copy is not).
    classes: `images`, `times_fewer` (images of the largest class / of this one), `plain` (what `plain` makes of it).
    """

    images: pd.DataFrame
    files: pd.DataFrame
    classes: pd.DataFrame


def build(table: pa.Table, quarantine: pa.Table, pairs: Iterable[tuple[str, str]], suspects: pa.Table) -> Tables:
    """Args: see `pipeline.validation.validate.validate`."""
    return Tables(_images(table, pairs, suspects), _files(table, quarantine), _classes(table))


def plain(label: str) -> str:
    """What is left of a label without case, separators and Unicode's alternative forms.

    A separator between digits stays, and so does a minus: 1-1 is not 11, and -1 is not 1.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).strip()
    sign = "-" if re.match(r"[-\u2212]\d", folded) else ""
    return sign + re.sub(_SEPARATORS, "", re.sub(rf"(?<=\d){_SEPARATORS}(?=\d)", "|", folded))


def _images(table: pa.Table, pairs: Iterable[tuple[str, str]], suspects: pa.Table) -> pd.DataFrame:
    frame = table.select(["image_id", "uri", "label", "bytes"]).to_pandas()
    sides = np.stack([table["width"].to_numpy(), table["height"].to_numpy()])
    # Another label than the one that was judged: the image has been relabelled since.
    keys = zip(suspects["image_id"].to_pylist(), suspects["label"].to_pylist(), strict=True)
    suggested = dict(zip(keys, suspects["suggested"].to_pylist(), strict=True))
    frame = frame.assign(
        item=frame["uri"],
        short_side=sides.min(axis=0),
        elongation=sides.max(axis=0) / np.maximum(sides.min(axis=0), 1),
        picture=_column(map(near_duplicates.clusters(frame["image_id"], pairs).get, frame["image_id"])),
        suggested_label=_column(map(suggested.get, zip(frame["image_id"], frame["label"], strict=True))),
        **{check.removesuffix("_image"): flags for check, flags in quality.defects(table).items()},
    )
    of_picture = frame.groupby("picture")
    frame["copies"] = of_picture["uri"].transform("size").fillna(1).astype("int64")
    frame["classes_of_copies"] = of_picture["label"].transform("nunique").fillna(1).astype("int64")
    return frame


def _column(values: Iterable[str | None]) -> pd.Series:
    return pd.Series(list(values), dtype=object)


def _files(table: pa.Table, quarantine: pa.Table) -> pd.DataFrame:
    columns = ["uri", "label", "image_id", "batch"]
    accepted = table.select(columns).to_pandas().assign(status=ACCEPTED)
    waiting = quarantine.select([*columns, "reason"]).to_pandas().rename(columns={"reason": "status"})
    frame = pd.concat([accepted, waiting], ignore_index=True)
    frame["unusable"] = (~frame["status"].isin([ACCEPTED, DUPLICATE])).astype(float)
    return frame.rename(columns={"uri": "item"})


def _classes(table: pa.Table) -> pd.DataFrame:
    counts = Counter(label for label in table["label"].to_pylist() if label)
    frame = pd.DataFrame({"item": list(counts), "images": list(counts.values())}).sort_values("item")
    frame = frame.astype({"item": object, "images": "int64"}).reset_index(drop=True)
    frame["times_fewer"] = frame["images"].max() / frame["images"]
    frame["plain"] = pd.Series([plain(label) for label in frame["item"]], dtype=object)
    return frame
