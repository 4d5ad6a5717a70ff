"""Speed and memory of the near-first quota against FAISS alone.

    OMP_NUM_THREADS=1 python benchmarks/selection.py

1,000 targets, 200,000 candidates in a float16 memory map, 5,000 chosen. The peer is one ``faiss.knn`` of as many
neighbors on the same vectors as float32 in memory: it searches and selects nothing. Both run in turn in one process;
the ratio of their best times is what counts. Memory is the peak of RssAnon in a second process, which only selects.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.selection import _near_first
from curate.selection._candidates import Candidates
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

TARGETS, IMAGES, BUDGET, MODES, REPEATS = 1_000, 200_000, 5_000, 2_000, 3
RESULT = Path(__file__).parent / "results" / "selection-cpu.json"


def main() -> None:
    results = []
    for d in (64, 256):
        with tempfile.TemporaryDirectory() as folder:
            write_vectors(Path(folder), d)
            times = {name: [] for name in ("near_first_s", "turns_s", "faiss_s")}
            for _ in range(REPEATS):
                for name, seconds in measure(Path(folder)).items():
                    times[name].append(seconds)
            child = subprocess.run(
                [sys.executable, __file__, folder], check=True, capture_output=True, text=True
            )  # fresh process
            results.append(summary(d, times, json.loads(child.stdout)))
            print(results[-1])
    RESULT.write_text(json.dumps(document(results), indent=1) + "\n", encoding="utf-8")


def write_vectors(folder: Path, d: int) -> None:
    """Zipf modes; the target lies in the 60 rarest of the first 600."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(MODES, d)).astype(np.float32)
    shares = 1 / np.arange(1, MODES + 1)
    for name, n, modes in (("pool", IMAGES, MODES), ("target", TARGETS, 60)):
        chosen = rng.choice(MODES, n, p=shares / shares.sum()) if modes == MODES else rng.integers(540, 600, n)
        vectors = centers[chosen] + 0.7 * rng.normal(size=(n, d)).astype(np.float32)
        np.save(folder / f"{name}.npy", vectors.astype(np.float16))


def candidates_in(folder: Path) -> Candidates:
    """The pool's images as candidates, memory-mapped."""
    stores = {name: open_store(folder / f"{name}.npy") for name in ("target", "pool")}
    return Candidates(
        stores=stores,
        source=np.ones(IMAGES, np.int64),
        place=np.arange(IMAGES),
        copies=np.ones(IMAGES, np.int64),
        queries=np.arange(TARGETS),
    )


def open_store(path: Path) -> EmbeddingStore:
    vectors = np.load(path, mmap_mode="r")
    columns = {field.name: pa.nulls(len(vectors), field.type) for field in ROWS}
    columns["key"] = pa.array([f"{i:07d}" for i in range(len(vectors))])
    spec = EncoderSpec(name="synthetic", dim=vectors.shape[1], size=0, preprocessing="none", weights="")
    return EmbeddingStore(spec=spec, rows=pa.table(columns, schema=ROWS), vectors=vectors)


def measure(folder: Path) -> dict[str, float]:
    """Seconds of the whole method, of its turns alone, and of the peer."""
    import faiss

    candidates = candidates_in(folder)
    target = np.load(folder / "target.npy").astype(np.float32)
    pool = np.load(folder / "pool.npy").astype(np.float32)
    frame = _near_first.Whitening.fit(candidates.pool_sample)
    whitened = frame.apply(target), frame.apply(pool)
    order = np.random.default_rng(0).permutation(TARGETS)
    k = 4 * (-(-BUDGET // TARGETS) + 16)  # as long as the first lists
    return {
        "near_first_s": seconds(lambda: _near_first.choose(candidates_in(folder), budget=BUDGET, seed=0)),
        "turns_s": seconds(lambda: _near_first.take_turns(*whitened, order, BUDGET)),
        "faiss_s": seconds(lambda: faiss.knn(target, pool, k)),
    }


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory(folder: Path) -> dict[str, float]:
    """MB of anonymous memory before the selection, and at most during it."""
    _near_first.choose(candidates_in(folder), budget=1, seed=0)  # imports and thread pools are not the method's
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    _near_first.choose(candidates_in(folder), budget=BUDGET, seed=0)
    done.set()
    watcher.join()
    return {"before_mb": before, "peak_mb": peak[0]}


def anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else float("nan")


def summary(d: int, times: dict[str, list[float]], memory: dict[str, float]) -> dict[str, float]:
    best = {name: min(values) for name, values in times.items()}
    ratios = {
        "near_first_over_faiss": best["near_first_s"] / best["faiss_s"],
        "turns_over_faiss": best["turns_s"] / best["faiss_s"],
    }
    return {"d": d, **{k: round(v, 2) for k, v in {**best, **ratios, **memory}.items()}}


def document(results: list[dict[str, float]]) -> dict[str, object]:
    sizes = {"targets": TARGETS, "candidates": IMAGES, "budget": BUDGET, "repeats": REPEATS}
    return {"schema": "curate.benchmark/1", "what": "near-first quota against faiss.knn", **sizes, "results": results}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(peak_memory(Path(sys.argv[1]))))
    else:
        main()
