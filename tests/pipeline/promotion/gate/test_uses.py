from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.promotion.gate import uses
from pipeline.promotion.gate.uses import Uses


def test_nothing_has_been_decided_yet(tmp_path: Path) -> None:
    assert uses.count(tmp_path / "decisions", "r1", ["a", "b"]) == Uses(0, 2, 2)
    assert uses.count(tmp_path / "decisions", "r1", []) == Uses(None, 0, 0)


def test_images_that_came_later_have_served_less(tmp_path: Path) -> None:
    uses.record(tmp_path, "r1", ["a", "b"])
    uses.record(tmp_path, "r2", ["a", "b", "c"])
    assert uses.count(tmp_path, "r3", ["a", "b", "c", "d"]) == Uses(1.5, 4, 1)  # 2, 2, 1, 0


def test_a_decision_that_is_repeated_counts_once_and_not_for_itself(tmp_path: Path) -> None:
    uses.record(tmp_path, "r1", ["a"])
    before = (tmp_path / "r1.parquet").read_bytes()
    uses.record(tmp_path, "r1", ["a"])
    assert (tmp_path / "r1.parquet").read_bytes() == before
    assert uses.count(tmp_path, "r1", ["a"]) == Uses(0, 1, 1)
    assert uses.count(tmp_path, "r2", ["a"]) == Uses(1, 1, 0)


@settings(max_examples=30)
@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=5), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_the_count_is_that_of_the_sets_that_hold_an_image(decisions: list[set[str]], test: set[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, images in enumerate(decisions):
            uses.record(folder, f"r{number}", images)
        found = uses.count(folder, "now", test)
    counts = sorted(sum(image in images for images in decisions) for image in test)
    middle = len(counts) // 2
    assert found.median == (counts[middle] + counts[-1 - middle]) / 2
    assert found.unused == counts.count(0)
