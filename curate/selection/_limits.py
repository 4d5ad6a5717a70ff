"""From a budget and the sources' terms to a ledger; what an infeasible wish lacks, in words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from curate.selection._candidates import Candidates
from curate.selection._ledger import IMAGES, Ledger, Limit, Quota
from curate.terms import Budget, Terms
from embeddings.errors import UnknownNameError, UsageError
from embeddings.store import EmbeddingStore

NO_LABEL = "(no label)"
UNLIMITED = np.iinfo(np.int64).max


def open_ledger(candidates: Candidates, budget: Budget, terms: Mapping[str, Terms]) -> Ledger:
    """The ledger of a request.

    Raises:
        UsageError: the floors do not fit the candidates or the budget, or image sizes that a budget in bytes needs are
            not known.
    """
    limits = _limits(candidates, budget)
    quotas = [quota for quota in _quotas(candidates, budget, terms) if quota is not None]
    _require_floors(limits, quotas)
    return Ledger(len(candidates), limits, quotas)


def prices_of(store: EmbeddingStore, name: str, terms: Terms) -> np.ndarray:
    """Money [n] float64 for each image of a source.

    Raises:
        UsageError: a price that is not a number of 0 or more.
        SourceError: a column of prices that does not exist.
    """
    if not terms.price:
        return np.zeros(len(store))
    constant = _number(terms.price)
    values = [terms.price] * len(store) if constant is not None else store.column(terms.price)
    prices = np.array([np.nan if (number := _number(value)) is None else number for value in values])
    bad = np.flatnonzero(~np.isfinite(prices) | (prices < 0))
    if len(bad):
        raise UsageError(
            f"{len(bad):,} prices of {name!r} are not numbers of 0 or more; the first is {values[bad[0]]!r}.",
            hint="Give one price for all (price:0.02), or name a column that holds a price for each image.",
        )
    return prices


def licenses_of(store: EmbeddingStore, terms: Terms) -> list[str]:
    """License class [n] of each image of a source; "" where none is known."""
    column = terms.license or "license"
    if column not in store.column_names:
        return [terms.license] * len(store)
    return [str(value or "") for value in store.column(column)]


def are_licensed(held: Sequence[str], allowed: Sequence[str]) -> np.ndarray:
    """True for the license classes [n] that are allowed, written large or small."""
    folded = {name.casefold() for name in allowed}
    return np.array([name.casefold() in folded for name in held], bool)


def weights_of(store: EmbeddingStore, queries: np.ndarray, weights: Mapping[str, float]) -> np.ndarray | None:
    """How much each target image [m] counts; None: all alike.

    A weight goes to the images whose label or group it names, or whose column, as COLUMN:VALUE; of several the product.

    Raises:
        UnknownNameError: no target image has that label, group or value.
        UsageError: every weight is 0.
    """
    if not weights:
        return None
    factors = np.ones(len(queries))
    for name, factor in weights.items():
        factors[_named(store, name)[queries]] *= factor
    if not factors.any():
        raise UsageError("Every target image has weight 0.", hint="Give some label a weight above 0.")
    return factors


def _named(store: EmbeddingStore, name: str) -> np.ndarray:
    """True for the rows [n] of a store that a weight names."""
    column, colon, value = name.partition(":")
    rows = store.rows()
    either = np.zeros(len(store), bool)
    for role in ("label", "group"):
        either |= np.array([v == name for v in rows[role].to_pylist()], bool)
    if not either.any() and colon and (column in store.column_names or column in rows.column_names):
        either = np.array([str(v) == value for v in store.column(column)], bool)
    if not either.any():
        known = _values(rows["label"]) or _values(rows["group"])  # groups may be as many as images
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        shown = known[:50] or ["(the target has none)"]
        raise UnknownNameError("label or group of the target", name, shown, nearest=near)
    return either


def _values(column: pa.ChunkedArray) -> list[str]:
    """Different values of a column, sorted."""
    return sorted(column.unique().drop_null().to_pylist())


def _limits(candidates: Candidates, budget: Budget) -> list[Limit]:
    n, limits = len(candidates), []
    if budget.most_images is not None:
        limits.append(Limit(name=IMAGES, most=budget.most_images, amounts=np.ones(n)))
    if budget.bytes is not None:
        limits.append(Limit(name="bytes", most=budget.bytes, amounts=_sizes(candidates)))
    if budget.money is not None:
        limits.append(Limit(name="money", most=budget.money, amounts=_prices(candidates)))
    for limit in limits:
        _require_one(limit)
    return limits


def _require_one(limit: Limit) -> None:
    least = limit.amounts.min(initial=np.inf)
    if least > limit.most and len(limit.amounts):
        raise UsageError(
            f"The budget is {limit.most:,.6g} in {limit.name}, but the cheapest candidate needs {least:,.6g}.",
            hint="Raise the budget.",
        )


def _prices(candidates: Candidates) -> np.ndarray:
    if candidates.prices is None:
        raise UsageError(
            "A budget in money was given, but no source has a price.",
            hint="Say what an image costs: NAME=SOURCE#price:0.02, or price:COLUMN.",
        )
    return candidates.prices


def _sizes(candidates: Candidates) -> np.ndarray:
    column = candidates.column("bytes", np.arange(len(candidates)))
    sizes = np.array([np.nan if size is None else size for size in column], np.float64)
    if not np.isfinite(sizes).all():
        unknown = sorted({candidates.names[i] for i in candidates.source[~np.isfinite(sizes)]})
        raise UsageError(
            f"A budget in bytes was given, but the sizes of the images of {', '.join(unknown)} are not known.",
            hint="Give the images themselves in place of vectors, or a budget in images.",
        )
    return sizes


def _quotas(candidates: Candidates, budget: Budget, terms: Mapping[str, Terms]) -> list[Quota | None]:
    return [
        _source_quota(candidates, terms),
        _column_quota(candidates, "label", budget.max_per_label, budget.min_per_label),
        _column_quota(candidates, "group", budget.max_per_group, None),
    ]


def _source_quota(candidates: Candidates, terms: Mapping[str, Terms]) -> Quota | None:
    each = [terms.get(name, Terms()) for name in candidates.names]
    if all(term.cap is None and not term.floor for term in each):
        return None
    return Quota(
        name="source",
        names=candidates.names,
        member=candidates.source,
        caps=np.array([UNLIMITED if term.cap is None else term.cap for term in each], np.int64),
        floors=np.array([term.floor for term in each], np.int64),
    )


def _column_quota(candidates: Candidates, column: str, most: int | None, least: int | None) -> Quota | None:
    """The same cap and floor for every value of a column; images without one are a class of their own, without floor.

    A group is one of its source: equal names in two pools are two groups.
    """
    if most is None and least is None:
        return None
    values = candidates.column(column, np.arange(len(candidates)))
    if column == "group":
        sources = (candidates.names[i] for i in candidates.source)
        values = np.array([None if v is None else f"{s}/{v}" for s, v in zip(sources, values, strict=True)], object)
    missing = np.array([v is None for v in values], bool)
    if missing.all():
        raise UsageError(
            f"A limit per {column} was given, but no candidate has a {column}.",
            hint=f"Name the column in the address: SOURCE#{column}:COLUMN.",
        )
    names, member = np.unique(np.where(missing, "", values).astype(str), return_inverse=True)
    floors = np.where(names == "", 0, least or 0).astype(np.int64)
    caps = np.full(len(names), UNLIMITED if most is None else most, np.int64)
    if column == "group":
        member = np.where(missing, -1, member)  # an image without a group is a group of its own
    shown = [name or NO_LABEL for name in names.tolist()]
    return Quota(name=column, names=shown, member=member.astype(np.int64), caps=caps, floors=floors)


def _require_floors(limits: Sequence[Limit], quotas: Sequence[Quota]) -> None:
    """Refuses floors that cannot be met: too few images, or more than a limit pays for."""
    for quota in quotas:
        for other in quotas:
            _require_room(quota, other)
        for limit in limits:
            need = sum(_cheapest(limit.amounts[quota.member == i], int(f)) for i, f in enumerate(quota.floors) if f)
            if need > limit.most * (1 + 1e-9):
                raise UsageError(
                    f"The floors per {quota.name} need at least {need:,.6g} {limit.name}, the budget is "
                    f"{limit.most:,.6g}: {need - limit.most:,.6g} short.",
                    hint="Lower the floors, or raise the budget.",
                )


def _require_room(quota: Quota, other: Quota) -> None:
    """Refuses a floor above what the caps of one kind leave of its images."""
    room = _room(quota, other)
    for i in np.flatnonzero(room < quota.floors).tolist():
        under = "" if other is quota else f" under the caps per {other.name}"
        raise UsageError(
            f"{quota.name.capitalize()} {quota.names[i]} has a floor of {quota.floors[i]:,}, but {room[i]:,} "
            f"images can be chosen from it{under}: {quota.floors[i] - room[i]:,} short.",
            hint=f"Ask for at most {room[i]:,}, or {'raise the caps' if under else 'add images'}.",
        )


def _room(quota: Quota, other: Quota) -> np.ndarray:
    """Images [k] that can be chosen of every source, label or group, at most, under the caps of one kind."""
    among = quota.member >= 0
    width = len(other.names) + 1
    pairs, held = np.unique(quota.member[among] * width + other.member[among] + 1, return_counts=True)
    caps = np.append(UNLIMITED, other.caps)  # the first is for -1
    room = np.zeros(len(quota.names), np.int64)
    np.add.at(room, pairs // width, np.minimum(held, caps[pairs % width]))
    return room


def _cheapest(amounts: np.ndarray, count: int) -> float:
    return float(np.sort(amounts)[:count].sum())


def _number(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None
