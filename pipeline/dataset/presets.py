"""What augmentation does to training images, with nothing left open: a preset with the user's own values over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.settings import Augment


@dataclass(frozen=True)
class Policy:
    """The fields are those of `settings.Augment` (params.yaml describes them). The defaults change nothing."""

    fill: Literal["nearest", "reflect", "wrap", "constant"] = "nearest"
    never_mirror: tuple[str, ...] = ()
    horizontal_flip: bool = False
    vertical_flip: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0
    randaugment: int = 0
    magnitude: float = 0.3
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mirrors(self) -> bool:
        return self.horizontal_flip or self.vertical_flip

    @property
    def moves(self) -> bool:
        moving = (self.mirrors, self.rotation, self.translation, self.shear, self.zoom, self.randaugment)
        return any(moving)

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    @property
    def alters(self) -> bool:
        """Whether a view of an image differs from it. Mixing is done to batches, and counts for nothing here."""
        changes = (self.brightness, self.contrast, self.saturation, self.hue, self.erase)
        return self.moves or self.crop < 1 or any(changes)


_STANDARD = Policy(horizontal_flip=True, rotation=0.03, translation=0.06, zoom=0.1, brightness=0.1, contrast=0.1)
PRESETS: Mapping[str, Policy] = {
    "none": Policy(),
    "light": Policy(horizontal_flip=True, translation=0.04, zoom=0.05),
    "standard": _STANDARD,
    # After "ResNet strikes back" (Wightman et al. 2021), for thousands of images and long runs. Most of the colour
    # comes from RandAugment; with much more besides, or larger hidden patches next to CutMix's, objects are lost.
    "strong": Policy(
        horizontal_flip=True,
        crop=0.35,
        rotation=0.02,
        brightness=0.1,
        contrast=0.15,
        saturation=0.2,
        hue=0.02,
        erase=0.1,
        randaugment=2,
        magnitude=0.25,
        mixup=0.1,
        cutmix=1.0,
    ),
    # Left is not right in a body, and grey levels mean something.
    "medical": Policy(rotation=0.03, translation=0.05, shear=0.03, zoom=0.1, brightness=0.05, contrast=0.1),
    # Seen from above nothing is upright, and light and haze change. Turned corners show land again, not streaks.
    "aerial": Policy(
        fill="reflect",
        horizontal_flip=True,
        vertical_flip=True,
        rotation=0.5,
        translation=0.05,
        zoom=0.15,
        brightness=0.1,
        contrast=0.2,
        saturation=0.15,
    ),
}


def resolve(settings: Augment) -> Policy:
    """The preset, with every value that is set in `settings` instead of its own."""
    own = {name: value for name in Policy.__dataclass_fields__ if (value := getattr(settings, name)) is not None}
    return Policy(**(vars(PRESETS[settings.preset]) | own))
