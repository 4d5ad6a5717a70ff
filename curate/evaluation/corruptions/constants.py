"""How strong each corruption is at severities 1 to 5: the published constants for images of 224, 64 and 32 pixels.

An image of another edge takes the published table whose edge is nearest in ratio, with its lengths and areas in pixels
scaled to the image; shares, deviations, qualities and factors stay. At 224, 64 and 32 pixels all are as published.

Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
ICLR 2019 (arXiv 1903.12261); constants of ImageNet-C, its 64-pixel version and CIFAR-10-C, code under Apache-2.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

Level = tuple[float, ...]  # the constants of one corruption at one severity
Levels = tuple[Level, Level, Level, Level, Level]  # of severities 1 to 5

WIDE = 244  # the published elastic transform of 224 pixels counts in these


@dataclass(frozen=True)
class Corruption:
    """One corruption: its constants, and which of them are lengths and areas in pixels."""

    constants: str  # what they are, in order
    levels: dict[int, Levels]  # by edge in pixels
    lengths: tuple[int, ...] = ()
    areas: tuple[int, ...] = ()

    def level(self, severity: int, edge: int) -> Level:
        """The constants at a severity 1..5 for an image of this edge."""
        table = min(self.levels, key=lambda published: abs(log(edge / published)))
        found = self.levels[table][severity - 1]
        return tuple(value * (edge / table) ** self._power(i) for i, value in enumerate(found))

    def _power(self, constant: int) -> int:
        return (constant in self.lengths) + 2 * (constant in self.areas)


def _single(*values: float) -> Levels:
    a, b, c, d, e = values
    return (a,), (b,), (c,), (d,), (e,)


def _times(edge: int, *levels: Level) -> Levels:
    a, b, c, d, e = (tuple(edge * value for value in level) for level in levels)
    return a, b, c, d, e


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian-noise": Corruption(
        "deviation",
        {
            224: _single(0.08, 0.12, 0.18, 0.26, 0.38),
            64: _single(0.04, 0.08, 0.12, 0.15, 0.18),
            32: _single(0.04, 0.06, 0.08, 0.09, 0.10),
        },
    ),
    "shot-noise": Corruption(
        "photons of a white pixel",
        {224: _single(60, 25, 12, 5, 3), 64: _single(250, 100, 50, 30, 15), 32: _single(500, 250, 100, 75, 50)},
    ),
    "impulse-noise": Corruption(
        "share of the values",
        {
            224: _single(0.03, 0.06, 0.09, 0.17, 0.27),
            64: _single(0.01, 0.02, 0.05, 0.08, 0.14),
            32: _single(0.01, 0.02, 0.03, 0.05, 0.07),
        },
    ),
    "defocus-blur": Corruption(
        "radius, deviation that smooths the disk",
        {
            224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
            64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
            32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        },
        lengths=(0,),
    ),
    "glass-blur": Corruption(
        "deviation, reach, rounds",
        {
            224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
            32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        },
        lengths=(0, 1),
    ),
    "motion-blur": Corruption(
        "radius, deviation",
        {
            224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
            32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        },
        lengths=(0, 1),
    ),
    "zoom-blur": Corruption(
        "largest factor, step",
        {
            224: ((1.11, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03)),
            64: ((1.06, 0.01), (1.11, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)),
            32: ((1.06, 0.01), (1.11, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)),
        },
    ),
    "snow": Corruption(
        "mean, deviation, flake, threshold, radius, deviation of the fall, share of the image",
        {
            224: (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            64: (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
            ),
            32: (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
        },
        lengths=(2, 4, 5),
    ),
    "frost": Corruption(
        "share of the image, share of the frost",
        {
            224: ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
            64: ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
            32: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        },
    ),
    "fog": Corruption(
        "thickness, decay of the fractal",
        {
            224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
            64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
            32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        },
    ),
    "brightness": Corruption(
        "added value",
        {
            224: _single(0.1, 0.2, 0.3, 0.4, 0.5),
            64: _single(0.1, 0.2, 0.3, 0.4, 0.5),
            32: _single(0.05, 0.1, 0.15, 0.2, 0.3),
        },
    ),
    "contrast": Corruption(
        "factor",
        {
            224: _single(0.4, 0.3, 0.2, 0.1, 0.05),
            64: _single(0.4, 0.3, 0.2, 0.1, 0.05),
            32: _single(0.75, 0.5, 0.4, 0.3, 0.15),
        },
    ),
    "elastic": Corruption(
        "strength, deviation that smooths the field, reach of the corners",
        {
            224: _times(
                WIDE, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
            ),
            64: _times(64, (0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
            32: _times(32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        },
        lengths=(1, 2),
        areas=(0,),  # displacements are about a sixth of the strength over the deviation
    ),
    "pixelate": Corruption(
        "share of the edge",
        {
            224: _single(0.6, 0.5, 0.4, 0.3, 0.25),
            64: _single(0.9, 0.8, 0.7, 0.6, 0.5),
            32: _single(0.95, 0.9, 0.85, 0.75, 0.65),
        },
    ),
    "jpeg": Corruption(
        "quality",
        {224: _single(25, 18, 15, 10, 7), 64: _single(65, 58, 50, 40, 25), 32: _single(80, 65, 58, 50, 40)},
    ),
}
