"""Speed and memory of selection, beside FAISS alone, and as the pool grows.

    OMP_NUM_THREADS=2 python benchmarks/selection.py [--only quota whole] [--images 250000 ...] [--folder DIR]

quota   1,000 targets, 500,000 candidates of 256 dimensions in a float16 memory map, 5,000 chosen. The peer is one
        ``faiss.knn`` of as many neighbors on the same vectors as float32 in memory: it searches and selects nothing.
        Both run in turn in one process; the ratio of their best times is what counts.
whole   ``select`` as a user calls it, from opened stores to the saved manifest: score, exact and near duplicates,
        near-first, supply curve. 5,000 targets and a budget of 50,000 from 250,000, 500,000 and 1,000,000 candidates of
        1,280 dimensions: seconds, by stage, and memory as the pool grows. Vectors lie around 2,000 Zipf modes whose
        directions matter less and less, as those of a network do; 3% are nearly the same as others. With a folder of
        its own (4 GB), a run that was killed goes on from there.

Memory is the peak of RssAnon in a process of its own, which only selects.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measured import machine

from curate.selection import _knn_quota, _near_first, select
from curate.selection._candidates import Candidates
from curate.selection._ledger import Ledger
from embeddings import files
from embeddings.sources import REJECTED
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, SCHEMA, EmbeddingStore, shard_path

MODES, REPEATS, CHUNK = 2_000, 3, 50_000
LATENT, COPIES = 96, 0.03
RESULT = Path(__file__).parent / "results" / "selection-cpu.json"


@dataclass(frozen=True)
class Size:
    """How much there is to choose from."""

    targets: int
    images: int
    budget: int
    d: int


QUOTA = Size(1_000, 500_000, 5_000, 256)
WHOLE = (250_000, 500_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["quota", "whole"], choices=["quota", "whole"])
    parser.add_argument("--images", nargs="*", type=int, default=WHOLE, help="sizes of the pool of `whole`")
    parser.add_argument("--folder", type=Path, help="where vectors and unfinished work are kept (4 GB)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, folder, size = options.child
        print(
            json.dumps({"quota": watched_quota, "whole": watched_whole}[kind](Path(folder), Size(**json.loads(size))))
        )
        return
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    document = {**found, "schema": "curate.benchmark/3", **machine("numpy", "scipy", "torch", "faiss-cpu", "pyarrow")}
    if "quota" in options.only:
        document["quota"] = quota(options.folder)
        finish(document, options.out)
    for images in options.images if "whole" in options.only else ():
        line = whole(Size(5_000, images, min(50_000, images // 5), 1_280), options.folder)
        others = [row for row in document.get("whole") or [] if row["images"] != images]
        document["whole"] = sorted([*others, line], key=lambda row: row["images"])
        finish(document, options.out)


def finish(document: dict[str, Any], out: Path) -> None:
    """Writes what is known so far."""
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@contextmanager
def folder_for(parent: Path | None, name: str) -> Iterator[Path]:
    """A folder that stays below the parent, or one that goes again."""
    if parent is not None:
        (parent / name).mkdir(parents=True, exist_ok=True)
        yield parent / name
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def quota(parent: Path | None) -> dict[str, Any]:
    """Best seconds of near-first, of the plain quota and of the peer, and the memory of near-first."""
    import faiss

    with folder_for(parent, "quota") as folder:
        write_vectors(folder, QUOTA)
        target, pool = (np.load(folder / f"{side}.npy").astype(np.float32) for side in ("target", "pool"))
        k = 4 * (-(-QUOTA.budget // QUOTA.targets) + 16)  # as long as the first lists
        work: dict[str, Callable[[], object]] = {
            "near_first_s": lambda: run(_near_first.choose, folder, QUOTA),
            "quota_s": lambda: run(_knn_quota.choose, folder, QUOTA),
            "faiss_s": lambda: faiss.knn(target, pool, k),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(REPEATS):
            for name, call in work.items():
                times[name].append(seconds(call))
        best = {name: min(values) for name, values in times.items()}
        ratios = {f"{name[:-2]}_over_faiss": best[name] / best["faiss_s"] for name in ("near_first_s", "quota_s")}
        memory = child("quota", folder, QUOTA)
    line = rounded({**asdict(QUOTA), **best, **ratios, "before_mb": memory["before_mb"], "peak_mb": memory["peak_mb"]})
    print(line, flush=True)
    return line


def whole(size: Size, parent: Path | None) -> dict[str, Any]:
    """Seconds and memory of one selection in a process of its own."""
    with folder_for(parent, f"whole-{size.images}") as folder:
        for name, n, seed in (("target", size.targets, 1), ("pool", size.images, 2)):
            if not (folder / name / "store.json").exists():
                write_store(folder / name, n, size.d, seed=seed)
        files.remove_folder(folder / "selection")
        found: dict[str, Any] = rounded({**asdict(size), **child("whole", folder, size)})
        files.remove_folder(folder / "work")
    print(found, flush=True)
    return found


def child(kind: str, folder: Path, size: Size) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, str(folder), json.dumps(asdict(size))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
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


def write_store(folder: Path, n: int, d: int, *, seed: int) -> None:
    """A store of clustered vectors, in shards; the target's (seed 1) lie in every tenth of the first 600 modes."""
    rng, basis = np.random.default_rng(seed), world(d)
    spec = EncoderSpec(name="synthetic", dim=d, size=0, preprocessing="none", weights="")
    shards, folder = [], files_folder(folder)
    for number, start in enumerate(range(0, n, CHUNK)):
        count, name = min(CHUNK, n - start), f"{number:05d}"
        vectors, hashes = draw(rng, count, basis, of_target=seed == 1)
        np.save(shard_path(folder, "vectors", name), vectors)
        files.write_table(shard_path(folder, "rows", name), facts_of(folder.name, start, hashes))
        shards.append({"name": name, "rows": count})
    files.write_table(folder / "errors.parquet", REJECTED.empty_table())
    parts = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    facts = {"schema": SCHEMA, "encoder": asdict(spec), "dtype": "float16", "shards": shards, "parts": parts}
    files.write_json(folder / "store.json", facts)


