"""Images per second of ``embeddings.embed``, against what its parts allow and against a plain loop.

    python benchmarks/embed.py [ADDRESS ...] --out benchmarks/results/embed-cpu.json

With d images/s read, decoded and prepared, and e encoded, both with all cores and nothing else to do, no pipeline can
do more than 1 / (1/d + 1/e), since both share the cores. The plain loop is a torch DataLoader with as many processes,
Pillow and the same network. Wall-clock figures of a busy machine say little: look at the ratios, and at the load.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import numpy as np
import torch
from measured import load_average, machine
from PIL import Image

from embeddings.encoders import Encoder, get_encoder
from embeddings.pipeline import batches, embed
from embeddings.pipeline.batches import core_count
from embeddings.pipeline.loading import Loader
from embeddings.sources import Source, open_source

CASES = {"500x375": (1000, (500, 375)), "1600x1200": (240, (1600, 1200)), "4000x3000": (60, (4000, 3000))}
REPEATS = 3


def generate(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Smooth random pictures with grain, which compress and decode like photographs."""
    rng = np.random.default_rng(0)
    for i in range(count):
        colors = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        smooth = np.asarray(colors.resize(size, Image.Resampling.BICUBIC), np.float32)
        grain = rng.normal(0, 6, (size[1], size[0], 1)).astype(np.float32)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        (folder / f"{i:04d}.jpg").write_bytes(buffer.getvalue())


def best(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of the quickest of a few runs."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def load_alone(source: Source, encoder: Encoder) -> np.ndarray:
    """Reads, decodes and prepares everything in one thread a core; returns the pixels [n, S, S, 3]."""
    records = source.listing().images.to_pylist()
    loader = Loader(source, encoder.prepare)
    chunks = [records[i : i + 16] for i in range(0, len(records), 16)]
    with ThreadPoolExecutor(core_count()) as pool:
        loaded = pool.map(lambda chunk: loader(chunk, [None] * len(chunk)), chunks)
        return np.stack([item.pixels for part in loaded for items in part.items for item in items or ()])


def encode_alone(encoder: Encoder, pixels: np.ndarray) -> None:
    """Encodes ready pixels, a batch a core at a time."""
    size = encoder.batch_size
    ready = [pixels[i : i + size] for i in range(0, len(pixels) - size + 1, size)]
    with batches.one_thread_each(core_count()) as pool:
        list(pool.map(encoder.encode, ready))


class Folder(torch.utils.data.Dataset):
    """What one writes first: Pillow, a resize, a tensor."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths, self.size = sorted(folder.iterdir()), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        image = Image.open(self.paths[i]).convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def plain_loop(folder: Path, encoder: Any) -> None:
    """DataLoader and model, with as many processes as there are cores."""
    loader = torch.utils.data.DataLoader(
        Folder(folder, encoder.spec.size), batch_size=encoder.batch_size, num_workers=core_count()
    )
    with torch.inference_mode():
        for batch in loader:
            encoder.module((batch.float() - 127) / 128)


def measure(source: Source, encoder: Encoder, *, folder: Path | None) -> dict[str, Any]:
    """Rates of the parts and of the whole, in threads and in worker processes, and of the plain loop."""
    pixels = load_alone(source, encoder)
    n, size = len(pixels), encoder.batch_size
    d = n / best(lambda: load_alone(source, encoder))
    e = (n // size * size) / best(lambda: encode_alone(encoder, pixels))
    bound = 1 / (1 / d + 1 / e)
    found: dict[str, Any] = {"images": n, "decode_alone": round(d, 1), "encode_alone": round(e, 1)}
    for kind, start in (("threads", n + 1), ("processes", 1)):
        batches.PROCESSES_FROM = start
        rate = n / best(partial(embed, source, encoder=encoder, max_errors=1.0))
        found[kind] = {"images_per_s": round(rate, 1), "share_of_what_the_parts_allow": round(rate / bound, 3)}
    if folder:
        torch.set_num_threads(core_count())
        plain = n / best(lambda: plain_loop(folder, encoder))
        whole = max(found[kind]["images_per_s"] for kind in ("threads", "processes"))
        found["plain_loop"] = {"images_per_s": round(plain, 1), "embed_is_faster_by": round(whole / plain, 2)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="addresses to measure beside the generated images")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--out", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    encoder = get_encoder(arguments.encoder)
    document: dict[str, Any] = {
        "schema": "curate.benchmark/1",
        "what": "images per second of embed",
        "load_before": load_average(),
    }
    document |= machine("numpy", "pillow", "timm", "torch")
    document |= {"encoder": encoder.spec.name, "precision": encoder.precision, "batch": encoder.batch_size}
    results = document["results"] = {}
    for name, (count, size) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), count, size)
            results[f"{count} JPEGs of {name}"] = measure(open_source(folder), encoder, folder=Path(folder))
    for address in arguments.sources:
        results[address.rsplit("/", 1)[-1]] = measure(open_source(address), encoder, folder=None)
    document["load_after"] = load_average()
    text = json.dumps(document, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
