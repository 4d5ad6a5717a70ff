"""Cuts the ten image pools of ../shared/data into what the packaged studies need; the result is not committed.

    python benchmarks/make_study_data.py ../shared/data benchmarks/studies/data

- Targets: every base emoji of concept half A in four styles, and half A of Fashion-MNIST's test set. Each is split
  70/30 by the hash of the concept into NAME-train, which the study may look at, and NAME-test, which it may not;
  equal pictures stay on one side.
- Pools are of half B only, so no concept of an emoji target occurs in them; of the garments the first 12,000 by
  sha256(key). Photographs under GPL are left out.
- Factors: the Twitter and clip art pools once more without color (-gray), at 16 pixels (-small), and both, so that
  content, color and resolution can be told apart.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from make_demo_data import GPL_CONCEPTS, Row, hash_of, split
from PIL import Image

Change = Callable[[Image.Image], Image.Image]

STYLES = ("google", "twitter", "fluent", "openmoji")
POOLS = {
    "google-pool": "emoji-google",
    "twitter-pool": "emoji-twitter",
    "fluent-pool": "emoji-fluent",
    "openmoji-pool": "emoji-openmoji",
    "openmoji-line-pool": "emoji-openmoji-line",
    "clipart-pool": "clipart",
    "fashion-pool": "fashion-train",
    "mnist-pool": "mnist",
    "photos-pool": "photos",
}
MOST = 12_000  # rows of a pool
SMALL = 16  # pixels
FACTORS = ("twitter-pool", "clipart-pool")
KEPT = ("key", "image", "label", "subgroup", "concept", "variant")


def main() -> None:
    """Writes all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with emoji-google.parquet and the others")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    targets = {style: rows_of(arguments.source / f"emoji-{style}.parquet", "A", base=True) for style in STYLES}
    targets["fashion"] = rows_of(arguments.source / "fashion-test.parquet", "A")
    for name, rows in targets.items():
        for part, half in zip(("train", "test"), split(rows), strict=True):
            write(half, arguments.out / f"{name}-{part}.parquet")
    pools = {name: rows_of(arguments.source / f"{file}.parquet", "B") for name, file in POOLS.items()}
    for name, rows in pools.items():
        write(rows, arguments.out / f"{name}.parquet")
    for name in FACTORS:
        for suffix, changes in {"gray": (gray,), "small": (small,), "gray-small": (gray, small)}.items():
            write([changed(row, changes) for row in pools[name]], arguments.out / f"{name}-{suffix}.parquet")


def rows_of(file: Path, half: str, *, base: bool = False) -> list[Row]:
    """Rows of one half, at most MOST of them by hash, sorted by key."""
    filters = [("half", "==", half), *([("variant", "==", "base")] if base else [])]
    rows = [row for row in pq.read_table(file, filters=filters).to_pylist() if row["concept"] not in GPL_CONCEPTS]
    rows = sorted(rows, key=lambda row: hash_of(row["key"]))[:MOST]
    return [{name: row[name] for name in KEPT} for row in sorted(rows, key=lambda row: str(row["key"]))]


def changed(row: Row, changes: tuple[Change, ...]) -> Row:
    """The row with its image on white paper, changed, as PNG."""
    rgba = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    for change in changes:
        image = change(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {**row, "image": {"bytes": buffer.getvalue(), "path": str(Path(row["image"]["path"]).with_suffix(".png"))}}


def gray(image: Image.Image) -> Image.Image:
    """Without color."""
    return image.convert("L").convert("RGB")


def small(image: Image.Image) -> Image.Image:
    """Shrunk to SMALL pixels on its long side."""
    found = image.copy()
    found.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    return found


def write(rows: list[Row], path: Path) -> None:
    """Writes a Parquet file."""
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none", row_group_size=1_000)
    print(f"{path.name}: {len(rows):,} rows", flush=True)


if __name__ == "__main__":
    main()
