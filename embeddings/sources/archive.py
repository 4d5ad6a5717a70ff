"""The members of a tar archive, found by their headers alone: nothing is extracted, their bytes are passed over.

Read are the formats of POSIX (ustar, pax), GNU (long names, base-256 numbers) and V7. What an archive says of itself
is not trusted: no name leaves the archive, no link is followed, and a header whose checksum is wrong ends the reading,
because nothing tells where the next one stands. What cannot be used is told, member by member.
"""

from __future__ import annotations

import posixpath
import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
LARGEST = (1 << 31) - 1  # bytes of a member that is still read
_LONGEST = 1 << 20  # bytes of a long name, or of the records of a pax header
_BEYOND = 1 << 16  # bytes after the end mark that are looked at: writers pad with less
_EMPTY = bytes(BLOCK)
_LONG_NAME, _LONG_LINK, _PAX_GLOBAL = b"L", b"K", b"g"
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, _PAX_GLOBAL, b"x", b"X")
_FOLDER, _SPARSE = b"5", b"S"
_PLAIN = (b"0", b"\0", b"7")
_LINKS_AND_DEVICES = {
    b"1": "a hard link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
}
_RECORD = re.compile(rb"(\d{1,8}) ([^=]+)=")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}

OUTSIDE, NAMELESS, NOT_UTF8 = "its name leaves the archive", "it has no name", "its name is not UTF-8"
SPARSE, TOO_LARGE, CUT = "a sparse file, which is not read", "larger than 2 GiB", "the archive ends inside it"


class Member(NamedTuple):
    """One file of an archive: where its bytes are, or why they are not to be had."""

    name: str  # POSIX, in its plainest form; empty for what ended the reading
    offset: int  # of its first byte
    size: int
    problem: str | None


class NotAnArchiveError(ValueError):
    """Raised when a file does not begin like an archive; says what it is."""


class _DamageError(ValueError):
    pass


