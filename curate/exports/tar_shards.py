"""WebDataset: tar shards of at most a given size, with the same bytes on every machine.

    shard-000000.tar         00000012.jpg, 00000012.json, 00000013.png, ...: numbers are rows of the selection

The image has the bytes of its source; the JSON is all that is known of it, ``label`` and license included. An image
that is larger than a shard has one to itself. A shard gets its name when it is whole; an export that goes on reads
those that are there, image by image, and keeps what holds.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from curate.exports.manifest import plain
from curate.exports.originals import Originals
from curate.exports.settings import Settings
from embeddings import files

Member = tuple[str, bytes]  # name and content
Members = list[Member]
ROW_DIGITS = 8


def write_shards(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """Writes the shards."""
    count, rows = _found(out, originals)
    shards = _Shards(out, settings.shard_bytes, count=count)
    try:
        for image in originals.read(rows):
            stem = f"{image.row:0{ROW_DIGITS}d}"
            shards.add([(stem + image.suffix, image.data), (f"{stem}.json", _facts(originals, image.row))])
        shards.finish()
    finally:
        shards.close()
    return [f"Shards: shard-{{000000..{shards.count - 1:06d}}}.tar"]


def _facts(originals: Originals, row: int) -> bytes:
    """All that is known of an image, as JSON."""
    told = plain(originals.table.slice(row, 1).to_pylist()[0])
    return json.dumps(told, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _found(out: Path, originals: Originals) -> tuple[int, np.ndarray]:
    """How many shards of an interrupted export hold, and the rows [r] after them; all others are deleted."""
    count = first = 0
    shards = sorted(out.glob("shard-*.tar"))
    for path in shards:
        last = _last_row(path, first, originals) if path == _shard(out, count) else None
        if last is None:
            break
        count, first = count + 1, last + 1
    for path in [*shards[count:], *out.glob(".shard-*.part")]:
        path.unlink()
    return count, np.arange(first, len(originals))


def _last_row(path: Path, first: int, originals: Originals) -> int | None:
    """The last row in a shard; None where it is not what an export would write now from row ``first`` on."""
    row, size, digest = first - 1, 0, hashlib.sha256()
    try:
        with tarfile.open(path, format=tarfile.USTAR_FORMAT) as archive:
            for image, facts in _pairs(archive):
                (name, data), (_, told) = image, facts
                before, row = row, int(name[:ROW_DIGITS])
                lacking = np.arange(before + 1, row)
                if (
                    not before < row < len(originals)
                    or told != _facts(originals, row)
                    or not originals.holds(row, data)
                ):
                    return None
                if next(originals.read(lacking), None) is not None:  # it could not be read then
                    return None
                size += _size([image, facts])
                digest.update(b"".join(_blocks(member) for member in (image, facts)))
    except (OSError, ValueError, KeyError, EOFError, tarfile.TarError):
        return None
    digest.update(bytes(_archive_size(size) - size))
    return row if row >= first and files.digest_file(path) == digest.hexdigest() else None


def _pairs(archive: tarfile.TarFile) -> Iterator[tuple[Member, Member]]:
    """Image and JSON of every sample.

    Raises:
        ValueError: one of them is missing.
    """
    members = (_read(archive, member) for member in archive)
    for image in members:
        facts = next(members, ("", b""))
        if facts[0] != f"{image[0][:ROW_DIGITS]}.json":
            raise ValueError(facts[0])
        yield image, facts


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Member:
    file = archive.extractfile(member)
    return member.name, file.read() if file else b""


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.tar"


class _Shards:
    """Tar archives in a folder, begun one after the other; a name without ``.part`` is that of a whole one."""

    def __init__(self, folder: Path, most: int, *, count: int) -> None:
        self.count = count
        self._folder, self._most = folder, most
        self._archive: tarfile.TarFile | None = None
        self._size = 0

    def add(self, members: Members) -> None:
        """The members of one sample, all in one shard."""
        size = _size(members)
        if self._archive is None or _archive_size(self._size + size) > self._most:
            self.finish()
            self._archive = tarfile.open(self._path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - until the next
        for name, data in members:
            self._archive.addfile(_header(name, data), io.BytesIO(data))
        self._size += size

    def finish(self) -> None:
        """Ends the last archive and gives it its name."""
        if self._archive is not None:
            self.close()
            self._path.rename(_shard(self._folder, self.count))
            self._archive, self.count, self._size = None, self.count + 1, 0

    def close(self) -> None:
        """Ends the last archive as it is."""
        if self._archive is not None:
            self._archive.close()

    @property
    def _path(self) -> Path:
        return self._folder / f".shard-{self.count:06d}.part"


def _header(name: str, data: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # no time, owner or rights but the defaults
    member.size = len(data)
    return member


def _blocks(member: Member) -> bytes:
    """A member as it stands in an archive."""
    data = member[1]
    header = _header(*member).tobuf(tarfile.USTAR_FORMAT)
    return header + data + bytes(_rounded(len(data), tarfile.BLOCKSIZE) - len(data))


def _size(members: Members) -> int:
    """Bytes of members in an archive."""
    return sum(tarfile.BLOCKSIZE + _rounded(len(data), tarfile.BLOCKSIZE) for _, data in members)


def _archive_size(members: int) -> int:
    """Bytes of an archive whose members take this many."""
    return _rounded(members + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)


def _rounded(size: int, block: int) -> int:
    return -(-size // block) * block
