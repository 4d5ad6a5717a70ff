"""Of which groups a selection is, beside the target and what the pools offered: told in its facts, for its report.

A group is a value of the column ``group`` if the target has 2 to 50 of them there, else of the column ``label``; and
pools must have two of the target's, or nothing is told: their values mean something else. Shares are of the images that
have a value; target images count by their weight.

    apart    half the sum over groups of |share in the selection - share in the target|, 0..1: the share of the
             selection that would have to be of other groups for it to be like the target
    chance   what a target of m images and a selection of N at the same shares p are apart on average, of which the
             selection has k of the target's own: sum E|X - np| / 2n,
             1/n = 1/N + 1/m - 2k/(Nm),   X ~ Binomial(n, p),   E|X - np| = 2 v (1 - p) P(X = v),   v = floor(np) + 1

The target is a sample, too: m counts its images. With weights w it is (sum w)^2 / sum w^2 of them, and k/m the share of
the weight that was chosen. A selection of all the target's own images and no others is apart by 0, whatever p is.
``chance`` is taken at the target's shares and low where these rest on few images: in simulations by 4% at ten images a
group, 12% at two, a third at one in three. What would even out groups that are off by more than chance is proposed:
weights (``_group_shares``), and a cap where a group is more common than any is in the target.

Source: Kish, Survey sampling (1965), for the effective m; de Moivre's formula for the mean deviation, in Diaconis and
Zabell, Closed form summation for classical distributions, Statistical Science 6 (1991).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from curate.results import TARGET
from curate.selection._candidates import Candidates
from curate.selection._group_shares import weight_for

COLUMNS = ("group", "label")
MOST_GROUPS = 50  # of the target: more values of the column group tell things, not groups
MOST_VALUES = 10_000  # of the pools, of either column
SHARED = 2  # groups that target and pools must have in common
ROWS = 10  # groups told one by one
PROPOSED = 3  # weights
SURE = 0.05  # probability that of all groups one is taken to be off that is not
DECIMALS = 6
ROUNDING = 1e-12  # in 1 / n and in shares

Counts = dict[str, float]


def composition(
    candidates: Candidates, chosen: np.ndarray, weights: Mapping[str, float], *, heeded: bool = True
) -> dict[str, Any] | None:
    """Shares of groups in target, pools and selection, as JSON; None where the sources do not tell.

    Args:
        candidates: What could be chosen.
        chosen: Rows [r] of what was.
        weights: Of target images, as asked for.
        heeded: Whether the method goes by weights.
    """
    for column in COLUMNS:
        target, size, own = _target_counts(candidates, column, chosen)
        if len(target) < SHARED or (column == "group" and len(target) > MOST_GROUPS):
            continue
        groups = _Groups.of(candidates, chosen, column, target, size=size, own=own)
        if groups.are_told:
            return groups.to_json() | {"weights": groups.proposed(weights), "heeded": heeded, "cap": groups.cap()}
    return None


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """How often each value of a column occurs; images without one are not counted."""

    column: str
    size: float  # of the target, in images that count alike
    own: float  # share of the target, by weight, that was chosen
    target: Counts
    pools: Counts
    selection: Counts
    without: int  # chosen images that have no value

    @classmethod
    def of(
        cls, candidates: Candidates, chosen: np.ndarray, column: str, target: Counts, *, size: float, own: float
    ) -> _Groups:
        """By the values of a column of every store."""
        selection = _counts(candidates, chosen, column)
        return cls(
            column=column,
            size=size,
            own=own,
            target=target,
            pools=_counts(candidates, np.flatnonzero(~candidates.own), column),
            selection=selection,
            without=len(chosen) - round(sum(selection.values())),
        )

    @property
    def are_told(self) -> bool:
        """True if there are shares on every side, of the same groups."""
        return bool(self.selection) and len(self.target.keys() & self.pools.keys()) >= SHARED

    @property
    def n(self) -> int:
        """Chosen images that have a value."""
        return round(sum(self.selection.values()))

    @property
    def unsure(self) -> float:
        """1 / n of one sample as unsure as the difference of both; 0: they are the same images."""
        found = 1 / self.n + 1 / self.size - 2 * self.own / self.n
        return found if found > ROUNDING else 0.0

    @property
    def chance(self) -> float:
        """How far the two are apart on average where their images are of the same groups."""
        n = max(1, round(1 / self.unsure)) if self.unsure else 0
        return apart_by_chance(list(_shares(self.target).values()), n) if n else 0.0

    def to_json(self) -> dict[str, Any]:
        """The groups that are farthest from the target, what the others sum to, and how far all are."""
        wanted, offered, found = (_shares(counts) for counts in (self.target, self.pools, self.selection))
        by_gap = sorted(wanted, key=lambda name: (-abs(found.get(name, 0.0) - wanted[name]), name))
        shown = sorted(by_gap[:ROWS], key=lambda name: (-wanted[name], name))
        foreign = (offered.keys() | found.keys()) - wanted.keys()
        sides = {"target": wanted, "pools": offered, "selection": found}
        return {
            "column": self.column,
            "images": self.n,
            "without": self.without,
            "rows": [{"group": name, **_summed(sides, [name])} for name in shown],
            "rest": {"groups": len(by_gap) - ROWS, **_summed(sides, by_gap[ROWS:])} if by_gap[ROWS:] else None,
            "foreign": {"groups": len(foreign), **_summed(sides, sorted(foreign))} if foreign else None,
            "apart": round(_apart(found, wanted), DECIMALS),
            "pools_apart": round(_apart(offered, wanted), DECIMALS),
            "chance": round(self.chance, DECIMALS),
        }

    def proposed(self, weights: Mapping[str, float]) -> dict[str, float]:
        """What --weight could say of the groups that are farthest from the target, in place of what it said."""
        wanted, found = _shares(self.target), _shares(self.selection)
        gaps = {name: found.get(name, 0.0) - share for name, share in wanted.items() if share > 0}
        off = [name for name, gap in gaps.items() if abs(gap) > self._reach(wanted[name])]
        factors = {}
        for name in sorted(off, key=lambda name: (-abs(gaps[name]), name))[:PROPOSED]:
            said = f"{self.column}:{name}" if name not in weights and f"{self.column}:{name}" in weights else name
            factor = weight_for(found.get(name, 0.0), wanted[name]) * weights.get(said, 1.0)
            factors[said] = float(f"{factor:.2g}")
        return factors

    def cap(self) -> int | None:
        """The most images of a group if none were more common than the target's commonest; None if none is."""
        most, found = max(_shares(self.target).values()), max(_shares(self.selection).values())
        return math.ceil(most * self.n) if found > most + self._reach(most) else None

    def _reach(self, share: float) -> float:
        """How far a share may be from the target's by chance."""
        sure = float(stats.norm.isf(SURE / 2 / len(self.target)))
        return sure * math.sqrt(share * (1 - share) * self.unsure) + ROUNDING


