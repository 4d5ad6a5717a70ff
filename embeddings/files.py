"""Reading, listing and atomic writing, of files here (``embeddings.local``) and behind a URL (``embeddings.remote``).

A file is written under a temporary name beside its destination and renamed, so a reader never sees half of it.
What a killed process leaves is told by its name, and by a lock from what a live one is writing.
Digests are over canonical JSON or raw bytes and hold no path, time or speed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embeddings import local, remote
from embeddings.errors import CorruptError, ForeignFolderError, SourceError, StorageError

_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # the name that ``atomic_path`` has from tempfile


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file below a root: POSIX path relative to it, size in bytes, and a stamp that changes with the content."""

    path: str
    size: int
    stamp: str


def is_remote(uri: str) -> bool:
    """True for a URL with a protocol that is not ``file``."""
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """The address that works from any working directory; remote addresses are returned as they are.

    A link keeps the name and suffix it was given by; only the folders above it are resolved.
    """
    if is_remote(uri):
        return uri
    path = Path(uri.removeprefix("file://"))
    with suppress(RuntimeError):  # a file called "~name" where no such user exists
        path = path.expanduser()
    return str(path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name)


def name_of(uri: str) -> str:
    """The last part of an address, without the query of a web address."""
    return PurePosixPath(uri.partition("?")[0] if uri.startswith(("http://", "https://")) else uri).name


def exists(uri: str) -> bool:
    """True if a file or folder stands at this address.

    Raises:
        StorageError: a remote store that refuses or does not answer.
    """
    return remote.exists(uri) if is_remote(uri) else local.status(absolute(uri)) is not None


def is_folder(uri: str) -> bool:
    """True if a folder stands at this address; raises as ``exists``."""
    if is_remote(uri):
        return remote.is_folder(uri)
    status = local.status(absolute(uri))
    return status is not None and stat.S_ISDIR(status.st_mode)


def list_files(root: str) -> list[FileInfo]:
    """All files below a folder, recursively, sorted by path; hidden files and folders are left out.

    Links to files count under their own names. Every folder is entered once, by its own name if that lies below the
    root, else by one link to it, so that link loops end. A broken link is listed with size 0.

    Raises:
        StorageError: a folder that may not be read, or a remote store that does not answer.
    """
    infos = _find_remote(root) if is_remote(root) else _find_local(absolute(root))
    return sorted(infos, key=lambda i: i.path)


def list_names(folder: str) -> list[str]:
    """Names in one folder, sorted, not below it; hidden ones are left out. Empty if there is no such folder."""
    try:
        names = remote.names(folder) if is_remote(folder) else os.listdir(absolute(folder))  # noqa: PTH208
    except OSError:
        return []
    return sorted(n for n in names if not n.startswith("."))


def file_info(uri: str) -> FileInfo:
    """Size and stamp of one file.

    Raises:
        SourceError: no such file.
        StorageError: a remote store that refuses or does not answer.
    """
    folder, _, name = absolute(uri).rpartition("/")
    info = stat_files(folder or "/", [name])[0]
    if info is None:
        raise SourceError(f"No file at {uri!r}.", hint="Check the path.")
    return info


def stat_files(root: str, paths: list[str]) -> list[FileInfo | None]:
    """Size and stamp of files given relative to ``root``; None where there is no such file, or a folder.

    Raises:
        StorageError: a remote store that refuses or does not answer.
    """
    if is_remote(root):
        found = look_up([f"{root.rstrip('/')}/{path}" for path in paths])
        return [_expected(path, info) for path, info in zip(paths, found, strict=True)]
    base = absolute(root)
    return [_local_info(path, local.status(f"{base}/{path}")) for path in paths]


def look_up(uris: list[str]) -> list[FileInfo | OSError]:
    """Size and stamp of files anywhere, each under its absolute address; of those that cannot be had, the reason."""
    urls = [uri for uri in uris if is_remote(uri)]
    entries = dict(zip(urls, remote.infos(urls), strict=True)) if urls else {}
    return [_remote_info(uri, entries[uri]) if uri in entries else _local_or_why(uri) for uri in uris]


def read_bytes(uri: str) -> bytes:
    """The whole content of one file.

    Raises:
        OSError: no such file, or one that may not be read.
    """
    if is_remote(uri):
        return remote.read(uri)
    # thousands of times a second: no address to resolve, no layer between
    return Path(uri.removeprefix("file://")).expanduser().read_bytes()


def read_range(uri: str, offset: int, size: int) -> bytes:
    """``size`` bytes of a file from ``offset``; fewer at its end. Safe in threads and after a fork.

    Raises:
        OSError: no such file, or one that may not be read.
    """
    if is_remote(uri):
        return remote.read_range(uri, offset, size)
    return local.read_range(uri.removeprefix("file://"), offset, size)


def open_binary(uri: str) -> Any:
    """A seekable binary file object for reading; the caller closes it.

    Raises:
        OSError: no such file, or one that may not be read.
    """
    return remote.open_binary(uri) if is_remote(uri) else Path(absolute(uri)).open("rb")


