"""The operations that presets are made of, each alone, for the audit of what they destroy.

How often a preset applies an operation does not matter to what a network learns to ignore, only how strongly: one that
sees gray and colored views of an image as the same has no use for color, be every fifth view gray or every second. So
an operation alone befalls every view. The flip and the quarter turns, which can be undone, leave a view as it is as
often as they turn it in each other way: their views then tell exactly what all versions of an image have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from curate.pretraining.augment.presets import Preset, preset

NOTHING = Preset(
    crop_area=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=1.0,  # by spans of zero
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    gray=0.0,
    blur=0.0,
    blur_from=0,
)
SPANS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Operation:
    """One operation at one strength."""

    name: str
    strength: str  # in words; "" where there is only one
    preset: Preset  # that does this to every view, and nothing else
    within: tuple[str, ...]  # presets that it is a part of


def operations(names: Sequence[str]) -> list[Operation]:
    """All different operations of some presets, those of one kind together.

    Raises:
        UnknownNameError: a name.
    """
    found: dict[tuple[str, str], Operation] = {}
    for name in names:
        for operation in _of(name):
            key = (operation.name, operation.strength)
            before = found[key].within if key in found else ()
            found[key] = replace(operation, within=(*before, name))
    order = list(dict.fromkeys(kind for kind, _ in found))
    return sorted(found.values(), key=lambda operation: order.index(operation.name))


def _of(name: str) -> list[Operation]:
    whole = preset(name)
    parts: list[tuple[bool | float, str, str, Preset]] = [
        (
            whole.crop_area != NOTHING.crop_area,
            "crop",
            f"from {whole.crop_area[0]:g} of the area",
            replace(NOTHING, crop_area=whole.crop_area, crop_ratio=whole.crop_ratio),
        ),
        (whole.flip, "flip", "", replace(NOTHING, flip=0.5)),
        (whole.quarter_turns, "quarter turn", "", replace(NOTHING, quarter_turns=0.75)),
        *(
            (whole.jitter and getattr(whole, span), span, f"± {getattr(whole, span):g}", _jitter(whole, span))
            for span in SPANS
        ),
        (whole.gray, "gray", "", replace(NOTHING, gray=1.0)),
        (
            whole.blur,
            "blur",
            f"sigma to {whole.blur_sigma[1]:g} in 224",
            replace(NOTHING, blur=1.0, blur_sigma=whole.blur_sigma),
        ),
        (whole.solarize, "solarize", "", replace(NOTHING, solarize=1.0)),
    ]
    return [Operation(kind, strength, alone, (name,)) for there, kind, strength, alone in parts if there]


def _jitter(whole: Preset, span: str) -> Preset:
    return replace(NOTHING, **{span: getattr(whole, span)})