class Reader:
    """Reads an archive of ``size`` bytes through ``read(offset, size)``, asking for ``span`` bytes at a time."""

    def __init__(self, read: Callable[[int, int], bytes], *, size: int, span: int) -> None:
        self._read, self._size, self._span = read, size, span
        self._begin, self._window = 0, b""
        self._at = 0  # where the next header is looked for

    def get(self, offset: int, size: int) -> bytes:
        """``size`` bytes; fewer at the end of the archive.

        Raises:
            OSError: the archive cannot be read.
        """
        start = offset - self._begin
        if start < 0 or start + size > len(self._window):
            wanted = min(max(size, self._span), self._size - offset)
            self._window, self._begin, start = self._read(offset, wanted) if wanted > 0 else b"", offset, 0
        return self._window[start : start + size]

    def members(self) -> Iterator[Member]:
        """Every member but folders, in the order of the archive; what ended the reading early comes last.

        Raises:
            NotAnArchiveError: the file does not begin with a header.
            OSError: the archive cannot be read.
        """
        self._at = 0
        try:
            for kind, name, offset, size in self._entries():
                if kind != _FOLDER and not name.endswith(b"/"):
                    yield self._member(kind, name, offset, size)
        except _DamageError as damage:
            if not self._at:
                raise NotAnArchiveError(_what_else(self.get(0, BLOCK))) from None
            reason = f"{damage}, at byte {self._at}; what follows was not listed"
            yield Member("", self._at, min(BLOCK, self._size - self._at), reason)

    def _entries(self) -> Iterator[tuple[bytes, bytes, int, int]]:
        """(kind, name, first byte, size) of every entry, with what the headers before its own say of it."""
        told, always = dict[str, bytes](), dict[str, bytes]()
        while (header := self.get(self._at, BLOCK)) and header != _EMPTY:
            kind, name, size = _parse(header)
            start = self._at + BLOCK
            if kind in _EXTENSIONS:
                records = self._records(kind, start, size)
                told, always = (told, always | records) if kind == _PAX_GLOBAL else (told | records, always)
            else:
                if told or always:
                    kind, name, size = _as_told(always | told, kind, name, size)
                start = self._after_map(header, start) if header[156:157] == _SPARSE else start
                yield kind, name, start, size
                size = 0 if kind == _FOLDER or kind in _LINKS_AND_DEVICES else size
                told = {}
            self._at = start - (-size // BLOCK) * BLOCK
        self._check_end(header, told)

    def _records(self, kind: bytes, start: int, size: int) -> dict[str, bytes]:
        """What an extension header says of the entries after it."""
        data = self.get(start, size) if size <= _LONGEST else b""
        if len(data) < size or size > _LONGEST:
            raise _DamageError("a header that does not fit")
        if kind in (_LONG_NAME, _LONG_LINK):
            return {"path": data.partition(b"\0")[0]} if kind == _LONG_NAME else {}
        return _pax_records(data)

    def _after_map(self, header: bytes, start: int) -> int:
        """Where the bytes of an old GNU sparse file begin: after the blocks that go on with its map."""
        more = header[482]
        while more:
            block = self.get(start, BLOCK)
            if len(block) < BLOCK:
                raise _DamageError("a header that does not fit")
            more, start = block[504], start + BLOCK
        return start

    def _check_end(self, mark: bytes, told: dict[str, bytes]) -> None:
        if told or not (mark or self._at):
            raise _DamageError("the archive ends before the file that its last header announces")
        if mark and self.get(self._at, _BEYOND).strip(b"\0"):
            raise _DamageError("more follows the end of the archive")

    def _member(self, kind: bytes, name: bytes, offset: int, size: int) -> Member:
        plain, problem = _checked_name(name)
        if kind in _LINKS_AND_DEVICES:
            problem, size = problem or f"{_LINKS_AND_DEVICES[kind]}, which is not followed", 0
        elif kind not in _PLAIN:
            problem = problem or (SPARSE if kind == _SPARSE else f"an entry of unknown type {kind!r}")
        elif size > LARGEST:
            problem = problem or TOO_LARGE
        if offset + size > self._size:
            problem, size = CUT, max(self._size - offset, 0)
        return Member(plain, offset, size, problem)


def _parse(header: bytes) -> tuple[bytes, bytes, int]:
    """Type, name and size of an entry."""
    if len(header) < BLOCK:
        raise _DamageError("the archive ends inside a header")
    field = header[148:156]
    stored = _number(field)
    # Adler's low half is 1 + the sum of the bytes, modulo a prime: 15 times as fast as summing them one by one. The
    # checksum takes its own field for blanks.
    if (stored + sum(field) - 255) % 65_521 != zlib.adler32(header) & 0xFFFF and stored != _signed_sum(header):
        raise _DamageError("a damaged header")
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return header[156:157], name, _number(header[124:136])


def _signed_sum(header: bytes) -> int:
    """The checksum of old writers, who took bytes for signed."""
    rest = header[:148] + b" " * 8 + header[156:]
    return sum(rest) - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        number = int(field.rstrip(b" \0").partition(b"\0")[0] or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise _DamageError("a damaged header")
    return number


def _pax_records(data: bytes) -> dict[str, bytes]:
    """``LENGTH KEY=VALUE`` lines; the length is that of the whole line."""
    records, at = {}, 0
    while data[at:].strip(b"\0"):
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or end <= match.end() or data[end - 1 : end] != b"\n":
            raise _DamageError("a damaged pax header")
        records[match[2].decode("utf-8", "replace")] = data[match.end() : end - 1]
        at = end
    return records


def _as_told(told: dict[str, bytes], kind: bytes, name: bytes, size: int) -> tuple[bytes, bytes, int]:
    """Type, name and size of an entry as the headers before its own have them."""
    if any(key.startswith("GNU.sparse.") for key in told):
        kind = _SPARSE
    said = told.get("size", b"")
    if said and not re.fullmatch(rb"\d{1,19}", said):
        raise _DamageError("a damaged pax header")
    return kind, told.get("GNU.sparse.name") or told.get("path") or name, int(said) if said else size


def _checked_name(name: bytes) -> tuple[str, str | None]:
    """The name in its plainest form, and why it will not do."""
    try:
        text, problem = name.decode(), None
    except UnicodeDecodeError:
        text, problem = name.decode("utf-8", "replace"), NOT_UTF8
    if text.startswith("/") or (".." in text and ".." in text.split("/")):
        return text, OUTSIDE
    if "//" in text or text.startswith("./") or "/./" in text:
        text = posixpath.normpath(text)
    return text, problem or (None if text and text != "." else NAMELESS)


def _what_else(header: bytes) -> str:
    """What a file is that does not begin like an archive."""
    if not header:
        return "it is empty"
    packed = next((name for magic, name in _COMPRESSED.items() if header.startswith(magic)), None)
    return f"it is compressed ({packed})" if packed else f"it starts with {header[:12]!r}"
