"""Effective rank: how many directions a set of vectors really uses.

    exp( - sum_i p_i log p_i ),   p_i = eig_i(S) / tr S

Source: Roy and Vetterli, The effective rank (EUSIPCO 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from curate.distances._roots import covariance_root, spectrum
from curate.distances._samples import Sample, as_moments
from embeddings.moments import Moments
from embeddings.store import EmbeddingStore


def effective_rank(sample: Sample | Sequence[Sample]) -> float:
    """Effective rank of a sample's covariance.

    Args:
        sample: Array [n, d], store or Moments, or a sequence of them whose union is meant; n >= 2.

    Returns:
        1 (all on one line) to min(n - 1, d); 0 if all vectors are equal. Grows with n: compare at equal n.

    Raises:
        TooFewImagesError: fewer than 2 images.
        UsageError: moments that were exported in some directions only.
        EncoderMismatchError: parts from different encoders.
    """
    parts = [sample] if isinstance(sample, np.ndarray | EmbeddingStore | Moments) else sample
    moments = reduce(Moments.merge, map(as_moments, parts))
    moments.require_all_dimensions("An effective rank")
    n, _, covariance = moments.pooled()
    values = spectrum(covariance_root(covariance, n))
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
