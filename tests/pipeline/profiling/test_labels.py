from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from pipeline.profiling import labels
from pipeline.profiling.embeddings import SIZE, Embedded

SPREAD = 0.3  # of images around the centre of their class; 0.9 is as good as no class at all


def made(counts: dict[str, int], *, spread: float = SPREAD, seed: int = 0) -> tuple[pa.Table, Embedded]:
    """Feature rows and embeddings of so many images of each class."""
    random = np.random.default_rng(seed)
    names = [label for label, count in counts.items() for _ in range(count)]
    centres = {label: random.normal(0, 0.05, SIZE) for label in counts}
    vectors = np.stack([centres[name] + random.normal(0, spread, SIZE) for name in names]).astype(np.float32)
    ids = [hashlib.sha256(f"{seed} {number}".encode()).hexdigest() for number in range(len(names))]
    table = pa.table({"image_id": ids, "uri": [f"{number}.png" for number in range(len(names))], "label": names})
    return table, Embedded(tuple(ids), vectors, np.zeros(len(ids), np.float32))


def relabelled(table: pa.Table, changes: dict[int, str]) -> pa.Table:
    names = [changes.get(number, name) for number, name in enumerate(table["label"].to_pylist())]
    return table.set_column(2, "label", pa.array(names))


def test_wrong_labels_are_found_and_none_invented() -> None:
    table, embedded = made({"cat": 100, "dog": 100, "owl": 60})
    wrong = {3: "dog", 50: "owl", 120: "cat", 121: "owl", 210: "dog", 259: "cat"}

    found = labels.suspects(relabelled(table, wrong), embedded)

    assert found is not None
    assert (found.checked, found.found) == (260, 6)
    assert found.table.schema == labels.SCHEMA
    assert {row["uri"]: row["label"] for row in found.table.to_pylist()} == {
        f"{number}.png": label for number, label in wrong.items()
    }
    right = dict(zip(table["uri"].to_pylist(), table["label"].to_pylist(), strict=True))
    for row in found.table.to_pylist():
        assert row["suggested"] == right[row["uri"]]
        assert 0 <= row["label_probability"] < row["suggested_probability"] <= 1


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_wrong_labels_are_found_however_easy_the_classes_and_many_the_images(share: float) -> None:
    # All margins are alike: that the classifier is right about 95 % of the time would explain the labels as well.
    classes = ["cat", "dog", "owl", "fox"]
    table, embedded = made(dict.fromkeys(classes, 1500), spread=0.15)
    wrong = np.random.default_rng(1).choice(6000, int(share * 6000), replace=False).tolist()
    after = dict(zip(classes, [*classes[1:], "cat"], strict=True))

    changes = {number: after[table["label"][number].as_py()] for number in wrong}
    found = labels.suspects(relabelled(table, changes), embedded)

    assert found is not None
    assert found.found == len(wrong)
    assert {row["uri"] for row in found.table.to_pylist()} <= {f"{number}.png" for number in wrong}


@pytest.mark.parametrize("spread", [0.2, 0.4, 0.6, 0.7], ids=["easy", "fair", "hard", "very hard"])
def test_hard_images_are_not_called_wrong(spread: float) -> None:
    found = labels.suspects(*made({"cat": 150, "dog": 150, "owl": 150, "fox": 40}, spread=spread))

    assert found is None or found.found <= 2


def test_features_that_cannot_tell_the_classes_apart_have_no_say() -> None:
    assert labels.suspects(*made({"cat": 50, "dog": 50, "owl": 50}, spread=3.0)) is None


@pytest.mark.parametrize(
    "counts",
    [{}, {"cat": 50}, {"cat": 50, "dog": labels.MIN_PER_CLASS - 1}],
    ids=["nothing", "one class", "one class that is large enough"],
)
def test_it_takes_two_classes(counts: dict[str, int]) -> None:
    table, embedded = (
        made(counts) if counts else (made({"cat": 9})[0], Embedded((), np.empty((0, SIZE), "f4"), np.empty(0)))
    )
    assert labels.suspects(table, embedded) is None


def test_small_classes_and_images_without_embedding_are_left_out() -> None:
    table, embedded = made({"cat": 60, "dog": 60, "owl": 4})
    fewer = Embedded(embedded.image_ids[10:], embedded.vectors[10:], embedded.max_logits[10:])

    found = labels.suspects(table, fewer)

    assert found is not None
    assert found.checked == 110


def test_near_duplicates_do_not_vouch_for_each_other() -> None:
    # Ten copies of a cat among the dogs: each would find nine dogs like itself.
    table, embedded = made({"cat": 100, "dog": 100})
    vectors = embedded.vectors.copy()
    vectors[100:110] = vectors[0] + np.random.default_rng(3).normal(0, 0.01, (10, SIZE))
    copies = Embedded(embedded.image_ids, vectors.astype(np.float32), embedded.max_logits)
    group = dict.fromkeys([embedded.image_ids[0], *embedded.image_ids[100:110]], embedded.image_ids[0])

    alone, together = labels.suspects(table, copies), labels.suspects(table, copies, group)

    assert alone is not None
    assert together is not None
    assert alone.found < 10
    assert {f"{number}.png" for number in range(100, 110)} <= set(together.table["uri"].to_pylist())


def test_a_class_that_is_one_picture_in_copies_is_left_out() -> None:
    table, embedded = made({"cat": 60, "dog": 60, "owl": 8})
    group = dict.fromkeys(embedded.image_ids[120:], "owls")

    found = labels.suspects(table, embedded, group)

    assert found is not None
    assert (found.checked, found.found) == (120, 0)


def test_the_worst_come_first() -> None:
    table, embedded = made({"cat": 100, "dog": 100})
    found = labels.suspects(relabelled(table, {1: "dog", 2: "dog", 150: "cat"}), embedded)

    assert found is not None
    assert found.found == 3
    probabilities = found.table["label_probability"].to_pylist()
    assert probabilities == sorted(probabilities)
