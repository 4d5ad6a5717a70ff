"""How often the kind of a shift is named right: planted factors and other contents on real pools.

    OMP_NUM_THREADS=1 python benchmarks/factors.py DATA [STORES] [--draws 2]

DATA is the folder of the parquet files. Planted: the target is half A of a set, the pool half B of the same set with
one thing changed, so the truth is known. Content: the pool is another set as it is; what differs besides content (size
in pixels, color) is there as in life, and the truth is that content is what stays. STORES, a folder of stores of these
files made with ``lite0``, saves embedding them first. Every draw takes other images.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from curate.attribution._facts import recompress
from curate.attribution._sample import Sample, Vectors
from curate.attribution._search import split
from curate.attribution._transforms import invert, relight, to_gray
from embeddings import as_store
from embeddings.encoders import get_encoder
from embeddings.errors import ImageError
from embeddings.sources import open_source
from embeddings.store import EmbeddingStore

IMAGES = 200
RESULT = Path(__file__).parent / "results" / "factors-cpu.json"
SETS = ("emoji-google", "clipart", "emoji-fluent")
CONTENTS = (
    ("emoji-google", "clipart"),
    ("emoji-twitter", "emoji-openmoji"),
    ("emoji-fluent", "emoji-google"),
    ("emoji-google", "emoji-fluent"),
    ("clipart", "emoji-openmoji"),
    ("emoji-openmoji", "emoji-twitter"),
    ("emoji-google", "photos"),
    ("clipart", "emoji-twitter"),
)
Plant = Callable[[Sample, EmbeddingStore], Sample]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("stores", type=Path, nargs="?")
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    vectors = Vectors(get_encoder("lite0", device="cpu"), workers=1)
    results = []
    for draw in range(options.draws):
        for case in cases(options.data, options.stores, draw):
            results.append(measure(*case, vectors) | {"draw": draw})
            print(results[-1], flush=True)
            RESULT.write_text(json.dumps(document(results), indent=1) + "\n", encoding="utf-8")
        vectors = Vectors(get_encoder("lite0", device="cpu"), workers=1)  # what was encoded is of no more use


Case = tuple[str, str, Sample, Sample]


def cases(data: Path, stores: Path | None, draw: int) -> Iterator[Case]:
    """(title, truth, target, pool) of one draw."""
    opened = partial(half_of, data, stores, draw=draw)
    for name in SETS:
        store, pool = (opened(name, half) for half in "AB")
        target, plain = sample_of(store), sample_of(pool)
        yield name, "none", target, plain
        for title, (truth, plant) in plants(draw).items():
            yield f"{name}, {title}", truth, target, plant(plain, pool)
    for ours, theirs in CONTENTS:
        yield f"{theirs} for {ours}", "content", sample_of(opened(ours, "A")), sample_of(opened(theirs, "B"))


def half_of(data: Path, stores: Path | None, name: str, half: str, *, draw: int) -> EmbeddingStore:
    """A random part of a half of a set."""
    base = ",variant=base" if name.startswith("emoji") else ""
    place = f"{stores / name}" if stores else f"{data / name}.parquet"
    store = as_store(f"{place}#half={half}{base}", name=name, encoder="lite0")
    rows = np.random.default_rng([draw, len(store)]).choice(len(store), IMAGES, replace=False)
    return store.take(np.sort(rows))


def sample_of(store: EmbeddingStore) -> Sample:
    return Sample.read(store, IMAGES, edge=128, workers=1)


def plants(draw: int) -> dict[str, tuple[str, Plant]]:
    """What is done to a pool, and the factor that is to be named; enlarged again in every second draw."""
    turned = Image.Transpose.ROTATE_90 if draw % 2 else Image.Transpose.ROTATE_270
    return {
        "gray": ("gray", changed(to_gray)),
        "28 px": ("resolution", changed(enlarged if draw % 2 else small)),
        "JPEG 20": ("compression", changed(partial(recompress, quality=20))),
        "turned": ("orientation", changed(lambda picture: picture.transpose(turned))),
        "on black": ("background", on_black),
        "inverted": ("background", changed(invert)),
        "dark": ("brightness", changed(partial(relight, gain=0.5, shift=0.0))),
        "low contrast": ("brightness", changed(partial(relight, gain=0.5, shift=64.0))),
    }


def changed(change: Callable[[Image.Image], Image.Image]) -> Plant:
    return lambda sample, store: sample.changed(change)


def small(picture: Image.Image) -> Image.Image:
    ratio = 28 / min(picture.size)
    size = (round(picture.width * ratio), round(picture.height * ratio))
    return picture.resize(size, Image.Resampling.BICUBIC)


def enlarged(picture: Image.Image) -> Image.Image:
    return small(picture).resize(picture.size, Image.Resampling.BICUBIC)


def on_black(sample: Sample, store: EmbeddingStore) -> Sample:
    """The same images with black where they are transparent."""
    source = open_source(store.source)
    pictures = []
    for uri in store.column("uri"):
        layers = Image.open(io.BytesIO(source.read(uri))).convert("RGBA")
        page = Image.new("RGB", layers.size)
        page.paste(layers, mask=layers)
        pictures.append(page)
    if len(pictures) != len(sample):
        raise ImageError("an image of this set does not decode")
    return replace(sample, pictures=tuple(pictures))


def measure(title: str, truth: str, target: Sample, pool: Sample, vectors: Vectors) -> dict[str, object]:
    start = time.perf_counter()
    found = split(target, pool, vectors=vectors)
    repaired = found.best.repaired.value if found.best else None  # none of a distance too small to be told from zero
    return {
        "case": title,
        "truth": truth,
        "named": found.kind,
        "index": round(found.index.value or 0.0, 1),
        "content": round(found.content.value or 0.0, 1),
        "repair": " + ".join(found.best.names) if found.best else None,
        "repaired": None if repaired is None else round(repaired, 2),
        "seconds": round(time.perf_counter() - start, 1),
    }


def document(results: list[dict[str, object]]) -> dict[str, object]:
    right = [r["named"] == r["truth"] for r in results]
    return {
        "schema": "curate.benchmark/1",
        "what": "kind of shift named right",
        "encoder": "lite0",
        "images_a_side": IMAGES,
        "cases": len(results),
        "right": sum(right),
        "rate": round(float(np.mean(right)), 4),
        "confusion": [
            {"truth": truth, "named": named, "cases": count}
            for (truth, named), count in sorted(Counter((r["truth"], r["named"]) for r in results).items())
        ],
        "results": results,
    }


if __name__ == "__main__":
    main()
