"""files: listing, addresses, atomic writing, digests, and the remote side through fsspec's memory file system."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings import files
from embeddings.errors import CorruptError, SourceError, StorageError


@pytest.fixture
def memory() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/bucket/b/2.png": b"22", "/bucket/a.png": b"1", "/bucket/.hidden/x.png": b"3"})
    yield "memory://bucket"
    filesystem.rm("/bucket", recursive=True)


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def paths(root: Path) -> list[str]:
    return [info.path for info in files.list_files(str(root))]


def test_listing_is_recursive_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    write(tmp_path, "b.png", "a/z.png", "a/b/c.png", ".hidden.png", ".git/x.png", "a/.cache/y.png", "B.png")
    assert paths(tmp_path) == ["B.png", "a/b/c.png", "a/z.png", "b.png"]
    assert [info.size for info in files.list_files(str(tmp_path))] == [5, 9, 7, 5]


def test_the_root_may_lie_below_a_hidden_folder(tmp_path: Path) -> None:
    write(tmp_path / ".cache" / "set", "a.png")
    assert paths(tmp_path / ".cache" / "set") == ["a.png"]


def test_a_stamp_changes_with_the_file_and_only_then(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    before = files.list_files(str(tmp_path))
    os.utime(tmp_path / "a.png", ns=(1, 1))
    after = files.list_files(str(tmp_path))
    assert before[0].stamp != after[0].stamp
    assert before[1] == after[1] == files.file_info(str(tmp_path / "b.png"))


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(root, "real/a.png", "real/deep/b.png")
    write(outside, "c.png")
    (root / "again").symlink_to(root / "real")  # has its own name below the root already
    (root / "linked").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (root / "real" / "deep" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "file.png").symlink_to(root / "real" / "a.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    assert paths(root) == ["file.png", "gone.png", "linked/c.png", "real/a.png", "real/deep/b.png", "self"]
    sizes = {info.path: info.size for info in files.list_files(str(root))}
    assert sizes["gone.png"] == sizes["self"] == 0
    assert sizes["file.png"] == sizes["real/a.png"] == 10


def test_pipes_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    write(tmp_path, "a.png")
    assert paths(tmp_path) == ["a.png"]
    assert files.stat_files(str(tmp_path), ["pipe.png", "a.png", "no.png", "a\0.png"])[0::2] == [None, None]


def test_listing_a_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    with pytest.raises(StorageError, match=r"Cannot read .*a\.png"):
        files.list_files(str(tmp_path / "a.png"))


def test_names_of_one_folder(tmp_path: Path) -> None:
    write(tmp_path, "b/x.png", "a.png", ".hidden")
    assert files.list_names(str(tmp_path)) == ["a.png", "b"]
    assert files.list_names(str(tmp_path / "none")) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No file at"):
        files.file_info(str(tmp_path / "a.png"))


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blob-17").write_bytes(b"")
    (tmp_path / "table.parquet").symlink_to(tmp_path / "blob-17")
    monkeypatch.chdir(tmp_path)
    assert files.absolute("table.parquet") == str(tmp_path / "table.parquet")  # a link keeps the name it was given by
    assert files.absolute("x/../table.parquet") == str(tmp_path / "table.parquet")
    assert files.absolute("file://" + str(tmp_path)) == str(tmp_path)
    assert files.absolute(".") == str(tmp_path)
    assert files.absolute("..") == str(tmp_path.parent)
    assert files.absolute("~no-such-user/x") == str(tmp_path / "~no-such-user/x")
    assert files.absolute("s3://bucket/x") == "s3://bucket/x"


def test_a_double_colon_in_a_name_is_only_a_name(tmp_path: Path) -> None:
    write(tmp_path, "a::b/x.png")
    assert files.is_folder(str(tmp_path / "a::b"))
    assert files.read_bytes(str(tmp_path / "a::b" / "x.png")) == b"a::b/x.png"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a/.."])
def test_join_stays_below_the_root(path: str) -> None:
    with pytest.raises(SourceError, match="leaves its source folder"):
        files.join("/data", path)


def test_join() -> None:
    assert files.join("/data/", "a/..b.png") == "/data/a/..b.png"


def test_remote(memory: str) -> None:
    assert files.is_remote(memory)
    assert [(info.path, info.size) for info in files.list_files(memory)] == [("a.png", 1), ("b/2.png", 2)]
    assert files.is_folder(memory)
    assert files.exists(f"{memory}/a.png")
    assert not files.exists(f"{memory}/no.png")
    assert files.read_bytes(f"{memory}/b/2.png") == b"22"
    assert files.file_info(f"{memory}/a.png") == files.list_files(memory)[0]
    assert files.stat_files(memory, ["b", "b/2.png", "none"])[0::2] == [None, None]
    assert files.list_names(memory) == ["a.png", "b"]


def test_ranges_of_bytes(tmp_path: Path, memory: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    for uri in (str(path), f"file://{path}"):
        assert files.read_range(uri, 3, 4) == b"3456"
        assert files.read_range(uri, 8, 1 << 60) == b"89"
        assert files.read_range(uri, 99, 4) == b""
    assert files.read_range(f"{memory}/b/2.png", 1, 9) == b"2"
    path.write_bytes(b"abc")  # a file that changes is opened again
    assert files.read_range(str(path), 0, 3) == b"abc"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.read_range(str(path), 0, 3)


def test_handles_close_when_they_are_let_go(tmp_path: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for i in range(100):
        (tmp_path / str(i)).write_bytes(b"1")
        files.read_range(str(tmp_path / str(i)), 0, 1)
    assert len(os.listdir("/proc/self/fd")) <= opened + 33  # noqa: PTH208


def test_looking_up_files_anywhere(tmp_path: Path, memory: str) -> None:
    write(tmp_path, "a.png")
    uris = [
        f"{tmp_path}/a.png",
        f"{memory}/a.png",
        f"{tmp_path}/no",
        f"{memory}/no",
        str(tmp_path),
        f"{memory}/b",
        "a\0",
    ]
    found = files.look_up([*uris, f"{tmp_path}/a.png/x"])
    assert [info.path if isinstance(info, files.FileInfo) else type(info) for info in found] == [
        *uris[:2], *[FileNotFoundError] * 5, NotADirectoryError,
    ]  # fmt: skip
    assert files.look_up([]) == []


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/a/b.tar", "b.tar"),
        ("b#?.tar", "b#?.tar"),
        ("http://h/a/b.tar?key=x/y.z", "b.tar"),
        ("s3://h/b?.tar", "b?.tar"),
    ],
)
def test_the_name_in_an_address(uri: str, name: str) -> None:
    assert files.name_of(uri) == name


@pytest.mark.parametrize("uri", ["nosuch://x/y", "a+b://x"])
def test_unknown_protocol(uri: str) -> None:
    with pytest.raises(SourceError, match="Cannot open"):
        files.exists(uri)


def test_an_atomic_file_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with files.atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent
    assert target.read_text() == "whole"
    with pytest.raises(ZeroDivisionError), files.atomic_path(target) as temporary:
        temporary.write_text("half") / 0
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")])
def test_a_refusal_of_the_disk_has_a_remedy(tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught, files.atomic_path(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    write(tmp_path, "file")
    with pytest.raises(StorageError, match="Cannot write"), files.atomic_path(tmp_path / "file" / "x"):
        pass


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from embeddings import files\n"
        f"with files.atomic_path(Path({str(tmp_path / 'file.npz')!r})) as temporary:\n"
        "    temporary.write_bytes(b'half'); print(temporary.name, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout
        cut = tmp_path / process.stdout.readline().strip()
        files.sweep(tmp_path)
        assert cut.read_bytes() == b"half"
        process.kill()
    assert files.leftovers(tmp_path) == [cut]
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_nothing_from_whoever_writes(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "x") as temporary:
        files.sweep(tmp_path)
        temporary.write_text("whole")
        files.sweep(tmp_path)
    files.sweep(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "whole"}


def test_a_sweep_takes_nothing_that_a_user_made(tmp_path: Path) -> None:
    mine = (".x.part", "x.abcd1234.part", ".abcd1234.part", ".x.ABCD1234.part", ".x.abcd1234.part.bak", ".x.abcd.part")
    for name in (*mine, "below/.x.abcd1234.part", ".folder.abcd1234.part/file"):
        write(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    files.sweep(tmp_path)
    files.sweep(tmp_path / "nowhere")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), ImportError("no fcntl")])
def test_without_locks_files_are_written_and_swept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    write(tmp_path, ".y.abcd1234.part")
    files.sweep(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "whole"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(document=json_values)
def test_json_reads_back(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    files.write_json(path, document)
    assert files.read_json(path) == document
    assert path.read_bytes().endswith(b"\n")


def test_json_has_one_spelling(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"x": 1, "y": 2})
    files.write_json(tmp_path / "b", {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "c", float("nan"))
    assert not (tmp_path / "c").exists()


def test_json_that_does_not_read_back(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="missing"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"half":')
    with pytest.raises(CorruptError, match="not valid JSON"):
        files.read_json(tmp_path / "bad.json")


def test_tables_read_back_and_have_one_spelling(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    for name in ("one", "two"):
        files.write_table(tmp_path / name, table)
    assert files.read_table(tmp_path / "one").equals(table)
    assert files.read_table(tmp_path / "one", ["b"]).column_names == ["b"]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    (tmp_path / "one").write_bytes(b"PAR1")
    for name in ("one", "none"):
        with pytest.raises(CorruptError, match="does not read back"):
            files.read_table(tmp_path / name)


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    known = hashlib.sha256(b"abc").hexdigest()
    assert files.digest_bytes(b"abc") == files.digest_file(tmp_path / "x") == known
    assert files.digest({"b": 1, "a": [2]}) == hashlib.sha256(b'{"a":[2],"b":1}').hexdigest()


@given(document=st.dictionaries(st.text(), st.integers()))
def test_a_digest_ignores_the_order_of_keys(document: dict[str, int]) -> None:
    assert files.digest(document) == files.digest(dict(reversed(document.items())))
    assert files.digest(document) == files.digest(json.loads(json.dumps(document)))


def test_removing_a_folder_twice(tmp_path: Path) -> None:
    write(tmp_path, "a/b/c")
    files.remove_folder(tmp_path / "a")
    files.remove_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_first_difference_in_a_list_of_tables_is_told_by_its_place():
    found, wanted = {"cells": [{"n": 1}, {"n": 2}], "names": ["a"]}, {"cells": [{"n": 1}, {"n": 3}], "names": ["a"]}
    assert files.first_difference(found, wanted) == "cells.1.n is 2 there, 3 here"
    assert files.first_difference(found, {**found, "cells": [{"n": 1}]}) == "cells.1.n is 2 there, None here"
    assert files.first_difference(found, found) is None