def join(root: str, path: str) -> str:
    """Address of ``path`` (POSIX, relative) below ``root``.

    Raises:
        SourceError: the path would leave the root.
    """
    if path.startswith("/") or ".." in path.split("/"):
        raise SourceError(f"Path {path!r} leaves its source folder.", hint="Use paths below the folder.")
    return f"{root.rstrip('/')}/{path}"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it there if the block succeeds.

    Raises:
        StorageError: no space, no permission, or a read-only file system.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    temporary = Path(name)
    with local.held(descriptor):
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        except OSError as error:
            raise storage_error(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """What killed processes left of ``atomic_path`` in a folder (not below it); nothing that is being written.

    A file system without locks cannot tell the two apart: hold the folder (``pipeline.locks``) before deleting any.
    """
    found = (path for path in folder.glob(".*.part") if _LEFTOVER.fullmatch(path.name) and path.is_file())
    return [path for path in found if not local.is_held(path)]


def sweep(folder: Path) -> None:
    """Deletes the ``leftovers`` in a folder that the caller holds."""
    for path in leftovers(folder):
        path.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document atomically, keys sorted, one trailing newline."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads a JSON document this project wrote.

    Raises:
        CorruptError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptError(f"{path.name} is missing from {path.parent}.", hint="Make the folder again.") from None
    except ValueError as error:
        raise CorruptError(
            f"{path} is not valid JSON ({error}).", hint="Delete the folder and make it again."
        ) from None


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically; the same table gives the same bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=65_536)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads a Parquet file this project wrote.

    Raises:
        CorruptError: the file is missing or does not parse.
    """
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise CorruptError(
            f"{path} does not read back ({error}).", hint="Delete the folder and make it again."
        ) from None


def digest(document: Any) -> str:
    """sha256 (hex) of a document's canonical JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_bytes(data: bytes) -> str:
    """sha256 (hex) of raw bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 (hex) of a file's content, streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_foreign(folder: Path, markers: tuple[str, ...]) -> None:
    """Refuses to write results into a folder that holds something else.

    Raises:
        ForeignFolderError: not empty, and without any of the files that mark a folder of this kind.
    """
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not any((folder / marker).exists() for marker in markers):
        raise ForeignFolderError(
            f"{folder} is not empty and holds no earlier result of this command.", hint="Choose a new folder for --out."
        )


def require_same_config(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses to continue in a folder that was begun with another configuration.

    Raises:
        ForeignFolderError: names the first field that differs and both values.
    """
    if difference := first_difference(found, wanted):
        raise ForeignFolderError(
            f"{folder} was begun with other settings: {difference}.",
            hint="Choose a new folder for --out, or give the settings that it was begun with.",
        )


def first_difference(found: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The first field that differs and both its values, in words; nested fields are named with dots."""
    theirs, ours = _flat(found), _flat(json.loads(json.dumps(wanted)))  # as it reads back: no tuples
    for field in sorted(theirs.keys() | ours.keys()):
        if theirs.get(field) != ours.get(field):
            return f"{field} is {theirs.get(field)!r} there, {ours.get(field)!r} here"
    return None


def remove_folder(path: Path) -> None:
    """Deletes a folder of our own making, if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The file system's refusal in words, with the remedy."""
    cut_short = error.errno is None and "requested and" in str(error)  # numpy's words when a write falls short
    if cut_short or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"No space left to write {path}.", hint="Free some space and run the same command again; it continues."
        )
    return StorageError(
        f"Cannot write {path}: {error.strerror or error}.", hint="Check the permissions, or choose another --out."
    )


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        is_list = isinstance(value, list) and any(isinstance(item, dict) for item in value)
        nested = dict(zip(map(str, range(len(value))), value, strict=True)) if is_list else value
        flat |= _flat(nested, f"{prefix}{key}.") if isinstance(nested, dict) else {prefix + key: nested}
    return flat


def _find_local(root: str) -> list[FileInfo]:
    return [_local_info(path, status) or FileInfo(path, 0, "") for path, status in local.walk(root)]


def _local_info(path: str, status: os.stat_result | None) -> FileInfo | None:
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    return FileInfo(path, status.st_size, str(status.st_mtime_ns))


def _local_or_why(uri: str) -> FileInfo | OSError:
    try:
        status = os.stat(uri.removeprefix("file://"))  # noqa: PTH116 - as in local.status
    except OSError as error:
        return error
    except ValueError:  # a NUL character in the name
        return _nothing()
    return _local_info(uri, status) or _nothing()


def _find_remote(root: str) -> list[FileInfo]:
    infos = [_remote_info(path, entry) for path, entry in remote.find(root).items()]
    return [i for i in infos if isinstance(i, FileInfo) and not any(p.startswith(".") for p in i.path.split("/"))]


def _remote_info(path: str, entry: remote.Entry | OSError) -> FileInfo | OSError:
    if isinstance(entry, OSError):
        return entry
    if entry.get("type") != "file":
        return _nothing()
    return FileInfo(path, int(entry.get("size") or 0), remote.stamp_of(entry))


def _expected(path: str, info: FileInfo | OSError) -> FileInfo | None:
    if isinstance(info, OSError) and not isinstance(info, FileNotFoundError):
        raise remote.refusal(path, info) from info
    return FileInfo(path, info.size, info.stamp) if isinstance(info, FileInfo) else None


def _nothing() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