def files_folder(folder: Path) -> Path:
    """The folder, empty."""
    files.remove_folder(folder)
    folder.mkdir(parents=True)
    return folder


def world(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centers [modes, latent], the map to d dimensions [latent, d], and the mean of all [d]."""
    rng = np.random.default_rng(0)
    lengths = (1 + np.arange(LATENT)) ** -0.5
    centers = rng.normal(size=(MODES, LATENT)) * lengths
    return tuple(  # type: ignore[return-value]
        part.astype(np.float32) for part in (centers, rng.normal(size=(LATENT, d)) / d**0.5, rng.exponential(0.1, d))
    )


def draw(
    rng: np.random.Generator, n: int, basis: tuple[np.ndarray, np.ndarray, np.ndarray], *, of_target: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors float16 [n, d] and hashes uint64 [n]; 3% are nearly the same as others."""
    centers, to_all, mean = basis
    shares = 1 / np.arange(1, MODES + 1)
    mode = rng.choice(np.arange(9, 600, 10), n) if of_target else rng.choice(MODES, n, p=shares / shares.sum())
    lengths = (0.6 * (1 + np.arange(LATENT)) ** -0.4).astype(np.float32)
    x = (centers[mode] + lengths * rng.standard_normal((n, LATENT), dtype=np.float32)) @ to_all + mean
    x += 0.01 * rng.standard_normal(x.shape, dtype=np.float32)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    copies, originals = np.array_split(rng.choice(n, 2 * int(COPIES * n), replace=False), 2)
    x[copies] = x[originals] + 0.001 * rng.standard_normal((len(copies), x.shape[1]), dtype=np.float32)
    hashes[copies] = hashes[originals]
    return x.astype(np.float16), hashes


def facts_of(name: str, start: int, hashes: np.ndarray) -> pa.Table:
    """Rows of images as a crawl has them."""
    keys = [f"{start + i:09d}.jpg" for i in range(len(hashes))]
    digests = [hashlib.sha256(f"{name}/{key}".encode()).hexdigest() for key in keys]
    columns = {field.name: pa.nulls(len(keys), field.type) for field in ROWS}
    columns |= {"key": pa.array(keys), "uri": pa.array([f"{name}/{key}" for key in keys])}
    columns |= {"sha256": pa.array(digests), "pixels": pa.array([digest[::-1] for digest in digests])}
    columns |= {"phash": pa.array([f"{value:016x}" for value in hashes.tolist()])}
    columns |= {"bytes": pa.array(hashes % 100_000, pa.int64()), "gray": pa.repeat(pa.scalar(False), len(keys))}
    columns |= {side: pa.repeat(pa.scalar(256, pa.int32()), len(keys)) for side in ("width", "height")}
    return pa.table(columns, schema=ROWS)


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


def watched_quota(folder: Path, size: Size) -> dict[str, Any]:
    """Seconds of a selection, and MB of anonymous memory before it and at most during it."""
    run(_near_first.choose, folder, Size(size.targets, size.images, 1, size.d))  # imports and thread pools
    return watched(lambda: run(_near_first.choose, folder, size))


def watched_whole(folder: Path, size: Size) -> dict[str, Any]:
    """The same of ``select`` from stores on disk, with the seconds of every stage."""
    stages = Stages()

    def work() -> None:
        chosen = select(
            folder / "target",
            {"pool": folder / "pool"},
            budget=size.budget,
            past_knee=True,
            encoder="synthetic",
            work=folder / "work",
            out=folder / "selection",
            progress=stages,
        )
        stages("manifest", len(chosen), size.budget)
        found.update(chosen=len(chosen), deduplication=chosen.facts["deduplication"])

    found: dict[str, Any] = {}
    return {**watched(work), **found, "stages": stages.rounded()}


class Stages:
    """Seconds between two words of progress, by the later one's stage; says on stderr what is going on."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._peak: defaultdict[str, float] = defaultdict(float)
        self._last = self._said = time.perf_counter()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Progress."""
        now = time.perf_counter()
        self._seconds[stage] += now - self._last
        self._last = now
        self._peak[stage] = max(self._peak[stage], anonymous_mb())
        if now - self._said > 5 or done == total:
            self._said = now
            figures = f"{self._seconds[stage]:.1f} s, {self._peak[stage]:.0f} MB"
            print(f"  {stage}: {done:,} of {total:,} {note}({figures})", file=sys.stderr, flush=True)

    def rounded(self) -> dict[str, float]:
        """Seconds by stage."""
        return {name: round(value, 1) for name, value in self._seconds.items()}


def watched(work: Callable[[], object]) -> dict[str, Any]:
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu = time.process_time()
    took = seconds(work)
    done.set()
    watcher.join()
    return {"seconds": took, "cpu_s": time.process_time() - cpu, "before_mb": before, "peak_mb": peak[0]}


def anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else float("nan")


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()}


if __name__ == "__main__":
    main()
