"""From an RGB image to the pixels a network wants: the CPU half of every encoder, with its own description."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LONGEST = 16  # times the shorter side


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Resize, crop and scale. ``mean`` and ``std`` act on pixel values 0..255: (x - mean) / std."""

    size: int  # edge of the square that the network sees
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    shorter_side: int | None = None  # resize the shorter side to this and crop the center; None squashes to the square
    resampling: str = "bicubic"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB image -> uint8 [size, size, 3]."""
        method = RESAMPLING[self.resampling]
        if self.shorter_side is None:
            return np.asarray(image.resize((self.size, self.size), method))
        middle = _without_ends(image)
        scaled = middle.resize(_scaled_size(middle.size, self.shorter_side), method)
        left, top = (round((edge - self.size) / 2.0) for edge in scaled.size)
        return np.asarray(scaled.crop((left, top, left + self.size, top + self.size)))

    def __str__(self) -> str:
        square = f"{self.size}x{self.size}"
        way = "squash to" if self.shorter_side is None else f"shorter side to {self.shorter_side}, center crop"
        scale = f"(x - {_show(self.mean)}) / {_show(self.std)}"
        return f"EXIF rotation, RGB on white; {way} {square}, Pillow {self.resampling}; {scale}"


def _without_ends(image: Image.Image) -> Image.Image:
    """The middle of an extremely long image: a center crop never shows its ends, but resizing them fills the memory."""
    limit = LONGEST * min(image.size)
    if max(image.size) <= limit:
        return image
    left, top = ((edge - min(edge, limit)) // 2 for edge in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def _scaled_size(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    short, long = sorted(size)
    longer_side = int(shorter_side * long / short)
    return (shorter_side, longer_side) if size[0] <= size[1] else (longer_side, shorter_side)


def _show(value: float | tuple[float, ...]) -> str:
    return f"{value:g}" if isinstance(value, float | int) else f"[{', '.join(f'{v:g}' for v in value)}]"
