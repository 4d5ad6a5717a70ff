"""Which steps of preprocessing bring two samples together: each alone, then the best of them one after the other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.attribution._paired import Frame, Measured, Refits
from curate.attribution._results import Factor, Factors, Repair
from curate.attribution._sample import Sample, Vectors
from curate.attribution._transforms import FACTORS, Proposal, Step, proposals
from curate.results import Estimate
from embeddings.errors import TooFewImagesError
from embeddings.progress import Progress, silent

LEAST, HALF, LITTLE = 0.1, 0.5, 0.25  # shares of r
MOST = 3
NORMAL_95 = 1.959964
METHOD = "cross-fitted Fréchet on the same images before and after, jackknife over folds"


def split(target: Sample, pool: Sample, *, vectors: Vectors, progress: Progress = silent) -> Factors:
    """``factors`` of two samples.

    Raises:
        TooFewImagesError: too few independent groups.
    """
    start = _State.of(target, pool, vectors)
    alone = start.trials(vectors, progress)
    chain, end, found = [], start, alone
    while best := max((t for t in found if t.repairs), key=lambda t: t.fall.value, default=None):
        assert best.step is not None
        chain.append(best)
        end = end.after(best.step, vectors)
        if len(chain) == MOST or not end.is_apart:
            break
        useful = {t.proposal.name for t in alone if not t.proposal.steps or t.fall.value > 0}
        found = end.trials(vectors, progress, names=useful - {t.proposal.name for t in chain})
    return _report(start, end, alone, chain)


@dataclass(frozen=True)
class _State:
    """Two samples after some steps, and their distance."""

    target: Sample
    pool: Sample
    frame: Frame
    distance: Refits  # F
    relative: Refits  # F / tr S

    @classmethod
    def of(cls, target: Sample, pool: Sample, vectors: Vectors, frame: Frame | None = None) -> _State:
        """The state of two samples; ``frame`` is the target's where it is known."""
        frame = frame or Frame.of(vectors.of(target.pictures), target.folds)
        distance = frame.to(vectors.of(pool.pictures), pool.folds)
        return cls(target, pool, frame, distance, distance.over(frame.variance))

    @property
    def r(self) -> Measured:
        """The distance over the target's total variance."""
        return self.relative.measured()

    @property
    def is_apart(self) -> bool:
        """True if the two sets are told from each other."""
        return self.r.value > NORMAL_95 * self.r.se

    def after(self, step: Step, vectors: Vectors) -> _State:
        """The state when the step is taken on what there is."""
        frame = None if step.target else self.frame
        return _State.of(self.target.changed(step.target), self.pool.changed(step.pool), vectors, frame)

    def half(self, side: int, vectors: Vectors) -> _State:
        """The state with the pool's even (0) or odd (1) folds only."""
        return _State.of(self.target, self.pool.take(self.pool.folds % 2 == side), vectors, self.frame)

    def trials(self, vectors: Vectors, progress: Progress, *, names: Collection[str] = FACTORS) -> list[_Trial]:
        """What every proposed step does alone."""
        proposed = [p for p in proposals(self.target.facts, self.pool.facts) if p.name in names]
        found = []
        for done, proposal in enumerate(proposed):
            progress("factors", done, len(proposed), proposal.name)
            found.append(_tried(self, proposal, vectors))
        progress("factors", len(proposed), len(proposed))
        return found


@dataclass(frozen=True)
class _Trial:
    """A proposal, the step of it that was taken, and the distance on the same images before and after."""

    proposal: Proposal
    step: Step | None = None
    before: _State | None = None
    after: _State | None = None
    reason: str = ""  # why no step was taken

    @property
    def fall(self) -> Measured:
        """Of r; nothing where no step was taken."""
        if self.before is None or self.after is None:
            return Measured(0.0, 0.0)
        return self.before.relative.combined(self.after.relative, own=1, others=-1).measured()

    @property
    def repairs(self) -> bool:
        """True if there is something to repair, and the step does more to it than noise does."""
        if self.before is None or not self.before.is_apart or self.fall.value <= NORMAL_95 * self.fall.se:
            return False
        return self.fall.value >= LEAST * self.before.r.value


