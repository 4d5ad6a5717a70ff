"""Builds curate/demo/data from the ten image pools in ../shared/data; run once, its result is committed.

    python benchmarks/make_demo_data.py ../shared/data curate/demo/data

Which rows and which pixels:

- The target is every base emoji of concept half A in Google's style, split 70/30 into train and test by the hash of the
  concept; equal pictures (Australia and Heard Island share a flag) stay on one side.
- Pools are of half B only, so no concept of the target occurs in them; rows are taken in the order of sha256(key).
  Pictures are distinct, but for a few exact copies left in two pools for the deduplication to find.
- Images are re-encoded without loss (checked pixel by pixel, alpha included), or kept as they came. To stay under the
  size limit, fluent (which came as lossy WebP) is shrunk and compressed again, and clip art is compressed but not
  shrunk: at 80 pixels it is nearer to the target than it was (index 11 in place of 15 under lite0).
- Left out: fully transparent images, and the photographs under GPL.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Row = dict[str, Any]

SIZE_LIMIT = 10_000_000  # bytes, all files together
TRAIN_SHARE = 0.7
BLANK = "nothing to see"
# Photographs by concept that came with mate-backgrounds, under GPL-2+.
GPL_CONCEPTS = frozenset(
    {
        "Aqua",
        "Blinds",
        "Dune",
        "FreshFlower",
        "Garden",
        "GreenMeadow",
        "LadyBird",
        "RainDrops",
        "Storm",
        "TwoWings",
        "Wood",
        "YellowFlower",
    }
)
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.string()),
        ("subgroup", pa.string()),
        ("concept", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How one pool is cut from one file of the source folder."""

    file: str
    name: str
    images: int  # distinct pictures, at most
    copies: int = 0  # further rows whose picture is already in
    max_side: int | None = None  # pixels; larger images are shrunk to it
    quality: int | None = None  # of lossy WebP; None is lossless
    recode: bool = True  # False keeps the bytes as they came


TARGET = Pool(file="emoji-google", name="target", images=1_000, copies=1_000)
POOLS = (
    Pool(file="emoji-twitter", name="twitter", images=500, copies=8),
    Pool(file="emoji-fluent", name="fluent", images=450, max_side=96, quality=90),
    Pool(file="emoji-openmoji", name="openmoji", images=500),
    Pool(file="emoji-openmoji-line", name="openmoji-line", images=500, copies=8),
    Pool(file="clipart", name="clipart", images=450, quality=75),
    Pool(file="fashion-train", name="garments", images=500, recode=False),
    Pool(file="mnist", name="digits", images=500, recode=False),
    Pool(file="photos", name="photos", images=500, recode=False),
)


def main() -> None:
    """Writes the target's two parts and every pool, and fails when they are larger than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with emoji-google.parquet and the others")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    target = cut(arguments.source, TARGET, half="A")
    train, test = split(target)
    written = [write(train, arguments.out / "target-train.parquet"), write(test, arguments.out / "target-test.parquet")]
    for pool in POOLS:
        written.append(write(cut(arguments.source, pool, half="B"), arguments.out / f"{pool.name}.parquet"))
    if sum(written) > SIZE_LIMIT:
        raise SystemExit(f"The demo data take {sum(written):,} bytes, more than {SIZE_LIMIT:,}.")
    print(f"{sum(written):,} bytes in all")


def cut(folder: Path, pool: Pool, *, half: str) -> list[Row]:
    """The rows of one pool, chosen and re-encoded, sorted by key."""
    table = pq.read_table(folder / f"{pool.file}.parquet", filters=[("half", "==", half), ("variant", "==", "base")])
    allowed = (row for row in table.to_pylist() if row["concept"] not in GPL_CONCEPTS)
    chosen = choose(sorted(allowed, key=lambda row: hash_of(row["key"])), images=pool.images, copies=pool.copies)
    return sorted((recoded(row, pool) for row in chosen), key=lambda row: row["key"])


def choose(rows: Iterable[Row], *, images: int, copies: int) -> Iterator[Row]:
    """The first ``images`` distinct visible pictures, and up to ``copies`` of the rows that repeat one of them."""
    seen: set[str] = set()
    repeated: list[Row] = []
    for row in rows:
        picture = picture_of(row)
        if picture == BLANK:
            continue
        if picture in seen:
            repeated.append(row)
        elif len(seen) < images:
            seen.add(picture)
            yield row
    yield from repeated[:copies]


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Train and test by the hash of the concept; rows of one picture go where the first of them goes."""
    in_train: dict[str, bool] = {}
    train: list[Row] = []
    test: list[Row] = []
    for row in rows:
        picture = picture_of(row)
        in_train.setdefault(picture, int(hash_of(row["concept"])[:8], 16) < TRAIN_SHARE * 2**32)
        (train if in_train[picture] else test).append(row)
    return train, test


def recoded(row: Row, pool: Pool) -> Row:
    """The row with its image as WebP, shrunk if the pool says so, or as it came."""
    kept = {name: row[name] for name in ("key", "image", "label", "subgroup", "concept")}
    if not pool.recode:
        return kept
    image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA")
    if pool.max_side is not None:
        image.thumbnail((pool.max_side, pool.max_side), Image.Resampling.LANCZOS)
    data = lossless(image, row["key"]) if pool.quality is None else webp(image, quality=pool.quality, method=5)
    path = str(Path(row["image"]["path"]).with_suffix(".webp"))
    return {**kept, "image": {"bytes": data, "path": path}}


def lossless(image: Image.Image, key: str) -> bytes:
    """WebP bytes that decode to the very same pixels, also where they are transparent."""
    data = webp(image, lossless=True, exact=True, quality=100, method=4)  # 6: 25 times the time, no smaller
    if Image.open(io.BytesIO(data)).convert("RGBA").tobytes() != image.tobytes():
        raise SystemExit(f"{key}: re-encoding changed the pixels.")
    return data


def webp(image: Image.Image, **options: Any) -> bytes:
    """The image as WebP bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return buffer.getvalue()


def write(rows: list[Row], path: Path) -> int:
    """Writes a Parquet file with the page compression that makes it smaller; returns its size in bytes."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    options: dict[str, Any] = {
        "row_group_size": 256,
        "use_dictionary": ["label", "subgroup"],
        "write_statistics": False,
    }
    candidates = []
    for compression in ("none", "zstd"):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression=compression, **options)
        candidates.append(buffer.getvalue())
    path.write_bytes(min(candidates, key=len))
    pictures = {row["image"]["bytes"] for row in rows}
    print(f"{path.name}: {len(rows)} rows, {len(pictures)} pictures, {path.stat().st_size:,} bytes", flush=True)
    return path.stat().st_size


def picture_of(row: Row) -> str:
    """A name for what a viewer sees of the image on white paper; BLANK where there is nothing to see."""
    rgba = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if shown.getextrema() == ((255, 255),) * 3:
        return BLANK
    return f"{shown.size} {hashlib.sha256(shown.tobytes()).hexdigest()}"


def hash_of(text: str) -> str:
    """sha256 of a text, in hex: an order that has nothing to do with the text."""
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
