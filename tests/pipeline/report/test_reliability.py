from __future__ import annotations

from pipeline.report import reliability
from pipeline.report.reliability import BOTTOM, LARGEST, LEFT, RIGHT, SMALLEST, TOP


def test_a_bin_lies_where_its_confidence_and_accuracy_are() -> None:
    found = reliability.diagram(
        [
            {"images": 100, "confidence": 0.5, "accuracy": 1.0},
            {"images": 0, "confidence": None, "accuracy": None},
            {"images": 25, "confidence": 1.0, "accuracy": 0.0},
            {"images": 1, "confidence": 0.0, "accuracy": 0.0},
        ]
    )
    assert found is not None
    middle = ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2)
    assert [(point.x, point.y, point.ideal, point.radius) for point in found.points] == [
        (middle[0], TOP, middle[1], LARGEST),
        (RIGHT, BOTTOM, TOP, LARGEST / 2),  # a quarter of the images is a quarter of the area
        (LEFT, BOTTOM, BOTTOM, SMALLEST),
    ]
    assert "25 images, confidence 1.00, accuracy 0.00" in found.description


def test_no_image_no_diagram() -> None:
    assert reliability.diagram([]) is None
