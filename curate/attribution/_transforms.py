"""Steps of preprocessing that could make two sets agree in one respect, and which of them the facts call for.

    gray         both to luminance
    resolution   both shrunk to the edge of the side with less detail
    compression  both through JPEG at the lower quality of the two
    orientation  the pool turned by 90, 180 or 270 degrees (mirrored pictures are the same to most encoders)
    background   plain backgrounds of both on the target's color, or on the pool's; or the pool inverted
    aspect       both padded to squares
    brightness   the pool's levels scaled and shifted to the target's mean and deviation of luminance

A factor has several steps where facts do not say which one fits. Where facts say that both sets agree in a factor,
it has none, and a reason. Brightness is matched with one linear map for the whole pool, as a camera setting would
be: a map for every picture would take the difference between bright and dark contents away with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

from curate.attribution._facts import Facts, border_color, recompress

Change = Callable[[Image.Image], Image.Image]
FACTORS = ("gray", "resolution", "compression", "orientation", "background", "aspect", "brightness")
LESS_COLOR = 0.5  # of the other side's chroma per contrast
LESS_DETAIL = 0.8  # of the other side's edge
OTHER_BORDER = 48.0  # levels of 255
OTHER_SHAPE = 0.1  # of |log(width / height)|
OTHER_MEAN, OTHER_DEVIATION = 15.0, 1.2  # levels; ratio
_FRINGE = 2  # pixels around an object that mix its color with the background's
_SAME_COLOR = 24.0  # levels of 255


@dataclass(frozen=True)
class Step:
    """One step of preprocessing in words and as a function of a picture; None leaves a side as it is."""

    words: str
    side: str  # "both" or "pool"
    target: Change | None
    pool: Change


@dataclass(frozen=True)
class Proposal:
    """The steps that could repair one factor, and the fact behind them; no steps where both sides agree."""

    name: str
    fact: str
    steps: tuple[Step, ...]


def proposals(target: Facts, pool: Facts) -> list[Proposal]:
    """One per factor, in the order of FACTORS."""
    makers = (_gray, _resolution, _compression, _orientation, _background, _aspect, _brightness)
    return [Proposal(name, *make(target, pool)) for name, make in zip(FACTORS, makers, strict=True)]


Made = tuple[str, tuple[Step, ...]]


def _gray(target: Facts, pool: Facts) -> Made:
    fact = f"chroma {target.chroma:.0f} in the target, {pool.chroma:.0f} in the pool (of 255)"
    low, high = sorted(facts.chroma / max(facts.light[1], 1.0) for facts in (target, pool))
    return fact, (_both("convert both to gray", to_gray),) if low < LESS_COLOR * high else ()


def _resolution(target: Facts, pool: Facts) -> Made:
    fact = f"detail for {target.edge:.0f} pixels in the target, {pool.edge:.0f} in the pool"
    low, high = sorted((target.edge, pool.edge))
    if low >= LESS_DETAIL * high:
        return fact, ()
    edge = max(8, round(low))
    side = "the target" if pool.edge < target.edge else "the pool"
    return fact, (_both(f"shrink both to {edge} pixels ({side} has more detail)", partial(shrink, edge=edge)),)


def _compression(target: Facts, pool: Facts) -> Made:
    found = [facts.quality for facts in (target, pool)]
    fact = "JPEG quality {} in the target, {} in the pool".format(*(f"about {q}" if q else "high" for q in found))
    if found[0] == found[1]:
        return fact, ()
    quality = min(q for q in found if q)
    return fact, (_both(f"compress both as JPEG of quality {quality}", partial(recompress, quality=quality)),)


def _orientation(target: Facts, pool: Facts) -> Made:
    del target, pool
    turns = ((90, Image.Transpose.ROTATE_90), (180, Image.Transpose.ROTATE_180), (270, Image.Transpose.ROTATE_270))
    steps = [Step(f"turn the pool by {degrees} degrees", "pool", None, partial(turn, by=by)) for degrees, by in turns]
    return "four orientations tried", tuple(steps)


def _background(target: Facts, pool: Facts) -> Made:
    ours, theirs = target.border, pool.border
    if min(ours.share, theirs.share) < 0.5:
        return "no plain background on both sides", ()
    fact = f"background {_hex(ours.color)} in the target, {_hex(theirs.color)} in the pool"
    if not _apart(ours.color, theirs.color):
        return fact, ()
    gain, shift = _levels(target, pool)
    if not _apart(ours.color, tuple(gain * c + shift for c in theirs.color)):
        return f"{fact}: the levels of the pool differ as much", ()
    recolored = [
        _both(f"put plain backgrounds of both on {_hex(color)}", partial(recolor, color=color))
        for color in (ours.color, theirs.color)
    ]
    return fact, (*recolored, Step("invert the pool", "pool", None, invert))


def _aspect(target: Facts, pool: Facts) -> Made:
    ours, theirs = (float(np.exp(facts.stretch)) for facts in (target, pool))
    fact = f"longer over shorter side {ours:.2f} in the target, {theirs:.2f} in the pool"
    differ = abs(target.stretch - pool.stretch) > OTHER_SHAPE
    return fact, (_both("pad both to squares", pad),) if differ else ()


def _brightness(target: Facts, pool: Facts) -> Made:
    means, deviations = zip(target.light, pool.light, strict=True)
    fact = "luminance {:.0f} ± {:.0f} in the target, {:.0f} ± {:.0f} in the pool".format(*target.light, *pool.light)
    if min(deviations) < 1:
        return f"{fact}: nothing to scale", ()
    gain, shift = _levels(target, pool)
    if abs(means[0] - means[1]) < OTHER_MEAN and 1 / OTHER_DEVIATION < gain < OTHER_DEVIATION:
        return fact, ()
    words = f"multiply the pool's levels by {gain:.2f} and add {shift:.0f}"
    return fact, (Step(words, "pool", None, partial(relight, gain=gain, shift=shift)),)


def _levels(target: Facts, pool: Facts) -> tuple[float, float]:
    """Gain and shift that give the pool the target's mean and deviation of luminance."""
    (mean, deviation), (pool_mean, pool_deviation) = target.light, pool.light
    gain = deviation / max(pool_deviation, 1.0)
    return gain, mean - gain * pool_mean


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """True if two colors differ more than two shades of one background do."""
    return bool(np.abs(np.subtract(a, b)).max() >= OTHER_BORDER)


