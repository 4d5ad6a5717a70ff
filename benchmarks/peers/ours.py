"""Our side: the same jobs by the same names. Runs in this project's environment."""

from __future__ import annotations

from pathlib import Path

import faiss  # noqa: F401  imported before the clock starts, as the peers import theirs
import numpy as np
import torch
from worker import serve

import curate
from curate import distances
from curate.distances._roots import covariance_root, root_trace
from embeddings.moments import FOLDS, Moments
from embeddings.store import EmbeddingStore


def frechet_of_moments(mean_x, cov_x, mean_y, cov_y):
    trace = root_trace(covariance_root(cov_x, len(cov_x) + 1), cov_y)
    apart = ((mean_x - mean_y) ** 2).sum()
    return {"frechet": float(apart + np.trace(cov_x) + np.trace(cov_y) - 2 * trace)}


def frechet_of_features(x, y):
    return {"frechet": distances.frechet_full(x, y)}


def frechet_to_itself(x):
    """In units of the total variance."""
    return {"frechet": distances.frechet_full(x, x) / float(x.var(axis=0, ddof=1, dtype=np.float64).sum())}


def statistics(x):
    """What the peer's gives: of all rows together."""
    return _pooled(x, np.zeros(len(x), np.int64))


def statistics_by_fold(x):
    """What ``score`` keeps, ten times that much."""
    return _pooled(x, np.random.default_rng(0).integers(0, FOLDS, len(x)))


def _pooled(x, folds):
    _, mean, covariance = Moments.from_vectors(x, folds).pooled()
    return {"trace": float(np.trace(covariance)), "mean": float(mean.mean())}


def kid(x, y):
    """Not over subsets: all pairs of both samples."""
    return {"kid": distances.mmd(x, y, kernel="poly3").value}


def cubic_directly(x, y):
    """The same figure from all kernel values in float64, and from ours."""
    a, b = (v.astype(np.float64) - (x.mean(0, np.float64) + y.mean(0, np.float64)) / 2 for v in (x, y))
    k_aa, k_bb, k_ab = ((u @ v.T / x.shape[1] + 1) ** 3 for u, v in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    within = (k_aa.sum() - np.trace(k_aa)) / (n * (n - 1)) + (k_bb.sum() - np.trace(k_bb)) / (m * (m - 1))
    return {"directly": float(within - 2 * k_ab.mean()), **kid(x, y)}


def prdc(x, y):
    found = distances.prdc(x, y, k=5)
    return {name: getattr(found, name).value for name in ("precision", "recall", "density", "coverage")}


def score(target: Path, pool: Path):
    """Default metrics of stores on disk, nothing kept."""
    report = curate.score(EmbeddingStore.open(target), {"pool": EmbeddingStore.open(pool)}, work=None)
    return {name: e.value for name, e in report.pools[0].metrics.items() if e.value is not None}


JOBS = (
    frechet_of_moments,
    frechet_of_features,
    frechet_to_itself,
    statistics,
    statistics_by_fold,
    kid,
    cubic_directly,
    prdc,
    score,
)

if __name__ == "__main__":
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # thread pools are no job's
    distances.prdc(*np.random.default_rng(0).normal(size=(2, 64, 8)))
    serve({job.__name__: job for job in JOBS})
