"""What may happen to an image, as data: ranges and probabilities per preset, with their source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from embeddings.errors import UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Ranges and probabilities of one view; probabilities in [0, 1]."""

    crop_area: tuple[float, float] = (0.08, 1.0)  # share of the image
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height, drawn uniformly in its logarithm
    flip: float = 0.5  # left and right
    quarter_turns: float = 0.0  # probability of a turn by one, two or three quarters
    jitter: float = 0.8  # probability; factors are drawn from 1 +- the four spans, in random order
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2  # turns of the color wheel, +- this
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels in a view of 224
    blur_from: int = 64  # smallest whole view, in pixels, that is blurred at all
    solarize: float = 0.0
    scale: float = 1.0  # edge of the view as a share of a whole one: local crops are smaller

    def __post_init__(self) -> None:
        spans = (self.brightness, self.contrast, self.saturation, 2 * self.hue)
        chances = (self.flip, self.quarter_turns, self.jitter, self.gray, self.blur, self.solarize)
        if not all(0 <= value <= 1 for value in spans + chances):
            raise UsageError(f"{self} has a probability or span outside [0, 1].", hint="A hue span is at most 0.5.")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise UsageError(f"crop_area is {self.crop_area}; wanted 0 < low <= high <= 1.")
        if not 0 < self.scale <= 1:
            raise UsageError(f"scale is {self.scale}; wanted more than 0 and at most 1.")

    def edge(self, size: int) -> int:
        """Edge of these views in pixels where whole ones have ``size``: the nearest multiple of 8."""
        return size if self.scale == 1 else max(8, 8 * round(size * self.scale / 8))


BYOL = Preset(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)  # its color, and DINO's

BYOL_VIEWS = ("natural-first", "natural-second")

# natural: SimCLR's ImageNet views (arXiv 2002.05709, appendix A: strength 1). Its sigma of 0.1 to 2 belongs to 224
#   pixels and is scaled with the view; SimCLR leaves blur out at 32 pixels, which `blur_from` does.
# natural-half: SimCLR's CIFAR-10 views (appendix B.9: strength 0.5, no blur).
# natural-first, natural-second: BYOL's two kinds of view (arXiv 2006.07733, table 6); Barlow Twins, VICReg and MoCo v3
#   use the same pair.
# dino-first, dino-second, dino-local: two global crops and the small ones (arXiv 2104.14294, appendix C).
# crop-flip: MAE's (arXiv 2111.06377, appendix A.1).
# inspection: for parts seen under fixed light, where color and small things carry the label: large crops, mild color,
#   any quarter turn. gray-small: for small gray images, without color. Both are ours; measure with the audit.
PRESETS: dict[str, Preset] = {
    "natural": Preset(),
    "natural-half": Preset(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.0),
    "natural-first": replace(BYOL, blur=1.0),
    "natural-second": replace(BYOL, blur=0.1, solarize=0.2),
    "dino-first": replace(BYOL, crop_area=(0.4, 1.0), blur=1.0),
    "dino-second": replace(BYOL, crop_area=(0.4, 1.0), blur=0.1, solarize=0.2),
    "dino-local": replace(BYOL, crop_area=(0.05, 0.4), scale=96 / 224),
    "crop-flip": Preset(crop_area=(0.2, 1.0), jitter=0.0, gray=0.0, blur=0.0),
    "inspection": Preset(
        crop_area=(0.4, 1.0),
        quarter_turns=0.75,
        brightness=0.2,
        contrast=0.2,
        saturation=0.1,
        hue=0.0,
        gray=0.0,
        blur=0.1,
        blur_sigma=(0.1, 1.0),
    ),
    "gray-small": Preset(
        crop_area=(0.3, 1.0), brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0, gray=0.0, blur=0.0
    ),
}


def preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PRESETS:
        raise UnknownNameError("augmentation preset", name, PRESETS)
    return PRESETS[name]


def per_view(names: Sequence[str], count: int) -> tuple[Preset, ...]:
    """Presets of ``count`` views, from one name for all of them or one for each.

    Raises:
        UnknownNameError: a name.
        UsageError: another number of names.
    """
    if len(names) not in (1, count):
        raise UsageError(
            f"There are {len(names)} augmentation presets ({', '.join(names)}) for {count} kinds of view.",
            hint=f"Name one for all, or {count}.",
        )
    found = tuple(preset(name) for name in names)
    return found * count if len(found) == 1 else found
