"""Whether the test set is what it should be: unlike anything that was trained on.

Recomputed from the near duplicates that were found and the user's groups, whatever the split says of its own groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.dataset.contacts import Contacts
from pipeline.dataset.duplicate_links import Links

EXAMPLES = 10
_TRAINED = {"train", "val"}


def find(rows: pa.Table, assignment: pa.Table, links: Links) -> dict[str, Any]:
    """The section `leakage` of metrics/evaluate.json.

    Args:
        rows: the current rows of the manifest, for user groups and uris.
        assignment: data/assignment.parquet, for each image's split and fold.
    """
    columns = (rows[name].to_pylist() for name in ("image_id", "uri", "group"))
    uri, user_group = {}, {}
    for image_id, its_uri, group in zip(*columns, strict=True):
        uri[image_id] = its_uri
        if group is not None:
            user_group[image_id] = group
    split, fold = {}, {}
    for row in assignment.select(["image_id", "split", "fold"]).to_pylist():
        if row["split"] in {"test", *_TRAINED}:
            split[row["image_id"]], fold[row["image_id"]] = row["split"], row["fold"]
    contacts = Contacts(links.pairs, links.cluster, user_group)
    connected = contacts.connected(sorted(split))
    members: dict[str, list[str]] = defaultdict(list)
    for image_id in sorted(split):
        members[connected.representative(image_id)].append(image_id)

    leaking = []
    folds = 0
    for ids in members.values():
        tested = [image_id for image_id in ids if split[image_id] == "test"]
        trained = [image_id for image_id in ids if split[image_id] in _TRAINED]
        folds += len({fold[image_id] for image_id in trained}) > 1
        if tested and trained:
            leaking.append((tested, trained))
    return {
        "groups": len(leaking),
        "images": sum(len(tested) for tested, _ in leaking),
        "folds": folds,
        "examples": [_example(contacts, *sides, uri) for sides in leaking[:EXAMPLES]],
    }


def _example(contacts: Contacts, tested: list[str], trained: list[str], uri: Mapping[str, str]) -> list[str]:
    """Uris of a test image and a training image in contact; something on the way between two is, or they would not be
    connected."""
    for image_id in tested:
        if found := contacts.of(image_id, trained):
            return [uri[image_id], uri[next(iter(found))]]
    return [uri[tested[0]], uri[trained[0]]]
