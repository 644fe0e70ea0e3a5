from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

from pipeline.errors import SettingsError
from pipeline.profiling import features, schema
from pipeline.profiling.schema import Narrowed
from tests.pipeline.profiling.tables import table

COMMITTED = Path(__file__).parents[3] / "pipeline/validation/schema.pbtxt"


def with_uris(rows: pa.Table) -> pa.Table:
    return rows.append_column("uri", pa.array([f"photos/{number}.jpg" for number in range(len(rows))]))


def proposed(rows: pa.Table) -> tuple[Schema, dict[str, Narrowed]]:
    proposal, narrowed = schema.propose(with_uris(rows), schema.read(COMMITTED))
    return proposal, {item.feature: item for item in narrowed}


def allowed(proposal: Schema, name: str) -> tuple[float, float]:
    (feature,) = (each for each in proposal.feature if each.name == name)
    return schema.bounds(feature)


def values(proposal: Schema, name: str) -> list[str]:
    (feature,) = (each for each in proposal.feature if each.name == name)
    domain = schema.values(proposal, feature)
    return [] if domain is None else list(domain.value)


def test_the_values_that_there_are_and_bounds_beyond_what_was_observed() -> None:
    rows = table(
        101,
        label=["dog"] * 51 + ["cat"] * 50,
        format=["PNG"] * 100 + ["JPEG"],
        width=[300] * 50 + [401] * 51,
        brightness=[0.3 + number * 0.004 for number in range(101)],  # the middle 98 %: 0.304 to 0.696
        saturation=0.0,
    )
    proposal, narrowed = proposed(rows)

    assert values(proposal, "label") == ["cat", "dog"]
    assert values(proposal, "format") == ["JPEG", "PNG"]
    assert values(proposal, "mode") == ["RGB"]
    assert narrowed["format"].remark is not None
    assert "left out MPO, GIF, BMP, WEBP" in narrowed["format"].remark
    assert allowed(proposal, "width") == (150, 802)  # half and double
    assert allowed(proposal, "brightness") == pytest.approx((0.104, 0.896))  # 0.196 beyond
    assert allowed(proposal, "saturation") == pytest.approx((0, 0.02))
    assert narrowed["width"] == Narrowed("width", "1 to inf", "150 to 802")


def test_bounds_let_every_image_pass_and_are_never_wider_than_before() -> None:
    rows, base = table(150, seed=7), schema.read(COMMITTED)
    proposal, _ = proposed(rows)

    for name in features.NUMERIC:
        low, high = allowed(proposal, name)
        widest = allowed(base, name)
        assert widest[0] <= low < rows[name].to_numpy().min()
        assert rows[name].to_numpy().max() < high <= widest[1]


def test_images_that_alone_set_a_bound_are_named() -> None:
    _, narrowed = proposed(table(400, width=[3024, 2] + [100] * 398, entropy=[0.0] + [7.0] * 399))

    assert narrowed["width"].remark == (
        "2 of 400 images lie far from the others and set a bound, 'photos/0.jpg', 'photos/1.jpg'"
    )
    assert "1 of 400 images" in str(narrowed["entropy"].remark)
    assert narrowed["height"].remark is None


def test_a_handful_of_images_narrows_the_labels_only() -> None:
    proposal, narrowed = proposed(table(99, label="cat"))
    base = schema.read(COMMITTED)

    assert list(narrowed) == ["label"]
    assert values(proposal, "label") == ["cat"]
    assert values(proposal, "format") == values(base, "format")
    assert [allowed(proposal, name) for name in features.NUMERIC] == [allowed(base, name) for name in features.NUMERIC]
    assert "only the labels" in schema.to_text(proposal, list(narrowed.values()), "run r")


def test_its_text_is_a_schema_whatever_labels_and_files_are_called(tmp_path: Path) -> None:
    rows = with_uris(table(120, width=[9000] + [100] * 119, label=['a "b"\n#', "ça", "\u2603 "] * 40))
    rows = rows.set_column(rows.column_names.index("uri"), "uri", pa.array(['x\n"}{.jpg'] * 120))
    proposal, narrowed = schema.propose(rows, schema.read(COMMITTED))
    path = tmp_path / "schema.pbtxt"
    text = schema.to_text(proposal, narrowed, "run 1 of model pets, 120 images, on 2020-02-20")
    path.write_text(text)

    assert schema.read(path) == proposal
    assert text.startswith("# Proposed by `refit schema propose` from run 1 of model pets, 120 images, on 2020-02-20.")
    assert "ça" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("width: 5", "is none (1:1", id="another text proto"),
        pytest.param("\x80\udcff", "is none", id="no text"),
        pytest.param("# nothing", "names no feature", id="empty"),
        pytest.param('feature { name: "widht" }', "names widht, the features are label, format", id="unknown feature"),
        pytest.param('feature { name: "width" } feature { name: "width" }', "names width twice", id="twice"),
        pytest.param('feature { name: "label" domain: "pets" }', "string_domain pets", id="unknown domain"),
    ],
)
def test_what_is_no_schema_of_the_features_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.pbtxt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(SettingsError, match=r"validate\.schema") as caught:
        schema.read(path)

    assert words in caught.value.problem
    assert "refit schema propose" in caught.value.fix
