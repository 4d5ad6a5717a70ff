"""Does the score predict accuracy? How often a distance calls the better of two pools, and what following it costs.

A contest is one target and setting in which single pools, each at the same N and C, gave runs. Over the pairs of its
pools whose accuracies differ by more than two standard errors, a distance is right where the better pool is nearer
(half right in a tie). Regret is the accuracy lost by taking the nearest pool instead of the best. N is what was asked:
where a pool had fewer images to give, this and all else in which two arms differ is told.

    size      calls the pool with more images nearer
    random    half the pairs; the mean pool's regret
    held out  for every target the distance that called most pairs of the other targets (ties: the first of them)

Pairs share pools, and contests share targets: intervals are delete-one jackknives over targets, or over pools where
there are fewer than 3 targets, with t quantiles. Few clusters may happen to read alike and then show no spread; the
interval of a share is therefore never narrower than Clopper and Pearson's for n trials. Of P pools of a target P - 1
pairs are independent at most; how far those of one target go together can be seen where some are right and some wrong,
so that n grows with 4 p (1 - p), p the share, from the number of targets to the number of independent pairs. (In
simulations of 1 to 8 targets with 2 to 6 pools, alike or very unlike, such intervals hold the true share 98 times of
100 or more; the jackknife alone held it 88 to 99 times.) The best of several accuracies is partly luck, so that regrets
are a little too high, alike for every distance.

With one seed nobody knows how much accuracies vary from seed to seed: its pairs are not called, and this is told.

Source: Miller 1974 (jackknife); Arvesen 1969 (jackknife of U-statistics); Clopper and Pearson 1934.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from curate.experiments.matching import Evidence
from curate.experiments.protocol import Contrast
from curate.experiments.statistics import effect
from curate.experiments.tidy import Cell
from curate.numerals import counted, one_of
from curate.results import Estimate, ShiftReport

GOAL = 0.8  # of pairs called right
ERRORS = 2.0  # standard errors that two accuracies must be apart
FEW = 3  # targets; with fewer, pools are the clusters
SETTING = ("own", "select", "images", "samples", "method", "init", "backbone", "encoder")
RANDOM, SIZE, HELD_OUT = "random", "size", "held out"
CALLED = {RANDOM: "a coin", SIZE: "the number of images", HELD_OUT: "the distance that was best on the other targets"}


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Pools that compete on one target at equal N and C."""

    target: str
    pools: tuple[str, ...]  # [p]
    accuracy: np.ndarray  # [p]
    errors: np.ndarray  # [p, p] standard errors of the differences; not finite: unknown
    distances: Mapping[str, np.ndarray]  # [p] by metric, lower is nearer; not finite: unknown
    notes: tuple[str, ...] = ()  # what else two pools differ in
    unknown: tuple[str, ...] = ()  # pairs whose standard error is not known, and why


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a metric makes of one pair of pools that are told apart."""

    target: str
    pools: tuple[str, str]
    right: float  # 1, 0, or a half in a tie


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """How well one metric goes before accuracy."""

    metric: str
    share: Estimate  # of pairs called right; n is (pairs, clusters)
    regret: Estimate  # accuracy lost by following it; n is (contests, targets)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        figures = {"share": self.share.to_json(), "regret": self.regret.to_json()}
        return {"metric": self.metric, "called": self.called, **figures}

    @property
    def called(self) -> str:
        """The metric in words."""
        return CALLED.get(self.metric, self.metric.replace("_", " "))

    @property
    def sentence(self) -> str:
        """Both figures in words."""
        share, regret, name = self.share, self.regret, self.called
        if share.value is None:
            return f"{name}: {share.reason}."
        goal = "" if share.low is None or share.high is None else self._goal(share.low, share.high)
        lost = f"; taking the pool it names loses {_figure(regret, '.3f')} of accuracy against the best pool"
        loss = "" if regret.value is None else lost
        return f"{name} calls {_figure(share, '.0%')} of {share.n[0]} pairs right{goal}{loss}."

    def _goal(self, low: float, high: float) -> str:
        reached = "reached" if low >= GOAL else "missed" if high < GOAL else "not settled"
        return f" (goal {GOAL:.0%}: {reached})"


def prediction(evidence: Evidence) -> dict[str, Any]:
    """Q3 as plain JSON: every distance against size and random, best first; empty without arms of a single pool."""
    found = contests(evidence)
    if not found:
        return {}
    ranked = predictors(found)
    apart = ranked[0].share.n[0]
    pairs = counted(apart, "pair")
    head = f"Q3: {counted(len(found), 'contest')} of single pools, {pairs} more than two standard errors apart."
    head += " A distance is right where the nearer of two such pools gives the better accuracy." if apart else ""
    told = [f"Q3: {predictor.sentence}" for predictor in ranked if apart]
    return {
        "goal": GOAL,
        "contests": [_told(contest) for contest in found],
        "predictors": [predictor.to_json() for predictor in ranked],
        "lines": [head, *_unknown(found), *_not_alike(found), *told],
    }


def _unknown(found: Sequence[Contest]) -> list[str]:
    """Words on pairs that cannot be called, the first of them as an example."""
    pairs = [f"on {contest.target}, {pair}" for contest in found for pair in contest.unknown]
    return [f"Q3: {counted(len(pairs), 'pair')} of pools cannot be called: {pairs[0]}."] if pairs else []


def _not_alike(found: Sequence[Contest]) -> list[str]:
    """Words on pools that differ in more than the pool, the first of them as an example."""
    notes = [f"on {contest.target}, {note}" for contest in found for note in contest.notes]
    differ = f"{counted(len(notes), 'pair')} of pools {one_of(len(notes), 'differs', 'differ')}"
    return [f"Q3: {differ} in more than the pool: {notes[0]}."] if notes else []


def predictors(found: Sequence[Contest]) -> list[Predictor]:
    """Every metric that all contests have, the one with the largest share first; then held out, size and random."""
    metrics = [name for name in found[0].distances if all(name in contest.distances for contest in found)]
    ranked = [_predictor(name, found) for name in metrics if name != SIZE]
    ranked.sort(key=lambda p: -1.0 if p.share.value is None else -p.share.value)
    held_out = [_held_out([name for name in metrics if name != SIZE], found)]
    size = [_predictor(SIZE, found)] if SIZE in metrics else []
    return [*ranked, *(p for p in held_out if p is not None), *size, _random(found)]


def calls(contest: Contest, metric: str) -> list[Call]:
    """What a metric makes of every pair that is told apart."""
    distance, found = contest.distances[metric], []
    for i, j in combinations(range(len(contest.pools)), 2):
        gap, error = contest.accuracy[i] - contest.accuracy[j], contest.errors[i, j]
        if abs(gap) > ERRORS * error and np.isfinite(distance[[i, j]]).all():
            nearer = np.sign(distance[j] - distance[i])
            right = 0.5 if nearer == 0 else float(nearer == np.sign(gap))
            found.append(Call(target=contest.target, pools=(contest.pools[i], contest.pools[j]), right=right))
    return found


def regret(contest: Contest, metric: str) -> float:
    """Accuracy lost by taking the nearest pool (of equally near ones the first); nan where distances are unknown."""
    distance = contest.distances[metric]
    if not np.isfinite(distance).any():
        return float("nan")
    return float(contest.accuracy.max() - contest.accuracy[np.nanargmin(distance)])


def contests(evidence: Evidence) -> list[Contest]:
    """The single pools of a study that can be compared, with what their target's score says of them."""
    placed: dict[tuple[Any, ...], dict[str, Cell]] = defaultdict(dict)
    for cell in evidence.cells:
        pools: list[str] = list(cell.pools or ())
        if len(pools) == 1:
            placed[tuple(cell.facts.get(name) for name in ("target", *SETTING))].setdefault(pools[0], cell)
    scores = {target.target: target.score for target in evidence.targets}
    found = []
    for place, cells in placed.items():
        score = scores[place[0]]
        known = {p.name for p in score.pools} if score else set()
        if score and len(cells.keys() & known) > 1:
            found.append(_contest(evidence, score, {n: c for n, c in cells.items() if n in known}))
    return found


