"""score(target, pools): how far every pool is from the target, with error bars, nulls and a verdict.

    index = 100 F / (F + tr S_target)

F the headline distance (distances/_frechet.py). 0 = as near as the target is to itself, 50 = as far as the target's own
total variance; monotone in F, so the index and the ranking never disagree.

Verdicts: ``copies`` (half or more of the pool is in the target already), ``unclear`` (the interval spans a limit),
``same`` (the interval meets the floor's: not to be told from the target at these sizes), ``near`` (< 20), ``middle``
(< 35), ``far``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from curate.distances._copies import copies
from curate.distances._coverage import NEIGHBORS, TargetBalls, coverage_of
from curate.distances._frechet import DIRECTIONS, MIN_IMAGES, NORMAL_95, TargetFrame, frechet_to, require_images
from curate.distances._frechet_full import FullTarget
from curate.diversity import duplicates, effective_rank
from curate.results import TARGET, Estimate, PoolScore, ShiftReport, check_pool_names
from embeddings import files
from embeddings.errors import TooFewImagesError
from embeddings.moments import Folded, Moments
from embeddings.pipeline import Embeddable, as_store
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore

METRICS_VERSION = "curate.metrics/1"  # part of every kept score; raise it when a figure changes
NEAR, MIDDLE = 20.0, 35.0
COPIES = 0.5


def score(
    target: Embeddable,
    pools: Mapping[str, Embeddable] | None = None,
    *,
    encoder: str = "lite0",
    work: Path | str | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> ShiftReport:
    """Ranks pools by their distance to a target; without a pool, profiles the target.

    Args:
        target: Store, store folder, source address or array [n, d].
        pools: Name -> the same kinds, from the same encoder.
        encoder: What embeds addresses.
        work: Where embeddings and scores are kept and reused; None keeps nothing.
        device: Where to embed: auto, cpu, cuda.
        workers: Threads that read and decode images.
        progress: Told how far the work is.

    Returns:
        ShiftReport, nearest pool first. Adding a pool changes no other pool's figures.

    Raises:
        TooFewImagesError: target or pool under 20 images, or too few independent groups.
        EncoderMismatchError: a store from another encoder.
        SourceError: a source that is missing or empty.
    """
    check_pool_names(pools or {})
    folder = None if work is None else Path(work)
    embedding: dict[str, Any] = {
        "encoder": encoder,
        "work": folder,
        "device": device,
        "workers": workers,
        "progress": progress,
    }
    measured = Target(as_store(target, name=TARGET, **embedding))
    stores = {name: as_store(pool, name=name, **embedding) for name, pool in (pools or {}).items()}
    if stores:
        require_images(len(measured.store), TARGET)
    for name, store in stores.items():
        measured.store.spec.require_same(store.spec, (TARGET, name))
        require_images(len(store), f"pool {name!r}")
    scored = []
    for done, (name, store) in enumerate(sorted(stores.items())):
        progress("measure", done, len(stores), name)
        scored.append(_score_pool(name, Folded(store), measured, folder))
    if stores:
        progress("measure", len(stores), len(stores))
    return ShiftReport(
        target=measured.profile(),
        encoder=asdict(measured.store.spec),
        pools=_ranked(scored),
        floor=measured.floor,
    )


def shift_index(distance: Estimate, total_variance: float) -> Estimate:
    """The index of a distance, its interval by the same monotone map."""
    # Of a target without variance every pool that differs is at 100.
    scale = max(total_variance, np.finfo(float).tiny)

    def mapped(f: float | None) -> float | None:
        if f is None:
            return None
        return 100 * f / (f + scale) if f > -scale / 2 else -100.0

    return Estimate(
        value=mapped(distance.value),
        low=mapped(distance.low),
        high=mapped(distance.high),
        n=distance.n,
        unit="index, 0 = the target itself, 50 = its own total variance",
        method="100 F / (F + tr S)",
        null=0.0,
    )


def judge(index: Estimate, floor: Estimate, copied: float) -> str:
    """Verdict in one word, from the index, the floor's index and the share of copies."""
    if copied >= COPIES:
        return "copies"
    low, high = _interval(index)
    if any(low < limit <= high for limit in (NEAR, MIDDLE)):
        return "unclear"
    if low <= _interval(floor)[1]:
        return "same"
    return "near" if high < NEAR else "middle" if high < MIDDLE else "far"


@dataclass(eq=False)
class Target(Folded):
    """The target and what is computed of it once for all pools."""

    @cached_property
    def frame(self) -> TargetFrame:
        """What the headline distance needs."""
        return TargetFrame.of(self.moments)

    @cached_property
    def balls(self) -> TargetBalls:
        """What coverage needs."""
        return TargetBalls.of(self.store)

    @cached_property
    def full(self) -> FullTarget:
        """What the full-dimension distance needs."""
        return FullTarget(self.moments)

    @cached_property
    def floor(self) -> Estimate:
        """Headline distance between two random halves of the target: truth 0, so its interval is the resolution."""
        vectors, side, folds = self.store.vectors(), self.folds() % 2, self.folds(salt="floor")
        halves = [np.flatnonzero(side == s) for s in (0, 1)]
        try:
            for half in halves:
                require_images(len(half), "half of the target", 4)
            a, b = (Moments.from_vectors(vectors[half], folds[half]) for half in halves)
            return frechet_to(TargetFrame.of(a), b, minimum=4)
        except TooFewImagesError as error:
            return Estimate(value=None, n=(len(halves[1]), len(halves[0])), reason=error.message)

    def profile(self) -> dict[str, Any]:
        """Counts, sizes, color, duplicates, class balance, effective rank, and which measures n can carry."""
        store = self.store
        return {
            **describe(store),
            "effective_rank": effective_rank(self.moments) if len(store) > 1 else None,
            "total_variance": float(np.trace(self.moments.pooled()[2])) if len(store) > 1 else None,
            "carries": _carries(store),
        }