def _tried(state: _State, proposal: Proposal, vectors: Vectors) -> _Trial:
    """What the proposal does; nothing, with a reason, where it has no step or a step leaves nothing to measure."""
    if not proposal.steps:
        return _Trial(proposal, reason="nothing to match")
    try:
        if len(proposal.steps) == 1:
            return _Trial(proposal, proposal.steps[0], state, state.after(proposal.steps[0], vectors))
        return _chosen(state, proposal, vectors)
    except TooFewImagesError as error:
        return _Trial(proposal, reason=error.message)


def _chosen(state: _State, proposal: Proposal, vectors: Vectors) -> _Trial:
    """The step that one half of the pool prefers, measured on the other half."""
    chooser, judge = (state.half(side, vectors) for side in (0, 1))
    distances = [chooser.after(step, vectors).r.value for step in proposal.steps]
    if min(distances) >= chooser.r.value:
        return _Trial(proposal, reason="the pool is as near or nearer without")
    step = proposal.steps[int(np.argmin(distances))]
    return _Trial(proposal, step, judge, judge.after(step, vectors))


def _report(start: _State, end: _State, alone: list[_Trial], chain: list[_Trial]) -> Factors:
    return Factors(
        n=(len(start.pool), len(start.target)),
        left_out=(start.pool.left_out, start.target.left_out),
        before=_distance(start),
        index=_index(start),
        factors=tuple(_factor(trial) for trial in alone),
        best=_repair(start, end, chain) if chain else None,
        content=_index(end),
    )


def _factor(trial: _Trial) -> Factor:
    step, before, after, proposal = trial.step, trial.before, trial.after, trial.proposal
    if step is None or before is None or after is None:
        figures = dict.fromkeys(("after", "index", "fall", "repaired"), Estimate(value=None, reason=trial.reason))
        differs = bool(proposal.steps)
        return Factor(name=proposal.name, step="", side="", fact=proposal.fact, differs=differs, **figures)
    fall = Measured(100 * trial.fall.value, 100 * trial.fall.se)
    return Factor(
        name=proposal.name,
        step=step.words,
        side=step.side,
        fact=proposal.fact,
        after=_distance(after),
        index=_index(after),
        fall=_estimate(fall, after, unit="percent of the target's total variance", null=0.0, lower_is_closer=False),
        repaired=_share(before, after),
    )


def _repair(start: _State, end: _State, chain: list[_Trial]) -> Repair:
    before, left = start.r.value, end.r.value
    return Repair(
        names=tuple(t.proposal.name for t in chain),
        steps=tuple(t.step.words for t in chain if t.step),
        after=_distance(end),
        repaired=_share(start, end),
        explains=left <= HALF * before and (left < LITTLE * before or not end.is_apart),
    )


def _share(before: _State, after: _State) -> Estimate:
    """Share of r that goes away, its error by linearization; none where there was no distance to start with."""
    r = before.r
    if r.value <= NORMAL_95 * r.se:
        return Estimate(value=None, n=_sizes(before), reason="no distance to repair at this sample size")
    share = before.relative.combined(after.relative, own=1, others=-1).measured().value / r.value
    se = before.relative.combined(after.relative, own=1 - share, others=-1).measured().se / r.value
    return _estimate(Measured(share, se), after, unit="share of F / tr S", null=0.0, lower_is_closer=False)


def _distance(state: _State) -> Estimate:
    return _estimate(state.distance.measured(), state, unit="squared embedding units", null=0.0)


def _index(state: _State) -> Estimate:
    """100 F / (F + tr S), the interval by the same monotone map."""
    r = state.r
    value, low, high = (
        100 * x / (1 + x) if x > -0.5 else -100.0
        for x in (r.value, r.value - NORMAL_95 * r.se, r.value + NORMAL_95 * r.se)
    )
    unit = "index, 0 = the target itself, 50 = its own total variance"
    return Estimate(value=value, low=low, high=high, n=_sizes(state), unit=unit, method="100 F / (F + tr S)", null=0.0)


def _estimate(measured: Measured, state: _State, **facts: Any) -> Estimate:
    value, se = measured
    low, high = value - NORMAL_95 * se, value + NORMAL_95 * se
    return Estimate(value=value, low=low, high=high, se=se, n=_sizes(state), method=METHOD, **facts)


def _sizes(state: _State) -> tuple[int, int]:
    return len(state.pool), len(state.target)
