"""Images per second of ``embeddings.embed``, against what its parts allow.

    python benchmarks/embed.py ADDRESS ... --out benchmarks/results/embed-cpu.json

With d images/s read, decoded and prepared by one thread and e encoded by one thread, w workers can reach at most
w / (1/d + 1/e). Wall-clock figures of a busy machine say little, so CPU time is told beside them. The first case is
always the same: 400 generated JPEGs of 500 x 375 pixels.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from embeddings.batches import core_count
from embeddings.decode import decode
from embeddings.encoders import Encoder, get_encoder
from embeddings.pipeline import embed
from embeddings.sources import Source, open_source

IMAGES, SIZE, SAMPLE = 400, (500, 375), 256


def generate(folder: Path) -> None:
    """Smooth random pictures, which compress and decode like photographs."""
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 6, (SIZE[1], SIZE[0], 1))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        (folder / f"{i:04d}.jpg").write_bytes(buffer.getvalue())


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of some work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(source: Source, encoder: Encoder) -> dict[str, Any]:
    """Rates of the parts on one thread, and of the whole on one worker and on all."""
    uris = source.listing().images["uri"].to_pylist()
    sample = [uris[i] for i in np.linspace(0, len(uris) - 1, min(SAMPLE, len(uris)), dtype=int)]
    prepared: list[np.ndarray] = []
    torch.set_num_threads(1)
    _, input_s = timed(lambda: prepared.extend(encoder.prepare(decode(source.read(uri))) for uri in sample))
    size = encoder.batch_size
    batches = [np.stack(prepared[i : i + size]) for i in range(0, len(prepared) - size + 1, size)]
    encoder.encode(batches[0])
    _, encode_s = timed(lambda: [encoder.encode(batch) for batch in batches])
    d, e = len(sample) / input_s, len(batches) * size / encode_s
    found = {"images": len(uris), "input_per_cpu_s": round(d, 1), "encode_per_cpu_s": round(e, 1)}
    for workers in sorted({1, core_count()}):
        wall, cpu = timed(lambda workers=workers: embed(source, encoder=encoder, workers=workers, max_errors=1.0))
        found[f"workers_{workers}"] = {
            "images_per_s": round(len(uris) / wall, 1),
            "images_per_cpu_s": round(len(uris) / cpu, 1),
            "share_of_what_the_parts_allow": round(len(uris) / wall / (workers / (1 / d + 1 / e)), 3),
            "same_in_cpu_time": round(len(uris) / cpu / (1 / (1 / d + 1 / e)), 3),
        }
    return found


def machine() -> dict[str, Any]:
    """What the figures depend on, without a name."""
    return {
        "cores": core_count(),
        "architecture": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "pillow", "timm", "torch")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="addresses to measure beside the generated images")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--out", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    document: dict[str, Any] = {"schema": "curate.benchmark/1", "what": "images per second of embed", **machine()}
    encoder = get_encoder(arguments.encoder)
    document |= {
        "encoder": encoder.spec.name,
        "precision": encoder.precision,
        "batch": encoder.batch_size,
        "results": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        name = f"{IMAGES} JPEGs of {SIZE[0]}x{SIZE[1]}"
        document["results"][name] = measure(open_source(folder), encoder)
    for address in arguments.sources:
        document["results"][address.rsplit("/", 1)[-1]] = measure(open_source(address), encoder)
    text = json.dumps(document, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
