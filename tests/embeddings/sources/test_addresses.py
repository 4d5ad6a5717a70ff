"""Addresses: parsing, printing, selectors, and the messages for what cannot be opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import SourceError
from embeddings.sources import Address, open_source, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("photos/", Address(path="photos/")),
        ("a.parquet#half=B", Address(path="a.parquet", where=(("half", ("B",)),))),
        ("a#x=1,y=2,x=3", Address(path="a", where=(("x", ("1", "3")), ("y", ("2",))))),
        ("a#variant=base,label:subgroup", Address(path="a", where=(("variant", ("base",)),), label="subgroup")),
        ("a#group:lot,label:kind", Address(path="a", label="kind", group="lot")),
        ("a#time=12:30,f=a=b", Address(path="a", where=(("time", ("12:30",)), ("f", ("a=b",))))),
        ("a#c=50%2C50,d%3De=%25", Address(path="a", where=(("c", ("50,50",)), ("d=e", ("%",))))),
        ("a#lot=", Address(path="a", where=(("lot", ("",)),))),
        ("a#color=#fff", Address(path="a", where=(("color", ("#fff",)),))),
        ("a#", Address(path="a")),
    ],
)
def test_parsing(text: str, address: Address) -> None:
    assert parse_address(text) == address


names = st.text(min_size=1, max_size=8)


@given(
    where=st.dictionaries(names, st.lists(st.text(max_size=8), min_size=1, max_size=3, unique=True), max_size=3),
    label=st.none() | names,
    group=st.none() | names,
)
def test_an_address_prints_as_what_parses_to_it(where: dict[str, list[str]], label: str, group: str) -> None:
    pairs = tuple((column, tuple(values)) for column, values in where.items())
    address = Address(path="no/such/place", where=pairs, label=label, group=group)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "#", "#half=B"])
def test_an_address_without_a_path(text: str) -> None:
    with pytest.raises(SourceError, match="names no source"):
        parse_address(text)


@pytest.mark.parametrize("selector", ["half", "=B", "role:x", "label:", ":x", "half=B,nonsense"])
def test_selectors_that_do_not_read(selector: str) -> None:
    with pytest.raises(SourceError, match="Cannot read the selector") as caught:
        parse_address(f"a#{selector}")
    assert "COLUMN=VALUE" in (caught.value.hint or "")


def test_one_role_takes_one_column() -> None:
    assert parse_address("a#label:x,label:x").label == "x"
    with pytest.raises(SourceError, match="says label twice: x and y"):
        parse_address("a#label:x,label:y")


def test_a_path_with_a_hash_that_exists_wins(tmp_path: Path) -> None:
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot#7").mkdir()
    assert parse_address(f"{tmp_path}/lot#7") == Address(path=f"{tmp_path}/lot#7")
    assert parse_address(f"{tmp_path}/lot#7#a=b").path == f"{tmp_path}/lot#7"
    assert parse_address(f"{tmp_path}/lot#a=8") == Address(path=f"{tmp_path}/lot", where=(("a", ("8",)),))
    assert parse_address(f"{tmp_path}/lot#a=#7").where == (("a", ("#7",)),)


def test_sources_know_their_absolute_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_folder: Callable[..., Path], pictures: Callable[..., dict]
) -> None:
    image_folder(pictures())
    monkeypatch.chdir(tmp_path)
    assert open_source("photos#label=cat").address == Address(path=f"{tmp_path}/photos", where=(("label", ("cat",)),))
    assert open_source(Address(path="photos")).address.path == f"{tmp_path}/photos"


def test_a_wrong_path_names_its_neighbors(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "phones.csv").write_text("")
    with pytest.raises(SourceError, match=f"No folder or file at '{tmp_path}/phtos': {tmp_path} has no 'phtos'") as one:
        open_source(f"{tmp_path}/phtos/")
    assert f"Did you mean {tmp_path}/photos" in (one.value.hint or "")
    with pytest.raises(SourceError, match=f"{tmp_path} has no 'zzz'") as two:
        open_source(f"{tmp_path}/zzz/deep/er")
    assert two.value.hint == "Check the path."
    assert two.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("cat.JPG", "is a single image", "Give the folder that holds it"),
        ("all.zip", "unknown kind .zip: wanted a folder of images, or a file", "Unpack it first"),
        ("notes.docx", "unknown kind .docx", "Check the path"),
        ("Makefile", r"unknown kind \(no suffix\)", "Check the path"),
    ],
)
def test_files_of_no_known_kind(tmp_path: Path, name: str, message: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=message) as caught:
        open_source(str(tmp_path / name))
    assert hint in (caught.value.hint or "")


def test_locations(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").mkdir()
    for name in ("t.csv", "t.PARQUET", "x.tar", "l.txt"):
        (tmp_path / name).write_text("path\na.png\n")
    assert open_source(str(tmp_path)).locate("cat/a.png") == f"{tmp_path}/cat/a.png"
    assert open_source(f"{tmp_path}/#label=cat").locate("cat/a.png") == f"{tmp_path}/cat/a.png"
    assert open_source(f"{tmp_path}/odd.csv").locate("#1.png") == f"{tmp_path}/odd.csv/#1.png"
    assert open_source(f"{tmp_path}/t.csv#label:kind").locate("a.png") == f"{tmp_path}/a.png"
    assert open_source(Address(path=f"{tmp_path}/t.PARQUET")).locate("#cat/a.png") == f"{tmp_path}/t.PARQUET#cat/a.png"
    assert open_source(f"{tmp_path}/x.tar").locate("x.tar#bytes=512+9") == f"{tmp_path}/x.tar#bytes=512+9"
    assert open_source(f"{tmp_path}/l.txt").locate("sub/a%231.png") == f"{tmp_path}/sub/a#1.png"
    assert open_source(f"{tmp_path}/*.tar").locate("x.tar#bytes=512+9") == f"{tmp_path}/x.tar#bytes=512+9"
