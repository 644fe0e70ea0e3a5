"""Whatever happens to the source between runs, nothing leaks into what is held out and nothing changes sides."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pipeline.dataset import assignment, duplicate_links, manifest, near_duplicates, splits
from pipeline.dataset.splits import QUARANTINE, TEST, TRAIN, VAL, Placed, Shares

SHARES = Shares("salt", val=0.25, test=0.25, min_per_class=1)
BITS = 3
NEAR = (1, 6, 14)  # levels of grey by which near duplicates may differ, of 255
FOLDS = 3
GROUPS = st.sampled_from([None, None, None, "g", "h", "k"])


class Sources(RuleBasedStateMachine):
    """Pictures are flat grey: how near two are is the difference of their levels."""

    @initialize(near=st.sampled_from(NEAR))
    def begin(self, near: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.near = near
        self.level: dict[str, int] = {}
        self.present: dict[str, dict[str, str | None]] = {}  # image id to label and group
        self.last_group: dict[str, str | None] = {}
        self.changes: list[dict[str, object]] = []
        self.batches: dict[str, pa.Table] = {}
        self.features: dict[str, pa.Table] = {}
        self.first_place: dict[str, str] = {}
        self.was_test: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def put(self, image_id: str, label: str, group: str | None) -> None:
        self.present[image_id] = {"label": label, "group": group}
        self.last_group[image_id] = group
        self.changes.append({"image_id": image_id, "label": label, "group": group, "removed": False})

    @rule(arriving=st.lists(st.tuples(st.integers(0, 120), st.sampled_from("ab"), GROUPS), min_size=1, max_size=12))
    def arrive(self, arriving: list[tuple[int, str, str | None]]) -> None:
        for level, label, group in arriving:
            image_id = f"{len(self.level):03d}"
            self.level[image_id] = level
            self.put(image_id, label, group)
        self.run()

    @precondition(lambda self: self.present)
    @rule(data=st.data(), group=GROUPS)
    def regroup(self, data: st.DataObject, group: str | None) -> None:
        for image_id in data.draw(st.lists(st.sampled_from(sorted(self.present)), max_size=4, unique=True)):
            self.put(image_id, str(self.present[image_id]["label"]), group)
        self.run()

    @precondition(lambda self: self.present)
    @rule(data=st.data(), label=st.sampled_from("abc"))
    def relabel(self, data: st.DataObject, label: str) -> None:
        image_id = data.draw(st.sampled_from(sorted(self.present)))
        self.put(image_id, label, self.present[image_id]["group"])
        self.run()

    @precondition(lambda self: len(self.present) > 1)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        for image_id in data.draw(st.lists(st.sampled_from(sorted(self.present)), max_size=4, unique=True)):
            row = self.present.pop(image_id)
            self.changes.append({"image_id": image_id, **row, "removed": True})
        self.run()

    @precondition(lambda self: len(self.present) < len(self.level))
    @rule(data=st.data(), group=GROUPS)
    def come_back(self, data: st.DataObject, group: str | None) -> None:
        image_id = data.draw(st.sampled_from(sorted(self.level.keys() - self.present.keys())))
        self.put(image_id, "a", group)
        self.run()

    @rule(near=st.sampled_from(NEAR))
    def judge_near_duplicates_otherwise(self, near: int) -> None:
        self.near = near
        self.run()

    def run(self) -> None:
        if self.changes:
            name = f"{len(self.batches) + 1:04d}"
            rows = [{"uri": row["image_id"], "batch": name, **row} for row in self.changes]
            known = {image_id for table in self.features.values() for image_id in table["image_id"].to_pylist()}
            new = [str(row["image_id"]) for row in self.changes if row["image_id"] not in known]
            self.batches[name] = pa.Table.from_pylist(rows, manifest.SCHEMA)
            self.features[name] = self.measured(list(dict.fromkeys(new)))
            self.changes = []
        if not self.batches or not self.present:
            return
        table = self.shard()
        self.check(table)
        assert table.equals(self.shard())  # a stage that is run again changes nothing

    def measured(self, ids: list[str]) -> pa.Table:
        thumbnails = [bytes([20 + self.level[image_id]]) * 256 for image_id in ids]
        return pa.table(
            {
                "image_id": pa.array(ids, pa.string()),
                "dhash": pa.array(np.zeros(len(ids), np.int64)),
                "thumbnail": pa.array(thumbnails, pa.binary(256)),
                **dict.fromkeys(("width", "height"), pa.array([16] * len(ids))),
            }
        )

    def shard(self) -> pa.Table:
        """What the stage does."""
        pairs = self.folder / "duplicates"
        rules = near_duplicates.Rules(BITS, (self.near + 0.5) / 255, detail=0.8, searched=0)
        near_duplicates.update(pairs, self.features, rules, 1)
        links = duplicate_links.read(pairs)
        rows = manifest.current(self.batches)
        images, gone = assignment.images_of(rows), assignment.gone(self.batches)
        places = self.folder / "splits"
        placed = assignment.read_placed(places, SHARES.salt)
        new = splits.place(images, links.pairs, placed, SHARES, links.cluster, gone)
        assignment.record(places / f"{len(self.batches):04d}.parquet", new, SHARES.salt)
        recorded = placed | new
        used = recorded | splits.withheld(images, links.pairs, recorded, links.cluster, gone)
        groups = splits.current_groups(images, links.pairs, used, links.cluster)
        return assignment.assign(rows, used, groups, ("a", "b", "c"), FOLDS)

    def check(self, table: pa.Table) -> None:
        ids = table["image_id"].to_pylist()
        assert sorted(ids) == sorted(self.present)  # each exactly once
        split = dict(zip(ids, table["split"].to_pylist(), strict=True))
        fold = dict(zip(ids, table["fold"].to_pylist(), strict=True))
        group = dict(zip(ids, table["group"].to_pylist(), strict=True))
        reason = dict(zip(ids, table["reason"].to_pylist(), strict=True))
        assert all((split[i] == QUARANTINE) == (reason[i] is not None) for i in ids)

        places = self.folder / "splits"
        files = [manifest.read_batches(places)[path.stem] for path in manifest.batch_files(places)]
        recorded = [(row["image_id"], row["split"]) for table in files for row in table.to_pylist()]
        assert all(side in {TRAIN, VAL, TEST} for _, side in recorded)
        assert set(Counter(image_id for image_id, _ in recorded).values()) <= {1}
        self.first_place = dict(recorded) | self.first_place
        assert self.first_place == dict(recorded)
        assert all(split[i] in {QUARANTINE, self.first_place.get(i)} for i in ids)
        assert all(split[i] == TEST for i in ids if self.first_place.get(i) == TEST)

        self.was_test |= {i for i in ids if split[i] == TEST}
        trained = [i for i in ids if split[i] in {TRAIN, VAL}]
        for one, other in itertools.product(trained, self.was_test):
            assert one != other
            assert not self.hang_together(one, other)
        for one, other in itertools.combinations(trained, 2):
            if self.hang_together(one, other):
                assert (split[one], fold[one], group[one]) == (split[other], fold[other], group[other])
        assert all((fold[i] >= 0) == (i in trained) for i in ids)

    def hang_together(self, one: str, other: str) -> bool:
        """By comparing all with all. A file that is gone is of the group that it was of last."""
        grouped = self.last_group[one] is not None and self.last_group[one] == self.last_group[other]
        return grouped or abs(self.level[one] - self.level[other]) <= self.near


TestSources = Sources.TestCase
TestSources.settings = settings(max_examples=30, stateful_step_count=12, suppress_health_check=[HealthCheck.too_slow])


def test_the_reason_stays_when_what_was_near_to_it_gets_its_place() -> None:
    placed = {"r": Placed("r", TRAIN), "t": Placed("t", TEST)}
    images = [splits.Image(name, "a", "g" if name in ("r", "bridge") else None) for name in (*placed, "bridge", "next")]
    links = [("bridge", "t"), ("next", "bridge")]
    first = splits.place(images, links, placed, SHARES)
    assert first["bridge"].split == QUARANTINE
    again = splits.place(images, links, placed | {"next": first["next"]}, SHARES)
    assert again == {"bridge": first["bridge"]}


def run(
    images: list[splits.Image], links: list[tuple[str, str]], placed: dict[str, Placed]
) -> tuple[dict[str, Placed], dict[str, str]]:
    """(what is recorded afterwards, image id to the split that it is used in)"""
    new = splits.place(images, links, placed, SHARES)
    recorded = {**placed, **{key: place for key, place in new.items() if place.split != QUARANTINE}}
    used = {**placed, **new} | splits.withheld(images, links, recorded)
    return recorded, {image.image_id: used[image.image_id].split for image in images}


def test_what_a_wrong_group_withheld_comes_back() -> None:
    placed = {"r": Placed("r", TRAIN), "s": Placed("s", TRAIN), "v": Placed("v", VAL), "t": Placed("t", TEST)}

    def images(group: str | None) -> list[splits.Image]:
        return [splits.Image(name, "a", group if name in "rvt" else None) for name in placed]

    recorded, used = run(images("wrong"), [("r", "s")], placed)
    # s is a near duplicate of r, not of the test image: it stays.
    assert used == {"r": QUARANTINE, "s": TRAIN, "v": QUARANTINE, "t": TEST}
    assert recorded == placed
    assert run(images(None), [("r", "s")], placed) == (placed, {"r": TRAIN, "s": TRAIN, "v": VAL, "t": TEST})


def test_a_withheld_val_image_withholds_no_train_image() -> None:
    placed = {"r": Placed("r", TRAIN), "v": Placed("v", VAL), "t": Placed("t", TEST)}
    images = [splits.Image(name, "a") for name in placed]
    assert run(images, [("r", "v")], placed)[1] == {"r": QUARANTINE, "v": VAL, "t": TEST}
    assert run(images, [("r", "v"), ("t", "v")], placed)[1] == {"r": TRAIN, "v": QUARANTINE, "t": TEST}


def test_an_image_between_two_splits_is_placed_once_one_link_is_gone() -> None:
    placed = {"r": Placed("r", TRAIN), "t": Placed("t", TEST)}
    images = [splits.Image(name, "a") for name in ("r", "t", "new")]
    recorded, used = run(images, [("new", "r"), ("new", "t")], placed)
    assert (used["new"], "new" in recorded) == (QUARANTINE, False)
    recorded, used = run(images, [("new", "r")], recorded)
    assert (used["new"], recorded["new"]) == (TRAIN, Placed("r", TRAIN))


def test_the_bridge_alone_is_quarantined() -> None:
    placed = {"r": Placed("r", TRAIN), "t": Placed("t", TEST)}
    names = [*placed, "bridge", "left", "right"]
    links = [("bridge", "r"), ("bridge", "t"), ("left", "bridge"), ("right", "bridge"), ("left", "r"), ("right", "t")]
    _, used = run([splits.Image(name, "a") for name in names], links, placed)
    assert used == {"r": TRAIN, "t": TEST, "bridge": QUARANTINE, "left": TRAIN, "right": TEST}


def test_a_group_stays_held_out_when_its_images_were_exchanged() -> None:
    gone = [splits.Image("t", "a", "patient")]
    new = [splits.Image(f"n{number}", "a", "patient") for number in range(3)]
    found = splits.place(new, [], {"t": Placed("t", TEST)}, SHARES, gone=gone)
    assert found == dict.fromkeys(["n0", "n1", "n2"], Placed("t", TEST))


def test_quarantine_that_was_recorded_is_judged_anew(tmp_path: Path) -> None:
    schema = pa.schema([*splits.SCHEMA, ("reason", pa.string())]).with_metadata({splits.SALT_KEY: b"salt"})
    rows = [
        {"image_id": "r", "group": "r", "split": TRAIN, "reason": None},
        {"image_id": "q", "group": "q", "split": QUARANTINE, "reason": "near duplicate of images in different splits"},
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "0001.parquet")
    assert assignment.read_placed(tmp_path, "salt") == {"r": Placed("r", TRAIN)}
    assert assignment.read_placed(tmp_path, "other") == {}
    # The newest batch's file takes in what the same batch could not place before.
    assert assignment.record(tmp_path / "0001.parquet", {"q": Placed("r", TRAIN)}, "salt") == 1
    assert assignment.read_placed(tmp_path, "salt") == dict.fromkeys("rq", Placed("r", TRAIN))
    table = pa.parquet.read_table(tmp_path / "0001.parquet")
    assert table.column_names == ["image_id", "group", "split"]
