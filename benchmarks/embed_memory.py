"""Memory and opening time as a source grows: tiny images in tar shards, a cheap encoder, this process and its workers.

    python benchmarks/embed_memory.py --images 1000000 --out benchmarks/results/embed-memory.json

RssAnon is what a process holds besides files it has mapped: the figure that decides whether it fits. It is sampled
every half second, summed over this process and its workers.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine
from PIL import Image

from embeddings.pipeline import embed
from embeddings.store import EmbeddingStore

PER_SHARD = 50_000


def generate(folder: Path, images: int) -> None:
    """Shards of different 8 x 8 PNGs."""
    rng = np.random.default_rng(0)
    for first in range(0, images, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:03d}.tar", "w") as shard:
            for i in range(first, min(first + PER_SHARD, images)):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG", compress_level=0)
                member = tarfile.TarInfo(f"{i:07d}.png")
                member.size = buffer.tell()
                shard.addfile(member, io.BytesIO(buffer.getvalue()))


class Watch(threading.Thread):
    """Samples RssAnon of this process, and of it with all below it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.all = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        """Until it is stopped."""
        while not self._done.wait(0.5):
            own = rss_anon(os.getpid())
            self.own = max(self.own, own)
            self.all = max(self.all, own + sum(rss_anon(pid) for pid in children()))

    def stop(self) -> None:
        """Ends the sampling."""
        self._done.set()
        self.join()


def rss_anon(pid: int) -> float:
    """MB, 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def children() -> list[int]:
    """Processes that this one has started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += [int(pid) for pid in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def measure(images: int, encoder: str) -> dict[str, Any]:
    """Embeds that many images, opens the store, reads its vectors, and calls embed again."""
    with tempfile.TemporaryDirectory() as scratch:
        shards, out = Path(scratch) / "shards", Path(scratch) / "store"
        shards.mkdir()
        generate(shards, images)
        watch, started = Watch(), time.perf_counter()
        watch.start()
        store = embed(f"{shards}/*.tar", encoder=encoder, out=out)
        seconds = time.perf_counter() - started
        watch.stop()
        assert len(store) == images
        started = time.perf_counter()
        opened = EmbeddingStore.open(out)
        opening = time.perf_counter() - started
        started = time.perf_counter()
        total = sum(float(opened.vectors()[i : i + 8192].sum(dtype=np.float64)) for i in range(0, images, 8192))
        reading = time.perf_counter() - started
        assert np.isfinite(total)
        started = time.perf_counter()
        embed(f"{shards}/*.tar", encoder=encoder, out=out)
        again = time.perf_counter() - started
        size = images * opened.vectors().shape[1] * opened.vectors().dtype.itemsize
    return {
        "images": images,
        "images_per_s": round(images / seconds, 1),
        "rss_anon_mb": round(watch.own),
        "rss_anon_with_workers_mb": round(watch.all),
        "open_ms": round(1000 * opening, 1),
        "vectors_gb_per_s": round(size / reading / 1e9, 2),
        "same_call_again_s": round(again, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000])
    parser.add_argument("--encoder", default="color-texture")
    parser.add_argument("--out", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    document = {
        "schema": "curate.benchmark/1",
        "what": "memory of embed, opening and reading of its store",
        **machine("numpy", "pillow", "pyarrow"),
        "encoder": arguments.encoder,
        "results": [measure(images, arguments.encoder) for images in arguments.images],
    }
    text = json.dumps(document, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
