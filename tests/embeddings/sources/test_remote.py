"""Sources behind a URL: retries against a server that fails, its statuses in words, and every kind of source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from shard_files import write
from web_server import Behavior, serve

from embeddings import files, remote, retries
from embeddings.errors import ImageError, MissingExtraError, SourceError, StorageError
from embeddings.sources import open_source

Pictures = dict[str, bytes]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the retries would have waited, in seconds."""
    found: list[float] = []
    monkeypatch.setattr(retries, "sleep", found.append)
    return found


@pytest.fixture
def behavior() -> Behavior:
    return Behavior()


@pytest.fixture
def web(tmp_path: Path, behavior: Behavior) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    with serve(tmp_path / "web", behavior) as address:
        yield address


def contents(address: str) -> Pictures:
    source = open_source(address)
    rows = source.listing().images.select(["key", "uri"]).to_pylist()
    return {row["key"]: source.read(row["uri"]) for row in rows}


@pytest.mark.parametrize("failures", [[503, 503], [0, 500], [408, 429], [425, 502], []])
def test_what_passes_is_tried_again(
    web: str, behavior: Behavior, tmp_path: Path, waits: list[float], failures: list[int]
) -> None:
    (tmp_path / "web" / "a.png").write_bytes(b"123")
    behavior.failures = list(failures)
    assert files.read_bytes(f"{web}/a.png") == b"123"
    assert len(behavior.asked) >= 1 + len(failures)  # the client itself asks again when a kept connection was dropped
    assert len(waits) <= len(failures)
    behavior.failures = [s for s in failures if s]
    assert files.read_range(f"{web}/a.png", 1, 1) == b"2"


def test_waits_grow_within_their_bounds(web: str, behavior: Behavior, tmp_path: Path, waits: list[float]) -> None:
    (tmp_path / "web" / "a.png").write_bytes(b"1")
    behavior.always["/a.png"] = 503
    with pytest.raises(OSError, match=r"HTTP 503 Service Unavailable \(5 attempts\)"):
        files.read_bytes(f"{web}/a.png")
    assert len(behavior.asked) == retries.ATTEMPTS
    for attempt, wait in enumerate(waits):
        assert retries.FIRST_S * 2**attempt / 2 <= wait <= retries.FIRST_S * 2**attempt
    del behavior.always["/a.png"]
    waits.clear()
    behavior.failures, behavior.headers = [429, 429], {"Retry-After": "7"}
    assert files.read_bytes(f"{web}/a.png") == b"1"
    assert waits == [7, 7]
    behavior.failures, behavior.headers = [503], {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert files.read_bytes(f"{web}/a.png") == b"1"
    behavior.failures, behavior.headers = [503], {"Retry-After": "86400"}
    assert files.read_bytes(f"{web}/a.png") == b"1"
    assert waits[-1] == retries.LIMIT_S


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, FileNotFoundError, "No such file"),
        (410, FileNotFoundError, "No such file"),
        (403, PermissionError, "HTTP 403 Forbidden"),
        (401, PermissionError, "HTTP 401 Unauthorized"),
        (451, OSError, "HTTP 451 Unavailable For Legal Reasons"),
        (499, OSError, "HTTP 499 error"),
    ],
)
def test_what_will_not_pass_is_asked_once(
    web: str, behavior: Behavior, waits: list[float], status: int, kind: type[OSError], words: str
) -> None:
    behavior.always["/a.png"] = status
    with pytest.raises(kind, match=words):
        files.read_bytes(f"{web}/a.png")
    assert (len(behavior.asked), waits) == (1, [])


def test_a_server_that_is_not_there(web: str, waits: list[float]) -> None:
    closed = web.rpartition(":")[0] + ":1"
    with pytest.raises(StorageError, match=r"Cannot read .*Connect call failed.*5 attempts"):
        open_source(f"{closed}/a.csv")
    assert len(waits) == retries.ATTEMPTS - 1


@pytest.mark.parametrize(("status", "words"), [(503, "HTTP 503 Service Unavailable"), (403, "HTTP 403 Forbidden")])
def test_a_refusal_is_never_taken_for_absence(
    web: str, behavior: Behavior, waits: list[float], status: int, words: str
) -> None:
    behavior.always["/a.tar"] = behavior.always["/photos"] = status
    for address in (f"{web}/a.tar", f"{web}/photos"):
        with pytest.raises(StorageError, match=words) as caught:
            open_source(address)
        assert caught.value.hint
    with pytest.raises(SourceError, match="No folder or file at"):
        open_source(f"{web}/b.tar")


