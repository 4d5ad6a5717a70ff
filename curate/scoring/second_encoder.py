"""The same score under another encoder, and how far the two agree on the order of the pools.

An encoder sees what it was trained to see. Where two encoders of different training order the pools alike, the order is
in the images; where they do not, it is in the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple, Unpack

import numpy as np
import pyarrow as pa

from curate.results import Estimate, PoolScore, ShiftReport
from curate.scoring.ranking import settled
from curate.scoring.sides import Embedding, Side, StoreSide
from embeddings.errors import SourceError, UsageError
from embeddings.pipeline import as_store
from embeddings.store import EmbeddingStore

MIN_POOLS = 3
DRAWS = 4_000


class Judged(NamedTuple):
    """A side under another encoder."""

    side: StoreSide
    gone: int  # images that were scored and are in the source no more


def under(side: Side, judge: str, **embedding: Unpack[Embedding]) -> Judged:
    """The same images, labels and groups under another encoder, and how many of them are gone.

    Raises:
        UsageError: no images are at hand: vectors of the user's own, or moments.
        SourceError: the images are not where they were.
    """
    store = side.store
    if store is None or not store.source or not store.spec.size:
        raise UsageError(
            f"{side.name} is not made of images that {judge} could embed.",
            hint="Give sources of images, or leave --judge out.",
        )
    try:
        other = as_store(store.source, name=side.name, encoder=judge, **embedding)
    except SourceError as error:
        raise SourceError(
            f"The images of {side.name} are not where they were embedded from: {error.message}",
            hint="Put them back, embed them again, or leave --judge out.",
        ) from None
    if other.spec == store.spec:
        raise UsageError(f"{judge} scores and judges itself.", hint="Name another encoder with --judge.")
    place = {key: row for row, key in enumerate(store.column("key"))}
    kept = [row for row, key in enumerate(other.column("key")) if key in place]
    if not kept:
        raise UsageError(
            f"None of the images of {side.name} is in {store.source} any more.",
            hint="Embed it again, or leave --judge out.",
        )
    other = other.take(np.array(kept, np.int64))
    ours = store.rows().take(pa.array([place[key] for key in other.column("key")]))
    rows = other.rows()
    for role in ("label", "group"):
        rows = rows.set_column(rows.schema.get_field_index(role), role, ours[role])
    seen = EmbeddingStore(spec=other.spec, rows=rows, vectors=other.vectors(), facts=other.facts)
    return Judged(StoreSide(side.name, seen), len(store) - len(seen))


def second_opinion(
    first: ShiftReport, second: ShiftReport, *, gone: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, Any]:
    """What another encoder says of the same pools, as plain JSON.

    Args:
        first: Of the encoder that ranks.
        second: Of the judge, over the same pools.
        gone: Images by set that the judge could not see, since they are not where they were.
        seed: Of the draws behind the interval.

    Returns:
        ``{"encoder", "pools": [{name, rank, index, verdict}], "agreement": Estimate, "turned": [[a, b]],
        "same_order", "gone"}``; ``turned`` are the pairs that each of the two orders surely, and in opposite ways.
    """
    return {
        "encoder": second.encoder,
        "pools": [
            {"name": p.name, "rank": p.rank, "index": p.index.to_json(), "verdict": p.verdict} for p in second.pools
        ],
        "agreement": rank_agreement(first.pools, second.pools, seed=seed).to_json(),
        "turned": [
            [a.name, b.name]
            for a, b in combinations(first.pools, 2)
            if settled(a, b) and settled(second[b.name], second[a.name])
        ],
        "same_order": [p.name for p in first.pools] == [p.name for p in second.pools],
        "gone": {name: n for name, n in (gone or {}).items() if n},
    }


def rank_agreement(first: Sequence[PoolScore], second: Sequence[PoolScore], *, seed: int = 0) -> Estimate:
    """Kendall's rank correlation of two scores of the same pools.

    Returns:
        Estimate in -1..1: 1 = the same order, 0 = unrelated orders. The 95% interval is that of the correlation when
        every distance is drawn from its own error: how far the errors alone could have made or unmade the agreement.
        None with under 3 pools.

    Source: Kendall, A new measure of rank correlation, Biometrika 30 (1938).
    """
    names = sorted(pool.name for pool in first)
    a, b = (_distances(pools, names) for pools in (first, second))
    facts = Estimate(
        value=None,
        n=(len(names), len(names)),
        unit="rank correlation",
        lower_is_closer=False,
        method=f"Kendall's tau over {len(names)} pools, {DRAWS:,} draws from the errors of the distances",
        seed=seed,
        null=0.0,
    )
    if len(names) < MIN_POOLS:
        return replace(facts, reason=f"{len(names)} pools are too few to agree on an order; {MIN_POOLS} are needed")
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(value, error, size=(DRAWS, len(names))) for value, error in (a, b)]
    low, high = np.quantile(_tau(*drawn), [0.025, 0.975])
    return replace(facts, value=float(_tau(a[0], b[0])), low=float(low), high=float(high))


def _distances(pools: Sequence[PoolScore], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Headline distances and their standard errors, by name."""
    found = {pool.name: pool.metrics["frechet"] for pool in pools}
    return np.array([found[n].value or 0.0 for n in names]), np.array([found[n].se or 0.0 for n in names])


def _tau(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tau of the last axis of two arrays [..., n]: agreeing pairs minus disagreeing ones, over all pairs."""
    i, j = np.triu_indices(a.shape[-1], 1)
    return np.asarray((np.sign(a[..., i] - a[..., j]) * np.sign(b[..., i] - b[..., j])).mean(axis=-1))
