"""Every claim of a study, marked supported, refuted, equivalent or undecided at the power the study has.

    supported   the test at 1 - level finds a difference, in the direction that the statement says
    refuted     it finds one in the other direction
    equivalent  the difference is shown to be smaller than what matters, whether or not it is told from 0
    undecided   neither; also with one seed, whose interval covers the choice of test images only

Power belongs to the design: it follows from the spread over seeds and images and from what matters, not from the
difference that was found. It is the chance of telling a true difference of just what matters, at 1 - level without
Holm's correction.

The primary contrast is tested alone. Everything else is corrected by Holm within its family: the secondary contrasts;
all arms against one kind of reference; the contrasts of one name; all pairs at one N and C (Q1), all sizes of one arm
(Q2). Without a protocol all of it is exploratory.

One Holm is over both tests of every claim, that there is no difference and that there is one that matters: corrected
apart, a family of which some differences are 0 and some just matter has a false claim with a chance of up to 2 alpha.
As no difference is 0 and matters at once, one test of a claim at most can err, and p values are multiplied by the
number of claims that still have a test to pass, not of tests (Shaffer). A claim alone needs no correction.

Source: Holm 1979; Shaffer 1986 (logically related hypotheses).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from curate.experiments.matching import Evidence, Match
from curate.experiments.protocol import Contrast, Protocol, Side
from curate.experiments.statistics import Effect, effect
from curate.numerals import within

Status = Literal["supported", "refuted", "equivalent", "undecided"]
REFERENCES = {
    "frozen": "the frozen public encoder",
    "finetuned": "the fine-tuned public encoder",
    "supervised": "training on the labels alone",
}
TUNED = "finetuned, both"  # a run fine-tuned against the public encoder fine-tuned


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement, what became of it, and the figures."""

    question: str  # primary, secondary, frozen, finetuned, supervised, Q1, Q2 or the name of a contrast
    statement: str
    status: Status = "undecided"
    family: str = ""  # what Holm's correction is over; "" for the primary contrast
    sides: tuple[str, str] = ("", "")
    means: tuple[float, float] | None = None  # accuracies
    effect: Effect | None = None  # first minus second; None: no runs to compare
    p_adjusted: float | None = None
    p_equivalence_adjusted: float | None = None
    targets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metric: str = "linear"

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        head = f"{self.statement}: {self.status}"
        if self.effect is None:
            return f"{head}; {_joined(self.notes) or 'there are no runs to compare'}."
        return f"{head}; " + "; ".join([*self._figures(self.effect), *self.notes]) + "."

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        document = {**vars(self), "sentence": self.sentence}
        lists = {name: list(document[name]) for name in ("sides", "targets", "notes")}
        means = None if self.means is None else list(self.means)
        return {**document, **lists, "means": means, "effect": self.effect.to_json() if self.effect else None}

    def _figures(self, found: Effect) -> list[str]:
        told = []
        if self.means is not None:
            told.append(f"{self.metric} {self.means[0]:.3f} against {self.means[1]:.3f}")
        told.append(_difference(found) + self._tests(found))
        if found.reason:
            return [*told, found.reason]
        is_told = self.p_adjusted is not None and self.p_adjusted <= 1 - found.level
        if self.status == "undecided" and not is_told and found.seeds_needed and found.seeds_needed > found.seeds:
            told.append(f"{found.seeds_needed} seeds would give 80% power")
        return told

    def _tests(self, found: Effect) -> str:
        seeds = f"{found.seeds} seed{'s' * (found.seeds != 1)}"
        size = f" over {seeds}, {found.conditions} target{'s' * (found.conditions != 1)}, {found.units} test units"
        if found.reason or found.p is None or found.power is None:
            return size
        holm_p = "" if not self.family or self.p_adjusted is None else f", {_p(self.p_adjusted)} after Holm"
        least = f", least difference told with 80% power {found.detectable:.3f}" if found.detectable else ""
        return f"{size} ({_p(found.p)}{holm_p}; power {found.power:.2f} for {found.matters:g}{least})"


def make_claims(evidence: Evidence) -> list[Claim]:
    """Primary contrast, references, secondary contrasts and those of a name; each family corrected."""
    protocol = evidence.protocol
    drafts = [_of_contrast(evidence, Contrast.of_arms(*protocol.primary, "primary"))] if protocol.primary else []
    for kind in REFERENCES:
        drafts += _against(evidence, kind)
    drafts += _against(evidence, "finetuned", tuned=True)
    drafts += [_of_contrast(evidence, Contrast.of_arms(*pair, "secondary"), "secondary") for pair in _pairs(evidence)]
    drafts += [_of_contrast(evidence, contrast, contrast.name) for contrast in protocol.contrasts]
    return settle(drafts)


