"""Tar shards: agreement with tarfile and webdataset, samples and sidecars, and what hostile or broken archives hold."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_files import FORMATS, Content, info, write

from embeddings import files
from embeddings.errors import CurateError, ImageError, SourceError
from embeddings.sources import Listing, open_source, tar
from embeddings.sources.archive import NotAnArchiveError, Reader
from embeddings.sources.rows import REPEATED


def listing(path: Path | str) -> Listing:
    return open_source(str(path)).listing()


def contents(path: Path | str) -> Content:
    source = open_source(str(path))
    rows = source.listing().images.select(["key", "uri"]).to_pylist()
    return {row["key"]: source.read(row["uri"]) for row in rows}


def rejected(path: Path | str) -> dict[str, str]:
    return {row["key"]: row["reason"] for row in listing(path).rejected.to_pylist()}


names = st.from_regex(r"[a-zä日 ]{1,9}(/[a-z]{1,90}){0,3}\.(jpg|PNG)", fullmatch=True)


@pytest.mark.parametrize("form", FORMATS)
@given(members=st.dictionaries(names, st.binary(max_size=1500), min_size=1, max_size=6))
def test_members_are_those_of_tarfile(tmp_path_factory: pytest.TempPathFactory, form: str, members: Content) -> None:
    fits = form != "ustar" or all(len(os.fsencode(name)) <= 100 for name in members)
    path = write(tmp_path_factory.getbasetemp() / "x.tar", members if fits else {"a.jpg": b"1"}, form)
    with tarfile.open(path) as archive:
        expected = {
            "x/" + unicodedata.normalize("NFC", m.name): archive.extractfile(m).read() for m in archive.getmembers()
        }
    assert contents(path) == expected


def test_a_name_in_two_fields(tmp_path: Path) -> None:
    name = "/".join(["d" * 40] * 4) + "/a.jpg"  # 100 bytes at most in the field of names, the rest in the prefix
    assert contents(write(tmp_path / "x.tar", {name: b"1"})) == {f"x/{name}": b"1"}


def test_numbers_in_base_256_and_signed_checksums(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "x.tar", {"ä.jpg": b"12345"}, "gnu").read_bytes())
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    header = data[:148] + b" " * 8 + data[156:512]
    for total in (sum(header), sum(np.frombuffer(header, np.int8).tolist())):
        data[148:156] = b"%06o\0 " % total
        (tmp_path / "x.tar").write_bytes(data)
        assert contents(tmp_path / "x.tar") == {"x/ä.jpg": b"12345"}


def test_sizes_and_names_of_pax_count_before_the_header(tmp_path: Path) -> None:
    entries = [info("short.jpg", b"1234", pax_headers={"path": "lång.jpg", "comment": "a=b\nc"}), info("z.jpg", b"5")]
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "all"}) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    assert contents(tmp_path / "x.tar") == {"x/lång.jpg": b"1234", "x/z.jpg": b"5"}


def test_agreement_with_webdataset(tmp_path: Path) -> None:
    from webdataset import TarWriter, tariterators  # imports torch

    rng = np.random.default_rng(0)
    samples = [
        {"__key__": f"{'ab'[i % 2]}/{i:04d}", "jpg": rng.bytes(200 + i), "mask.png": rng.bytes(9), "cls": i % 3}
        for i in range(30)
    ]
    with TarWriter(str(tmp_path / "web-000.tar")) as writer:
        for sample in samples:
            writer.write(sample)
    expected = {}
    with (tmp_path / "web-000.tar").open("rb") as file:
        for sample in tariterators.group_by_keys(tariterators.tar_file_expander([{"url": "web", "stream": file}])):
            for part in ("jpg", "mask.png"):
                expected[f"web-000/{sample['__key__']}.{part}"] = (sample[part], sample["cls"].decode())
    source = open_source(str(tmp_path / "web-000.tar"))
    rows = source.listing().images.to_pylist()
    assert {row["key"]: (source.read(row["uri"]), row["label"]) for row in rows} == expected
    in_order = sorted(rows, key=lambda row: int(row["uri"].partition("=")[2].partition("+")[0]))
    assert [row["key"] for row in in_order] == list(expected)  # offsets rise in the order webdataset reads


def test_sidecars_become_columns(tmp_path: Path) -> None:
    document = {"label": "dog", "group": "g1", "lot": 7, "share": 0.10, "ok": True, "none": None, "box": [1], "of": {}}
    members = {
        "a.json": json.dumps(document).encode(),
        "a.txt": "\ufeffa dög\n".encode(),
        "a.left.jpg": b"1",
        "a.right.JPG": b"2",
        "b.CLS": b" 3\n",
        "b.json": b'{"label": "overruled", "lot": 12345678901234567890123}',
        "b.jpg": b"3",
        "sub/a.jpg": b"4",
        "a.seg": b"",
        "README": b"",
    }
    found = listing(write(tmp_path / "x.tar", members))
    rows = {row["key"]: row for row in found.images.to_pylist()}
    assert [(row["label"], row["group"]) for row in rows.values()] == [
        ("dog", "g1"), ("dog", "g1"), ("3", None), (None, None),
    ]  # fmt: skip
    assert json.loads(rows["x/a.left.jpg"]["meta"]) == {
        "caption": "a dög", "extension": "left.jpg", "folder": "", "lot": "7", "none": None, "ok": "true",
        "share": "0.1",
    }  # fmt: skip
    assert json.loads(rows["x/b.jpg"]["meta"])["lot"] == "12345678901234567890123"
    assert json.loads(rows["x/sub/a.jpg"]["meta"])["folder"] == "sub"
    assert found.ignored == {"": 1, ".seg": 1}
    assert len(found.rejected) == 0
    assert list(contents(f"{tmp_path}/x.tar#extension=left.jpg")) == ["x/a.left.jpg"]
    assert list(contents(f"{tmp_path}/x.tar#lot=7,group:extension,label:lot")) == ["x/a.left.jpg", "x/a.right.JPG"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.json", b'{"label":', "does not read as JSON"),
        ("a.json", b"[1]", "not an object"),
        ("a.json", b"[" * 100_000, "does not read as JSON"),
        ("a.json", b'{"x": "\\ud800"}', "does not read as JSON"),
        ("a.txt", b"\xe9", "does not read as text"),
        ("a.cls", b"1" * (tar.MAX_SIDECAR_BYTES + 1), "larger than 1,048,576 bytes"),
    ],
)
def test_a_broken_sidecar_is_told_and_costs_no_image(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = write(tmp_path / "x.tar", {name: data, "a.jpg": b"1"})
    assert contents(path) == {"x/a.jpg": b"1"}
    assert reason in rejected(path)[f"x/{name}"]


def test_a_second_sidecar_of_a_sample(tmp_path: Path) -> None:
    members = [info("a.cls", b"1"), info("a.cls", b"2"), info("a.json", b"{}"), info("a.json", b"{}"), info("a.jpg")]
    found = listing(write(tmp_path / "x.tar", members))
    assert found.images["label"].to_pylist() == ["1"]
    assert found.rejected["reason"].to_pylist() == [REPEATED, REPEATED]


def test_columns_are_limited(tmp_path: Path) -> None:
    document = {f"c{i}": i for i in range(tar.MAX_COLUMNS + 1)}
    with pytest.raises(SourceError, match="more than 256 columns"):
        listing(write(tmp_path / "x.tar", {"a.json": json.dumps(document).encode(), "a.jpg": b"1"}))


def test_what_is_no_plain_file_is_refused_and_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    members = [
        info("ok.jpg", b"1"),
        info("link.jpg", kind=tarfile.SYMTYPE, linkname=str(secret)),
        info("hard.jpg", kind=tarfile.LNKTYPE, linkname="ok.jpg"),
        info("pipe.jpg", kind=tarfile.FIFOTYPE),
        info("device.jpg", kind=tarfile.CHRTYPE),
        info("sparse.jpg", b"", kind=tarfile.GNUTYPE_SPARSE),
        info("odd.jpg", b"x", kind=b"Z"),
        info("folder.jpg", kind=tarfile.DIRTYPE),
        info("/etc/a.jpg", b"2"),
        info("../b.jpg", b"3"),
        info("c/../../d.jpg", b"4"),
        info("./e//f.jpg", b"5"),
        info(".hidden.jpg", b"6"),
        info("._e/g.jpg", b"7"),
        info("..h.jpg", b"8"),
        info("a..b.jpg", b"9"),
        info("", b"10"),
        info("zz.jpg", b"11"),
    ]
    path = write(tmp_path / "x.tar", members, "gnu")
    assert contents(path) == {"x/ok.jpg": b"1", "x/e/f.jpg": b"5", "x/a..b.jpg": b"9", "x/zz.jpg": b"11"}
    reasons = rejected(path)
    assert {key: reason.split(",")[0] for key, reason in reasons.items() if "@" not in key} == {
        "x/link.jpg": "a link",
        "x/hard.jpg": "a hard link",
        "x/pipe.jpg": "a pipe",
        "x/device.jpg": "a device",
        "x/sparse.jpg": "a sparse file",
        "x/odd.jpg": "an entry of unknown type b'Z'",
        "x//etc/a.jpg": "its name leaves the archive",
        "x/../b.jpg": "its name leaves the archive",
        "x/c/../../d.jpg": "its name leaves the archive",
    }
    assert [reason for key, reason in reasons.items() if "@" in key] == ["it has no name"]


def test_a_sparse_file_does_not_hide_what_follows(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "x.tar", [info("s.jpg", b"abc", tarfile.GNUTYPE_SPARSE)], "gnu").read_bytes())
    more = bytearray(512)
    data[482], more[504] = 1, 1
    data[148:156] = b"%06o\0 " % sum(data[:148] + b" " * 8 + data[156:512])
    rest = write(tmp_path / "y.tar", {"z.jpg": b"1"}).read_bytes()
    (tmp_path / "x.tar").write_bytes(data[:512] + more + bytes(512) + data[512:1024] + rest)
    assert contents(tmp_path / "x.tar") == {"x/z.jpg": b"1"}
    assert list(rejected(tmp_path / "x.tar")) == ["x/s.jpg"]


def test_repeated_and_garbled_names(tmp_path: Path) -> None:
    members = [info("a.jpg", b"1"), info("a.jpg", b"2"), info("u\u0308.jpg", b"3"), info("ü.jpg", b"4")]
    members.append(info(os.fsdecode(b"caf\xe9.jpg"), b"5"))
    found = listing(write(tmp_path / "x.tar", members))
    assert found.images["key"].to_pylist() == ["x/a.jpg", "x/ü.jpg"]
    assert sorted(found.rejected["reason"].to_pylist()) == [REPEATED, REPEATED, "its name is not UTF-8"]


def test_a_shard_cut_short_keeps_what_is_whole(tmp_path: Path) -> None:
    members = {f"{i}.jpg": bytes([i]) * 700 for i in range(4)}
    whole = write(tmp_path / "x.tar", members).read_bytes()
    for size in (512 * 3 + 512 + 699, 512 * 3 + 512, 512 * 3 + 100):
        (tmp_path / "x.tar").write_bytes(whole[:size])
        assert contents(tmp_path / "x.tar") == {"x/0.jpg": members["0.jpg"]}
        assert len(rejected(tmp_path / "x.tar")) == 1
    assert "ends inside a header, at byte 1536" in rejected(tmp_path / "x.tar")["x/@1536"]
    (tmp_path / "x.tar").write_bytes(whole[: 512 * 3 + 512 + 700])  # only its padding is missing
    assert len(contents(tmp_path / "x.tar")) == 2
    assert not rejected(tmp_path / "x.tar")


def test_a_damaged_header_ends_the_listing_and_says_so(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "x.tar", {f"{i}.jpg": b"1" for i in range(5)}).read_bytes())
    data[2048 + 10] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    found = listing(tmp_path / "x.tar")
    assert found.images["key"].to_pylist() == ["x/0.jpg", "x/1.jpg"]
    assert found.rejected.to_pylist() == [
        {
            "key": "x/@2048",
            "uri": "x.tar#bytes=2048+512",
            "reason": "a damaged header, at byte 2048; what follows was not listed",
        }
    ]


def test_archives_one_after_the_other(tmp_path: Path) -> None:
    one, two = (write(tmp_path / "x.tar", {name: b"1"}).read_bytes() for name in ("a.jpg", "b.jpg"))
    (tmp_path / "x.tar").write_bytes(one + two)
    assert list(contents(tmp_path / "x.tar")) == ["x/a.jpg"]
    assert "more follows the end of the archive" in rejected(tmp_path / "x.tar")["x/@1024"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a tar archive: it is empty"),
        (b"<html>" * 200, "not a tar archive: it starts with b'<html>"),
        (gzip.compress(bytes(2048), mtime=0), r"not a tar archive: it is compressed \(gzip\)"),
        (b"BZh9" * 200, r"compressed \(bzip2\)"),
        (bytes(10_240), "No image in .*; found: nothing"),
    ],
    ids=["empty", "html", "gzip", "bzip2", "nothing in it"],
)
def test_files_that_are_no_archives(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        listing(tmp_path / "x.tar")


def test_archives_without_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"No image in .*; found: 2 \.md"):
        listing(write(tmp_path / "x.tar", {"a.md": b"", "b.md": b""}))
    with pytest.raises(SourceError, match="None of the 1 rows"):
        listing(write(tmp_path / "x.tar", [info("a.jpg", kind=tarfile.SYMTYPE)]))


def test_reading_takes_the_uri_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "x#1%.tar", {"a.jpg": b"12345", "b.jpg": b""})
    uri = listing(path).images["uri"][0].as_py()
    assert uri == "x%231%25.tar#bytes=512+5"
    fresh = open_source(str(path))
    assert fresh.read(uri) == b"12345"
    assert fresh.locate(uri) == f"{path}#bytes=512+5"
    for odd in ("", "x.tar", "x.tar#a.jpg", "x.tar#bytes=-1+5", "x.tar#bytes=1+٣", "x.tar#bytes=0+9999999999"):
        with pytest.raises(ImageError, match="no place in an archive"):
            fresh.read(odd)
    with pytest.raises(ImageError, match="its shard ends 10 bytes before it does"):
        fresh.read(f"x.tar#bytes={path.stat().st_size - 90}+100")
    path.write_bytes(path.read_bytes()[:515])  # replaced while a handle was open
    with pytest.raises(ImageError, match="its shard ends 2 bytes before it does"):
        fresh.read(uri)
    path.unlink()
    with pytest.raises(ImageError, match="cannot be read from its shard: No such file"):
        fresh.read(uri)


def test_threads_read_what_one_thread_reads(tmp_path: Path) -> None:
    members = {f"{i:03d}.jpg": bytes([i]) * (i + 1) for i in range(200)}
    shards = [write(tmp_path / f"{i}.tar", members) for i in range(40)]  # more than handles are kept
    uris = listing(shards[0]).images["uri"].to_pylist()
    places = [uri.partition("#")[2] for uri in uris]
    jobs = [(shard, place) for place in places[::5] for shard in shards]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: tar.read_member(str(job[0]), job[1]), jobs))
    assert found == [data for data in list(members.values())[::5] for _ in shards]


def test_only_headers_and_sidecars_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = write(tmp_path / "x.tar", {f"{i}.jpg": bytes(1_000_000) for i in range(9)}), []
    plain = files.read_range

    def counting(uri: str, offset: int, size: int) -> bytes:
        asked.append(size)
        return plain(uri, offset, size)

    monkeypatch.setattr(files, "read_range", counting)
    assert len(listing(path).images) == 9
    assert sum(asked) < 300_000


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    copy = bytearray(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data)
    for _ in range(rng.integers(0, 4)):
        copy[rng.integers(len(copy))] ^= 1 << int(rng.integers(8))
    return bytes(copy)


@pytest.mark.parametrize("form", FORMATS)
def test_fuzz(tmp_path: Path, form: str, pictures: Callable[..., Content]) -> None:
    members: Content = {}
    for name, data in pictures(n=6).items():
        members |= {name: data[:300], f"{name[:-4]}.cls": b"1", f"{name[:-4]}.json": b'{"lot": 1}'}
    members["ä" * 70 + ".png"] = b"1"
    data = write(
        tmp_path / "x.tar", members if form != "ustar" else dict(list(members.items())[:-1]), form
    ).read_bytes()
    rng, path = np.random.default_rng(7), tmp_path / "x.tar"
    for _ in range(100):
        path.write_bytes(mutated(data.rstrip(b"\0"), rng))
        source = open_source(str(path))
        try:
            found = source.listing()
        except CurateError:
            continue
        size = path.stat().st_size
        told = list(Reader(lambda at, n: files.read_range(str(path), at, n), size=size, span=4096).members())
        images = [m for m in told if m.problem is None and m.name.lower().endswith(".png") and "/." not in "/" + m.name]
        keys = set(found.images["key"].to_pylist())
        assert len(images) + sum(m.problem is not None for m in told) <= len(found.images) + len(found.rejected)
        assert len(keys) == len(found.images)
        for uri in found.images["uri"].to_pylist():
            source.read(uri)


@given(data=st.binary(max_size=2048))
def test_bytes_of_no_meaning(data: bytes) -> None:
    reader = Reader(lambda at, n: data[at : at + n], size=len(data), span=512)
    if data.strip(b"\0") or len(data) < 512:
        with pytest.raises(NotAnArchiveError):
            list(reader.members())
    else:
        assert list(reader.members()) == []
