"""What is measured of the pictures of a set, to say in which respects two sets differ before anything is embedded.

    chroma     mean over pixels of max(r, g, b) - min(r, g, b)
    edge       detail, as the edge in pixels of a picture that can hold it: its shorter side, at most the encoder's.
               Where 95% of the power of the gradient lies within the frequencies of a picture less than SHARP times
               as large, the pictures were enlarged: then that edge, less what interpolation adds to a spectrum
    quality    JPEG quality that the pictures have gone through. A picture compressed once changes little when
               compressed again on the same grid of 8 x 8 blocks, and as much as any other on a grid shifted by half a
               block; the quality where the ratio of the two changes is smallest, if it is below TRACES
    border     color of plain borders, and the share of pictures that have one
    stretch    mean |log(width / height)|
    light      mean and standard deviation of luminance over all pixels, one weight per picture

Source: the shifted grid is the calibration of Fridrich, Goljan and Hogea, Steganalysis of JPEG images, 2002.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

Pictures = Sequence[Image.Image]
QUALITIES = (10, 20, 35, 50, 70, 85)
TRACES = 0.75
POWER = 0.95
SHARP = 0.75
ENLARGED = 1.25  # a picture of 28 pixels, enlarged by bicubic interpolation, has the spectrum of one of 35
PLAIN = 12.0  # levels of 255: mean distance of border pixels to their median color
SOME = 32  # pictures that tell detail and compression of a set
_CROP = 128  # pixels, of the middle: enough to find traces of compression


@dataclass(frozen=True)
class Border:
    """Plain borders of a set of pictures."""

    color: tuple[int, int, int]
    share: float


@dataclass(frozen=True)
class Facts:
    """See the module."""

    chroma: float
    edge: float
    quality: int | None
    border: Border
    stretch: float
    light: tuple[float, float]

    @classmethod
    def of(cls, pictures: Pictures, *, edge: int) -> Facts:
        """Facts of at least one picture, as an encoder with this edge sees them."""
        some = pictures[:: -(-len(pictures) // SOME)]
        return cls(
            chroma=float(np.mean([_chroma(p) for p in pictures])),
            edge=effective_edge(some, edge),
            quality=jpeg_quality(some),
            border=_border(pictures),
            stretch=float(np.mean([abs(np.log(p.width / p.height)) for p in pictures])),
            light=_light(pictures),
        )


def effective_edge(pictures: Pictures, edge: int) -> float:
    """Edge in pixels of pictures that could hold the same detail; at most ``edge``."""
    full = min(float(np.median([min(p.size) for p in pictures])), float(edge))
    power = np.mean([_gradient_power(p, edge) for p in pictures], axis=0)
    band = 2 * float(np.searchsorted(power.cumsum(), POWER * power.sum())) / np.sqrt(POWER)
    return band / ENLARGED if 0 < band < SHARP * full else full


def jpeg_quality(pictures: Pictures) -> int | None:
    """JPEG quality that most of the pictures have gone through, or None."""
    middles = [middle for middle in map(_middle, pictures) if min(middle.size) >= 16]
    if not middles:
        return None
    ratios = [np.median([_grid_ratio(m, quality) for m in middles]) for quality in QUALITIES]
    best = int(np.argmin(ratios))
    return QUALITIES[best] if ratios[best] < TRACES else None


def recompress(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after JPEG compression."""
    return _compressed(picture, quality).convert("RGB")


def border_color(picture: Image.Image) -> tuple[np.ndarray, bool]:
    """Median color [3] of the outermost pixels, and whether nearly all of them have it."""
    pixels = np.asarray(picture)
    ring = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]]).astype(float)
    color = np.median(ring, axis=0)
    return color, bool(np.abs(ring - color).mean() < PLAIN)


def _chroma(picture: Image.Image) -> float:
    pixels = np.asarray(picture)
    return float((pixels.max(axis=2).astype(int) - pixels.min(axis=2)).mean())


def _gradient_power(picture: Image.Image, edge: int) -> np.ndarray:
    """Share of the gradient's power by frequency [edge // 2 + 1] in cycles per picture, of square bands."""
    small = picture.convert("L").resize((edge, edge), Image.Resampling.BICUBIC)
    # A mirrored continuation has no jump at the border that would pass for detail.
    pixels = np.asarray(small, float)
    mirrored = np.block([[pixels, pixels[:, ::-1]], [pixels[::-1], pixels[::-1, ::-1]]])
    frequency = np.abs(np.fft.fftfreq(2 * edge, 1 / (2 * edge))) / 2
    across, down = np.meshgrid(frequency, frequency)
    power = np.abs(np.fft.fft2(mirrored)) ** 2 * (across**2 + down**2)
    bands = np.bincount(np.maximum(across, down).round().astype(int).ravel(), power.ravel())
    return np.asarray(bands / max(bands.sum(), np.finfo(float).tiny))


def _middle(picture: Image.Image) -> Image.Image:
    """Luminance in the middle of a picture, cut on its grid of 8 x 8 blocks."""
    left, top = (max(0, (side - _CROP) // 16 * 8) for side in picture.size)
    return picture.crop((left, top, min(left + _CROP, picture.width), min(top + _CROP, picture.height))).convert("L")


def _grid_ratio(gray: Image.Image, quality: int) -> float:
    """Change by compression on the picture's own grid over that on a shifted one."""
    own, other = (_change(p, quality) for p in (gray, gray.crop((4, 4, *gray.size))))
    return own / other if other else 1.0


def _change(gray: Image.Image, quality: int) -> float:
    before, after = (np.asarray(p, float) for p in (gray, _compressed(gray, quality)))
    return float(np.sqrt(((before - after) ** 2).mean()))


def _compressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer, formats=["JPEG"])


def _border(pictures: Pictures) -> Border:
    found = [border_color(p) for p in pictures]
    plain = [color for color, is_plain in found if is_plain]
    color = np.median(plain, axis=0) if plain else np.full(3, 255.0)
    return Border((int(color[0]), int(color[1]), int(color[2])), len(plain) / len(found))


def _light(pictures: Pictures) -> tuple[float, float]:
    gray = [np.asarray(p.convert("L"), float) for p in pictures]
    mean = float(np.mean([g.mean() for g in gray]))
    return mean, float(np.sqrt(max(np.mean([(g**2).mean() for g in gray]) - mean**2, 0.0)))
