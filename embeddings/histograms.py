"""Counts of activations by fold, dimension and bin: what neuron-wise distances are made of.

The first and last bin are open, and what lies beyond the range is kept as counts and as summed distance to it, so a set
however far out is measured in full, not clamped. Two sets compare over one range only, the target's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embeddings.errors import EncoderMismatchError
from embeddings.moments import FOLDS
from embeddings.vectors import Vectors, blocks

BINS = 128
REACH = 4.0  # standard deviations on either side of the mean


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronHistograms:
    """Counts of activations by fold, dimension and bin. Two of one range merge by addition, in any order."""

    low: np.ndarray  # [d] float64 lower end of the range
    width: np.ndarray  # [d] float64 of a bin; 0 where the target is constant
    counts: np.ndarray  # [FOLDS, d, bins + 2] int64; the first and last count what lies beyond the range
    beyond: np.ndarray  # [FOLDS, d, 2] float64 summed distance to the range of what lies below and above it
    encoder: str = ""  # fingerprint of the encoder spec

    @classmethod
    def empty(cls, low: np.ndarray, width: np.ndarray, *, bins: int = BINS, encoder: str = "") -> NeuronHistograms:
        """Histograms of nothing over a range [d]."""
        counts = np.zeros((FOLDS, len(low), bins + 2), np.int64)
        return cls(low=low, width=width, counts=counts, beyond=np.zeros((FOLDS, len(low), 2)), encoder=encoder)

    @classmethod
    def spanning(cls, vectors: Vectors, *, bins: int = BINS, encoder: str = "") -> NeuronHistograms:
        """Histograms of nothing over the range of some vectors [n, d]; their extremes are middles of the end bins."""
        low, high = np.full(vectors.shape[1], np.inf), np.full(vectors.shape[1], -np.inf)
        for _, block in blocks(vectors, dtype=np.float64):
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        width = (high - low) / max(bins - 1, 1)
        return cls.empty(low - width / 2, width, bins=bins, encoder=encoder)

    @classmethod
    def around(cls, mean: np.ndarray, deviation: np.ndarray, *, encoder: str = "") -> NeuronHistograms:
        """Histograms of nothing over mean [d] -/+ REACH standard deviations [d]: a range that shows no image."""
        return cls.empty(mean - REACH * deviation, 2 * REACH * deviation / BINS, encoder=encoder)

    def emptied(self) -> NeuronHistograms:
        """Histograms of nothing over the same range."""
        return self.empty(self.low, self.width, bins=self.bins, encoder=self.encoder)

    def count(self, vectors: Vectors, folds: np.ndarray) -> NeuronHistograms:
        """Histograms of these and some vectors [n, d] with folds [n], read in blocks."""
        counts, beyond = self.counts.copy(), self.beyond.copy()
        row = np.arange(self.dim) * counts.shape[2]
        for start, block in blocks(vectors, size=1024, dtype=np.float64):
            fold = folds[start : start + len(block)].astype(np.int64)
            cell = (fold * counts[0].size)[:, None] + row + self._bin(block)
            counts += np.bincount(cell.ravel(), minlength=counts.size).reshape(counts.shape)
            outside = np.stack([self.low - block, block - self.high], axis=2)
            beyond += np.tensordot((fold == np.arange(FOLDS)[:, None]) * 1.0, np.maximum(outside, 0.0), axes=1)
        return NeuronHistograms(low=self.low, width=self.width, counts=counts, beyond=beyond, encoder=self.encoder)

    def merge(self, other: NeuronHistograms) -> NeuronHistograms:
        """Histograms of the union of two disjoint sets.

        Raises:
            EncoderMismatchError: another encoder or another range.
        """
        self.require_same_range(other)
        counts, beyond = self.counts + other.counts, self.beyond + other.beyond
        return NeuronHistograms(low=self.low, width=self.width, counts=counts, beyond=beyond, encoder=self.encoder)

    def require_same_range(self, other: NeuronHistograms) -> None:
        """Refuses histograms that cannot be compared.

        Raises:
            EncoderMismatchError: another encoder or another range.
        """
        same = (self.encoder, self.counts.shape) == (other.encoder, other.counts.shape)
        if not same or not (np.array_equal(self.low, other.low) and np.array_equal(self.width, other.width)):
            raise EncoderMismatchError(
                f"Histograms of encoder {self.encoder!r} (d = {self.dim}, {self.bins} bins) do not fit those of "
                f"{other.encoder!r} (d = {other.dim}, {other.bins} bins), or their ranges differ.",
                hint="Count both over the target's range: NeuronHistograms.spanning(target).",
            )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays, as ``from_arrays`` reads them."""
        return {name: np.asarray(getattr(self, name)) for name in ("low", "width", "counts", "beyond", "encoder")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> NeuronHistograms:
        """Reads what ``to_arrays`` gave."""
        named = {name: arrays[name] for name in ("low", "width", "counts", "beyond")}
        return cls(**named, encoder=str(arrays["encoder"]))

    @property
    def dim(self) -> int:
        """Dimension d of the vectors."""
        return int(self.counts.shape[1])

    @property
    def bins(self) -> int:
        """Bins of the range, without the two open ones."""
        return int(self.counts.shape[2]) - 2

    @property
    def high(self) -> np.ndarray:
        """Upper end [d] of the range."""
        return np.asarray(self.low + self.width * self.bins)

    @property
    def n(self) -> np.ndarray:
        """Images [FOLDS] of every fold."""
        return np.asarray(self.counts[:, 0].sum(axis=1))

    def _bin(self, block: np.ndarray) -> np.ndarray:
        """Bin [n, d] of every value: 0 below the range, bins + 1 above it."""
        steps = (block - self.low) / np.where(self.width > 0, self.width, 1.0)
        inside = np.clip(np.floor(steps).astype(np.int64), 0, self.bins - 1) + 1
        return np.where(block < self.low, 0, np.where(block > self.high, self.bins + 1, inside))
