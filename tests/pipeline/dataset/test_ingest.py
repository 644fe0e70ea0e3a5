import io
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from pipeline.dataset import ingest, manifest, store
from pipeline.dataset.sources import open_source
from pipeline.errors import DataError, SettingsError

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Dataset:
    """A dataset in a folder, ingested into by one source."""

    def __init__(self, root: Path, source: Path) -> None:
        self.manifest, self.quarantine = root / "manifest", root / "quarantine"
        self.source = source
        self.limits = ingest.Limits(max_bytes=100_000, max_pixels=10_000)

    def arrive(self, processes: int = 1) -> ingest.Batch:
        ingest.clear_uncommitted(self.manifest, self.quarantine)
        batch = ingest.ingest(
            open_source(str(self.source)),
            manifest.read_batches(self.manifest),
            manifest.read_batches(self.quarantine),
            limits=self.limits,
            processes=processes,
            now=NOW,
        )
        if not batch.empty:
            ingest.write(batch, self.manifest, self.quarantine)
        return batch

    @property
    def labels(self) -> dict[str, str]:
        """Image file name to label, of the current images."""
        rows = manifest.current(manifest.read_batches(self.manifest)).to_pylist()
        return {Path(row["uri"]).name: row["label"] for row in rows}

    def reasons(self, batch: ingest.Batch) -> dict[str, str]:
        return {Path(row["uri"]).name: row["reason"] for row in batch.quarantined.to_pylist()}


@pytest.fixture
def dataset(tmp_path: Path, source: Path) -> Dataset:
    return Dataset(tmp_path / "data", source)


def test_the_second_ingest_reads_only_what_is_new(dataset: Dataset, png: Callable[..., bytes]) -> None:
    first = dataset.arrive()
    assert (first.name, first.listed, first.known, first.accepted.num_rows) == ("0001", 12, 0, 12)
    assert dataset.arrive().empty
    (dataset.source / "cat/new.png").write_bytes(png(7))
    second = dataset.arrive()
    assert (second.name, second.listed, second.known, second.accepted.num_rows) == ("0002", 13, 12, 1)
    [row] = second.accepted.to_pylist()
    assert store.get(row["image_id"]) == png(7)
    assert (row["label"], row["ingested_at"]) == ("cat", NOW)


def test_everything_listed_is_accepted_or_quarantined_with_a_reason(
    dataset: Dataset, png: Callable[..., bytes]
) -> None:
    cat = dataset.source / "cat"
    (cat / "empty.jpg").touch()
    (cat / "page.jpg").write_text("<html>not found</html>")
    (cat / "half.png").write_bytes(png(51)[:-40])
    (cat / "big.png").write_bytes(b"x" * 100_001)
    (cat / "bomb.png").write_bytes(png(52, 101, 100))
    (cat / "png-named.jpg").write_bytes(png(53))
    (cat / "na me ü.png").write_bytes(png(54))
    (cat / "link.png").symlink_to("nowhere")
    os.mkfifo(cat / "pipe.png")
    (cat / ".hidden.png").write_bytes(b"")
    (dataset.source / "loose.png").write_bytes(png(55))
    Path(os.fsdecode(os.fsencode(cat) + b"/latin-\xe9.png")).write_bytes(png(56))
    batch = dataset.arrive()
    assert dataset.reasons(batch) == {
        "empty.jpg": "empty",
        "page.jpg": "not-an-image",
        "half.png": "damaged",
        "big.png": "too-many-bytes",
        "bomb.png": "too-many-pixels",
        "link.png": "not-a-file",
        "pipe.png": "not-a-file",
        "loose.png": "no-label",
    }
    assert {"png-named.jpg", "na me ü.png", "latin-\\xe9.png"} <= set(dataset.labels)
    assert batch.listed == batch.accepted.num_rows + batch.quarantined.num_rows == 12 + 11
    assert dataset.arrive().empty


def test_exact_copies_are_kept_once(dataset: Dataset) -> None:
    shutil.copy(dataset.source / "cat/cat-0.png", dataset.source / "cat/copy.png")
    batch = dataset.arrive()
    assert dataset.reasons(batch) == {"copy.png": "exact-duplicate"}
    os.utime(dataset.source / "cat/cat-1.png", (1, 1))  # touched, not changed
    assert dataset.reasons(dataset.arrive()) == {"cat-1.png": "exact-duplicate"}
    assert len(dataset.labels) == 12


def test_the_same_bytes_in_two_classes_are_a_conflict_for_all_of_them(dataset: Dataset) -> None:
    shutil.copy(dataset.source / "cat/cat-0.png", dataset.source / "dog/also.png")
    assert set(dataset.reasons(dataset.arrive()).items()) == {
        ("cat-0.png", "label-conflict"),
        ("also.png", "label-conflict"),
    }


def test_a_file_that_moves_to_another_class_is_relabelled(dataset: Dataset) -> None:
    dataset.arrive()
    (dataset.source / "cat/cat-0.png").rename(dataset.source / "dog/was-cat.png")
    batch = dataset.arrive()
    assert batch.accepted["label"].to_pylist() == ["dog"]
    assert dataset.labels["was-cat.png"] == "dog"
    assert len(dataset.labels) == 12


