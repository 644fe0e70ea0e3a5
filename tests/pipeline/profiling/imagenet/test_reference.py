from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from pipeline.dataset.reduced import reduced
from pipeline.errors import DataError
from pipeline.profiling import features
from pipeline.profiling.imagenet import build, reference
from tests.pipeline.profiling.tables import table

SHIPPED = reference.load()


def like_imagenet(rows: int = 40, **columns: object) -> object:
    """Every feature at ImageNet's median, the channel means at their means."""
    medians = {name: value.median for name, value in SHIPPED.features.items()}
    means = {name: SHIPPED.features[name].mean for name in ("mean_r", "mean_g", "mean_b")}
    return table(rows, **(medians | means | columns))


def test_the_shipped_numbers_are_of_the_present_definitions() -> None:
    assert SHIPPED.features_version == features.VERSION
    assert SHIPPED.images == 500
    assert set(SHIPPED.features) == set(features.NUMERIC) - {"bytes"}


def test_the_shipped_statistics_are_of_the_same_images() -> None:
    shipped = reference.PATH.with_name("statistics.pb").read_bytes()
    (dataset,) = DatasetFeatureStatisticsList.FromString(shipped).datasets

    assert dataset.num_examples == SHIPPED.images
    medians = {feature.path.step[0]: feature.num_stats.median for feature in dataset.features}
    for name in ("width", "brightness", "sharpness"):
        assert medians[name] == pytest.approx(SHIPPED.features[name].median, rel=1e-3)


def test_the_histograms_hold_every_image() -> None:
    for name, value in SHIPPED.features.items():
        assert sum(value.histogram.counts) == SHIPPED.images, name
        assert len(value.histogram.counts) == reference.BINS
        assert value.quantiles[0] <= value.histogram.low < value.histogram.high <= value.quantiles[-1]


def test_the_shipped_channels_agree_with_the_published_ones() -> None:
    # Mean and standard deviation over all pixels of ImageNet, as torchvision states them. The spread within
    # images and that between them add up to the second.
    published = {"r": (0.485, 0.229), "g": (0.456, 0.224), "b": (0.406, 0.225)}
    for channel, (mean, std) in published.items():
        means, stds = SHIPPED.features[f"mean_{channel}"], SHIPPED.features[f"std_{channel}"]
        assert means.mean == pytest.approx(mean, abs=0.02)
        assert stds.mean == pytest.approx(std, abs=0.02)


def test_like_imagenet_there_is_nothing_to_say() -> None:
    assert reference.gap(like_imagenet(), SHIPPED) == []


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        pytest.param(
            {"saturation": 0.0}, "grayscale: 100% of the images have no colour (ImageNet: 2%)", id="grayscale"
        ),
        pytest.param(
            {"width": 125, "height": 94}, "4.0× smaller than ImageNet's median (side 108 px against 433 px)", id="small"
        ),
        pytest.param(
            {"width": 1000, "height": 750},
            "2.0× larger than ImageNet's median (side 866 px against 433 px)",
            id="large",
        ),
        pytest.param(
            {"mean_r": 0.49, "mean_b": SHIPPED.features["mean_b"].mean + 2.1 * SHIPPED.features["mean_b"].std},
            "channel means off by 2.1 σ (R +0.0, G +0.0, B +2.1)",
            id="blue",
        ),
        pytest.param(
            {"sharpness": 0.5},
            "sharpness: the median 0.5 lies above 100% of ImageNet's images (median 0.0301)",
            id="sharp",
        ),
    ],
)
def test_each_gap_has_its_sentence(columns: dict[str, float], sentence: str) -> None:
    assert reference.gap(like_imagenet(**columns), SHIPPED) == [sentence]


def test_the_numbers_of_a_table_survive_the_way_to_disk(tmp_path: Path) -> None:
    made = reference.summarise(
        table(3, width=[10, 20, 30], image_id=["b", "c", "a"]), source="three", built="2020-02-02", versions={"x": "1"}
    )
    reference.save(made, tmp_path / "reference.json")

    assert reference.load(tmp_path / "reference.json") == made
    assert (made.images, made.source) == (3, "three")
    assert made.images_digest == hashlib.sha256(b"a\nb\nc").hexdigest()
    width = made.features["width"]
    assert (width.mean, width.median, width.quantiles[0], width.quantiles[-1]) == (20, 20, 10, 30)
    assert width.share_below(15) == pytest.approx(0.25)
    assert width.share_below([0, 20, 99]).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("content", [None, b"no image"], ids=["empty", "not-an-image"])
def test_build_refuses(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.JPEG").write_bytes(content)

    with pytest.raises(DataError, match=r"ImageNet images|Expected an image"):
        build.build(tmp_path, source="", output=tmp_path / "out", processes=1)

    assert not (tmp_path / "out").exists()


def test_gap_of_a_folder_of_real_gray_images_says_so() -> None:
    folder = Path(__file__).parents[5] / "shared/data/magnetic_tile"
    if not folder.is_dir():
        pytest.skip(f"no sample images in {folder}")
    copies = [reduced(path.read_bytes(), features.MEASURED_SIDE) for path in sorted(folder.rglob("*.jp*g"))[:60]]
    sentences = reference.gap(features.measure(copies), SHIPPED)

    assert sentences[0].startswith("grayscale: 100%")
    assert any(sentence.startswith("edge density") for sentence in sentences)
