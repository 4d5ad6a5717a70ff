"""What ``score`` can say beyond figures, when asked: what kind of shift, which images, which slices, how varied.

Those of a pool: ``factors`` (what preprocessing would repair), ``images`` (those that tell the sets apart, and the
labels that pull the pool away), ``memorized`` (copies of target images that no digest finds), ``delivery`` (the usable
images of one of which the pool is a sample). Those of all pools together: ``slices`` (of the target that no pool
serves) and ``diversity`` (of every set and of their union).

Every one is plain JSON, as reports hold it; where it cannot be given it is ``{"reason": ...}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curate.attribution import TargetFactors, memorized, slices, telling
from curate.distances._usable import usable
from curate.diversity import effective_rank, unique, vendi
from curate.results import PoolScore
from curate.scoring.repairs import repair_words, unread_words
from curate.scoring.sides import Side, Target
from curate.scoring.verdicts import NEAR
from embeddings.encoders import Encoder
from embeddings.errors import SourceError, TooFewImagesError, UsageError
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore

Finding = dict[str, Any]
RAREFIED = 500  # images at which sets of different size are compared for diversity


@dataclass(frozen=True, kw_only=True)
class Means:
    """What explanations need beside the two sets."""

    encoder: str | Encoder  # and the others, to look at the pictures again
    device: str = "auto"
    workers: int | None = None
    progress: Progress = silent
    pool_size: int | None = None  # images of a delivery


class Explainer:
    """Explains pools of one target; what they share is made once."""

    def __init__(self, target: Target, means: Means) -> None:
        self._target, self._means = target, means
        self._factors: TargetFactors | None = None

    def explain(self, name: str, pool: Side) -> Finding:
        """One explanation of a pool.

        Raises:
            KeyError: no such explanation.
        """
        of: Callable[[EmbeddingStore, EmbeddingStore], Finding]
        of = {"factors": self._split, "images": _images, "memorized": _memorized, DELIVERY: self._foretell}[name]
        ours, theirs = self._target.store, pool.store
        if ours is None or theirs is None:
            return {"reason": f"{pool.name if theirs is None else 'the target'} is a file of moments, without images"}
        try:
            return of(ours, theirs)
        except (TooFewImagesError, UsageError, SourceError) as error:
            return {"reason": error.message}

    def _split(self, target: EmbeddingStore, pool: EmbeddingStore) -> Finding:
        means = self._means
        if self._factors is None:
            self._factors = TargetFactors(target, encoder=means.encoder, device=means.device, workers=means.workers)
        found = self._factors.of(pool, progress=means.progress)
        high = found.content.high
        near = found.best is not None and (found.best.explains or (high is not None and high < NEAR))
        steps = found.best.steps if found.best else ()
        return {**found.to_json(), "repairs": near, "step": ", then ".join(steps)}

    def _foretell(self, target: EmbeddingStore, pool: EmbeddingStore) -> Finding:
        assert self._means.pool_size is not None
        return usable(target, pool, self._means.pool_size).to_json()


DELIVERY = "delivery"
OF_POOLS = ("factors", "images", "memorized")


def with_repairs(pools: Sequence[PoolScore]) -> tuple[PoolScore, ...]:
    """The pools with a note of what preprocessing would do to each, as far as that was asked for."""
    lowest = {pool.name: min((p.index.value or 0.0 for p in pools if p is not pool), default=None) for pool in pools}
    return tuple(
        replace(pool, notes=(*_repair_notes(pool.findings["factors"], lowest[pool.name]), *pool.notes))
        if "factors" in pool.findings
        else pool
        for pool in pools
    )


def _repair_notes(factors: Finding, lowest: float | None) -> list[str]:
    """What preprocessing would do; ``lowest`` is the index of the nearest other pool."""
    if factors.get("reason"):
        return [f"What kind of shift it is was not measured: {factors['reason']}"]
    nearest_then = bool(factors["best"]) and lowest is not None and factors["content"]["value"] < lowest
    return [repair_words(factors, nearest_then=nearest_then), *filter(None, [unread_words(factors)])]


def _images(target: EmbeddingStore, pool: EmbeddingStore) -> Finding:
    return telling(target, pool).to_json()


def _memorized(target: EmbeddingStore, pool: EmbeddingStore) -> Finding:
    return memorized(target, pool).to_json()


def _slices(target: EmbeddingStore, pools: Mapping[str, EmbeddingStore]) -> Finding:
    return slices(target, pools).to_json()


def _diversity(target: EmbeddingStore, pools: Mapping[str, EmbeddingStore]) -> Finding:
    sets: dict[str, Sequence[EmbeddingStore]] = {"target": [target], **{name: [pool] for name, pool in pools.items()}}
    if len(pools) > 1:
        sets["all pools"] = list(pools.values())
    size = min(RAREFIED, *(sum(map(len, parts)) for parts in sets.values()))
    return {"at": size, "sets": [{"name": name, **_variety(parts, size)} for name, parts in sets.items()]}


def _variety(parts: Sequence[EmbeddingStore], size: int) -> Finding:
    """Counts, effective rank and rarefied Vendi score of a set or a union."""
    counts = unique(parts)
    return {
        "images": counts.images,
        "unique": counts.n_unique,
        "unique_near": counts.n_unique_near,
        "effective_rank": effective_rank(parts),
        "vendi": vendi(parts, rarefied=size).to_json(),
    }


OF_ALL: dict[str, Callable[[EmbeddingStore, Mapping[str, EmbeddingStore]], Finding]] = {
    "slices": _slices,
    "diversity": _diversity,
}


def explain_all(name: str, target: Target, pools: Sequence[Side]) -> Finding:
    """One explanation of all pools together; files of moments are left out."""
    stores = {pool.name: pool.store for pool in pools if pool.store is not None}
    if target.store is None or not stores:
        return {"reason": "needs vectors; there are only files of moments"}
    try:
        return OF_ALL[name](target.store, stores)
    except (TooFewImagesError, UsageError, SourceError) as error:
        return {"reason": error.message}
