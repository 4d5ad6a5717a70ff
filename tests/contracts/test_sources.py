"""What every kind of source keeps, in one table: the same images in, the same listing and bytes out.

A new kind of source adds a row to MAKERS: a function that stores IMAGES with their labels below a folder and returns
the address. Keys may differ from kind to kind; what they must end in is the path of the image.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import feather
from shard_files import write
from web_server import Behavior, serve

from embeddings import retries
from embeddings.errors import CurateError, ImageError
from embeddings.sources import LISTING, REJECTED, Source, open_source

LABELS = ("cat", "dog", "ö l")
ROOT = "contract"  # of what is kept in memory


def _images() -> dict[str, bytes]:
    """PNGs by path, ``LABEL/NUMBER.png``, in no order."""
    found = {}
    for i in np.random.default_rng(0).permutation(12):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 3), (20 * int(i), 255 - 20 * int(i), 7)).save(buffer, "PNG")
        found[f"{LABELS[i % 3]}/{i:02d}.png"] = buffer.getvalue()
    return found


IMAGES = _images()
LABEL_OF = {path: path.split("/")[0] for path in IMAGES}


def _files(root: Path, images: dict[str, bytes] = IMAGES) -> Path:
    for path, data in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def _table(paths: list[str]) -> pa.Table:
    images = [{"bytes": IMAGES[path], "path": path} for path in paths]
    return pa.table({"image": images, "label": [LABEL_OF[path] for path in paths]})


def _halves() -> tuple[list[str], list[str]]:
    paths = list(IMAGES)
    return paths[::2], paths[1::2]


def _members(paths: list[str]) -> dict[str, bytes]:
    members = {}
    for path in paths:
        members |= {path: IMAGES[path], f"{path[:-4]}.cls": LABEL_OF[path].encode()}
    return members


def folder(root: Path) -> str:
    return str(_files(root / "photos"))


def path_list(root: Path) -> str:
    (_files(root / "photos") / "list.txt").write_text("\n".join(IMAGES))
    return f"{root}/photos/list.txt"


def pattern(root: Path) -> str:
    return f"{_files(root / 'photos')}/*/*.png"


def csv(root: Path) -> str:
    _files(root)
    pacsv.write_csv(pa.table({"path": list(IMAGES), "label": list(LABEL_OF.values())}), root / "t.csv")
    return f"{root}/t.csv"


def parquet(root: Path) -> str:
    pq.write_table(_table(list(IMAGES)), root / "t.parquet", row_group_size=5)
    return f"{root}/t.parquet"


def parquet_shards(root: Path) -> str:
    for i, paths in enumerate(_halves()):
        pq.write_table(_table(paths), root / f"t-{i:05d}-of-00002.parquet")
    return f"{root}/t-*.parquet"


def csv_shards(root: Path) -> str:
    _files(root)
    for i, paths in enumerate(_halves()):
        pacsv.write_csv(pa.table({"path": paths, "label": [LABEL_OF[p] for p in paths]}), root / f"{i}.csv")
    return f"{root}/{{0,1}}.csv"


def arrow(root: Path) -> str:
    feather.write_feather(_table(list(IMAGES)), root / "t.arrow", compression="uncompressed")
    return f"{root}/t.arrow"


def torchvision(root: Path) -> str:
    return f"torchvision:ImageFolder@{_files(root / 'photos')}"


def tar(root: Path) -> str:
    return str(write(root / "web.tar", _members(list(IMAGES))))


def tar_shards(root: Path) -> str:
    for i, paths in enumerate(_halves()):
        write(root / f"web-{i}.tar", _members(paths), form="pax")
    return f"{root}/web-{{0..1}}.tar"


def shard_list(root: Path) -> str:
    tar_shards(root)
    (root / "shards.lst").write_text(f"web-0.tar\n{root}/web-1.tar\n")
    return f"{root}/shards.lst"


def in_memory(root: Path) -> str:
    fsspec.filesystem("memory").pipe({f"/{ROOT}/photos/{path}": data for path, data in IMAGES.items()})
    return f"memory://{ROOT}/photos"


def tar_in_memory(root: Path) -> str:
    fsspec.filesystem("memory").pipe(f"/{ROOT}/web.tar", Path(tar(root)).read_bytes())
    return f"memory://{ROOT}/web.tar"


def shards_in_memory(root: Path) -> str:
    parquet_shards(root)
    for path in root.glob("*.parquet"):
        fsspec.filesystem("memory").pipe(f"/{ROOT}/{path.name}", path.read_bytes())
    return f"memory://{ROOT}/*.parquet"


MAKERS = [
    folder, path_list, pattern, csv, parquet, parquet_shards, csv_shards, arrow, torchvision, tar, tar_shards,
    shard_list, in_memory, tar_in_memory, shards_in_memory,
]  # fmt: skip
OVER_HTTP = [path_list, csv, parquet, tar]  # kinds that one file names, served from the folder it lies in


@dataclass
class Case:
    """A source, and how to make what it reads vanish."""

    source: Source
    vanish: Callable[[], None]

    @property
    def rows(self) -> list[dict[str, str | None]]:
        return self.source.listing().images.to_pylist()


def _gone(folder: Path) -> None:
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            path.unlink()
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(f"/{ROOT}"):
        filesystem.rm(f"/{ROOT}", recursive=True)


@pytest.fixture(
    params=[*MAKERS, *(f"http {maker.__name__}" for maker in OVER_HTTP)], ids=lambda p: getattr(p, "__name__", p)
)
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setattr(retries, "sleep", lambda _: None)
    if not isinstance(request.param, str):
        yield Case(open_source(request.param(tmp_path)), lambda: _gone(tmp_path))
        _gone(tmp_path)
        return
    maker = next(m for m in OVER_HTTP if m.__name__ == request.param.removeprefix("http "))
    address = Path(maker(tmp_path))
    with serve(address.parent, Behavior()) as url:
        yield Case(open_source(f"{url}/{address.name}"), lambda: _gone(tmp_path))


def _path_of(key: str) -> str:
    return next(path for path in IMAGES if key.endswith(path))


def test_keys_are_sorted_unique_and_name_the_image(case: Case) -> None:
    listing = case.source.listing()
    assert listing.images.schema == LISTING
    assert listing.rejected.schema == REJECTED
    keys = listing.images["key"].to_pylist()
    assert keys == sorted(set(keys))
    assert sorted(map(_path_of, keys)) == sorted(IMAGES)
    assert len(listing.images) + len(listing.rejected) == len(IMAGES)


def test_the_same_bytes_and_labels_through_every_kind(case: Case) -> None:
    for row in case.rows:
        path = _path_of(row["key"])
        assert case.source.read(row["uri"]) == case.source.read(row["uri"]) == IMAGES[path]
        assert row["label"] == LABEL_OF[path]
        assert row["stamp"]
        assert row["size"] >= len(IMAGES[path])


def test_it_starts_again(case: Case) -> None:
    first, second = case.source.listing(), case.source.listing()
    assert first.images.equals(second.images)
    assert first.rejected.equals(second.rejected)
    assert open_source(str(case.source.address)).listing().images.equals(first.images)


def test_its_address_is_all_that_another_process_needs(case: Case) -> None:
    rows = case.rows
    rebuilt = open_source(case.source.address)
    assert rebuilt.address == case.source.address
    assert {row["key"]: rebuilt.read(row["uri"]) for row in rows} == {
        row["key"]: IMAGES[_path_of(row["key"])] for row in rows
    }


def test_it_says_where_an_image_is(case: Case) -> None:
    places = [case.source.locate(row["uri"]) for row in case.rows]
    assert len(set(places)) == len(places)
    assert all(place.startswith("/") or "://" in place for place in places)


def test_selectors_and_roles(case: Case) -> None:
    whole = {row["key"]: row for row in case.rows}
    address = str(case.source.address)
    chosen = open_source(f"{address}#label=cat,label=ö l,group:label").listing().images.to_pylist()
    assert {row["key"] for row in chosen} == {key for key, row in whole.items() if row["label"] != "dog"}
    assert all(row["group"] == row["label"] and row["uri"] == whole[row["key"]]["uri"] for row in chosen)


def test_threads_read_what_one_thread_reads(case: Case) -> None:
    rows = case.rows * 10
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: case.source.read(row["uri"]), rows))
    assert found == [IMAGES[_path_of(row["key"])] for row in rows]


def test_what_has_vanished_is_an_error_of_its_images(case: Case) -> None:
    rows = case.rows
    fresh = open_source(case.source.address)
    case.vanish()
    for row in rows:
        with pytest.raises(ImageError) as caught:
            fresh.read(row["uri"])
        assert caught.value.message


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    copy = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
    for _ in range(rng.integers(0, 5)):
        copy[rng.integers(len(copy))] ^= 1 << int(rng.integers(8))
    return bytes(copy)


@pytest.mark.parametrize("maker", [tar, parquet, csv, path_list, arrow])
def test_random_damage_never_crashes_and_loses_no_image_silently(maker: Callable[[Path], str], tmp_path: Path) -> None:
    address, rng = Path(maker(tmp_path)), np.random.default_rng(3)
    data = address.read_bytes()
    for _ in range(150):
        address.write_bytes(_damaged(data, rng))
        source = open_source(str(address))
        try:
            listing = source.listing()
        except CurateError:
            continue
        keys = listing.images["key"].to_pylist()
        assert keys == sorted(set(keys))
        assert len(keys) + len(listing.rejected) > 0
        for uri in listing.images["uri"].to_pylist():
            with suppress(ImageError):
                source.read(uri)
