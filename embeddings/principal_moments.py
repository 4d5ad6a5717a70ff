"""Moments in the main directions of a set, for sets too small to show their scatter in all dimensions fold by fold.

Of the scatter of every fold the part inside k directions is kept, and the trace of the rest. How that rest is spread is
told once for all even folds and once for all odd ones, which have many more images than a fold: as shares of further
directions, and isotropic outside those. Means stay whole.

Even and odd folds have their own directions, the principal ones of each half, because distances take a basis from one
half of a target and measure the other: directions of all folds together would know the images that are measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from embeddings.moments import FOLDS, Moments, pack


@dataclass(frozen=True, kw_only=True, eq=False)
class PrincipalMoments:
    """Count, mean, scatter inside k directions and trace of the scatter outside them, by fold."""

    n: np.ndarray  # [FOLDS] int64
    mean: np.ndarray  # [FOLDS, d] float64
    directions: np.ndarray  # [2, d, K] float32, orthonormal, largest variance first; of the even folds and of the odd
    inside: np.ndarray  # [FOLDS, k, k] float64 scatter in the first k <= K directions
    outside: np.ndarray  # [FOLDS] float64 trace of the scatter outside them
    shares: np.ndarray  # [2, K - k] float64 of that trace in the further directions
    encoder: str  # fingerprint of the encoder spec

    @classmethod
    def of(cls, moments: Moments, k: int, further: int = 0) -> PrincipalMoments:
        """The part of some moments in k main directions, with the shares of ``further`` ones; k + further < d."""
        d, total = moments.dim, k + further
        directions, inside = np.zeros((2, d, total), np.float32), np.zeros((FOLDS, k, k))
        outside, shares = np.zeros(FOLDS), np.zeros((2, further))
        for side in (0, 1):
            folds = np.flatnonzero((moments.n > 0) & (np.arange(FOLDS) % 2 == side))
            if not len(folds):
                directions[side] = np.eye(d, total)
                continue
            directions[side] = main_directions(moments.pooled(folds.tolist())[2], total)[1][:, ::-1]
            (scatter,), traces = moments.projected_scatter(directions[side].astype(np.float64))
            variances = np.diagonal(scatter[folds], axis1=1, axis2=2)
            inside[folds] = scatter[folds, :k, :k]
            outside[folds] = np.maximum(traces[folds] - variances[:, :k].sum(axis=1), 0.0)
            shares[side] = variances[:, k:].sum(axis=0) / max(outside[folds].sum(), np.finfo(float).tiny)
        return cls(
            n=moments.n,
            mean=moments.mean,
            directions=directions,
            inside=inside,
            outside=outside,
            shares=shares,
            encoder=moments.encoder,
        )

    @property
    def rank(self) -> int:
        """Directions k in which every fold has its own scatter."""
        return int(self.inside.shape[1])

    def expanded(self) -> Moments:
        """Moments with the scatter of every fold in all dimensions, marked with their rank k."""
        d, k = self.mean.shape[1], self.rank
        scatter = np.zeros((FOLDS, d * (d + 1) // 2))
        for side in (0, 1):
            basis = self.directions[side].astype(np.float64)
            main, rest = basis[:, :k], self._rest(side, basis)
            for fold in range(side, FOLDS, 2):
                scatter[fold] = pack(main @ self.inside[fold] @ main.T + self.outside[fold] * rest)
        return Moments(n=self.n, mean=self.mean, scatter=scatter, encoder=self.encoder, rank=k)

    def _rest(self, side: int, basis: np.ndarray) -> np.ndarray:
        """How the scatter outside the k directions is spread: [d, d] of trace 1, nothing inside them."""
        (d, total), k = basis.shape, self.rank
        even = max(1.0 - float(self.shares[side].sum()), 0.0) / (d - total)
        shares = np.concatenate([np.zeros(k), self.shares[side]])
        return np.asarray((basis * (shares - even)) @ basis.T + even * np.eye(d))


def main_directions(covariance: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues [k], ascending, not negative, and their directions [d, k], of a covariance [d, d]."""
    d = len(covariance)
    values, vectors = linalg.eigh(covariance, subset_by_index=[d - k, d - 1])
    return np.maximum(values, 0.0), vectors
