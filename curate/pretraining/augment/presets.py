"""What may happen to an image, as data: ranges and probabilities per preset, with their source."""

from __future__ import annotations

from dataclasses import dataclass

from embeddings.errors import UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Ranges and probabilities of one view; probabilities in [0, 1]."""

    crop_area: tuple[float, float] = (0.08, 1.0)  # share of the image
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height, drawn uniformly in its logarithm
    flip: float = 0.5
    jitter: float = 0.8  # probability; factors are drawn from 1 +- the four spans, in random order
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2  # turns of the color wheel, +- this
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels in a view of 224
    blur_from: int = 64  # smallest view, in pixels, that is blurred at all

    def __post_init__(self) -> None:
        spans = (self.brightness, self.contrast, self.saturation, 2 * self.hue)
        chances = (self.flip, self.jitter, self.gray, self.blur)
        if not all(0 <= value <= 1 for value in spans + chances):
            raise UsageError(f"{self} has a probability or span outside [0, 1].", hint="A hue span is at most 0.5.")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise UsageError(f"crop_area is {self.crop_area}; wanted 0 < low <= high <= 1.")


# natural: SimCLR's ImageNet views (arXiv 2002.05709, appendix A: strength 1). Its sigma of 0.1 to 2 belongs to 224
#   pixels and is scaled with the view; SimCLR leaves blur out at 32 pixels, which `blur_from` does.
# natural-half: SimCLR's CIFAR-10 views (appendix B.9: strength 0.5, no blur).
PRESETS: dict[str, Preset] = {
    "natural": Preset(),
    "natural-half": Preset(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.0),
}


def preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PRESETS:
        raise UnknownNameError("augmentation preset", name, PRESETS)
    return PRESETS[name]