def test_a_programming_error_in_a_file_system_is_told(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise KeyError("token")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", broken)
    with pytest.raises(OSError, match="token") as caught:
        files.read_bytes("memory://x/y")
    assert isinstance(caught.value.__cause__, KeyError)
    assert not waits


def test_a_tar_is_read_by_ranges(web: str, behavior: Behavior, tmp_path: Path, waits: list[float]) -> None:
    members = {f"{i}.jpg": bytes([i]) * 3_000_000 for i in range(3)} | {"0.cls": b"cat"}
    write(tmp_path / "web" / "x#1.tar", members)
    source = open_source(f"{web}/x#1.tar#label=cat,extension=jpg")
    behavior.failures = [503, 503]
    rows = source.listing().images.to_pylist()
    assert [(row["key"], row["label"]) for row in rows] == [("x#1/0.jpg", "cat")]
    behavior.asked.clear()
    behavior.failures = [500]
    assert open_source(source.address).read(rows[0]["uri"]) == members["0.jpg"]
    assert behavior.asked[-1] == ("GET", "/x#1.tar", "bytes=512-3000511")
    assert source.locate(rows[0]["uri"]) == f"{web}/x#1.tar#bytes=512+3000000"
    behavior.always["/x#1.tar"] = 503
    with pytest.raises(ImageError, match="cannot be read from its shard: HTTP 503"):
        source.read(rows[0]["uri"])
    (tmp_path / "web" / "x#1.tar").unlink()
    behavior.always.clear()
    with pytest.raises(ImageError, match="No such file"):
        source.read(rows[0]["uri"])


def test_a_server_that_sends_whole_files_only(web: str, behavior: Behavior, tmp_path: Path) -> None:
    write(tmp_path / "web" / "x.tar", {"a.jpg": bytes(2_000_000)})
    behavior.ranges = False
    with pytest.raises(SourceError, match="its server sends whole files only"):
        open_source(f"{web}/x.tar").listing()


def test_kinds_of_sources_over_http(
    web: str, behavior: Behavior, tmp_path: Path, pictures: Callable[..., Pictures], image_folder: Callable[..., Path],
    image_table: Callable[..., Path], waits: list[float],
) -> None:  # fmt: skip
    images = pictures(n=6)
    image_folder(images, "web/photos")
    image_table(images, "web/t.parquet")
    (tmp_path / "web" / "t.csv").write_text("\n".join(["path", *(f"photos/{path}" for path in images)]))
    (tmp_path / "web" / "l.txt").write_text(
        "\n".join([*(f"{web}/photos/{path}" for path in images), "photos/gone.png"])
    )
    for address in (f"{web}/photos", f"{web}/photos/"):
        assert contents(address) == images
    for name in ("t.parquet", "t.csv"):
        behavior.failures = [503]
        assert list(contents(f"{web}/{name}").values()) == list(images.values())[::2] + list(images.values())[1::2]
    assert contents(f"{web}/l.txt") == {f"{web}/photos/{path}": data for path, data in images.items()}
    behavior.always["/photos/cat/000.png"] = 403
    reasons = {r["key"]: r["reason"] for r in open_source(f"{web}/l.txt").listing().rejected.to_pylist()}
    assert reasons == {
        "photos/gone.png": "no such file",
        f"{web}/photos/cat/000.png": "cannot be read: HTTP 403 Forbidden",
    }


def test_a_web_address_with_a_query(web: str, tmp_path: Path) -> None:
    write(tmp_path / "web" / "x.tar", {"a.jpg": b"1"})
    assert contents(f"{web}/x.tar?token=a/b.c") == {"x/a.jpg": b"1"}


def test_kinds_of_sources_in_memory(
    tmp_path: Path, pictures: Callable[..., Pictures], image_table: Callable[..., Path]
) -> None:
    images, filesystem = pictures(n=6), fsspec.filesystem("memory")
    filesystem.pipe({f"/set/photos/{path}": data for path, data in images.items()})
    filesystem.pipe("/set/t.parquet", image_table(images).read_bytes())
    filesystem.pipe("/set/x.tar", write(tmp_path / "x.tar", images).read_bytes())
    try:
        assert contents("memory://set/photos") == contents("memory://set/t.parquet") == images
        assert contents("memory://set/x.tar") == {f"x/{path}": data for path, data in images.items()}
        with files.open_binary("memory://set/x.tar") as file:
            assert file.seek(-5, 2) == file.tell()
            assert file.read() == bytes(5)
            assert file.read() == b""
            file.seek(257)
            assert file.seek(0, 1) == 257
            assert file.read(5) == b"ustar"
        assert files.read_range("memory://set/x.tar", 257, 5) == b"ustar"
    finally:
        filesystem.rm("/set", recursive=True)


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, protocol: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"{protocol}:// needs a package") as caught:
        open_source(f"{protocol}://bucket/photos")
    assert caught.value.hint == f"pip install '{package}>=2025.3'"


def test_stamps_are_what_a_file_system_tells() -> None:
    assert remote.stamp_of({"ETag": '"a"', "mtime": 3}) == '"a"'
    assert remote.stamp_of({"mtime": 3.5}) == "3.5"
    assert remote.stamp_of({"name": "x"}) == ""
