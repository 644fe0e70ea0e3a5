from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.reduced import reduced
from pipeline.profiling import features
from pipeline.profiling.embeddings import SIZE, Embedded, Network
from pipeline.profiling.imagenet import gap, reference, space
from tests.pipeline.profiling.imagenet.test_reference import like_imagenet

SHIPPED = reference.load()
SHARED = Path(__file__).parents[5] / "shared/data"


def embedded(images: int, *, seed: int, at: float = 0.0, logit: float = 10.0) -> Embedded:
    """Embeddings around a centre that is `at` standard deviations off in every number."""
    random = np.random.default_rng(seed)
    vectors = random.normal(at, 1.0, (images, SIZE)).astype(np.float32)
    logits = random.normal(logit, 1.0, images).astype(np.float32)
    return Embedded(tuple(f"{seed}-{number}" for number in range(images)), vectors, logits)


THEIRS = space.of(embedded(500, seed=0))


def test_the_shipped_space_is_of_the_reference_images_and_small() -> None:
    shipped = space.load()

    assert shipped.points.shape == (SHIPPED.images, space.DIRECTIONS)
    assert shipped.max_logits.shape == (SHIPPED.images,)
    assert space.PATH.stat().st_size < 300_000
    directions = shipped.directions.astype(np.float64)
    np.testing.assert_allclose(directions.T @ directions, np.eye(space.DIRECTIONS), atol=2e-3)
    np.testing.assert_allclose(shipped.points.astype(np.float64).mean(axis=0), 0, atol=1e-2)


def test_a_space_survives_the_way_to_disk(tmp_path: Path) -> None:
    space.save(THEIRS, tmp_path / "embeddings.npz")
    found = space.load(tmp_path / "embeddings.npz")

    for name in ("mean", "directions", "points", "max_logits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(THEIRS, name))


@pytest.mark.parametrize("images", [25, 100, 400])
def test_images_like_imagenets_are_near_however_many_they_are(images: int) -> None:
    found = gap.measure(like_imagenet(images), embedded(images, seed=1), SHIPPED, THEIRS)  # type: ignore[arg-type]

    assert found is not None
    assert found.score < 0.15
    assert found.words == gap.WORDS[0][1]
    assert found.images == images


@pytest.mark.parametrize(
    ("columns", "offset", "logit", "part"),
    [
        pytest.param({}, 0.0, 5.0, "recognition", id="unknown things"),
        pytest.param({"saturation": 0.0}, 0.0, 10.0, "grey", id="no colour"),
        pytest.param({"brightness": 0.95, "contrast": 0.01, "edge_density": 0.0}, 0.0, 10.0, "appearance", id="flat"),
        pytest.param({}, 4.0, 10.0, "frechet", id="elsewhere"),
    ],
)
def test_each_distance_is_seen_by_its_part(columns: dict[str, float], offset: float, logit: float, part: str) -> None:
    table = like_imagenet(200, **columns)
    near = gap.measure(like_imagenet(200), embedded(200, seed=1), SHIPPED, THEIRS)  # type: ignore[arg-type]
    far = gap.measure(table, embedded(200, seed=1, at=offset, logit=logit), SHIPPED, THEIRS)  # type: ignore[arg-type]

    assert near is not None
    assert far is not None
    assert far.parts[part] > near.parts[part] + 0.4
    assert far.score > near.score + 0.1


def test_few_images_tell_nothing() -> None:
    few = gap.MIN_IMAGES - 1
    assert gap.measure(like_imagenet(few), embedded(few, seed=1), SHIPPED, THEIRS) is None  # type: ignore[arg-type]


def test_frechet_distance_of_two_gaussians() -> None:
    random = np.random.default_rng(5)
    theirs = random.normal(0, 1, (20_000, 2))
    ours = np.column_stack([random.normal(2, 1, 20_000), random.normal(0, 3, 20_000)])

    # Means 2 apart, standard deviations (1, 3) and (1, 1): 4 + (1 - 1)² + (3 - 1)², over a variance of 2.
    assert gap.frechet(ours, theirs) == pytest.approx(4, abs=0.1)
    assert gap.frechet(theirs, theirs) == pytest.approx(0, abs=1e-6)


def test_two_samples_are_told_apart_as_far_as_they_differ() -> None:
    random = np.random.default_rng(6)
    theirs, same, apart = (random.normal(at, 1, (1000, 2)) for at in (0, 0, (1.0, 0)))

    assert gap.two_sample(same, theirs) < 0.06
    # Two normals one standard deviation apart: AUC = Phi(1 / sqrt 2) = 0.760.
    assert gap.two_sample(apart, theirs) == pytest.approx(0.52, abs=0.05)


def test_real_images_are_ranked() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no sample images in {SHARED}")
    network = Network()
    scores = []
    for name in ("imagenet_sample", "sign_digits", "magnetic_tile"):
        paths = [path for path in sorted((SHARED / name).rglob("*")) if path.is_file()]
        paths = paths[:: len(paths) // 40][:40]
        vectors, logits = network.embed(paths, Path.read_bytes, 2, what="test")
        table = features.measure([reduced(path.read_bytes(), features.MEASURED_SIDE) for path in paths])
        images = Embedded(tuple(map(str, paths)), vectors.astype(np.float32), logits)
        found = gap.measure(table, images, SHIPPED, space.load())
        assert found is not None
        scores.append(found.score)

    photos, hands, tiles = scores
    assert photos < 0.15
    assert 0.4 < hands < 0.75
    assert tiles > 0.85
