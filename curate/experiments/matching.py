"""Which runs of a study are compared with which: two sides that differ in what a contrast names and in nothing else.

Runs are paired by target, N, C, method, start, backbone, selecting encoder and seed, but for what the sides name
themselves. A coordinate in which they have no value in common (an arm that fixes another method, say) cannot pair them:
it is left out and told as a difference. The number of samples to see always pairs: runs compare at equal C only. A run
that its watch stopped saw fewer and counts as it is, because to leave out what went ill would flatter its arm: that it
is among those compared is told.

Runs of one target and seed are not independent even in different settings (a setting is N, method, start and so on):
methods share selections, and smaller selections lie within larger ones. Settings are therefore averaged within each
target and seed, over the seeds that all of them have. Runs for different targets are taken to be independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from curate.experiments.outcomes import Outcome, Outcomes, read_outcomes
from curate.experiments.protocol import COORDINATES, Contrast, Protocol, Side
from curate.experiments.statistics import Draws
from curate.experiments.tidy import Cell, TargetResults

PAIRING = tuple(name for name in COORDINATES if name != "seed")  # the target first
Place = tuple[Any, ...]  # values of the coordinates that pair
TUNED = "finetuned:"


@dataclass(frozen=True, kw_only=True)
class Match:
    """The paired runs of one comparison."""

    conditions: tuple[Draws, ...]  # differences, target by target; none: no runs could be paired
    means: tuple[float, float] = (np.nan, np.nan)  # accuracy of the two sides
    targets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what else differs between the sides


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The runs of a study, and what each says of every test image."""

    targets: tuple[TargetResults, ...]
    protocol: Protocol

    @cached_property
    def outcomes(self) -> dict[str, Outcomes]:
        """By target."""
        wanted, found = self.protocol.labeled, {}
        for target in self.targets:
            sets = [name for name in wanted if name in target.report.labeled]
            found[target.target] = read_outcomes(target.report, metric=self.protocol.metric, labeled=sets)
        return found

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Cells whose run was evaluated."""
        return tuple(c for t in self.targets for c in t.cells if c.key[1] in self.outcomes[t.target].by_arm)

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the file."""
        return tuple(dict.fromkeys(cell.arm for cell in self.cells))

    def choose(self, *sides: Side) -> list[Cell]:
        """Cells that have the values that all sides name."""
        return [cell for cell in self.cells if all(cell.facts.get(k) in v for side in sides for k, v in side.items())]

    def compare(self, contrast: Contrast, where: Side | None = None) -> Match:
        """Differences of the first side minus the second; ``where`` limits both in what they do not name."""
        named = {*contrast.first, *contrast.second}
        limits = {name: values for name, values in (where or {}).items() if name not in named}
        sides = [self.choose(side, limits) for side in (contrast.first, contrast.second)]
        apart = [name for name in PAIRING if name not in named and _is_disjoint(name, sides)]
        if {"samples", "target"} & set(apart):
            return Match(conditions=(), notes=(f"they have no {'target' if 'target' in apart else 'C'} in common",))
        pairing = [name for name in PAIRING if name not in named and name not in apart]
        placed = [self._placed(side, pairing, pool="seed" in named) for side in sides]
        match = _paired(placed[0], placed[1], self._units())
        notes = [f"they also differ in {name}" for name in apart]
        return replace(match, notes=(*notes, *match.notes, *_unequal(sides), *_stopped(sides)))

    def against(self, side: Side, kind: str, where: Side | None = None, *, tuned: bool = False) -> Match:
        """Differences of runs to a reference of a kind on the same target; ``tuned``: of the runs fine-tuned."""
        cells = self.choose(side, where or {})
        placed = self._placed(cells, PAIRING, tuned=tuned)
        names = {target.target: _reference(target, kind) for target in self.targets}
        pairs: dict[Place, dict[Any, Outcome]] = {}
        for place, by_seed in placed.items():
            target = place[PAIRING.index("target")]
            found = self.outcomes[target].by_arm.get(names[target] or "")
            if found is not None:
                pairs[place] = dict.fromkeys(by_seed, found)
        match = _paired({place: placed[place] for place in pairs}, pairs, self._units())
        return replace(match, notes=(*match.notes, *_stopped([cells])))

    def draws(self, cells: Iterable[Cell]) -> list[Draws]:
        """Accuracies themselves, by condition."""
        placed = self._placed(cells, PAIRING)
        return [_draws(list(by_seed.values()), self._units()[place[0]]) for place, by_seed in placed.items()]

    def reference(self, kind: str, targets: Iterable[str]) -> list[Draws]:
        """Accuracies of a reference on some targets; of those that have it."""
        names = {target.target: _reference(target, kind) for target in self.targets}
        units, wanted = self._units(), [name for name in dict.fromkeys(targets) if names[name]]
        return [_draws([self.outcomes[name].by_arm[names[name] or ""]], units[name]) for name in wanted]

    def _placed(
        self, cells: Iterable[Cell], pairing: Sequence[str], *, pool: bool = False, tuned: bool = False
    ) -> dict[Place, dict[Any, Outcome]]:
        """Outcomes by place and seed; several runs in one place are averaged. The target leads every place."""
        found: dict[Place, dict[Any, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
        for cell in cells:
            target, name = cell.key
            outcome = self.outcomes[target].by_arm.get(f"{TUNED}{name}" if tuned else name)
            if outcome is not None:
                place = tuple(cell.facts.get(key) for key in pairing)
                found[place]["all" if pool else cell.seed].append(outcome)
        return {
            place: {seed: _mean(them) for seed, them in sorted(by.items(), key=_by_seed)} for place, by in found.items()
        }

    def _units(self) -> dict[str, np.ndarray]:
        return {name: outcomes.units for name, outcomes in self.outcomes.items()}


def _paired(
    first: Mapping[Place, Mapping[Any, Outcome]],
    second: Mapping[Place, Mapping[Any, Outcome]],
    units: Mapping[str, np.ndarray],
) -> Match:
    """Differences wherever both sides have a run of the same seed, settings averaged within each target."""
    pairs: dict[str, list[tuple[Place, list[Any]]]] = defaultdict(list)
    dropped = 0
    for place in first:
        seeds = [seed for seed in first[place] if seed in second.get(place, {})]
        dropped += len(first[place]) + len(second.get(place, {})) - 2 * len(seeds)
        if seeds:
            pairs[str(place[0])].append((place, seeds))
    if not pairs:
        return Match(conditions=())
    sides = [[_averaged(side, found, units[target]) for target, found in pairs.items()] for side in (first, second)]
    means = [float(np.mean([draws.values.mean() for draws in side])) for side in sides]
    settings = max(len(found) for found in pairs.values())
    notes = [f"{settings} settings are averaged"] if settings > 1 else []
    notes += [f"{dropped} runs have no counterpart of the same seed"] if dropped else []
    return Match(
        conditions=tuple(ours - theirs for ours, theirs in zip(*sides, strict=True)),
        means=(means[0], means[1]),
        targets=tuple(pairs),
        notes=tuple(notes),
    )


def _averaged(
    side: Mapping[Place, Mapping[Any, Outcome]], found: Sequence[tuple[Place, list[Any]]], units: np.ndarray
) -> Draws:
    """One target's outcomes by seed, its settings averaged over the seeds they share; one draw if they share none."""
    shared = [seed for seed in found[0][1] if all(seed in seeds for _, seeds in found)]
    if not shared:
        return _draws([_mean([side[place][seed] for place, seeds in found for seed in seeds])], units)
    return _draws([_mean([side[place][seed] for place, _ in found]) for seed in shared], units)


def _draws(outcomes: Sequence[Outcome], units: np.ndarray) -> Draws:
    values = np.array([outcome.value for outcome in outcomes])
    influence = np.stack([outcome.influence for outcome in outcomes])
    return Draws(values=values, influence=influence, weights=outcomes[0].weights, units=units)


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    value = float(np.mean([outcome.value for outcome in outcomes]))
    influence = np.mean([outcome.influence for outcome in outcomes], axis=0)
    return Outcome(value=value, influence=influence, weights=outcomes[0].weights)


def _by_seed(item: tuple[Any, Any]) -> tuple[bool, Any]:
    """Runs without a seed of their own come first."""
    return item[0] is not None, item[0]


def _is_disjoint(name: str, sides: Sequence[Sequence[Cell]]) -> bool:
    first, second = ({cell.facts.get(name) for cell in side} for side in sides)
    return bool(first) and bool(second) and not first & second


def _unequal(sides: Sequence[Sequence[Cell]]) -> tuple[str, ...]:
    """Whether one side's selections hold more images than the other's, where that was not asked for."""
    if any(not side for side in sides):
        return ()
    asked, taken = ([float(np.mean([cell.facts.get(k) or 0 for cell in side])) for side in sides] for k in _SIZES)
    if asked[0] != asked[1] or max(taken) <= 1.01 * min(taken):
        return ()
    return (f"their selections hold {taken[0]:,.0f} and {taken[1]:,.0f} images",)


_SIZES = ("asked", "realized")


def _stopped(sides: Sequence[Sequence[Cell]]) -> tuple[str, ...]:
    """How many runs of each side were stopped early, if any were."""
    if not any(cell.stopped for side in sides for cell in side):
        return ()
    told = " and ".join(f"{sum(bool(cell.stopped) for cell in side)} of {len(side)}" for side in sides)
    return (f"{told} runs were stopped early and saw fewer samples",)


def _reference(target: TargetResults, kind: str) -> str | None:
    """Name of the reference of a kind: no run, and no run fine-tuned."""
    own = {f"{TUNED}{name}" for name in target.by_name}
    names = [score.arm for score in target.report.scores if score.kind == kind and score.arm not in own]
    return names[0] if names else None
