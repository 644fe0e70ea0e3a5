import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from pipeline.dataset import crop_search, duplicate_links, near_duplicates, store
from pipeline.dataset.near_duplicates import Rules
from pipeline.dataset.reduced import reduced
from pipeline.profiling import features

RULES = Rules(bits=3, error=0.02, detail=0.8, searched=1000)
ONLY_WHOLE = Rules(bits=3, error=0.02, detail=0.8, searched=0)
DATA = Path(__file__).parents[4] / "shared/data"


def scene(seed: int, layout: int | None = None) -> Image.Image:
    """Blobs and fine texture, 192 x 160; the large blobs follow `layout`, so that two scenes may look alike."""
    coarse, fine = np.random.default_rng(seed if layout is None else layout), np.random.default_rng(seed)
    y, x = np.mgrid[:160, :192]
    luma = np.full((160, 192), 120.0)
    for rng, count, size, height in ((coarse, 8, 40, 60), (fine, 120, 5, 45)):
        for _ in range(count):
            across, down, radius = rng.uniform(0, 192), rng.uniform(0, 160), size * rng.uniform(0.5, 1)
            luma += rng.normal() * height * np.exp(-((x - across) ** 2 + (y - down) ** 2) / (2 * radius**2))
    return Image.fromarray(np.clip(luma, 20, 235).astype(np.uint8))


def stored(image: Image.Image, quality: int | None = None) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if quality is None else "JPEG", **({} if quality is None else {"quality": quality}))
    return store.put(buffer.getvalue())


def rows(ids: list[str]) -> pa.Table:
    measured = features.measure([reduced(store.get(image_id), features.MEASURED_SIDE) for image_id in ids])
    return measured.append_column("image_id", pa.array(ids))


def found(folder: Path, batches: dict[str, list[str]], rules: Rules = RULES) -> set[frozenset[str]]:
    near_duplicates.update(folder, {name: rows(ids) for name, ids in batches.items()}, rules, 2)
    return {frozenset(pair) for pair in duplicate_links.read(folder).pairs}


def crop(image: Image.Image) -> Image.Image:
    return image.crop((12, 20, 152, 140))  # 55 % of the area


COPIES: dict[str, Callable[[Image.Image], str]] = {
    "re-encoded": lambda image: stored(image, 30),
    "mirrored": lambda image: stored(ImageOps.mirror(image)),
    "upside down": lambda image: stored(ImageOps.flip(image)),
    "brightened until it clips": lambda image: stored(image.point(lambda v: min(255, v * 1.5))),
    "darkened": lambda image: stored(image.point(lambda v: v * 0.7)),
    "cropped": lambda image: stored(crop(image)),
    "cropped and squeezed": lambda image: stored(crop(image).resize((96, 96), Image.Resampling.BILINEAR)),
    "cropped, mirrored, darkened and re-encoded": lambda image: stored(
        ImageOps.mirror(crop(image)).point(lambda v: 0.75 * v + 10), 50
    ),
}


@pytest.mark.parametrize("kind", COPIES)
def test_changed_copies_are_linked_to_their_originals_alone(kind: str, tmp_path: Path) -> None:
    images = [scene(seed) for seed in range(12)]
    originals, copied = [stored(image) for image in images], [COPIES[kind](image) for image in images]
    pairs = {frozenset(pair) for pair in zip(originals, copied, strict=True)}
    assert found(tmp_path / "later", {"0001": originals, "0002": copied}) == pairs
    assert found(tmp_path / "earlier", {"0001": copied, "0002": originals}) == pairs
    assert found(tmp_path / "together", {"0001": originals + copied}) == pairs


def test_look_alikes_are_not_linked(tmp_path: Path) -> None:
    alike = [stored(scene(seed, layout=7)) for seed in range(10)]
    assert found(tmp_path, {"0001": alike[:5], "0002": alike[5:]}) == set()


def test_flat_pictures_have_no_details_to_agree_in() -> None:
    ramp = np.linspace(80, 160, 128, dtype=np.float32)
    flat = np.broadcast_to(ramp, (2, 128, 128))
    whole = np.array([[0, 1, 0, 1]], np.float32).repeat(2, axis=0)
    assert (crop_search.registration.agreement(flat, flat, whole) < 0.5).all()


def test_in_batches_as_at_once_and_nothing_is_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [scene(seed) for seed in range(6)]
    batches = {"0001": [stored(image) for image in images]}
    found(tmp_path / "a", batches)
    batches["0002"] = [stored(crop(image)) for image in images[:3]]
    found(tmp_path / "a", batches)
    batches["0003"] = [stored(ImageOps.mirror(image)) for image in images[2:]]
    pairs = found(tmp_path / "a", batches)
    assert len(pairs) == 3 + 4 + 1  # the third one has a crop and a mirror image, which are linked, too
    assert pairs == found(tmp_path / "b", batches)
    for name in batches:
        assert pq.read_table(tmp_path / f"a/{name}.parquet") == pq.read_table(tmp_path / f"b/{name}.parquet")
    monkeypatch.setattr(crop_search, "find", None)
    assert found(tmp_path / "a", batches) == pairs


def test_what_is_not_searched_for_crops_is_compared_as_a_whole(tmp_path: Path) -> None:
    images = [scene(seed) for seed in range(6)]
    originals = [stored(image) for image in images]
    mirrored = [stored(ImageOps.mirror(image)) for image in images]
    cropped = [stored(crop(image)) for image in images]
    batches = {"0001": originals, "0002": mirrored + cropped}
    assert found(tmp_path, batches, ONLY_WHOLE) == {frozenset(pair) for pair in zip(originals, mirrored, strict=True)}


def test_who_was_searched_is_told(tmp_path: Path) -> None:
    ids = [stored(scene(seed)) for seed in range(4)]
    small = stored(scene(9).resize((40, 30)))
    tables = {"0001": rows(ids[:2]), "0002": rows([*ids[2:], small])}
    assert near_duplicates.searched(tables, 10) == set(ids)
    assert near_duplicates.searched(tables, 3) == set(sorted(ids)[:3])


@pytest.mark.parametrize(("name", "area"), [("imagenet_sample", 0.5), ("sign_digits", 0.5)])
def test_crops_of_real_images_are_found_and_others_are_not(name: str, area: float, tmp_path: Path) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is missing")
    paths = sorted(path for path in (DATA / name).rglob("*") if path.is_file())[::7][:70]
    originals = [store.put(path.read_bytes()) for path in paths]
    rng = np.random.default_rng(0)
    pairs = set()
    for path, original in list(zip(paths, originals, strict=True))[:40]:
        with Image.open(path) as image:
            width, height = (round(side * area**0.5) for side in image.size)
            left, top = rng.integers(0, image.width - width), rng.integers(0, image.height - height)
            window = image.convert("RGB").crop((left, top, left + width, top + height))
        pairs.add(frozenset((original, stored(ImageOps.mirror(window), 85))))
    copied = [next(iter(pair - set(originals))) for pair in pairs]
    linked = found(tmp_path, {"0001": originals, "0002": copied})
    assert linked <= pairs
    assert len(linked) >= 38
