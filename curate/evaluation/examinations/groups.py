"""Groups of the labeled images (plant, line, camera, origin): who is served worse, and is the group in the features?

Groups are the values of a column of the labeled set (knob ``groups``; else the source's group, if it has few values).

    COLUMN=VALUE linear         accuracy of one group;  standardized: under the class mix that all groups have in common
    COLUMN worst, gap           the worst group's accuracy; best less worst, with the gap that noise alone makes as null
    COLUMN gap_p                p value of the gap;  standardized_gap, standardized_gap_p: the same at equal class mix
    COLUMN readable             how often the group is read from the features, against naming the largest one
    COLUMN readable_in_class    the same among images of one class, because class and group go together
    COLUMN weight               how to ``select`` for more of the worst group, where it is rare and the gap no noise
                                (a direction: shares move toward it as far as the pools go, see _group_shares)

A group is compared if the test part has FEWEST independent units of it, and a class counts as common if every group
has LEAST_IN_CLASS of it. Units are those of the split; where each group lies within one (the split keeps groups whole)
they are images and their copies, and figures speak of these very groups, not of others like them.

Gaps and rates equal those of fairlearn's MetricFrame (a test compares them); it has no interval, null or class mix, so
it is no dependency. Cost: a second or two per arm; no image is embedded again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from curate.evaluation._images import GROUP
from curate.evaluation._intervals import Measured, Resamples, accuracy
from curate.evaluation._view import Figure, View
from curate.evaluation.examinations._group_gaps import Cells, extreme, gap, known, p_value, units_by_group, worst
from curate.evaluation.examinations._group_reading import Grouped, Reading, read_groups, read_within
from curate.numerals import counted
from curate.results import Estimate
from curate.selection._group_shares import MOST_WEIGHT, weight_for
from embeddings.errors import SourceError
from embeddings.moments import connected_rows

FEWEST = 10  # test units of a group
LEAST_IN_CLASS = 5  # of a group in a class
MOST_GROUPS = 50
NAMED = 10  # groups in a reason
SURE = 0.05
WORST = "linear accuracy of the worst group"
NOT_COMMON = f"no class has {LEAST_IN_CLASS} test units of every group"


def examine(view: View) -> list[Figure]:
    """The figures of one arm's groups; one that says why, where there are none."""
    column = view.settings.groups or view.images.grouped_by
    try:
        values = [value for store in view.images.stores for value in store.column(view.settings.groups or GROUP)]
    except SourceError as error:
        return [_missing(column, "gap", f"{error.message} {error.hint}")]
    grouping = Grouping.of(view, column, [None if v in (None, "") else str(v) for v in values])
    if reason := grouping.reason(is_asked_for=view.settings.groups is not None):
        return [_missing(column, "gap", reason)]
    return [*_gaps(view, grouping), *_readings(view, grouping)]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The groups of one labeled set."""

    column: str
    names: tuple[str, ...]
    group: np.ndarray  # int64 [n] of every row, -1 for none
    units: np.ndarray  # int64 [n] that count as independent
    test: np.ndarray  # int64 [m] row numbers

    @classmethod
    def of(cls, view: View, column: str, values: list[str | None]) -> Grouping:
        """From the column's values [n]."""
        split, names = view.comparison.split, sorted({value for value in values if value is not None})
        number = {name: i for i, name in enumerate(names)}
        groups = np.array([-1 if value is None else number[value] for value in values], np.int64)
        groups[split.labels < 0] = -1
        units = split.units
        if (units_by_group(groups, units, len(names)) <= 1).all():
            units = _copies(view.images.rows)
        return cls(column=column, names=tuple(names), group=groups, units=units, test=split.test)

    @cached_property
    def n_units(self) -> np.ndarray:
        """Test units of every group, int64 [groups]."""
        return units_by_group(self.group[self.test], self.units[self.test], len(self.names))

    @cached_property
    def compared(self) -> np.ndarray:
        """Numbers of the groups that are compared, ascending."""
        return np.flatnonzero(self.n_units >= FEWEST)

    @cached_property
    def number(self) -> np.ndarray:
        """int64 [n]: place of every row's group among those compared, -1 for others."""
        place = np.full(len(self.names) + 1, -1, np.int64)
        place[self.compared] = np.arange(len(self.compared))
        return np.asarray(place[self.group])  # the last place is for -1

    def reason(self, *, is_asked_for: bool) -> str:
        """Why these groups cannot be compared; "" if they can."""
        name, count = self.column, len(self.names)
        ask = "" if is_asked_for else " Name a column with the knob groups=COLUMN."
        if not count:
            return f"No labeled image has a {name}.{ask}"
        if count > MOST_GROUPS and (not is_asked_for or len(self.compared) < 2):
            return f"{name} has {count:,} values for {len(self.group):,} images: it tells things, not groups.{ask}"
        if len(self.compared) < 2:
            values = counted(count, "value")
            return f"{len(self.compared)} of {values} of {name} reached {FEWEST} test units; a gap needs two.{ask}"
        return ""

    def shown(self) -> list[int]:
        """Places of the MOST_GROUPS compared groups with the most test units, in the order of their names."""
        return sorted(np.argsort(-self.n_units[self.compared], kind="stable")[:MOST_GROUPS].tolist())

    def too_small(self) -> str:
        """Which groups are not compared, in words; "" if all are."""
        small = [(self.names[i], n) for i, n in enumerate(self.n_units.tolist()) if n < FEWEST]
        named = ", ".join(f"{name} {n}" for name, n in small[:NAMED]) + ", ..." * (len(small) > NAMED)
        return f"{len(small)} of {len(self.names)} have fewer than {FEWEST} test units: {named}" if small else ""


