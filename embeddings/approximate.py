"""Nearest neighbors by an index of FAISS, on request: exactly re-ranked, with the recall measured.

    CURATE_INDEX=IVF1024,SQ8       any inverted-file name of FAISS's index factory, with ,probes=32 behind it if wanted

Exact search reads the pool once for all targets; building an index reads it more often and costs as much as 4 to 18
exact passes (200 to 1,000 targets, 500,000 vectors), so it is never chosen for a user. What an index finds is measured
again in float64, so distances are exact; rows may be missed. How many is measured against an exact search.

Source: Johnson, Douze and Jegou, Billion-scale similarity search with GPUs (2017).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embeddings.errors import MissingExtraError, UsageError, install_command
from embeddings.neighbors import nearest, pair_distances
from embeddings.vectors import Vectors, blocks

VARIABLE = "CURATE_INDEX"
PROBES = 32
WIDER = 4  # candidates per neighbor wanted, for the exact ranking
TRAIN_ROWS_PER_LIST = 64
RECALL_QUERIES = 100


@dataclass(kw_only=True)
class IndexSearch:
    """``nearest`` by an index that is built anew for every base it is given."""

    name: str  # for FAISS's index factory
    probes: int = PROBES
    recalls: list[float] = field(default_factory=list)  # of the searches so far, on a sample of their queries

    @classmethod
    def of(cls, text: str) -> IndexSearch:
        """What CURATE_INDEX asks for.

        Raises:
            UsageError: it names no inverted file.
        """
        name, _, probes = text.partition(",probes=")
        if not name.startswith("IVF") or not (probes or "1").isdigit():
            raise UsageError(f"{VARIABLE} is {text!r}; wanted an inverted file.", hint="Say IVF1024,Flat,probes=32.")
        return cls(name=name, probes=int(probes or PROBES))

    def __call__(self, queries: np.ndarray, base: Vectors, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances float64 [m, k] and rows int64 [m, k], as ``nearest``; some of the nearest may be missing.

        Where the index finds fewer than k for a query, or the base is too small to fill its lists, the search is exact.

        Raises:
            UsageError: FAISS does not know such an index.
        """
        index = self._build(base)
        if index is None or k >= len(base):
            return nearest(queries, base, k)
        distances, rows = self._ranked(index, queries, base, k)
        short = np.flatnonzero(~np.isfinite(distances[:, -1]))
        if len(short):
            distances[short], rows[short] = nearest(queries[short], base, k)
        self.recalls.append(_recall(queries, base, rows))
        return distances, rows

    def _build(self, base: Vectors) -> Any:
        """The filled index, or None if the base does not fill it."""
        faiss = _faiss()
        try:
            index = faiss.index_factory(base.shape[1], self.name)
            lists = faiss.extract_index_ivf(index)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise UsageError(f"FAISS cannot build {self.name!r} ({reason}).", hint=f"Mend {VARIABLE}.") from None
        rows = min(len(base), TRAIN_ROWS_PER_LIST * lists.nlist)
        if rows < TRAIN_ROWS_PER_LIST * lists.nlist:
            return None
        lists.cp.seed, lists.nprobe = 0, min(self.probes, lists.nlist)
        sample = np.linspace(0, len(base) - 1, rows).astype(np.int64)
        index.train(np.ascontiguousarray(base[sample], dtype=np.float32))
        for _, block in blocks(base, 16_384):
            index.add(np.ascontiguousarray(block))
        return index

    def _ranked(self, index: Any, queries: np.ndarray, base: Vectors, k: int) -> tuple[np.ndarray, np.ndarray]:
        _, found = index.search(np.ascontiguousarray(queries, dtype=np.float32), min(WIDER * k, len(base)))
        query, place = np.nonzero(found >= 0)
        exact = np.full(found.shape, np.inf)
        exact[query, place] = pair_distances(queries, base, query, found[query, place])
        order = np.lexsort((found, exact), axis=-1)[:, :k]
        return np.take_along_axis(exact, order, axis=1), np.take_along_axis(found, order, axis=1)


def _recall(queries: np.ndarray, base: Vectors, rows: np.ndarray) -> float:
    """Share of the exact neighbors that were found, over evenly spaced queries."""
    sample = np.unique(np.linspace(0, len(queries) - 1, RECALL_QUERIES).astype(np.int64))
    _, exact = nearest(queries[sample], base, rows.shape[1])
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(rows[sample], exact, strict=True))
    return hits / exact.size


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtraError(
            f"{VARIABLE} asks for an index, but FAISS is not installed.",
            hint=f"{install_command('cpu')}, or unset it: exact search needs no FAISS.",
        ) from None
    return faiss