def _contest(evidence: Evidence, score: ShiftReport, cells: Mapping[str, Cell]) -> Contest:
    names, first = tuple(cells), next(iter(cells.values()))
    where = {name: (first.facts.get(name),) for name in ("target", "own", *SETTING[1:])}
    accuracy, errors = np.zeros(len(names)), np.full((len(names), len(names)), np.inf)
    for i, name in enumerate(names):
        values = evidence.draws(evidence.choose({"arm": (cells[name].arm,)}, where))
        accuracy[i] = np.mean([draws.values.mean() for draws in values])
    notes, unknown = [], []
    for i, j in combinations(range(len(names)), 2):
        match = evidence.compare(Contrast.of_arms(cells[names[i]].arm, cells[names[j]].arm, "Q3"), where)
        pair, found = f"{names[i]} and {names[j]}", effect(match.conditions) if match.conditions else None
        if found is None or found.se is None or found.reason:
            unknown.append(f"{pair}: {found.reason if found else 'they have no runs of one seed'}")
        else:
            errors[i, j] = errors[j, i] = found.se
        notes += [f"{pair}: {'; '.join(match.notes)}"] if match.notes else []
    return Contest(
        target=str(first.target),
        pools=names,
        accuracy=accuracy,
        errors=errors,
        distances=_distances(score, names),
        notes=tuple(notes),
        unknown=tuple(unknown),
    )


