"""Files behind a URL; the only module that touches fsspec. Whatever looks as if it will pass is tried again.

Nothing a remote store answers is kept: a listing is as the store is now.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

import fsspec

from embeddings import retries
from embeddings.errors import MissingExtraError, SourceError, StorageError, install_command, one_line

READERS = 16  # questions under way at once: each one mostly waits
READ_AHEAD = 1 << 20
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_STAMPS = ("ETag", "etag", "Last-Modified", "mtime", "created", "blob_id")

Answer = TypeVar("Answer")
Entry = dict[str, Any]  # as fsspec tells of a file: name, type, size, and what a file system has more


def ask(url: str, question: Callable[[Any, str], Answer]) -> Answer:
    """What ``question(file system, path)`` answers, asked again as ``retries.insist`` does.

    Raises:
        OSError: as ``retries.insist``.
        SourceError, MissingExtraError: as ``connect``.
    """
    filesystem, path = connect(url)
    return retries.insist(lambda: question(filesystem, path))


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        SourceError: no such protocol.
        MissingExtraError: its package is not installed.
    """
    protocol = url.partition("://")[0]
    if protocol in ("http", "https"):
        url = url.replace("#", "%23")  # a file's name may hold one; a fragment would never reach the server
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        if isinstance(error, ImportError) and protocol in _EXTRAS:
            extra = _EXTRAS[protocol]
            raise MissingExtraError(
                f"{protocol}:// needs a package that is not installed: {one_line(error)}",
                hint=install_command(extra),
            ) from None
        raise SourceError(
            f"Cannot open {url!r}: {one_line(error)}", hint="Install the file system's package, or copy the data here."
        ) from None
    return filesystem, path


def exists(url: str) -> bool:
    """True if a file or folder stands there.

    Raises:
        StorageError: the store refuses or does not answer.
    """
    entry = _info(url)
    if isinstance(entry, OSError) and not isinstance(entry, FileNotFoundError):
        raise refusal(url, entry) from entry
    return not isinstance(entry, OSError) or is_folder(url)


def infos(urls: list[str]) -> list[Entry | OSError]:
    """What is told of files, asked for many at a time; for each that cannot be had, the reason."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_info, urls))


def is_folder(url: str) -> bool:
    """True if a folder stands there. Over HTTP: a page of links; what ends in a suffix is taken for a file.

    Raises:
        StorageError: the store refuses or does not answer.
    """
    if url.startswith(("http://", "https://")) and "." in url.rpartition("/")[2]:
        return False
    try:
        return bool(ask(url, lambda filesystem, path: filesystem.isdir(path)))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise refusal(url, error) from error


def find(url: str) -> dict[str, Entry]:
    """Every file below a folder, by path relative to it.

    Raises:
        StorageError: the store refuses or does not answer.
    """

    def question(filesystem: Any, path: str) -> dict[str, Entry]:
        filesystem.invalidate_cache()
        found = filesystem.find(path, withdirs=False, detail=True)
        prefix = path.rstrip("/") + "/"
        return {name.removeprefix(prefix): entry for name, entry in found.items()}

    try:
        return ask(url, question)
    except OSError as error:
        raise refusal(url, error) from error


def names(url: str) -> list[str]:
    """Names in one folder.

    Raises:
        OSError: no such folder, or the store refuses.
    """
    found = ask(url, lambda filesystem, path: filesystem.ls(path, detail=False))
    return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in found]


def read(url: str) -> bytes:
    """The whole content of one file.

    Raises:
        OSError: no such file, or the store refuses.
    """
    return bytes(ask(url, lambda filesystem, path: filesystem.cat_file(path)))


def read_range(url: str, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset``; fewer at the end of the file.

    Raises:
        OSError: no such file, the store refuses, or it sends whole files only.
    """
    data = bytes(ask(url, lambda filesystem, path: filesystem.cat_file(path, start=offset, end=offset + size)))
    if len(data) > size:
        raise OSError(None, "its server sends whole files only, not ranges of bytes")
    return data


def glob(pattern: str, base: str) -> list[str]:
    """The files a pattern names (``*``, ``**``, ``?``, ``[..]``), relative to the folder ``base``, sorted.

    Raises:
        StorageError: the store refuses or does not answer.
    """
    prefix = connect(base)[1].rstrip("/") + "/"

    def question(filesystem: Any, path: str) -> list[str]:
        filesystem.invalidate_cache()
        found = filesystem.glob(path, detail=True)
        return sorted(name.removeprefix(prefix) for name, entry in found.items() if entry["type"] == "file")

    try:
        return ask(pattern, question)
    except OSError as error:
        raise refusal(pattern, error) from error


def open_binary(url: str) -> io.BufferedIOBase:
    """A seekable file object for reading; a file whose size its server does not tell is fetched whole.

    Raises:
        OSError: no such file, or the store refuses.
    """
    size = ask(url, lambda filesystem, path: filesystem.info(path)).get("size")
    return io.BytesIO(read(url)) if size is None else io.BufferedReader(_Ranges(url, int(size)), READ_AHEAD)


def stamp_of(entry: Entry) -> str:
    """What changes with the content of a file, as far as its file system tells; else empty."""
    stamp = next((entry[name] for name in _STAMPS if entry.get(name)), "")
    return str(stamp.timestamp() if isinstance(stamp, datetime) else stamp)  # one file system may tell either


def refusal(url: str, error: OSError) -> StorageError:
    """What ended a question to a store, in the words that end a command."""
    return StorageError(f"Cannot read {url}: {error.strerror or error}.", hint="Check the address, access and network.")


def _info(url: str) -> Entry | OSError:
    try:
        return dict(ask(url, lambda filesystem, path: filesystem.info(path)))
    except OSError as error:
        return error


class _Ranges(io.RawIOBase):
    """A remote file read range by range, every range with its own retries."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(buffer), self._size - self._at)
        data = read_range(self._url, self._at, wanted) if wanted > 0 else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