def _copies(rows: pa.Table) -> np.ndarray:
    """Unit int64 [n] of every row that copies alone make."""
    own = pa.chunked_array([pa.array(np.arange(len(rows)))])
    return connected_rows(own, rows["sha256"], rows["pixels"])


@dataclass(frozen=True)
class _Drawn:
    """Rates of the compared groups by one way of weighing classes: [G], and [draws, G] on the resamples."""

    value: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(cls, cells: Cells, correct: np.ndarray, resamples: Resamples) -> _Drawn:
        whole = cells.rates(correct, [np.ones((1, len(correct)))])
        return cls(whole[0], cells.rates(correct, resamples))

    def of_group(self, place: int) -> Measured:
        """The rate of one compared group."""
        return known(self.value[place], self.draws[:, place])

    def measured(self, figure: Callable[[np.ndarray], np.ndarray]) -> Measured:
        """A figure of the rates [b, G] that noise moves one way."""
        return extreme(figure(self.value[None])[0], figure(self.draws))


def _gaps(view: View, grouping: Grouping) -> Iterator[Figure]:
    test, split, column = grouping.test, view.comparison.split, grouping.column
    correct = view.probed.probabilities.argmax(axis=1) == split.labels[test]
    groups, units, count = grouping.number[test], grouping.units[test], len(grouping.compared)
    resamples = Resamples(units=units, n_train=len(split.train), seed=view.comparison.seed)
    plain = Cells.plain(groups, count)
    common = Cells.by_class(groups, count, split.labels[test], units, least=LEAST_IN_CLASS)
    drawn = _Drawn.of(plain, correct, resamples)
    alike = _Drawn.of(common, correct, resamples) if len(common.shares) else None
    yield from _each(grouping, resamples, drawn, alike)
    lowest = int(drawn.value.argmin())
    note = f"the worst group is {grouping.names[grouping.compared[lowest]]}"
    yield replace(_one(column, "worst", drawn.measured(worst), WORST, resamples), note=note)
    unit = "linear accuracy, best less worst group"
    exchanged = plain.exchanged_gaps(correct, units, seed=resamples.seed)
    yield from _gap(column, "gap", drawn, exchanged, unit=unit, resamples=resamples)
    if alike is None:
        yield from (_missing(column, metric, NOT_COMMON) for metric in ("standardized_gap", "standardized_gap_p"))
    else:
        unit = f"{unit}, under one mix of the {len(common.shares)} classes that all groups have"
        fair = common.exchanged_gaps(correct, units, seed=resamples.seed)
        yield from _gap(column, "standardized_gap", alike, fair, unit=unit, resamples=resamples)
    p = p_value(float(gap(drawn.value[None])[0]), exchanged)
    yield Figure(condition=column, metric="weight", found=_weight(grouping, lowest, p))


