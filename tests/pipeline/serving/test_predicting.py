from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.dataset import inspection, records, shards, store
from pipeline.dataset.shard_index import load_index
from pipeline.dataset.shards import Layout, Row
from pipeline.errors import ModelError
from pipeline.ingestion.answers import Limits
from pipeline.serving import predicting
from pipeline.serving.predicting import Answering, Reading
from pipeline.settings import code_root, load
from pipeline.training import export
from tests.pipeline.serving import published
from tests.pipeline.training import tiny

HOW = Reading(Limits(max_bytes=1 << 20, max_pixels=10_000, min_side=4), max_side=None, quality=90)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Answering:
    folder = tmp_path_factory.mktemp("served")
    export.save_serving(tiny.trained().whole, folder / "saved_model", tiny.pictures(4)[0])
    found, classes = predicting.load(folder / "saved_model")
    assert classes == tiny.CLASSES
    return found


def write(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@pytest.mark.parametrize("max_side", [None, 20], ids=["as they are", "scaled down"])
def test_every_kind_of_file_is_answered_as_training_saw_it(
    tmp_path: Path, answer: Answering, max_side: int | None
) -> None:
    """The same bytes through the store, the shards and the reader of training, and through `predict`."""
    kinds = published.kinds()
    ids = {name: store.put(content) for name, content in kinds.items()}
    notes = {name: inspection.inspect(kinds[name], name, max_pixels=10_000, min_side=4) for name in kinds}
    rows = [Row(ids[name], 0, "red", name, "train", notes[name], len(kinds[name])) for name in kinds]
    layout = Layout(target_bytes=2**20, files=None, max_side=max_side, quality=90, compression="none")
    shards.write(tmp_path / "shards", {"0001": rows}, tiny.CLASSES, layout, threads=1)
    keep = dict.fromkeys(ids.values(), 0)
    pictures = records.dataset(tmp_path / "shards", load_index(tmp_path / "shards"), keep, size=tiny.SIZE)
    seen = {picture["id"].decode(): picture["image"] for picture in pictures.as_numpy_iterator()}
    expected = tiny.trained().whole.predict_on_batch(np.stack([seen[ids[name]] for name in kinds]))

    paths = write(tmp_path / "in", kinds)
    how = Reading(HOW.limits, max_side, 90)
    found = list(predicting.predict(paths, answer, how))

    assert [answer.name for answer in found] == [str(path) for path in paths]
    np.testing.assert_allclose([answer.probabilities for answer in found], expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.05  # so that one answer for all would show


def test_a_turned_photograph_is_answered_as_it_is_looked_at(tmp_path: Path, answer: Answering) -> None:
    turned = published.kinds()["turned.png"]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    lying = Image.fromarray(np.asarray(Image.open(io.BytesIO(turned))))
    paths = write(tmp_path / "in", {"turned.png": turned})
    for name, image in (("upright.png", upright), ("lying.png", lying)):
        paths.append(tmp_path / "in" / name)
        image.save(paths[-1], exif=b"")
    as_told, as_seen, as_stored = (np.array(found.probabilities) for found in predicting.predict(paths, answer, HOW))
    np.testing.assert_allclose(as_told, as_seen, atol=1e-6)
    assert np.abs(as_told - as_stored).max() > 1e-3


def test_bad_files_have_reasons_and_good_ones_beside_them_answers(tmp_path: Path, answer: Answering) -> None:
    good = published.kinds()["plain.png"]
    bad = {
        "empty.png": (b"", "empty"),
        "cut.png": (good[: len(good) // 2], "damaged"),
        "page.jpg": (b"<html><body>Not found</body></html>", "html-page"),
        "text.jpg": (b"hello", "not-an-image"),
        "large.png": (b"\x89PNG" + b"0" * (1 << 20), "too-many-bytes"),
        "bomb.png": (_png(200, 200), "too-many-pixels"),
        "dot.png": (_png(2, 2), "too-small"),
    }
    paths = write(tmp_path / "in", {name: content for name, (content, _) in bad.items()})
    paths += [*write(tmp_path / "in", {"good.png": good}), tmp_path / "nowhere.png"]
    (tmp_path / "in/pipe").symlink_to("/dev/zero")
    found = {Path(one.name).name: one for one in predicting.predict([*paths, tmp_path / "in/pipe"], answer, HOW)}
    assert {name: one.reason for name, one in found.items()} == {
        **{name: reason for name, (_, reason) in bad.items()},
        "good.png": None,
        "nowhere.png": "missing-file",
        "pipe": "not-a-file",
    }
    assert all(one.cure and one.detail for one in found.values() if one.reason)
    assert found["nowhere.png"].cure == "check the path"
    assert found["good.png"].probabilities is not None


def _png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_folders_are_looked_through_but_for_hidden_files(tmp_path: Path, answer: Answering) -> None:
    good = published.kinds()["plain.png"]
    write(tmp_path / "in", {f"{number:02d}.png": good for number in range(predicting.AT_ONCE + 3)})
    write(tmp_path / "in/deeper", {"a.png": good, ".hidden.png": b"unfinished"})
    found = list(predicting.predict([tmp_path / "in"], answer, HOW))
    assert len(found) == predicting.AT_ONCE + 4
    assert all(one.reason is None for one in found)
    assert found[-1].name == str(tmp_path / "in/deeper/a.png")


def test_images_are_read_as_the_version_was_trained() -> None:
    shipped = load(code_root() / "params.yaml")
    own = {"ingest": {"max_pixels": 7}, "shard": {"max_side": 100, "quality": 50}}
    how = predicting.reading(own, shipped)
    assert (how.max_side, how.quality, how.limits.max_pixels) == (100, 50, 7)
    assert how.limits.max_bytes == shipped.ingest.max_bytes
    assert predicting.reading({}, shipped).quality == shipped.shard.quality


def test_a_folder_that_is_no_saved_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no SavedModel with the signatures encoded and classes"):
        predicting.load(tmp_path)