def _distances(score: ShiftReport, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Every metric of the pools, lower is nearer; the index first, the number of images last."""
    pools = [score[name] for name in names]
    metrics = [name for name in pools[0].metrics if all(name in pool.metrics for pool in pools)]
    found = {"index": np.array([_distance(pool.index) for pool in pools])}
    found |= {name: np.array([_distance(pool.metrics[name]) for pool in pools]) for name in metrics}
    return found | {SIZE: np.array([-float(pool.n) for pool in pools])}


def _distance(estimate: Estimate) -> float:
    if estimate.value is None:
        return float("nan")
    return estimate.value if estimate.lower_is_closer else -estimate.value


def _predictor(metric: str, found: Sequence[Contest]) -> Predictor:
    called = [call for contest in found for call in calls(contest, metric)]
    lost = [(contest.target, regret(contest, metric)) for contest in found]
    return Predictor(metric=metric, share=_share(called), regret=_regret(lost))


def _held_out(metrics: Sequence[str], found: Sequence[Contest]) -> Predictor | None:
    """For every target, the metric that was best on the others."""
    targets = list(dict.fromkeys(contest.target for contest in found))
    if len(targets) < 2 or not metrics:
        return None
    called: list[Call] = []
    lost: list[tuple[str, float]] = []
    for target in targets:
        others = [contest for contest in found if contest.target != target]
        right = {m: [call.right for contest in others for call in calls(contest, m)] for m in metrics}
        best = max(metrics, key=lambda m: np.mean(right[m]) if right[m] else -1.0)
        for contest in found:
            if contest.target == target:
                called += calls(contest, best)
                lost.append((target, regret(contest, best)))
    return Predictor(metric=HELD_OUT, share=_share(called), regret=_regret(lost))


def _random(found: Sequence[Contest]) -> Predictor:
    """What a coin would do, exactly."""
    pairs = sum(len(calls(contest, SIZE)) for contest in found if SIZE in contest.distances)
    lost = [(contest.target, float(contest.accuracy.max() - contest.accuracy.mean())) for contest in found]
    share = Estimate(value=0.5, n=(pairs, 0), unit="share of pairs", lower_is_closer=False, method="exact")
    return Predictor(metric=RANDOM, share=share, regret=_regret(lost))


def _share(called: Sequence[Call]) -> Estimate:
    facts: dict[str, Any] = {"unit": "share of pairs", "lower_is_closer": False}
    if not called:
        return Estimate(value=None, reason="no two pools are more than two standard errors apart", **facts)
    targets = sorted({call.target for call in called})
    names = targets if len(targets) >= FEW else sorted({f"{c.target}/{p}" for c in called for p in c.pools})
    number = {name: i for i, name in enumerate(names)}
    kept = np.ones((len(called), len(names)), dtype=bool)
    for row, call in enumerate(called):
        of_call = [call.target] if names is targets else [f"{call.target}/{pool}" for pool in call.pools]
        kept[row, [number[name] for name in of_call]] = False
    right, left = np.array([call.right for call in called]), kept.sum(axis=0)
    values = (right @ kept)[left > 0] / left[left > 0]
    what, value = "targets" if len(targets) >= FEW else "pools", float(right.mean())
    found = _jackknifed(value, values, len(names), n=len(called), what=what, facts=facts)
    if found.low is None or found.high is None:
        return found
    pairs = _independent(called)
    least = min(len(names), pairs)
    trials = least + (pairs - least) * 4 * value * (1 - value)
    low, high = _exact(value, trials)
    method = f"the wider of: {found.method}; Clopper-Pearson of {trials:.1f} trials"
    return replace(found, low=min(max(found.low, 0.0), low), high=max(min(found.high, 1.0), high), method=method)


def _independent(called: Sequence[Call]) -> int:
    """How many of the pairs no others imply: the rank of pairs by pools, P - 1 at most for P pools of a target."""
    number = {end: i for i, end in enumerate(sorted({(call.target, pool) for call in called for pool in call.pools}))}
    differences = np.zeros((len(called), len(number)))
    for row, call in enumerate(called):
        differences[row, [number[call.target, pool] for pool in call.pools]] = 1, -1
    return int(np.linalg.matrix_rank(differences))


def _exact(share: float, trials: float) -> tuple[float, float]:
    """Clopper and Pearson's 95% interval; trials need not be whole, as ties count half."""
    right, wrong = share * trials, (1 - share) * trials
    low = float(stats.beta.ppf(0.025, right, wrong + 1)) if right else 0.0
    high = float(stats.beta.ppf(0.975, right + 1, wrong)) if wrong else 1.0
    return low, high


def _regret(lost: Sequence[tuple[str, float]]) -> Estimate:
    facts: dict[str, Any] = {"unit": "accuracy", "lower_is_closer": True}
    known = [(target, value) for target, value in lost if np.isfinite(value)]
    if not known:
        return Estimate(value=None, reason="the distances are not known", **facts)
    targets, values = sorted({target for target, _ in known}), np.array([value for _, value in known])
    without = [np.mean([v for t, v in known if t != target]) for target in targets] if len(targets) >= FEW else []
    n = len(targets)
    return _jackknifed(float(values.mean()), np.array(without), n, n=len(known), what="targets", facts=facts)


def _jackknifed(
    value: float,
    without: np.ndarray,
    clusters: int,
    *,
    n: int,
    what: str,
    facts: dict[str, Any],
) -> Estimate:
    """A mean with its delete-one jackknife interval; none with fewer than 3 clusters."""
    facts = {**facts, "n": (n, clusters)}
    if len(without) < FEW:
        return Estimate(value=value, method=f"no interval: {clusters} {what}", **facts)
    se = float(np.sqrt((len(without) - 1) * without.var()))
    reach = float(stats.t.ppf(0.975, len(without) - 1)) * se
    method = f"delete-one jackknife over {clusters} {what}, t quantiles"
    return Estimate(value=value, low=value - reach, high=value + reach, se=se, method=method, **facts)


def _figure(estimate: Estimate, form: str) -> str:
    tell: Callable[[float], str] = lambda value: format(value, form)  # noqa: E731
    if estimate.value is None:
        return "n/a"
    if estimate.low is None or estimate.high is None:
        return tell(estimate.value)
    return f"{tell(estimate.value)} ({tell(estimate.low)} to {tell(estimate.high)})"


def _told(contest: Contest) -> dict[str, Any]:
    distances = {name: [_known(v) for v in values] for name, values in contest.distances.items()}
    accuracy = contest.accuracy.tolist()
    lists = {name: list(getattr(contest, name)) for name in ("pools", "notes", "unknown")}
    return {"target": contest.target, "accuracy": accuracy, "distances": distances, **lists}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
