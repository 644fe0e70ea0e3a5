from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image, ImageFilter

from pipeline.dataset import manifest, store
from pipeline.profiling import batches, drift, features
from pipeline.profiling.drift import Drift
from tests.pipeline.profiling.tables import table

ALPHA, MIN_DISTANCE = 0.01, 0.1  # the defaults of params.yaml
DATA = Path(__file__).parents[4] / "shared/data"


def compare(new: pa.Table, reference: pa.Table, **changes: Any) -> list[Drift]:
    return drift.compare(
        new, reference, **({"against": "live", "alpha": ALPHA, "min_distance": MIN_DISTANCE} | changes)
    )


def drifted(found: list[Drift]) -> list[str]:
    return [item.feature for item in found if item.drifted]


def label_of(found: list[Drift]) -> Drift:
    (label,) = (item for item in found if item.feature == drift.LABEL)
    return label


def labels(**counts: int) -> list[str]:
    return [label for label, count in counts.items() for _ in range(count)]


def test_one_entry_for_each_feature_and_one_for_the_classes() -> None:
    found = compare(table(30, seed=1), table(60, seed=2))

    assert [item.feature for item in found] == [*features.NUMERIC, "label"]
    assert {item.against for item in found} == {"live"}
    for item in found:
        assert 0 <= item.distance <= 1
        assert MIN_DISTANCE <= item.threshold <= 1
        assert 0 < item.p_value <= 1
        assert not item.drifted
        assert item.detail is None


@pytest.mark.parametrize("sizes", [(9, 500), (500, 9), (0, 500)], ids=["few new", "few before", "none"])
def test_fewer_than_ten_images_are_not_compared(sizes: tuple[int, int]) -> None:
    assert compare(table(sizes[0], seed=1), table(sizes[1], seed=2, saturation=0.0)) == []


def test_ten_images_of_another_kind_are_enough() -> None:
    assert drifted(compare(table(10, seed=1, saturation=0.0), table(300, seed=2))) == ["saturation"]