def _each(grouping: Grouping, resamples: Resamples, drawn: _Drawn, alike: _Drawn | None) -> Iterator[Figure]:
    """Every compared group's accuracy, as it is and under the common class mix; and which ones are not compared."""
    groups, units = grouping.number[grouping.test], grouping.units[grouping.test]
    for place in grouping.shown():
        condition = f"{grouping.column}={grouping.names[grouping.compared[place]]}"
        own = replace(resamples, units=units[groups == place])
        yield _one(condition, "linear", drawn.of_group(place), "linear accuracy", own)
        if alike is None:
            yield _missing(condition, "standardized", NOT_COMMON)
        else:
            yield _one(condition, "standardized", alike.of_group(place), "linear accuracy at a common class mix", own)
    if reason := grouping.too_small():
        yield _missing(grouping.column, "linear", reason)


def _one(condition: str, metric: str, found: Measured, unit: str, resamples: Resamples) -> Figure:
    return Figure(condition=condition, metric=metric, found=found, unit=unit, resamples=resamples)


def _gap(
    column: str, metric: str, drawn: _Drawn, exchanged: np.ndarray, *, unit: str, resamples: Resamples
) -> Iterator[Figure]:
    found = drawn.measured(gap)
    yield Figure(
        condition=column,
        metric=metric,
        found=found,
        unit=unit,
        is_share=False,
        lower_is_better=True,
        null=float(exchanged.mean()),
        resamples=resamples,
    )
    p = Estimate(
        value=p_value(found.value, exchanged),
        n=(resamples.n_train, len(resamples.units)),
        unit="p value of the gap",
        lower_is_closer=False,
        method=f"{len(exchanged):,} exchanges of groups between units, or within those that hold several",
        seed=resamples.seed,
        null=0.5,
    )
    yield Figure(condition=column, metric=f"{metric}_p", found=p)


def _readings(view: View, grouping: Grouping) -> Iterator[Figure]:
    """How well the group is read, over all and within classes."""
    seed, unit = view.comparison.seed, "cross-fitted linear accuracy of the group"
    images = Grouped.draw(grouping.number, view.comparison.split.labels, grouping.units, seed=seed)
    yield _reading(grouping, "readable", read_groups(view.features, images), unit, seed)
    within = read_within(view.features, images, least=LEAST_IN_CLASS)
    if within is None:
        yield _missing(grouping.column, "readable_in_class", f"no class has {LEAST_IN_CLASS} units of two groups")
    else:
        yield _reading(grouping, "readable_in_class", within, f"{unit} among images of one class", seed)


def _reading(grouping: Grouping, metric: str, reading: Reading, unit: str, seed: int) -> Figure:
    resamples = Resamples(units=grouping.units[reading.rows], n_train=len(reading.rows), seed=seed)
    return Figure(
        condition=grouping.column,
        metric=metric,
        found=resamples.measure({metric: accuracy(reading.hits)})[metric],
        unit=unit,
        lower_is_better=True,
        null=reading.chance,
        resamples=resamples,
    )


def _weight(grouping: Grouping, place: int, p: float) -> Estimate:
    """What to tell ``curate select`` so that the worst group counts as much as each of the others."""
    name = grouping.names[grouping.compared[place]]
    among = grouping.number[grouping.number >= 0]
    share, even = float((among == place).mean()), 1 / len(grouping.compared)
    if p > SURE:
        return Estimate(value=None, reason=f"the gap may be noise (p = {p:.2g}): no group calls for a weight")
    if share >= even:
        reason = (
            f"the worst group, {name}, is {share:.0%} of the images, {even:.0%} would be even: it is hard, not rare"
        )
        return Estimate(value=None, reason=reason)
    factor = weight_for(share, even)
    return Estimate(
        value=factor,
        n=(len(among), len(among)),
        unit=f"curate select --weight {shlex.quote(f'{grouping.column}:{name}={factor:g}')}",
        lower_is_closer=False,
        method=f"{name} is {share:.1%} of the labeled images, {even:.1%} would be even; at most {MOST_WEIGHT:g}",
    )


def _missing(condition: str, metric: str, reason: str) -> Figure:
    return Figure(condition=condition, metric=metric, found=Estimate(value=None, reason=reason))
