"""What is measured: features as networks give them, and stores that are too large to be embedded for a benchmark."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embeddings.sources import REJECTED
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, SCHEMA

CENTERS = 20
SHARD_ROWS = 50_000


def features(n: int, d: int, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """float32 [n, d]: a mixture of 20 Gaussians with a power-law spectrum, rotated."""
    shared, own = np.random.default_rng(d), np.random.default_rng([d, seed])
    centers, turn = shared.normal(size=(CENTERS, d)), np.linalg.qr(shared.normal(size=(d, d)))[0].astype(np.float32)
    spectrum = np.arange(1, d + 1) ** -0.5
    rows = (centers[own.integers(0, CENTERS, n)] + own.normal(size=(n, d))) * spectrum
    return rows.astype(np.float32) @ turn + np.float32(shift)


def two_samples(folder: Path, n: int, d: int) -> list[Path]:
    """Files of two samples that differ by a shift."""
    return [_saved(folder, f"{name}-{n}-{d}", features(n, d, seed=i, shift=0.02 * i)) for i, name in enumerate("xy")]


def two_moments(folder: Path, d: int) -> list[Path]:
    """Files of mean and covariance of two samples, of full rank."""
    paths = []
    for i, name in enumerate("xy"):
        sample = features(3 * d, d, seed=i, shift=0.02 * i)
        paths.append(_saved(folder, f"mean-{name}-{d}", sample.mean(axis=0, dtype=np.float64)))
        paths.append(_saved(folder, f"cov-{name}-{d}", np.cov(sample, rowvar=False)))
    return paths


def write_store(folder: Path, n: int, d: int, *, seed: int) -> Path:
    """A store on disk with a row of facts per image, float16, as ``embed`` writes it."""
    folder.mkdir(parents=True)
    shared, own = np.random.default_rng(d), np.random.default_rng([d, seed])
    centers = shared.normal(size=(CENTERS, d)).astype(np.float32)
    spectrum = (np.arange(1, d + 1) ** -0.5).astype(np.float32)
    shards = []
    for start in range(0, n, SHARD_ROWS):
        count, name = min(SHARD_ROWS, n - start), f"{start // SHARD_ROWS:05d}-000000000000"
        rows = centers[own.integers(0, CENTERS, count)] + own.standard_normal((count, d), np.float32)
        np.save(folder / f"vectors-{name}.npy", (rows * spectrum).astype(np.float16))
        pq.write_table(_rows(start, count, seed), folder / f"rows-{name}.parquet")
        shards.append({"name": name, "rows": count})
    pq.write_table(REJECTED.empty_table(), folder / "errors.parquet")
    facts = {
        "schema": SCHEMA,
        "encoder": asdict(EncoderSpec(name="synthetic", dim=d, size=0, preprocessing="none", weights="")),
        "dtype": "float16",
        "shards": shards,
        "errors": 0,
        "source": "",
        "parts": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    (folder / "store.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def _rows(start: int, count: int, seed: int) -> pa.Table:
    columns = {field.name: pa.nulls(count, field.type) for field in ROWS}
    keys = [f"{seed}/{i:07d}.jpg" for i in range(start, start + count)]
    digests = pa.array([hashlib.sha256(key.encode()).hexdigest() for key in keys])
    filled = {
        "key": pa.array(keys),
        "uri": pa.array(keys),
        "sha256": digests,
        "pixels": digests,
        "phash": pa.array([hashlib.md5(key.encode()).hexdigest()[:16] for key in keys]),
        "bytes": pa.array(np.full(count, 20_000)),
        "width": pa.array(np.full(count, 256, np.int32)),
        "height": pa.array(np.full(count, 256, np.int32)),
        "gray": pa.array(np.zeros(count, bool)),
    }
    return pa.table({**columns, **filled}, schema=ROWS)


def _saved(folder: Path, name: str, array: np.ndarray) -> Path:
    path = folder / f"{name}.npy"
    if not path.exists():
        np.save(path, array)
    return path
