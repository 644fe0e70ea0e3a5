from __future__ import annotations

import html.parser
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from pipeline import runtime
from pipeline.dataset import store
from pipeline.validation.verdict import Finding, Verdict
from tests.pipeline.validation.gate import build, images, profile, quarantined, suspected

with runtime.quiet_imports():
    from pipeline.validation import page

MARKUP = "<script>alert(1)</script>&\"'"
Png = Callable[..., bytes]


class Reader(html.parser.HTMLParser):
    """What tags there are, and whether every one that is opened is closed."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rendered(
    rows: pa.Table,
    findings: tuple[Finding, ...] = (),
    *,
    quarantine: pa.Table | None = None,
    worst: pa.Table | None = None,
    training: pa.Table | None = None,
    new: pa.Table | None = None,
    **changes: Any,
) -> str:
    waiting = quarantined([]) if quarantine is None else quarantine
    suspects = suspected([]) if worst is None else worst
    evidence = page.Evidence(
        Verdict.of(findings),
        build(rows, waiting, suspects=suspects),
        rows,
        waiting,
        suspects,
        training,
        rows if new is None else new,
        profile(rows, training, **changes),
    )
    text = page.render(evidence, max_pixels=10**8)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert "http" not in re.sub(r'http-equiv|data:[^"]*', "", text)
    return text


@pytest.mark.parametrize(
    ("findings", "title"),
    [
        ((), "Passed"),
        ((Finding("drift", "warn", "a", "b"),), "Passed with 1 warning"),
        (
            (Finding("drift", "warn", "a", "b"), Finding("class_count", "block", "c", "d")),
            "Blocked: the data cannot be trained on",
        ),
    ],
    ids=["pass", "warn", "block"],
)
def test_the_verdict_is_on_top(findings: tuple[Finding, ...], title: str) -> None:
    text = rendered(images(), findings)

    assert re.findall("<h1>(.*)</h1>", text) == [title]
    assert text.count('class="finding"') == len(findings)


def test_what_comes_from_outside_is_text(png: Png) -> None:
    rows = images(label=[MARKUP] * 20 + ["x" * 3000] * 20, uri=[f"{MARKUP}{number}" for number in range(40)])
    finding = Finding("small_image", "warn", MARKUP, MARKUP, {MARKUP: 1.0}, (f"{MARKUP}0",))
    waiting = quarantined(["damaged", "label-conflict"], uri=MARKUP, label=MARKUP, detail=MARKUP)
    suspects = suspected([{"image_id": "0", "uri": MARKUP, "label": MARKUP, "suggested": MARKUP}])
    drift = {"against": "live", "feature": "label", "distance": 1.0, "threshold": 0.1, "p_value": 0.0, "drifted": True}
    text = rendered(
        rows,
        (finding,),
        quarantine=waiting,
        worst=suspects,
        training=rows,
        drift=[drift | {"detail": MARKUP}],
        imagenet_gap=[MARKUP],
        domain_gap={"score": 0.5, "words": MARKUP, "images": 4, "parts": {MARKUP: 1.0}},
    )

    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 20


def test_examples_are_shown_as_pictures(png: Png) -> None:
    known = store.put(png(1))
    rows = images(image_id=[known, *(f"gone{number}" for number in range(39))])
    waiting = quarantined(["label-conflict"], image_id=store.put(png(2)), uri="cat/contested.png")
    suspects = suspected([{"image_id": known, "uri": "0.png", "label": "dog", "suggested": "cat"}])
    findings = (
        Finding("small_image", "warn", "m", "f", {}, ("0.png", "1.png")),
        Finding("label_conflict", "warn", "m", "f", {}, ("cat/contested.png",)),
        Finding("unreadable", "warn", "m", "f", {}, ("1.png",)),
    )
    text = rendered(rows, findings, quarantine=waiting, worst=suspects, suspects={"checked": 40, "found": 1})

    assert text.count("<img") == 4  # two of the findings', the suspect, the quarantined file
    assert text.count("no picture") == 1  # beside one that there is; where there is none, only the names are listed
    assert "looks like cat (90%, 1%)" in text


def test_all_suspects_are_counted_though_only_the_worst_are_drawn() -> None:
    found = suspected(
        {"image_id": "0", "uri": f"{number}.png", "label": "dog", "suggested": "cat"} for number in range(1234)
    )
    text = rendered(images(), worst=found, suspects={"checked": 6000, "found": 1234})

    assert "The 24 worst of 1,234 images that" in text


def test_pictures_leave_the_page_below_three_megabytes(png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    known = store.put(png(1, 200, 200))
    finding = Finding("small_image", "warn", "m", "f", {}, ("0.png",))
    monkeypatch.setattr(page, "PICTURES", 20_000)
    text = rendered(images(image_id=[known] * 40), (finding,) * 30)

    assert 2 <= text.count("<img") <= 4


def test_a_thousand_classes_are_folded() -> None:
    rows = images(2000, label=[f"class {number % 1000:03d}" for number in range(2000)])
    text = rendered(rows, training=rows)

    assert "All 1000 classes" in text
    assert len(text) < 1_000_000


def test_classes_stand_beside_those_of_the_live_model() -> None:
    table = build(images(label=["cat"] * 30 + ["dog"] * 10)).classes

    assert page.classes(table, {"cat": 60, "eel": 6}) == [
        {"label": "eel", "images": 0, "live": 6, "bar": 0.0, "live_bar": 0.1},
        {"label": "dog", "images": 10, "live": 0, "bar": 1 / 6, "live_bar": 0.0},
        {"label": "cat", "images": 30, "live": 60, "bar": 0.5, "live_bar": 1.0},
    ]


def test_distributions_are_drawn_over_the_live_models_and_imagenets() -> None:
    rows = images()
    drifted = {"against": "live", "feature": "width", "drifted": True}
    drawn = page.panels(rows, rows, profile(rows, rows, drift=[drifted]))

    assert [name for name, *_ in drawn] == list(page.FEATURES)
    for name, panel, _, moved in drawn:
        assert [outline.name for outline in panel.outlines] == ["ours", "live", "imagenet"]
        assert moved is (name == "width")


def test_the_new_images_are_what_is_drawn_over_the_training_data() -> None:
    rows = images(40)
    text = rendered(rows, training=rows, new=rows.slice(0, 12))
    assert "the 12 new images" in text
    assert "these 40 images" in rendered(rows, training=rows, new=rows.slice(0, 0))
