"""Two questions that every grid answers: which arm wins at equal N and C, and accuracy against D = N / C.

Q1  At every N and C, all pairs of arms, corrected together. The leader wins where it is told from every other arm. It
    is the arm whose least paired difference to another is the largest: arms need not have run on the same targets, and
    only paired differences compare them on the same ones.
Q2  Of every arm with several N at one C, all pairs of N, corrected together. N is what the selections hold; sizes that
    were asked and hold the same are one. The shape is read from the pairs, never from a fitted curve:

    rises   the largest N is told from the smallest, upwards, and no N from a larger one that is worse
    falls   the reverse
    peaks   some N between is told from the smallest and from the largest, both worse
    flat    all pairs are equivalent
    else    undecided
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from curate.experiments.claims import Claim, Status, claim_of, settle
from curate.experiments.matching import Evidence
from curate.experiments.protocol import Contrast, Side
from curate.experiments.tidy import Cell

SAME = 1.01  # sizes closer than this ratio are one
SETTING = ("images", "samples", "method", "init", "backbone", "encoder")  # of a run, beside arm, target and seed
SHAPES: dict[str, tuple[str, Status]] = {
    "rise": ("rises with D = N / C", "supported"),
    "fall": ("falls with D = N / C", "supported"),
    "peak": ("peaks between the smallest and the largest D = N / C", "supported"),
    "flat": ("changes with D = N / C", "equivalent"),
    "": ("changes with D = N / C", "undecided"),
}
STANDING: dict[Status, str] = {
    "supported": "told from",
    "undecided": "not told from",
    "refuted": "worse than",
    "equivalent": "equivalent to",
}
Pairs = dict[tuple[Any, Any], Claim]
Sizes = dict[int, tuple[int, ...]]  # images that selections hold -> the numbers that were asked


def which_wins(evidence: Evidence) -> list[Claim]:
    """Q1: one claim for every setting in which two arms or more have runs."""
    settings: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for cell in evidence.cells:
        settings[_setting(cell, SETTING)].append(cell.arm)
    found = []
    for values, names in settings.items():
        where = dict(zip(SETTING, ((value,) for value in values), strict=True))
        arms = list(dict.fromkeys(names))
        if len(arms) > 1:
            found.append(_winner(evidence, arms, where))
    return found


def shapes(evidence: Evidence) -> list[Claim]:
    """Q2: one claim for every arm and setting with two numbers of images or more at one C."""
    rest = ("arm", *SETTING[1:])
    levels: dict[tuple[Any, ...], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for cell in evidence.cells:
        if cell.budget is not None:
            levels[_setting(cell, rest)][cell.budget].append(cell.realized or cell.budget)
    found = []
    for values, taken in levels.items():
        where = dict(zip(rest, ((value,) for value in values), strict=True))
        if len(taken) > 1:
            found.append(_shape(evidence, sizes_of(taken), where))
    return found


def sizes_of(taken: Mapping[int, Sequence[int]]) -> Sizes:
    """Numbers of images that were asked, by what the selections hold in the mean, the smallest first.

    Args:
        taken: Images in the selections, by number asked.
    """
    found: Sizes = {}
    for mean, asked in sorted((float(np.mean(sizes)), asked) for asked, sizes in taken.items()):
        last = next(reversed(found), None)
        same = last if last is not None and mean <= SAME * last else round(mean)
        found[same] = (*found.get(same, ()), asked)
    return found


def shape_of(sizes: Sequence[Any], told: dict[tuple[Any, Any], int], *, is_flat: bool) -> str:
    """The shape of accuracy over sizes, smallest first.

    Args:
        sizes: [L].
        told: (smaller, larger) -> 1 where the larger is told to be better, -1 worse, 0 not told apart.
        is_flat: All pairs are equivalent.

    Returns:
        rise, fall, peak, flat or "" for undecided.
    """
    first, last = sizes[0], sizes[-1]
    if is_flat:
        return "flat"
    if any(told[first, middle] > 0 and told[middle, last] < 0 for middle in sizes[1:-1]):
        return "peak"
    for direction, name in ((1, "rise"), (-1, "fall")):
        if told[first, last] == direction and -direction not in told.values():
            return name
    return ""


def _winner(evidence: Evidence, arms: Sequence[str], where: Side) -> Claim:
    words = _words(where)
    pairs = _all_pairs(evidence, "arm", {arm: (arm,) for arm in arms}, where, family=f"Q1 {words}")
    leader = leader_of(arms, pairs)
    against = {arm: _claim(pairs, leader, arm) for arm in arms if arm != leader}
    by_status = {status: [arm for arm, claim in against.items() if claim.status == status] for status in STANDING}
    notes = [f"it is {STANDING[status]} {', '.join(names)}" for status, names in by_status.items() if names]
    is_open = by_status["undecided"] or by_status["refuted"]
    status: Status = "undecided" if is_open else "equivalent" if by_status["equivalent"] else "supported"
    second = min(against.values(), key=_gap)
    statement = f"{leader} wins at {words}" if words else f"{leader} wins"
    return replace(second, statement=statement, status=status, notes=(*second.notes, *notes))


def leader_of(arms: Sequence[str], pairs: Pairs) -> str:
    """The arm compared with most others and, of those, with the largest least difference; ties: the first."""

    def standing(arm: str) -> tuple[int, float]:
        gaps = [_gap(_claim(pairs, arm, other)) for other in arms if other != arm]
        known = [gap for gap in gaps if gap < np.inf]
        return len(known), min(known, default=-np.inf)

    return max(arms, key=standing)


def _claim(pairs: Pairs, first: Any, second: Any) -> Claim:
    """The claim of two sides in this order."""
    return pairs.get((first, second)) or _turned(pairs[second, first])


def _gap(claim: Claim) -> float:
    """The difference that was found; infinite without runs to compare."""
    return np.inf if claim.effect is None else claim.effect.value


def _shape(evidence: Evidence, levels: Sizes, where: Side) -> Claim:
    arm, sizes = where["arm"][0], list(levels)
    words = _words({name: values for name, values in where.items() if name != "arm"})
    samples = where["samples"][0]
    told_levels = f"levels {', '.join(_level(n, asked, samples) for n, asked in levels.items())}"
    if len(sizes) == 1:
        statement = f"The accuracy of {arm} {SHAPES[''][0]}, {words}"
        return Claim(question="Q2", statement=statement, notes=("all sizes asked hold as many images", told_levels))
    pairs = _all_pairs(evidence, "images", levels, where, family=f"Q2 {arm} {words}", question="Q2")
    direction = {"supported": 1, "refuted": -1}
    told = {(small, large): -direction.get(claim.status, 0) for (small, large), claim in pairs.items()}
    is_flat = all(claim.status == "equivalent" for claim in pairs.values())
    shape = shape_of(sizes, told, is_flat=is_flat)
    said, status = SHAPES[shape]
    if not shape and told[sizes[0], sizes[-1]]:
        said = "over D = N / C has a settled difference of its ends, and between them no settled shape"
    ends = _turned(pairs[sizes[0], sizes[-1]])
    statement = f"The accuracy of {arm} {said}, {words}"
    return replace(ends, statement=statement, status=status, notes=(*ends.notes, told_levels))


def _level(images: int, asked: Sequence[int], samples: float) -> str:
    """One level in words; what was asked is told where it is not what the selections hold."""
    short = "" if all(n <= SAME * images for n in asked) else f", asked {' and '.join(f'{n:,}' for n in asked)}"
    return f"N {images:,} (D {images / float(samples):.2g}{short})"


def _all_pairs(
    evidence: Evidence,
    name: str,
    levels: Mapping[Any, tuple[Any, ...]],
    where: Side,
    *,
    family: str,
    question: str = "Q1",
) -> Pairs:
    """All pairs of levels, each standing for values of a coordinate, settled together; first minus second."""
    keys = list(combinations(levels, 2))
    drafts = []
    for first, second in keys:
        contrast = Contrast(name=question, first={name: levels[first]}, second={name: levels[second]})
        match, sides = evidence.compare(contrast, where), (f"{first}", f"{second}")
        statement = f"{first} is more accurate than {second}"
        drafts.append(
            claim_of(
                match, protocol=evidence.protocol, question=question, sides=sides, statement=statement, family=family
            )
        )
    return dict(zip(keys, settle(drafts), strict=True))


def _turned(claim: Claim) -> Claim:
    """The same claim of the sides in the other order."""
    opposite: dict[Status, Status] = {"supported": "refuted", "refuted": "supported"}
    found, means = claim.effect, claim.means
    if found is not None:
        found = replace(found, value=0.0 - found.value, low=_minus(found.high), high=_minus(found.low))
    return replace(
        claim,
        status=opposite.get(claim.status, claim.status),
        sides=claim.sides[::-1],
        means=None if means is None else (means[1], means[0]),
        effect=found,
    )


def _minus(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


def _setting(cell: Cell, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(cell.facts.get(name) for name in names)


def _words(where: Side) -> str:
    """A setting in words; what is not said is left out."""
    marks = {"images": "N", "samples": "C"}
    said = [(marks.get(name, name), values[0]) for name, values in where.items() if values[0] is not None]
    return ", ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in said)
