"""What is recorded of every picture beside its vector: size, digests that find copies, and whether it is gray.

    pixels   sha256 over size and RGB pixels: equal pictures in any container. Of a JPEG decoded at 1/s it is taken over
             the smaller pixels and written ``1/s:DIGEST``: it still finds the same JPEG data with other metadata or in
             another table, at the same s; a PNG made of that JPEG has another digest, and is found by ``phash``
    phash    64-bit perceptual hash: gray -> 32 x 32 by Lanczos -> DCT-II both ways -> the 8 x 8 lowest frequencies,
             row by row, each bit 1 where its coefficient is above their median; the first bit is the highest of the
             16 hex digits. Equal to ``imagehash.phash`` up to twice REDUCED pixels; larger images are first averaged
             over blocks down to that, which changed 0 to 2 bits of sharp photographs of up to 12 megapixels
    peak     brightest value, 0 to 255, of an image with 16 bits a pixel; null for others. Where it is low for all
             images of a source, its white was not told
    gray     red = green = blue in every pixel that was decoded

Source: the hash is the one of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from PIL import Image

from embeddings.pictures.bit_depth import STRIP_PIXELS, strips
from embeddings.pictures.decode import Decoded

REDUCED = 128  # pixels of the shorter side, at least, after averaging over blocks
_EDGE, _LOW = 32, 8
_DCT = np.cos(np.pi / _EDGE * np.outer(np.arange(_LOW), np.arange(_EDGE) + 0.5))  # [8, 32], DCT-II without its scale
_GLANCE = 3 * 1024  # bytes that tell most colored images
_WITHIN = np.resize(np.array([255, 255, 0], np.uint8), 3 * STRIP_PIXELS)  # neighbors r-g and g-b, not b and the next r


def image_facts(picture: Decoded) -> dict[str, Any]:
    """Width, height, pixels, gray and phash of a picture; see the module. Width and height are those before scaling."""
    digest, gray = _read_pixels(picture)
    prefix = "" if picture.scale == 1 else f"1/{picture.scale}:"
    width, height = picture.size
    peak = int(np.asarray(picture.image).max()) if picture.wide else None
    facts = {"width": width, "height": height, "pixels": prefix + digest, "gray": gray, "peak": peak}
    return {**facts, "phash": phash(picture.image)}


def phash(image: Image.Image) -> str:
    """Perceptual hash of an RGB image as 16 hex digits; alike pictures differ in few of its 64 bits."""
    factor = min(image.size) // REDUCED
    small = image.reduce(factor) if factor > 1 else image
    pixels = np.asarray(small.convert("L").resize((_EDGE, _EDGE), Image.Resampling.LANCZOS), np.float64)
    low = (_DCT @ pixels @ _DCT.T).round(6)  # what should be 0, as in blank images, is 0 on every machine
    return np.packbits(low > np.median(low)).tobytes().hex()


def _read_pixels(picture: Decoded) -> tuple[str, bool]:
    """Digest of size and pixels, and whether all are gray, in one pass."""
    width, height = picture.size
    state, gray = hashlib.sha256(f"{width}x{height} ".encode()), True
    for box in strips(picture.image.size):
        data = picture.image.crop(box).tobytes()
        state.update(data)
        gray = gray and _is_gray(np.frombuffer(data[:_GLANCE], np.uint8)) and _is_gray(np.frombuffer(data, np.uint8))
    return state.hexdigest(), gray


def _is_gray(samples: np.ndarray) -> bool:
    """True if r = g = b, of uint8 [3 n]; compares neighbors, in a third of the time that bands with a stride take."""
    differing = samples[1:] ^ samples[:-1]
    return not (differing & _WITHIN[: len(differing)]).any()