def describe(store: EmbeddingStore) -> dict[str, Any]:
    """What one knows of a set of images without comparing it to anything."""
    gray = [g for g in store.column("gray") if g is not None]
    labels = Counter(label for label in store.column("label") if label is not None)
    groups = {group for group in store.column("group") if group is not None}
    return {
        "source": store.source,
        "digest": store.digest,
        "n": len(store),
        "errors": len(store.errors),
        "sizes": {side: _quartiles(store.column(side)) for side in ("width", "height")},
        "gray_share": float(np.mean(gray)) if gray else None,
        "duplicates": len(store) - int(duplicates(store).max() + 1),
        "classes": dict(sorted(labels.items(), key=lambda kv: (-kv[1], kv[0]))) or None,
        "groups": len(groups) or None,
    }


def _score_pool(name: str, pool: Folded, target: Target, work: Path | None) -> PoolScore:
    metrics = _kept_metrics(pool, target, work)
    index = shift_index(metrics["frechet"], target.frame.total_variance)
    floor = shift_index(target.floor, target.frame.total_variance)
    verdict = judge(index, floor, metrics["copies"].value or 0.0)
    n, facts = len(pool.store), describe(pool.store)
    return PoolScore(name=name, rank=0, verdict=verdict, n=n, index=index, metrics=metrics, facts=facts)


def _kept_metrics(pool: Folded, target: Target, work: Path | None) -> dict[str, Estimate]:
    """The pool's metrics, read from ``work`` if this very pair was measured before."""
    if work is None:
        return _measure(pool, target)
    path = work / "scores" / f"{files.digest([METRICS_VERSION, target.digest, pool.digest])[:32]}.json"
    if path.exists():
        return {name: Estimate.from_json(e) for name, e in files.read_json(path)["metrics"].items()}
    metrics = _measure(pool, target)
    files.write_json(path, {"schema": METRICS_VERSION, "metrics": {k: e.to_json() for k, e in metrics.items()}})
    return metrics


def _measure(pool: Folded, target: Target) -> dict[str, Estimate]:
    return {
        "frechet": frechet_to(target.frame, pool.moments),
        "coverage": coverage_of(target.balls, pool.store),
        "copies": copies(target.store, pool.store),
        "frechet_full": target.full.to(pool.moments),
    }


def _ranked(scored: list[PoolScore]) -> tuple[PoolScore, ...]:
    """Nearest first, ranks from 1, and which other pools each one cannot be told from."""
    order = sorted(scored, key=lambda p: (p.metrics["frechet"].value or 0.0, p.name))
    ranked = []
    for rank, pool in enumerate(order, 1):
        tied = tuple(o.name for o in order if o is not pool and _tied(pool.metrics["frechet"], o.metrics["frechet"]))
        ranked.append(PoolScore(**{**vars(pool), "rank": rank, "tied_with": tied}))
    return tuple(ranked)


def _tied(a: Estimate, b: Estimate) -> bool:
    """True if the difference is within its 95% interval, taking the errors as independent (they share the target)."""
    gap = abs((a.value or 0.0) - (b.value or 0.0))
    return bool(gap < NORMAL_95 * np.hypot(a.se or 0.0, b.se or 0.0))


def _carries(store: EmbeddingStore) -> list[dict[str, Any]]:
    """Which measures the target's size can carry, and why not."""
    n, d, labeled = len(store), store.spec.dim, sum(label is not None for label in store.column("label"))
    wanted = [
        ("ranking of pools", n >= MIN_IMAGES, f"needs {MIN_IMAGES} images"),
        (
            f"headline distance at full resolution (k = {DIRECTIONS})",
            n >= 8 * DIRECTIONS,
            f"needs {8 * DIRECTIONS} images",
        ),
        ("k-NN coverage", n > NEIGHBORS, f"needs {NEIGHBORS + 1} images"),
        ("full-dimension Fréchet distance, comparable across sizes", n >= 2 * d, f"needs {2 * d:,} images (2 d)"),
        ("labeled evaluation", labeled >= 50, "needs about 50 labeled images"),
    ]
    return [{"measure": name, "ok": ok, "why": why} for name, ok, why in wanted]


def _quartiles(values: list[int | None]) -> list[float] | None:
    known = [v for v in values if v is not None]
    return [float(q) for q in np.quantile(known, [0, 0.5, 1])] if known else None


def _interval(estimate: Estimate) -> tuple[float, float]:
    """Low and high end; a figure without an interval counts as a point, none at all as zero."""
    value = estimate.value or 0.0
    return (value if estimate.low is None else estimate.low, value if estimate.high is None else estimate.high)
