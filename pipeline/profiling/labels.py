"""Which labels are suspected to be wrong: confident learning on what the other images say.

A linear classifier on frozen features is cross-validated, so that no image speaks for itself, and near duplicates are
kept in one fold, so that they do not speak for each other. An image is suspected when cleanlab's confident learning
(Northcutt et al., Confident Learning, 2021) counts it as another class *and* its label is more probably wrong than
right, given how many labels of the set are. Confident learning alone calls hard images wrong: 14 of 1033 sign digits,
7 of 412 magnetic tiles, half of all images where the features are weak.

Measured with wrong labels planted at random into these two, 3-10 % of all, three seeds: 85 % (digits) and 75-95 %
(tiles) of them are found, and 90 % (digits) and 55-65 % (tiles) of what is found was planted; of 1 % three quarters are
found. Where classes are easy, the second condition loses nothing until 13 % are wrong: of 1945 images of three sources
with 5 % wrong labels all 97 are found and at most one more. What is found without planting, up to 1 digit and 8 tiles,
are images whose own label is in doubt, such as one tile that is there three times with different labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from pipeline.dataset import splits
from pipeline.profiling import discriminant
from pipeline.profiling.embeddings import Embedded

logger = logging.getLogger(__name__)

MIN_PER_CLASS = discriminant.FOLDS  # smaller classes are not checked: in some fold nothing would be known of them
MIN_ACCURACY = 0.5  # a classifier that is wrong more often than right has no say
SUSPECTED = 0.5  # probability that a label is wrong

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("suggested", pa.string()),
        ("label_probability", pa.float64()),
        ("suggested_probability", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Suspects:
    checked: int  # images
    table: pa.Table  # of `SCHEMA`, worst first

    @property
    def found(self) -> int:
        return int(self.table.num_rows)


def suspects(table: pa.Table, embedded: Embedded, groups: Mapping[str, str] | None = None) -> Suspects | None:
    """The suspected labels among the embedded images; None if they are of less than two classes that can be checked.

    Args:
        table: feature rows of the current images, with their `uri`.
        groups: image id to the group of those that show the same; others stand for themselves.
    """
    table, points_of = _checked(table, embedded)
    names, classes = np.unique(table["label"].to_numpy(), return_inverse=True)
    if len(names) < 2:
        return None
    ids = table["image_id"].to_pylist()
    grouped = [(groups or {}).get(image_id, image_id) for image_id in ids]
    fold = splits.folds(table["label"].to_pylist(), grouped, discriminant.FOLDS)
    points = discriminant.principal(embedded.vectors[points_of])
    scores = discriminant.out_of_fold(points, classes, fold)
    # A class whose images are all one group is unknown to the folds without it.
    judged = np.isfinite(scores[np.arange(len(classes)), classes])
    present, classes = np.unique(classes[judged], return_inverse=True)
    table, names, scores = table.filter(pa.array(judged)), names[present], scores[judged][:, present]
    if len(names) < 2:
        return None
    accuracy = float(np.mean(scores.argmax(axis=1) == classes))
    if accuracy < MIN_ACCURACY:
        logger.info("profile: labels are not checked, frozen features tell only %.0f %% of them", 100 * accuracy)
        return None

    # Imported late: scikit-learn and cleanlab take a second.
    from cleanlab.filter import find_label_issues

    # It compares with each class's own mean, so it gets the answers as they are; of calibrated ones it finds a tenth
    # less, as they fall short of the means more often.
    issues = find_label_issues(classes, softmax(scores, axis=1), filter_by="confident_learning", n_jobs=1)
    probabilities, share = discriminant.calibrated(scores, classes)
    own = probabilities[np.arange(len(classes)), classes]
    by_chance = share / len(names)
    wrong = by_chance / ((1 - share) * own + by_chance)
    found = np.flatnonzero(issues & (wrong >= SUSPECTED))
    worst = found[np.argsort(own[found], kind="stable")]
    suggested = probabilities[worst].argmax(axis=1)
    columns = {
        "suggested": names[suggested],
        "label_probability": own[worst],
        "suggested_probability": probabilities[worst, suggested],
    }
    listed = table.take(pa.array(worst)).select(["image_id", "uri", "label"]).to_pydict() | columns
    return Suspects(checked=len(classes), table=pa.table(listed, SCHEMA))


def _checked(table: pa.Table, embedded: Embedded) -> tuple[pa.Table, list[int]]:
    """Rows that are embedded and of no small class, and where their vectors are."""
    position = {image_id: number for number, image_id in enumerate(embedded.image_ids)}
    table = table.filter(pc.is_in(table["image_id"], value_set=pa.array(position, pa.string())))
    counts = {item["values"]: item["counts"] for item in pc.value_counts(table["label"]).to_pylist()}
    large = [label for label, count in counts.items() if count >= MIN_PER_CLASS]
    table = table.filter(pc.is_in(table["label"], value_set=pa.array(large, pa.string())))
    return table, [position[image_id] for image_id in table["image_id"].to_pylist()]
