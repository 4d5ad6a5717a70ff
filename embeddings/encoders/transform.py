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
    """Resize, crop and scale. ``mean`` and ``std`` act on pixel values 0..255: (x - mean) / std.

    Without one of the three sides the image is squashed to the square that the network sees. Picklable, and imports no
    torch: worker processes carry it out.
    """

    size: int  # edge of the square that the network sees
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    shorter_side: int | None = None  # resize the shorter side to this and crop the center
    longer_side: int | None = None  # resize the longer side to this and fill the square up with the mean color
    squash_side: int | None = None  # squash to a square of this edge and crop the center
    resampling: str = "bicubic"

    @property
    def edge(self) -> int:
        """The shortest side in pixels that an image is resized to: all the detail that is of use."""
        return self.shorter_side or self.longer_side or self.squash_side or self.size

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB image -> uint8 [size, size, 3]."""
        return np.asarray(self._centered(self._resized(image)))

    def __str__(self) -> str:
        square = f"{self.size}x{self.size}"
        scale = f"(x - {_show(self.mean)}) / {_show(self.std)}"
        return f"EXIF rotation, RGB on white; {self._way} {square}, Pillow {self.resampling}; {scale}"

    @property
    def _way(self) -> str:
        if self.shorter_side is not None:
            return f"shorter side to {self.shorter_side}, center crop"
        if self.longer_side is not None:
            return f"longer side to {self.longer_side}, filled with the mean to"
        if self.squash_side is not None:
            return f"squash to {self.squash_side}x{self.squash_side}, center crop"
        return "squash to"

    def _resized(self, image: Image.Image) -> Image.Image:
        method = RESAMPLING[self.resampling]
        if self.shorter_side is not None:
            middle = _without_ends(image)
            return middle.resize(_scaled_size(middle.size, self.shorter_side), method)
        if self.longer_side is not None:
            ratio = max(image.size) / self.longer_side
            width, height = (max(1, round(edge / ratio)) for edge in image.size)
            return image.resize((width, height), method)
        side = self.squash_side or self.size
        return image.resize((side, side), method)

    def _centered(self, image: Image.Image) -> Image.Image:
        """The square in the middle; black where the image does not reach, the mean color after ``longer_side``."""
        if image.size == (self.size, self.size):
            return image
        left, top = (_offset(edge, self.size) for edge in image.size)
        if self.longer_side is None:
            return image.crop((left, top, left + self.size, top + self.size))
        square = Image.new("RGB", (self.size, self.size), self._fill)
        square.paste(image, (-left, -top))
        return square

    @property
    def _fill(self) -> tuple[int, int, int]:
        red, green, blue = np.broadcast_to(np.round(self.mean), 3).astype(int).tolist()
        return red, green, blue


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


def _offset(edge: int, size: int) -> int:
    """Where a centered crop starts, rounded as torchvision does; negative where the image is smaller."""
    return round((edge - size) / 2.0) if edge >= size else -((size - edge) // 2)


def _show(value: float | tuple[float, ...]) -> str:
    return f"{value:g}" if isinstance(value, float | int) else f"[{', '.join(f'{v:g}' for v in value)}]"
