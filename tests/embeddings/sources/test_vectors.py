"""Vectors of one's own: every format gives the same rows and values, and refuses what it cannot use, with a reason."""

from __future__ import annotations

import json
import pickle
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embeddings.errors import SourceError
from embeddings.sources import kind_of, open_source, parse_address
from embeddings.sources.vectors import MISSING_VECTOR, NO_KEY, NOT_FINITE, VectorSource, is_vectors

FORMATS = ("npy+csv", "npy+parquet", "npz", "npz compressed", "parquet", "fixed parquet", "arrow", "feather")


def open_vectors(address: str | Path) -> VectorSource:
    return VectorSource(parse_address(str(address)))


def everything(source: VectorSource) -> dict[str, np.ndarray]:
    keys = source.listing().images["key"].to_pylist()
    return dict(zip(keys, source.read_rows(np.arange(len(keys))), strict=True))


def save(folder: Path, how: str, vectors: np.ndarray, columns: dict[str, list[Any]]) -> str:
    """The same vectors and columns, as one of FORMATS."""
    folder.mkdir(exist_ok=True)
    table = pa.table(columns)
    if how.startswith("npy"):
        np.save(folder / "x.npy", vectors)
        if how == "npy+csv":
            lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
            (folder / "x.csv").write_text("\n".join([*lines, ""]))
        else:
            pq.write_table(table, folder / "x.parquet")
        return str(folder / "x.npy")
    if how.startswith("npz"):
        write = np.savez_compressed if "compressed" in how else np.savez
        write(folder / "x.npz", vectors=vectors, **{name: np.array(values) for name, values in columns.items()})
        return str(folder / "x.npz")
    kind = pa.list_(pa.from_numpy_dtype(vectors.dtype), vectors.shape[1] if how.startswith("fixed") else -1)
    table = table.append_column("embedding", pa.array(list(vectors), kind))
    path = folder / f"x.{how.rpartition(' ')[2]}"
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=4)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    return str(path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_format_tells_the_same(tmp_path: Path, rng: np.random.Generator, how: str, kind: type) -> None:
    vectors = rng.normal(size=(11, 5)).astype(kind)
    ids = [f"id{(i * 7) % 11:02d}" for i in range(11)]
    columns = {"id": ids, "label": ["cat", "dog"] * 5 + ["cat"], "lot": list(range(11))}
    path = save(tmp_path, how, vectors, columns)
    assert kind_of(path) == "vectors"
    source = open_vectors(f"{path}#label=dog,group:lot")
    listing = source.listing()
    rows = {i: vectors[n] for n, i in enumerate(ids) if n % 2}
    assert listing.images["key"].to_pylist() == sorted(rows)
    assert listing.images["group"].to_pylist() == [str(ids.index(i)) for i in sorted(rows)]
    assert set(listing.images["label"].to_pylist()) == {"dog"}
    assert json.loads(listing.images["meta"][0].as_py()) == {"lot": str(ids.index(sorted(rows)[0]))}
    assert (source.dim, source.dtype) == (5, np.float16 if kind is np.float16 else np.float32)
    found = source.read_rows(np.arange(len(rows)))
    assert found.dtype == source.dtype
    assert np.array_equal(found, np.array([rows[i] for i in sorted(rows)]).astype(source.dtype))
    assert np.array_equal(source.read_rows(np.array([3, 0, 3])), found[[3, 0, 3]])
    assert source.read_rows(np.zeros(0, np.int64)).shape == (0, 5)


def test_without_keys_rows_go_by_number(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(12, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", vectors)
    np.savez(tmp_path / "y.npz", something=vectors, other=np.arange(5))
    pq.write_table(pa.table({"vector": list(vectors)}), tmp_path / "z.parquet")
    for name in ("x.npy", "y.npz", "z.parquet"):
        found = everything(open_vectors(tmp_path / name))
        assert list(found) == sorted(map(str, range(12)))
        assert all(np.array_equal(found[str(i)], vectors[i]) for i in range(12))


@pytest.mark.parametrize("kind", ["i1", "u1", "<i4", ">i8", ">f4", "<f8", ">f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_and_orders_of_arrays(tmp_path: Path, kind: str, order: str) -> None:
    vectors = np.asarray(np.arange(24).reshape(8, 3) % 100, dtype=kind, order=order)
    np.save(tmp_path / "x.npy", vectors)
    source = open_vectors(tmp_path / "x.npy")
    assert source.dtype == (np.float16 if kind == ">f2" else np.float32)
    assert all(np.array_equal(vector, vectors[int(key)]) for key, vector in everything(source).items())


def test_what_cannot_be_used_is_refused_with_its_reason(tmp_path: Path) -> None:
    vectors = np.ones((6, 2))
    vectors[1, 0], vectors[2, 1], vectors[3, 0] = np.nan, np.inf, 1e300  # the last one is infinite as float32
    np.savez(tmp_path / "x.npz", vectors=vectors, keys=np.array(["a", "b", "c", "d", "", "a"]))
    listing = open_vectors(tmp_path / "x.npz").listing()
    assert listing.images["key"].to_pylist() == ["a"]
    assert Counter(listing.rejected["reason"].to_pylist()) == {
        NOT_FINITE: 3, NO_KEY: 1, "another image has this key": 1,
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16())])
def test_ragged_lists(tmp_path: Path, suffix: str, kind: pa.DataType) -> None:
    values: list[Any] = [[9.0], [1.0, 2.0], None, [3.0, 4.0], [], [1.0, None], [5.0, 6.0, 7.0], [7.0, 8.0]]
    if kind.value_type == pa.float16():
        values = [v and [x if x is None else np.float16(x) for x in v] for v in values]
    table = pa.table({"key": list("abcdefgh"), "vector": pa.array(values, kind)})
    path = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    source = open_vectors(path)
    assert {key: vector.tolist() for key, vector in everything(source).items()} == {
        "b": [1, 2],
        "d": [3, 4],
        "h": [7, 8],
    }
    assert {row["key"]: row["reason"] for row in source.listing().rejected.to_pylist()} == {
        "a": "its vector has 1 numbers, most have 2",
        "c": MISSING_VECTOR,
        "e": "its vector has 0 numbers, most have 2",
        "f": NOT_FINITE,
        "g": "its vector has 3 numbers, most have 2",
    }


def test_missing_rows_of_a_fixed_size(tmp_path: Path) -> None:
    table = pa.table({"vector": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32(), 2))})
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_vectors(tmp_path / "x.parquet")
    assert {key: vector.tolist() for key, vector in everything(source).items()} == {"0": [1, 2], "2": [3, 4]}
    assert source.listing().rejected.to_pylist() == [{"key": "1", "uri": "#1", "reason": MISSING_VECTOR}]


@given(
    vectors=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 40), st.integers(1, 6)), elements=st.floats(-9, 9, width=32)
    ),
    seed=st.integers(0, 99),
)
def test_the_order_of_rows_tells_nothing(
    tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("v")
    keys = np.array([f"{i:02d}" for i in range(len(vectors))])
    shuffled = np.random.default_rng(seed).permutation(len(vectors))
    np.savez(folder / "a.npz", vectors=vectors, keys=keys)
    np.savez(folder / "b.npz", vectors=vectors[shuffled], keys=keys[shuffled])
    a, b = open_vectors(folder / "a.npz"), open_vectors(folder / "b.npz")
    assert a.listing().images.drop_columns(["size", "stamp"]).equals(b.listing().images.drop_columns(["size", "stamp"]))
    rows = np.arange(len(vectors))
    assert np.array_equal(a.read_rows(rows), b.read_rows(rows))
    assert np.array_equal(a.read_rows(rows), vectors)


def test_blocks_are_as_one(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small pieces give what one large piece gives."""
    vectors = rng.normal(size=(50, 4))
    vectors[[3, 20, 49], 1] = np.nan
    pq.write_table(pa.table({"vector": list(vectors)}), tmp_path / "x.parquet", row_group_size=7)
    expected = open_vectors(tmp_path / "x.parquet")
    monkeypatch.setattr("embeddings.sources.vectors._BLOCK_VALUES", 9)
    monkeypatch.setattr("embeddings.sources.vector_files._BATCH", 3)
    found = open_vectors(tmp_path / "x.parquet")
    assert found.listing().rejected.to_pylist() == expected.listing().rejected.to_pylist()
    assert len(found.listing().rejected) == 3
    assert np.array_equal(found.read_rows(np.arange(47)), expected.read_rows(np.arange(47)))


def test_the_stamp_follows_both_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    alone = open_vectors(tmp_path / "x.npy").listing().images["stamp"][0].as_py()
    (tmp_path / "x.csv").write_text("id\nb\na\n")
    beside = open_vectors(tmp_path / "x.npy").listing().images["stamp"][0].as_py()
    assert beside.startswith(f"{alone}+")


def test_the_address_names_the_encoder(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    spec = open_vectors(f"{tmp_path}/x.npy#encoder:my-audio-net").spec
    assert (spec.name, spec.dim, spec.size, spec.preprocessing, spec.weights) == (
        "vectors:my-audio-net", 2, 0, "none", "",
    )  # fmt: skip
    other = open_vectors(tmp_path / "x.npy").spec
    assert other.name == "vectors"
    assert other.fingerprint != spec.fingerprint
    text = f"{tmp_path}/x.npy#encoder:my%2Cnet"
    assert parse_address(text).encoder == "my,net"
    assert str(parse_address(text)) == text


def test_vectors_are_no_images(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    with pytest.raises(SourceError, match="holds vectors, not images"):
        open_source(str(tmp_path / "x.npy"))
    (tmp_path / "photos").mkdir()
    with pytest.raises(SourceError, match=r"encoder:net is said of .* which holds no vectors"):
        open_source(f"{tmp_path}/photos#encoder:net")


def test_which_tables_hold_vectors(tmp_path: Path) -> None:
    floats = pa.array([[1.0]], pa.list_(pa.float32()))
    tables = {
        "vectors": ({"id": ["a"], "anything": floats}, True),
        "fixed": ({"v": pa.array([[1.0]], pa.list_(pa.float64(), 1))}, True),
        "images": ({"image": [b"x"], "vector": floats}, False),
        "structs": ({"picture": [{"bytes": b"x"}], "vector": floats}, False),
        "paths": ({"path": ["a.png"], "vector": floats}, False),
        "integers": ({"ids": [[1, 2]]}, False),
        "scalars": ({"x": [1.0]}, False),
    }
    for name, (columns, expected) in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        with pa.ipc.new_file(tmp_path / f"{name}.arrow", pa.table(columns).schema) as writer:
            writer.write_table(pa.table(columns))
        for suffix in (".parquet", ".arrow"):
            assert is_vectors(str(tmp_path / name) + suffix) is expected, name
            assert kind_of(str(tmp_path / name) + suffix) == ("vectors" if expected else "table")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    assert not is_vectors(str(tmp_path / "damaged.parquet"))
    assert not is_vectors("a.csv")


def test_a_declared_encoder_makes_vectors_of_a_table_with_paths(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.wav"], "embedding": [[1.0, 2.0]]}), tmp_path / "x.parquet")
    assert everything(open_vectors(f"{tmp_path}/x.parquet#encoder:net"))["0"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "array",
    [
        np.ones(3), np.ones((2, 2, 2)), np.ones((3, 0)), np.ones((0, 3)), np.array(["a"]), np.ones((2, 2), complex),
        np.zeros(2, [("a", "f4")]), np.ones((2, 2), bool),
    ],
)  # fmt: skip
def test_arrays_of_another_kind(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", vectors=array)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(SourceError, match=r"holds an array of shape|does not read as NumPy"):
            open_vectors(tmp_path / name).listing()


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched-by-a-pickle"),))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.array([_Bomb(), _Bomb()], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(_Bomb()))
    np.savez(tmp_path / "c.npz", vectors=np.ones((2, 2)), keys=objects)
    np.savez(tmp_path / "d.npz", vectors=objects)
    for name in ("a.npy", "b.npy", "c.npz", "d.npz"):
        with pytest.raises(SourceError, match="does not read as NumPy"):
            open_vectors(tmp_path / name).listing()
    assert not (tmp_path / "touched-by-a-pickle").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones((2, 2)), "b": np.ones((2, 2))}, "has 2 2-d arrays of floats: a .*, b "),
        ({"a": np.ones(2)}, "has 0 2-d arrays of floats"),
        ({"vectors": np.ones((3, 2)), "labels": np.array(["a"])}, r"has labels of shape \[1\], wanted \[3\]"),
    ],
)
def test_archives_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(SourceError, match=message):
        open_vectors(tmp_path / "x.npz").listing()


def test_columns_of_an_archive(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        vectors=np.ones((2, 2)),
        ids=np.array([7, 8], ">i4"),
        groups=np.array([b"caf\xc3\xa9", b"x"]),
        score=np.array([0.5, 1], np.float32),
        day=np.array(["2026-01-02", "2026-01-03"], "datetime64[D]"),
        note=np.array(["a", "b,c"]),
        whole=np.array(3),
    )
    rows = open_vectors(tmp_path / "x.npz").listing().images.to_pylist()
    assert [(row["key"], row["group"], json.loads(row["meta"])) for row in rows] == [
        ("7", "café", {"score": "0.5", "day": "2026-01-02", "note": "a"}),
        ("8", "x", {"score": "1", "day": "2026-01-03", "note": "b,c"}),
    ]


def test_tables_beside_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    (tmp_path / "x.csv").write_text("id\na\nb\n")
    with pytest.raises(SourceError, match=r"has 2 rows, and .* 3 vectors"):
        open_vectors(tmp_path / "x.npy").listing()
    (tmp_path / "x.tsv").write_text("id\na\nb\nc\n")
    with pytest.raises(SourceError, match="Several tables lie beside"):
        open_vectors(tmp_path / "x.npy").listing()


def test_which_column_holds_the_vectors(tmp_path: Path) -> None:
    columns = {"box": [[0.0, 1.0]], "embedding": [[2.0]]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert everything(open_vectors(tmp_path / "x.parquet"))["0"].tolist() == [2]
    pq.write_table(pa.table({"a": [[0.0]], "b": [[2.0]]}), tmp_path / "y.parquet")
    with pytest.raises(SourceError, match="has 2 columns of lists of floats: a, b"):
        open_vectors(tmp_path / "y.parquet").listing()
    pq.write_table(pa.table({"a": pa.array([None, []], pa.list_(pa.float32()))}), tmp_path / "z.parquet")
    with pytest.raises(SourceError, match="holds no vector"):
        open_vectors(tmp_path / "z.parquet").listing()


def test_remote_vectors(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(5, 3)).astype(np.float32)
    columns = {"id": list("abcde")}
    for how in ("npy+csv", "npz", "parquet", "arrow"):
        path = Path(save(tmp_path / how, how, vectors, columns))
        for file in path.parent.iterdir():
            with fsspec.open(f"memory://vectors/{how}/{file.name}", "wb") as remote:
                remote.write(file.read_bytes())
        found = everything(open_vectors(f"memory://vectors/{how}/{path.name}"))
        assert list(found) == columns["id"]
        assert np.array_equal(np.array(list(found.values())), vectors)


@pytest.mark.parametrize("how", ["npy+csv", "npz", "npz compressed", "parquet", "arrow"])
def test_flipped_bytes_never_crash(tmp_path: Path, rng: np.random.Generator, how: str) -> None:
    path = Path(save(tmp_path, how, rng.normal(size=(9, 4)), {"id": list("abcdefghi")}))
    data, chance, found = path.read_bytes(), random.Random(how), Counter[str]()
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 3))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            source = open_vectors(path)
            listing = source.listing()
        except SourceError:
            found["refused"] += 1
            continue
        rows = source.read_rows(np.arange(len(listing.images)))
        assert np.isfinite(rows).all()
        assert len(rows) + len(listing.rejected) <= 9
        found["listed"] += 1
    assert min(found.values()) > 5


def test_an_archive_cut_short(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", vectors=np.random.default_rng(0).normal(size=(50, 8)))
    data = (tmp_path / "x.npz").read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 5):
        (tmp_path / "x.npz").write_bytes(data[:length])
        with pytest.raises(SourceError, match="does not read as NumPy"):
            open_vectors(tmp_path / "x.npz").listing()


def test_other_members_of_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(SourceError, match="does not read as NumPy"):
        open_vectors(tmp_path / "x.npz").listing()
