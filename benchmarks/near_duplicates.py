"""Near duplicates within areas: seconds, recall, share of all pairs multiplied, memory.

    OMP_NUM_THREADS=1 python benchmarks/near_duplicates.py

Vectors [n, 256] in a float16 memory map, of 2,000 Zipf modes; a tenth of them are copies of others, moved by 1/20 to
1/5 of a mode's width. There are no hashes and no pictures: vectors alone tell. Recall is the share of all pairs
within .28 of each other (cosine .96), found by brute force for 1,000 images in float32, that areas put side by side.
Memory is RssAnon before and at its peak, in a fresh process for each size.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.selection._near_duplicates import SAME, independent_set, widen
from curate.selection._near_pairs import Images, Limits, NearPairs
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

SIZES, DIM, MODES, COPIES, SAMPLE = (100_000, 200_000, 400_000), 256, 2_000, 0.1, 1_000
RULE = replace(SAME, unseen=Limits(near=0.28, far=0.28, bits=2))
RESULT = Path(__file__).parent / "results" / "near-duplicates-cpu.json"


def main() -> None:
    results = []
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_vectors(Path(folder) / "pool.npy", n)
            child = subprocess.run([sys.executable, __file__, folder], check=True, capture_output=True, text=True)
            results.append(json.loads(child.stdout))
            print(results[-1], flush=True)
    what = {"schema": "curate.benchmark/1", "what": "near duplicates within areas", "d": DIM, "copies": COPIES}
    RESULT.write_text(json.dumps({**what, "results": results}, indent=1) + "\n", encoding="utf-8")


def write_vectors(path: Path, n: int) -> None:
    """Unit vectors around Zipf modes, a tenth of them moved copies of others."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(MODES, DIM)).astype(np.float32)
    shares = 1 / np.arange(1, MODES + 1)
    x = centers[rng.choice(MODES, n, p=shares / shares.sum())] + 0.7 * rng.normal(size=(n, DIM)).astype(np.float32)
    copies = rng.choice(n, int(COPIES * n), replace=False)
    size = 0.7 * rng.uniform(0.05, 0.2, (len(copies), 1)).astype(np.float32)
    x[copies] = x[rng.choice(n, len(copies))] + size * rng.normal(size=(len(copies), DIM)).astype(np.float32)
    np.save(path, (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16))


def open_store(path: Path) -> EmbeddingStore:
    vectors = np.load(path, mmap_mode="r")
    columns = {field.name: pa.nulls(len(vectors), field.type) for field in ROWS}
    spec = EncoderSpec(name="synthetic", dim=DIM, size=0, preprocessing="none", weights="")
    return EmbeddingStore(spec=spec, rows=pa.table(columns, schema=ROWS), vectors=vectors)


def measure(path: Path) -> dict[str, float]:
    store = open_store(path)
    search(store.take(np.arange(2_000)))  # imports and thread pools are not the method's
    before, start, watch = anonymous_mb(), time.perf_counter(), Watch()
    pairs, stated, removed = search(store)
    seconds, peak = time.perf_counter() - start, watch.stop()
    a, b = brute_force(pairs, np.asarray(store.vectors(), np.float32))
    n = len(store)
    return {
        "n": n,
        "seconds": round(seconds, 1),
        "recall": round(pairs.share_found(a, b), 4),
        "recall_pairs": len(a),
        "stated_recall": stated["recall"],
        "areas_per_image": pairs.spread,
        "share_of_pairs": round(pairs.compared / (n * (n - 1) / 2), 4),
        "removed": removed,
        "before_mb": round(before),
        "peak_mb": round(peak),
    }


def search(store: EmbeddingStore) -> tuple[NearPairs, dict[str, float], int]:
    n = len(store)
    pairs = NearPairs.of(Images(stores=[store], origin=np.zeros(n, np.int64), place=np.arange(n)), RULE)
    stated = widen(pairs)
    return pairs, stated, int((independent_set(pairs, np.arange(n)) != np.arange(n)).sum())


def brute_force(pairs: NearPairs, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of random images with all others whose distance, measured in full, is within the rule."""
    rng, found = np.random.default_rng(1), []
    polar = pairs.frame.polar(vectors).astype(np.float32)
    squares = np.square(polar).sum(axis=1)
    for row in np.sort(rng.choice(len(vectors), SAMPLE, replace=False)).tolist():
        gap = squares - 2 * (polar @ polar[row]) + squares[row]
        near = np.flatnonzero(gap <= RULE.unseen.near**2)
        found += [(row, other) for other in near[near != row].tolist()]
    return tuple(np.array(found).T)


class Watch:
    """Peak of anonymous memory in MB from now on."""

    def __init__(self) -> None:
        self.peak, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, anonymous_mb())

    def stop(self) -> float:
        """The peak so far."""
        self._done.set()
        self._thread.join()
        return self.peak


def anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else float("nan")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]) / "pool.npy")))
    else:
        main()