def apart_by_chance(shares: list[float], n: int) -> float:
    """Half the summed distance of the shares of n images from those [g] that they were drawn at, on average."""
    p = np.array(shares)
    v = np.floor(n * p) + 1
    return float((v * (1 - p) * stats.binom.pmf(v, n, p)).sum() / n)


def _target_counts(candidates: Candidates, column: str, chosen: np.ndarray) -> tuple[Counts, float, float]:
    """Weight of every group among the target images to select for; images that count alike; share that was chosen."""
    values = candidates.stores[TARGET].rows()[column].take(pa.array(candidates.queries)).to_pylist()
    is_chosen = np.isin(candidates.queries, candidates.place[chosen[candidates.own[chosen]]])
    counts: Counts = {}
    squares = own = 0.0
    for value, weight, taken in zip(values, candidates.weights.tolist(), is_chosen.tolist(), strict=True):
        if value:
            counts[value] = counts.get(value, 0.0) + weight
            squares += weight**2
            own += weight * taken
    whole = sum(counts.values())
    return (counts, whole**2 / squares, own / whole) if squares else ({}, 0.0, 0.0)


def _counts(candidates: Candidates, rows: np.ndarray, column: str) -> Counts:
    """Images of every group among some candidates [r]; none where there are too many to be groups."""
    columns = [candidates.stores[name].rows()[column].take(pa.array(at)) for name, _, at in candidates.by_store(rows)]
    values = pa.chunked_array([chunk for values in columns for chunk in values.chunks], pa.string())
    found = pc.value_counts(values)
    if len(found) > MOST_VALUES:
        return {}
    return {pair["values"]: float(pair["counts"]) for pair in found.to_pylist() if pair["values"]}


def _shares(counts: Counts) -> Counts:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}


def _apart(found: Counts, wanted: Counts) -> float:
    return sum(abs(found.get(name, 0.0) - wanted.get(name, 0.0)) for name in sorted({*found, *wanted})) / 2


def _summed(sides: Mapping[str, Counts], names: list[str]) -> dict[str, float]:
    """Share of some groups together, on every side."""
    return {side: round(sum(shares.get(name, 0.0) for name in names), DECIMALS) for side, shares in sides.items()}