def test_a_file_with_new_content_replaces_its_old_image(dataset: Dataset, png: Callable[..., bytes]) -> None:
    dataset.arrive()
    (dataset.source / "cat/cat-0.png").write_bytes(png(999))
    dataset.arrive()
    rows = manifest.current(manifest.read_batches(dataset.manifest)).to_pylist()
    assert len(rows) == 12
    assert store.get(next(row["image_id"] for row in rows if row["uri"].endswith("cat/cat-0.png"))) == png(999)


def test_worker_processes_find_the_same(tmp_path: Path, source: Path, png: Callable[..., bytes]) -> None:
    for number in range(100):
        (source / "cat" / f"many-{number}.png").write_bytes(png(1000 + number))
    alone = Dataset(tmp_path / "one", source).arrive(processes=1)
    together = Dataset(tmp_path / "two", source).arrive(processes=2)
    assert together.accepted.equals(alone.accepted)


def test_an_ingest_that_was_killed_while_writing_leaves_no_trace(dataset: Dataset) -> None:
    batch = dataset.arrive()
    (dataset.quarantine / "0001.parquet").unlink()  # as if killed between the two files
    (dataset.manifest / ".tmp-half").write_bytes(b"PAR1")
    again = dataset.arrive()
    assert again.accepted.equals(batch.accepted)
    assert [path.name for path in dataset.manifest.iterdir()] == ["0001.parquet"]


def test_summary_counts_are_conserved(dataset: Dataset) -> None:
    (dataset.source / "dog/bad.png").write_bytes(b"GIF89a")
    dataset.arrive()
    summary = ingest.summary(manifest.read_batches(dataset.manifest), manifest.read_batches(dataset.quarantine))
    assert summary == {
        "images": 12,
        "classes": {"cat": 6, "dog": 6},
        "batches": [{"batch": "0001", "listed": 13, "known": 0, "accepted": 12, "quarantined": {"not-an-image": 1}}],
    }


def test_an_empty_source_and_a_missing_one_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty source"):
        Dataset(tmp_path / "data", tmp_path / "empty").arrive()
    with pytest.raises(DataError, match="found nothing"):
        Dataset(tmp_path / "data", tmp_path / "missing").arrive()
    with pytest.raises(SettingsError, match="ftp://"):
        open_source("ftp://host/images")


def test_animations_count_as_their_first_frame(dataset: Dataset) -> None:
    frames = [Image.new("L", (9, 9), shade) for shade in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    (dataset.source / "cat/moving.gif").write_bytes(buffer.getvalue())
    assert not dataset.arrive().quarantined.num_rows


def test_a_label_that_is_moved_back_is_moved_back(dataset: Dataset) -> None:
    dataset.arrive()
    original, elsewhere = dataset.source / "cat/cat-0.png", dataset.source / "dog/cat-0.png"
    for here, there, label in ((original, elsewhere, "dog"), (elsewhere, original, "cat")):
        here.rename(there)
        dataset.arrive()
        assert dataset.labels["cat-0.png"] == label
    assert dataset.arrive().empty


def test_a_conflict_ends_when_the_wrong_copy_is_deleted(dataset: Dataset) -> None:
    shutil.copy(dataset.source / "cat/cat-0.png", dataset.source / "dog/also.png")
    dataset.arrive()
    assert dataset.arrive().empty
    (dataset.source / "dog/also.png").unlink()
    assert dataset.arrive().accepted["label"].to_pylist() == ["cat"]


def test_what_only_a_limit_or_a_permission_kept_out_is_looked_at_again(
    dataset: Dataset, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (dataset.source / "cat/bomb.png").write_bytes(png(52, 101, 100))
    assert dataset.reasons(dataset.arrive()) == {"bomb.png": "too-many-pixels"}
    assert dataset.arrive().empty
    monkeypatch.setattr(dataset, "limits", ingest.Limits(max_bytes=100_000, max_pixels=20_000))
    assert [Path(uri).name for uri in dataset.arrive().accepted["uri"].to_pylist()] == ["bomb.png"]


def test_linked_folders_are_followed_but_not_in_circles(
    dataset: Dataset, tmp_path: Path, png: Callable[..., bytes]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/bird.png").write_bytes(png(500))
    (dataset.source / "bird").symlink_to(tmp_path / "elsewhere")
    (dataset.source / "cat/up").symlink_to(dataset.source)
    (dataset.source / "cat/loop.png").symlink_to(dataset.source / "cat/loop.png")
    batch = dataset.arrive()
    assert dataset.reasons(batch) == {"loop.png": "not-a-file"}
    assert dataset.labels["bird.png"] == "bird"
    assert len(dataset.labels) == 13


def test_batches_beyond_9999_keep_their_order(tmp_path: Path) -> None:
    for name in ("10000", "9999", "0002"):
        (tmp_path / f"{name}.parquet").touch()
    assert [path.stem for path in manifest.batch_files(tmp_path)] == ["0002", "9999", "10000"]
    assert manifest.next_batch(dict.fromkeys(["0002", "10000", "9999"])) == "10001"  # type: ignore[arg-type]