@pytest.mark.parametrize(
    ("feature", "change"),
    [("brightness", lambda v: v + 0.05), ("sharpness", lambda v: v / 2), ("width", lambda v: v // 2)],
    ids=["brighter", "blurred", "half size"],
)
def test_a_shift_of_200_images_is_found_named_and_put_into_words(
    feature: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    new, old = table(200, seed=1), table(400, seed=2)
    values = pa.array(change(new[feature].to_numpy()), new[feature].type)
    found = compare(new.set_column(new.column_names.index(feature), feature, values), old)

    assert drifted(found) == [feature]
    (item,) = (item for item in found if item.drifted)
    assert item.distance > item.threshold
    assert item.detail is not None
    assert item.detail.endswith(f"{np.median(old[feature].to_numpy()):.3g} before")


def test_a_difference_too_small_to_matter_is_no_drift_however_many_images_show_it() -> None:
    new, old = table(2_000, seed=1), table(4_000, seed=2)
    shifted = new.set_column(new.column_names.index("entropy"), "entropy", pa.array(new["entropy"].to_numpy() + 0.035))

    assert drifted(compare(shifted, old, min_distance=0)) == ["entropy"]
    assert drifted(compare(shifted, old)) == []


def test_the_same_images_in_another_order_and_again_give_the_same() -> None:
    new, old = table(50, seed=1), table(80, seed=2)
    assert compare(new, old) == compare(new, old)


TEN = {f"c{number}": 40 for number in range(10)}


@pytest.mark.parametrize(
    ("new", "before", "detail"),
    [
        pytest.param(
            {name: 22 for name in TEN if name != "c3"},
            TEN,
            "no new image is of class 'c3', 10 % before",
            id="one of ten is missing",
        ),
        pytest.param(
            {"cat": 90, "dog": 90, "owl": 20},
            {"cat": 500, "dog": 500},
            "class 'owl' is new and makes up 10 % of the new images",
            id="one is new",
        ),
        pytest.param(
            {"cat": 140, "dog": 60},
            {"cat": 250, "dog": 250},
            "class 'cat' makes up 70 % of the new images, 50 % before; class 'dog' makes up 30 % of the new images, "
            "50 % before",
            id="another mix",
        ),
        pytest.param(
            {f"d{number}": 1 for number in range(200)},
            {"cat": 100},
            "no new image is of class 'cat', 100 % before",
            id="nothing in common",
        ),
        pytest.param(
            {f"k{number}": 5 for number in range(100)},
            {f"k{number}": 5 + 5 * (number % 2) for number in range(100)},
            None,
            id="each class a little, by chance",
        ),
    ],
)
def test_the_mix_of_classes(new: dict[str, int], before: dict[str, int], detail: str | None) -> None:
    sides = (labels(**new), labels(**before))
    found = compare(*(table(len(names), seed=seed, label=names) for seed, names in enumerate(sides)))

    assert label_of(found).detail == detail
    assert label_of(found).drifted == (detail is not None)


def test_many_small_changes_of_classes_add_up() -> None:
    half = {f"k{number}": 10 + 10 * (number < 50) for number in range(100)}
    other = {f"k{number}": 10 + 10 * (number >= 50) for number in range(100)}
    found = compare(*(table(1500, seed=seed, label=labels(**mix)) for seed, mix in enumerate((half, other))))

    assert drifted(found) == ["label"]
    assert label_of(found).distance == pytest.approx(1 / 6 * 2)


def test_a_change_of_classes_that_does_not_matter_is_no_drift_however_many_images_show_it() -> None:
    mixes = ({"cat": 1650, "dog": 1350}, {"cat": 1500, "dog": 1500})
    sides = [table(3_000, seed=seed, label=labels(**mix)) for seed, mix in enumerate(mixes)]

    found = compare(*sides)

    assert label_of(found).p_value <= ALPHA
    assert drifted(found) == []


def bursts(count: int, seed: int) -> tuple[pa.Table, dict[str, str]]:
    """`count` scenes of eight nearly equal images each, and the groups that they form."""
    scenes = table(count, seed)
    rows = scenes.take(np.repeat(np.arange(count), 8))
    ids = [f"{seed}-{number}" for number in range(len(rows))]
    groups = {image_id: f"{seed}-{number // 8}-scene" for number, image_id in enumerate(ids)}
    return rows.set_column(0, "image_id", pa.array(ids)), groups


def test_images_that_came_together_count_as_one() -> None:
    alone = together = 0
    for seed in range(10):
        (new, groups), (old, others) = bursts(8, seed), bursts(40, seed + 100)
        alone += bool(drifted(compare(new, old)))
        together += bool(drifted(compare(new, old, groups=groups | others)))

    assert alone >= 7
    assert together == 0


def test_a_shift_of_whole_groups_is_still_found() -> None:
    (new, groups), (old, others) = bursts(12, 1), bursts(60, 2)
    gray = new.set_column(new.column_names.index("saturation"), "saturation", pa.array([0.0] * len(new)))

    assert drifted(compare(gray, old, groups=groups | others)) == ["saturation"]


def test_new_rows_are_the_batches_without_any_image_of_the_training() -> None:
    first, second, third = table(4, seed=1), table(3, seed=2, batch="0002"), table(2, seed=3, batch="0003")
    # Of each batch the live model knew, half was held out of its training.
    training = pa.concat_tables([first.slice(0, 2), second.slice(0, 1)])

    assert drift.new_rows(pa.concat_tables([first, second, third]), training).equals(third)


@pytest.mark.parametrize(
    ("sizes", "newest", "before"),
    [
        pytest.param({"0001": 300}, "0001", [], id="the first batch"),
        pytest.param({"0001": 300, "0002": 250, "0003": 50}, "0003", ["0002"], id="the one before"),
        pytest.param({"0001": 300, "0002": 190, "0003": 12, "0004": 8}, "0004", ["0002", "0003"], id="small ones"),
        pytest.param({"9999": 300, "10000": 20}, "10000", ["9999"], id="numbers, not text"),
    ],
)
def test_the_newest_batch_and_what_came_before(sizes: dict[str, int], newest: str, before: list[str]) -> None:
    rows = pa.concat_tables([table(size, batch=name) for name, size in sizes.items()])
    new, reference = drift.previous_rows(rows)

    assert set(new["batch"].to_pylist()) == {newest}
    assert new.num_rows == sizes[newest]
    assert sorted(set(reference["batch"].to_pylist())) == before


def test_a_sudden_change_is_found_without_a_live_model_and_named_against_both_with_one() -> None:
    usual, gray = table(300, seed=1), table(60, seed=2, batch="0002", saturation=0.0)
    both = pa.concat_tables([usual, gray])
    how = {"alpha": ALPHA, "min_distance": MIN_DISTANCE}

    without = drift.all_comparisons(both, None, **how)
    live = drift.all_comparisons(both, usual.slice(0, 200), **how)

    assert drift.all_comparisons(usual, None, **how) == []
    assert {item.against for item in without} == {"previous"}
    assert drifted(without) == ["saturation"]
    assert [(item.against, item.feature) for item in live if item.drifted] == [
        ("live", "saturation"),
        ("previous", "saturation"),
    ]
    # Two comparisons share alpha, so each must be surer, and its p-value counts twice.
    assert min(item.p_value for item in live) >= 2 * min(item.p_value for item in without) * 0.9


def test_what_came_long_before_is_compared_with_the_live_model_only() -> None:
    usual, gray = table(300, seed=1), table(220, seed=2, batch="0002", saturation=0.0)
    again = table(60, seed=3, batch="0003", saturation=0.0)
    found = drift.all_comparisons(
        pa.concat_tables([usual, gray, again]), usual.slice(0, 200), alpha=ALPHA, min_distance=MIN_DISTANCE
    )

    assert [item.against for item in found if item.drifted] == ["live"]


def photographs(count: int, seed: int) -> list[tuple[str, Image.Image]]:
    """Coloured blots with grain, from a seed; in place of real images where there are none."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        width, height = (int(side) for side in random.integers(90, 200, 2))
        coarse = random.normal(random.uniform(70, 170), random.uniform(20, 60), (7, 7, 3)).clip(0, 255)
        smooth = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        grain = random.normal(0, random.uniform(4, 16), (height, width, 1))
        found.append((f"c{number % 5}", Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))))
    return found


def real(name: str) -> list[tuple[str, Image.Image]]:
    paths = sorted(path for path in (DATA / name).rglob("*") if path.is_file())
    order = np.random.default_rng(1).permutation(len(paths))[:400]
    found = []
    for number in order:
        with Image.open(paths[number]) as image:
            image.draft("RGB", (512, 512))  # a few are 9 megapixels
            label = paths[number].parent.name if name != "imagenet_sample" else "photograph"
            found.append((label, image.convert("RGB")))
    return found


def measured(pictures: list[tuple[str, Image.Image]], folder: Path) -> pa.Table:
    """Feature rows in the order of the pictures, as the stage profile makes them."""
    rows = []
    for number, (label, image) in enumerate(pictures):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        rows.append(
            {
                "image_id": store.put(buffer.getvalue()),
                "uri": str(number),
                "source_version": "1",
                "label": label,
                "batch": "0001",
                "bytes": buffer.tell(),
                "ingested_at": datetime.now(UTC),
                "notes": [],
                "removed": False,
            }
        )
    batches.update(folder, {"0001": pa.Table.from_pylist(rows, schema=manifest.SCHEMA)}, processes=1)
    return manifest.read_batches(folder)["0001"]


Collection = tuple[list[tuple[str, Image.Image]], pa.Table]


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Collection]:
    """Up to 400 images of each kind and their features; made from seeds where the real ones are missing."""
    home = tmp_path_factory.mktemp("drift")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", str(home))
        for seed, name in enumerate(("imagenet_sample", "sign_digits", "magnetic_tile")):
            pictures = real(name) if (DATA / name).is_dir() else photographs(300, seed)
            found[name] = (pictures, measured(pictures, home / name))
    return found


def test_batches_of_50_of_the_same_kind_raise_hardly_any_alarm(collections: dict[str, Collection]) -> None:
    draws, alarms = 0, []
    for _, rows in collections.values():
        for seed in range(40):
            order = np.random.default_rng(seed).permutation(len(rows))
            batch = ["0001"] * (len(rows) - 50) + ["0002"] * 50
            mixed = rows.take(order).set_column(rows.column_names.index("batch"), "batch", pa.array(batch))
            training = mixed.slice(0, int(0.7 * (len(rows) - 50)))
            found = drift.all_comparisons(mixed, training, alpha=ALPHA, min_distance=MIN_DISTANCE)
            assert {item.against for item in found} == {"live", "previous"}
            draws += 1
            if drifted(found):
                alarms.append(drifted(found))

    # 120 draws with a rate of 1 % raise more than 6 alarms once in 5000 times; with a rate of 15 % they raise so few
    # once in 1000.
    assert draws == 120
    assert len(alarms) <= 0.05 * draws, alarms


EDITS: dict[str, tuple[Callable[[Image.Image], Image.Image], set[str]]] = {
    "grayscale": (lambda image: image.convert("L"), {"saturation", "colourfulness"}),
    "a quarter brighter": (lambda image: image.point(lambda value: value * 1.25), {"brightness", "mean_g"}),
    "blurred": (lambda image: image.filter(ImageFilter.GaussianBlur(2)), {"sharpness", "edge_density"}),
    "half the resolution": (lambda image: image.resize((image.width // 2, image.height // 2)), {"width", "height"}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_real_shift_of_200_images_is_found(
    collections: dict[str, Collection], edit: str, tmp_path: Path, refit_home: Path
) -> None:
    change, expected = EDITS[edit]
    pictures, rows = collections["imagenet_sample"]
    edited = measured([(label, change(image)) for label, image in pictures[:200]], tmp_path / "features")

    assert not drifted(compare(rows.slice(0, 200), rows.slice(200)))
    assert expected <= set(drifted(compare(edited, rows.slice(200))))


def test_200_real_images_without_one_class_or_with_an_unseen_one(collections: dict[str, Collection]) -> None:
    _, rows = collections["sign_digits"]
    new, old = rows.slice(0, 200), rows.slice(200)
    for label in sorted(set(rows["label"].to_pylist())):
        others = new.filter(pc.not_equal(new["label"], label))
        missing = label_of(compare(others, old))
        unseen = label_of(compare(new, old.filter(pc.not_equal(old["label"], label))))

        assert missing.drifted
        assert f"no new image is of class '{label}'" in str(missing.detail)
        assert unseen.drifted
        assert f"class '{label}' is new" in str(unseen.detail)
