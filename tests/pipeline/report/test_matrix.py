from __future__ import annotations

from pipeline.report import matrix


def answers(*pairs: tuple[str, str, int]) -> list[dict[str, str]]:
    return [{"label": label, "predicted": predicted} for label, predicted, count in pairs for _ in range(count)]


def test_cells_and_shades_by_hand() -> None:
    found = matrix.build(["a", "b", "c"], answers(("a", "a", 7), ("a", "b", 1), ("b", "a", 3)), {("b", "a"): "here"})
    assert [[cell.count for cell in row.cells] for row in found.rows] == [[7, 1, 0], [3, 0, 0], [0, 0, 0]]
    assert [[cell.shade for cell in row.cells] for row in found.rows] == [
        ["h7", "m1", ""],
        ["m8", "", ""],
        ["", "", ""],
    ]
    assert [[cell.anchor for cell in row.cells] for row in found.rows] == [[None] * 3, ["here", None, None], [None] * 3]
    assert [(pair.actual, pair.predicted, pair.count, pair.share, pair.anchor) for pair in found.pairs] == [
        ("b", "a", 3, 1.0, "here"),
        ("a", "b", 1, 0.125, None),
    ]


def test_only_the_most_confused_pairs_are_listed() -> None:
    classes = [f"c{number:02d}" for number in range(30)]
    found = matrix.build(classes, answers(*(("c00", name, number) for number, name in enumerate(classes))), {})
    assert len(found.pairs) == matrix.PAIRS
    assert found.pairs[0].predicted == "c29"