def to_gray(picture: Image.Image) -> Image.Image:
    """Luminance in all three channels."""
    return picture.convert("L").convert("RGB")


def shrink(picture: Image.Image, *, edge: int) -> Image.Image:
    """The picture with a shorter side of at most ``edge`` pixels; it stays small, as the encoder enlarges it."""
    ratio = edge / min(picture.size)
    if ratio >= 1:
        return picture
    width, height = (max(1, round(side * ratio)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def turn(picture: Image.Image, *, by: Image.Transpose) -> Image.Image:
    """Turned counterclockwise."""
    return picture.transpose(by)


def invert(picture: Image.Image) -> Image.Image:
    """255 minus every level."""
    return Image.fromarray(255 - np.asarray(picture))


def relight(picture: Image.Image, *, gain: float, shift: float) -> Image.Image:
    """Every level times ``gain`` plus ``shift``, in every channel, clipped to 0..255."""
    return picture.point([min(255, max(0, round(gain * level + shift))) for level in range(256)] * 3)


def pad(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a square of its border's color."""
    edge = max(picture.size)
    if min(picture.size) == edge:
        return picture
    red, green, blue = border_color(picture)[0].astype(int).tolist()
    square = Image.new("RGB", (edge, edge), (red, green, blue))
    square.paste(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
    return square


def recolor(picture: Image.Image, *, color: tuple[int, int, int]) -> Image.Image:
    """The picture with its plain background in another color; pictures without one stay as they are.

    Background is what hangs together with the border and has its color. In the fringe around the object the
    background's share in a pixel is read off the line from its color to that of the nearest pixel inside.
    """
    old, plain = border_color(picture)
    if not plain or np.abs(old - color).max() < _SAME_COLOR:
        return picture
    pixels = np.asarray(picture, float)
    background = _hangs_with_border(np.abs(pixels - old).max(axis=2) <= _SAME_COLOR)
    fringe = ndimage.binary_dilation(background, np.ones((3, 3), bool), iterations=_FRINGE) & ~background
    share = background.astype(float)
    if fringe.any() and not (background | fringe).all():
        share[fringe] = 1 - _opacity(pixels, old, fringe, background | fringe)
    changed = pixels + share[..., None] * (np.asarray(color, float) - old)
    return Image.fromarray(changed.round().clip(0, 255).astype(np.uint8))


def _hangs_with_border(alike: np.ndarray) -> np.ndarray:
    """Those of the marked pixels [h, w] that are connected to a marked pixel of the border."""
    parts, _ = ndimage.label(alike)
    ring = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.asarray(np.isin(parts, ring[ring > 0]))


def _opacity(pixels: np.ndarray, background: np.ndarray, fringe: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Share of the object [f] in the pixels of the fringe."""
    rows, columns = ndimage.distance_transform_edt(outside, return_distances=False, return_indices=True)[:, fringe]
    line = pixels[rows, columns] - background
    along = ((pixels[fringe] - background) * line).sum(axis=1) / np.maximum((line**2).sum(axis=1), 1.0)
    return np.asarray(along.clip(0, 1))


def _both(words: str, change: Change) -> Step:
    return Step(words, "both", change, change)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