def claim_of(
    match: Match, *, protocol: Protocol, question: str, sides: tuple[str, str], statement: str, family: str = ""
) -> Claim:
    """A claim that is not settled yet."""
    found = effect(match.conditions, matters=protocol.matters, level=protocol.level) if match.conditions else None
    return Claim(
        question=question,
        statement=statement,
        family=family,
        sides=sides,
        means=match.means if found else None,
        effect=found,
        targets=match.targets,
        notes=match.notes,
        metric=protocol.metric,
    )


def settle(claims: Sequence[Claim]) -> list[Claim]:
    """The claims with their status; p values of one family are corrected together, the primary contrast's are not.

    The chance of any false claim in a family is at most 1 - level, whatever the true differences are.
    """
    families: dict[str, list[int]] = defaultdict(list)
    for number, claim in enumerate(claims):
        if claim.effect is not None and claim.effect.p is not None and not claim.effect.reason:
            families[claim.family or f"alone {number}"].append(number)
    settled = list(claims)
    for numbers in families.values():
        effects = [found for number in numbers if (found := claims[number].effect) is not None]
        corrected = _corrected([(found.p or 0.0, found.p_equivalence or 0.0) for found in effects])
        for number, (p, q) in zip(numbers, corrected, strict=True):
            claim = replace(claims[number], p_adjusted=p, p_equivalence_adjusted=q)
            settled[number] = replace(claim, status=_status(claim, p, q))
    return settled


def _corrected(tests: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Holm over both p values of every claim, of which one null hypothesis at most is true."""
    p = np.array(tests)
    left, reached = np.full(len(p), 2), 0.0
    for place in np.argsort(p, axis=None, kind="stable"):
        claim, test = divmod(int(place), 2)
        reached = max(reached, min(p[claim, test] * np.count_nonzero(left), 1.0))
        p[claim, test] = reached
        left[claim] -= 1
    return [(float(first), float(second)) for first, second in p]


def _status(claim: Claim, p: float, q: float) -> Status:
    assert claim.effect is not None
    alpha = 1 - claim.effect.level + 1e-12
    if q <= alpha:
        return "equivalent"
    if p > alpha:
        return "undecided"
    return "supported" if claim.effect.value > 0 else "refuted"


def _of_contrast(evidence: Evidence, contrast: Contrast, family: str = "") -> Claim:
    sides = (_named(contrast.first), _named(contrast.second))
    return claim_of(
        evidence.compare(contrast, evidence.protocol.where),
        protocol=evidence.protocol,
        question=contrast.name,
        sides=sides,
        statement=f"{sides[0]} is more accurate than {sides[1]}",
        family=family,
    )


def _against(evidence: Evidence, kind: str, *, tuned: bool = False) -> list[Claim]:
    """Every arm against one reference, where the evaluation has it."""
    question = TUNED if tuned else kind
    claims = []
    for arm in evidence.arms:
        match = evidence.against({"arm": (arm,)}, kind, evidence.protocol.where, tuned=tuned)
        if match.conditions:
            name = f"{arm}, fine-tuned," if tuned else arm
            statement = f"{name} beats {REFERENCES[kind]}"
            if kind != "frozen":
                match = replace(
                    match, notes=(*match.notes, "the reference is one run, and its own draw is not covered")
                )
            sides, protocol = (name, REFERENCES[kind]), evidence.protocol
            claims.append(
                claim_of(match, protocol=protocol, question=question, sides=sides, statement=statement, family=question)
            )
    return claims


def _pairs(evidence: Evidence) -> list[tuple[str, str]]:
    """The secondary contrasts: those written down, else all pairs of arms but the primary one."""
    protocol = evidence.protocol
    if protocol.secondary is not None:
        return [pair for pair in protocol.secondary if pair != protocol.primary]
    primary = set(protocol.primary or ())
    return [pair for pair in combinations(evidence.arms, 2) if set(pair) != primary]


def _named(side: Side) -> str:
    """A side in words: the arm's name, or what its runs have in common."""
    parts = [", ".join(map(str, side["arm"]))] if "arm" in side else []
    return " at ".join([*parts, *([said] if (said := _rest(side)) else [])]) or "all runs"


def _rest(side: Side) -> str:
    return ", ".join(f"{name} {' or '.join(map(str, v))}" for name, v in side.items() if name != "arm")


def _difference(found: Effect) -> str:
    return f"difference {within(found.value, found.low, found.high, 3, plus=True)}"


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(notes)
