"""Speed and memory of selection, beside FAISS alone, and as the pool grows.

    OMP_NUM_THREADS=2 python benchmarks/selection.py [--only quota whole]

quota   1,000 targets, 500,000 candidates of 256 dimensions in a float16 memory map, 5,000 chosen. The peer is one
        ``faiss.knn`` of as many neighbors on the same vectors as float32 in memory: it searches and selects nothing.
        Both run in turn in one process; the ratio of their best times is what counts.
whole   near-first with 5,000 targets and a budget of 50,000 from 250,000, 500,000 and 1,000,000 candidates of 1,280
        dimensions, memory-mapped: seconds and memory as the pool grows.

Memory is the peak of RssAnon in a process of its own, which only selects.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.selection import _knn_quota, _near_first
from curate.selection._candidates import Candidates
from curate.selection._ledger import Ledger
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

MODES, REPEATS, CHUNK = 2_000, 3, 50_000
RESULT = Path(__file__).parent / "results" / "selection-cpu.json"


@dataclass(frozen=True)
class Size:
    """How much there is to choose from."""

    targets: int
    images: int
    budget: int
    d: int


QUOTA = Size(1_000, 500_000, 5_000, 256)
WHOLE = [Size(5_000, n, 50_000, 1_280) for n in (250_000, 500_000, 1_000_000)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=["quota", "whole"], choices=["quota", "whole"])
    parser.add_argument("--folder", type=Path, help="where the vectors are written (4 GB)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(watched(Path(options.child[0]), Size(**json.loads(options.child[1])))))
        return
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    document = {"schema": "curate.benchmark/2", "quota": found.get("quota"), "whole": found.get("whole")}
    for name in options.only:
        document[name] = quota(options.folder) if name == "quota" else [whole(size, options.folder) for size in WHOLE]
        print(document[name])
        RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def quota(parent: Path | None) -> dict[str, float]:
    """Best seconds of near-first, of the plain quota and of the peer, and the memory of near-first."""
    import faiss

    with tempfile.TemporaryDirectory(dir=parent) as scratch:
        folder = Path(scratch)
        write_vectors(folder, QUOTA)
        target, pool = (np.load(folder / f"{side}.npy").astype(np.float32) for side in ("target", "pool"))
        k = 4 * (-(-QUOTA.budget // QUOTA.targets) + 16)  # as long as the first lists
        work: dict[str, Callable[[], object]] = {
            "near_first_s": lambda: run(_near_first.choose, folder, QUOTA),
            "quota_s": lambda: run(_knn_quota.choose, folder, QUOTA),
            "faiss_s": lambda: faiss.knn(target, pool, k),
        }
        times = {name: [] for name in work}
        for _ in range(REPEATS):
            for name, call in work.items():
                times[name].append(seconds(call))
        best = {name: min(values) for name, values in times.items()}
        ratios = {f"{name[:-2]}_over_faiss": best[name] / best["faiss_s"] for name in ("near_first_s", "quota_s")}
        memory = child(folder, QUOTA)
    return rounded({**asdict(QUOTA), **best, **ratios, "before_mb": memory["before_mb"], "peak_mb": memory["peak_mb"]})


def whole(size: Size, parent: Path | None) -> dict[str, float]:
    """Seconds and memory of one selection in a process of its own."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        write_vectors(Path(folder), size)
        found = rounded({**asdict(size), **child(Path(folder), size)})
    print(found)
    return found


def child(folder: Path, size: Size) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(folder), json.dumps(asdict(size))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def write_vectors(folder: Path, size: Size) -> None:
    """Zipf modes; the target lies in the 60 rarest of the first 600."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(MODES, size.d)).astype(np.float32)
    shares = 1 / np.arange(1, MODES + 1)
    for name, n in (("pool", size.images), ("target", size.targets)):
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (n, size.d))
        for start in range(0, n, CHUNK):
            count = min(CHUNK, n - start)
            near = rng.integers(540, 600, count)
            chosen = near if name == "target" else rng.choice(MODES, count, p=shares / shares.sum())
            noise = rng.standard_normal((count, size.d), dtype=np.float32)
            out[start : start + count] = centers[chosen] + 0.7 * noise
        out.flush()


def run(choose: Callable[..., object], folder: Path, size: Size) -> object:
    return choose(candidates_in(folder, size), Ledger.of_images(size.images, size.budget), seed=0)


def candidates_in(folder: Path, size: Size) -> Candidates:
    """The pool's images as candidates, memory-mapped."""
    stores = {name: open_store(folder / f"{name}.npy") for name in ("target", "pool")}
    return Candidates(
        stores=stores,
        source=np.ones(size.images, np.int64),
        place=np.arange(size.images),
        copies=np.ones(size.images, np.int64),
        queries=np.arange(size.targets),
    )


def open_store(path: Path) -> EmbeddingStore:
    vectors = np.load(path, mmap_mode="r")
    columns = {field.name: pa.nulls(len(vectors), field.type) for field in ROWS}
    columns["key"] = pa.array([f"{i:07d}" for i in range(len(vectors))])
    spec = EncoderSpec(name="synthetic", dim=vectors.shape[1], size=0, preprocessing="none", weights="")
    return EmbeddingStore(spec=spec, rows=pa.table(columns, schema=ROWS), vectors=vectors)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def watched(folder: Path, size: Size) -> dict[str, float]:
    """Seconds of a selection, and MB of anonymous memory before it and at most during it."""
    run(_near_first.choose, folder, Size(size.targets, size.images, 1, size.d))  # imports and thread pools
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu = time.process_time()
    took = seconds(lambda: run(_near_first.choose, folder, size))
    done.set()
    watcher.join()
    return {"seconds": took, "cpu_s": time.process_time() - cpu, "before_mb": before, "peak_mb": peak[0]}


def anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else float("nan")


def rounded(row: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in row.items()}


if __name__ == "__main__":
    main()
