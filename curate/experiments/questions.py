"""Two questions that every grid answers: which arm wins at equal N and C, and accuracy against D = N / C.

Q1  At every N and C, all pairs of arms, corrected together. The leader wins where it is told from every other arm.
Q2  Of every arm with several N at one C, all pairs of N, corrected together. The shape is read from them, never from a
    fitted curve:

    rises   the largest N is told from the smallest, upwards, and no N from a larger one that is worse
    falls   the reverse
    peaks   some N between is told from the smallest and from the largest, both worse
    flat    all pairs are equivalent
    else    undecided
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from curate.experiments.claims import Claim, Status, claim_of, settle
from curate.experiments.matching import Evidence
from curate.experiments.protocol import Contrast, Side
from curate.experiments.tidy import Cell

SETTING = ("images", "samples", "method", "init", "backbone", "encoder")  # of a run, beside arm, target and seed
SHAPES: dict[str, tuple[str, Status]] = {
    "rise": ("rises with D = N / C", "supported"),
    "fall": ("falls with D = N / C", "supported"),
    "peak": ("peaks between the smallest and the largest D = N / C", "supported"),
    "flat": ("changes with D = N / C", "equivalent"),
    "": ("changes with D = N / C", "undecided"),
}
Pairs = dict[tuple[Any, Any], Claim]


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
    levels: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    for cell in evidence.cells:
        if cell.budget is not None:
            levels[_setting(cell, rest)].add(cell.budget)
    found = []
    for values, sizes in levels.items():
        where = dict(zip(rest, ((value,) for value in values), strict=True))
        if len(sizes) > 1:
            found.append(_shape(evidence, sorted(sizes), where))
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
    pairs = _all_pairs(evidence, "arm", arms, where, family=f"Q1 {words}")
    means = {arm: _mean(evidence, {"arm": (arm,)}, where) for arm in arms}
    leader = max(arms, key=lambda arm: means[arm])
    others = sorted((arm for arm in arms if arm != leader), key=lambda arm: -means[arm])
    against = {arm: pairs.get((leader, arm)) or _turned(pairs[arm, leader]) for arm in others}
    open_ = [arm for arm, claim in against.items() if claim.status == "undecided"]
    tied = [arm for arm, claim in against.items() if claim.status == "equivalent"]
    won = [arm for arm, claim in against.items() if claim.status == "supported"]
    notes = [f"it is {what} {', '.join(n)}" for what, n in (("told from", won), ("not told from", open_)) if n]
    notes += [f"it is equivalent to {', '.join(tied)}"] if tied else []
    status: Status = (
        "undecided" if open_ or len(won) + len(tied) < len(others) else "equivalent" if tied else "supported"
    )
    second = against[others[0]]
    statement = f"{leader} wins at {words}" if words else f"{leader} wins"
    return replace(second, statement=statement, status=status, notes=(*second.notes, *notes))


def _shape(evidence: Evidence, sizes: Sequence[int], where: Side) -> Claim:
    arm = where["arm"][0]
    words = _words({name: values for name, values in where.items() if name != "arm"})
    pairs = _all_pairs(evidence, "images", sizes, where, family=f"Q2 {arm} {words}", question="Q2")
    direction = {"supported": 1, "refuted": -1}
    told = {(small, large): -direction.get(claim.status, 0) for (small, large), claim in pairs.items()}
    is_flat = all(claim.status == "equivalent" for claim in pairs.values())
    shape = shape_of(sizes, told, is_flat=is_flat)
    said, status = SHAPES[shape]
    if not shape and told[sizes[0], sizes[-1]]:
        said = "over D = N / C has a settled difference of its ends, and between them no settled shape"
    ends = _turned(pairs[sizes[0], sizes[-1]])
    samples = where["samples"][0]
    levels = ", ".join(f"N {n:,} (D {n / float(samples):.2g})" for n in sizes)
    statement = f"The accuracy of {arm} {said}, {words}"
    return replace(ends, statement=statement, status=status, notes=(*ends.notes, f"levels {levels}"))


def _all_pairs(
    evidence: Evidence, name: str, values: Sequence[Any], where: Side, *, family: str, question: str = "Q1"
) -> Pairs:
    """All pairs of values of a coordinate, settled together; first minus second."""
    keys = list(combinations(values, 2))
    drafts = []
    for first, second in keys:
        contrast = Contrast(name=question, first={name: (first,)}, second={name: (second,)})
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


def _mean(evidence: Evidence, *sides: Side) -> float:
    values = [draws.values.mean() for draws in evidence.draws(evidence.choose(*sides))]
    return float(np.mean(values)) if values else -np.inf


def _setting(cell: Cell, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(cell.facts.get(name) for name in names)


def _words(where: Side) -> str:
    """A setting in words; what is not said is left out."""
    marks = {"images": "N", "samples": "C"}
    said = [(marks.get(name, name), values[0]) for name, values in where.items() if values[0] is not None]
    return ", ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in said)
