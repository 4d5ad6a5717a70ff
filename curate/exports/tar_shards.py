"""WebDataset: tar shards of at most a given size, with the same bytes on every machine.

    shard-000000.tar         00000012.jpg, 00000012.json, 00000013.png, ...: numbers are rows of the selection

The image has the bytes of its source; the JSON is all that is known of it, ``label`` and license included. An image
that is larger than a shard has one to itself.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from curate.exports.manifest import plain
from curate.exports.originals import Originals
from curate.exports.settings import Settings

Members = list[tuple[str, bytes]]


def write_shards(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """Writes the shards."""
    shards = _Shards(out, settings.shard_bytes)
    try:
        for image in originals:
            row = plain(originals.table.slice(image.row, 1).to_pylist()[0])
            facts = json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
            stem = f"{image.row:08d}"
            shards.add([(stem + image.suffix, image.data), (f"{stem}.json", facts)])
    finally:
        shards.close()
    return [f"Shards: shard-{{000000..{shards.count - 1:06d}}}.tar"]


class _Shards:
    """Tar archives in a folder, begun one after the other."""

    def __init__(self, folder: Path, most: int) -> None:
        self.count = 0
        self._folder, self._most = folder, most
        self._archive: tarfile.TarFile | None = None
        self._size = 0

    def add(self, members: Members) -> None:
        """The members of one sample, all in one shard."""
        size = sum(tarfile.BLOCKSIZE + _rounded(len(data), tarfile.BLOCKSIZE) for _, data in members)
        if self._archive is None or _archive_size(self._size + size) > self._most:
            self._begin()
        assert self._archive is not None
        for name, data in members:
            member = tarfile.TarInfo(name)  # no time, owner or rights but the defaults
            member.size = len(data)
            self._archive.addfile(member, io.BytesIO(data))
        self._size += size

    def _begin(self) -> None:
        self.close()
        path = self._folder / f"shard-{self.count:06d}.tar"
        self._archive = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - until the next
        self.count, self._size = self.count + 1, 0

    def close(self) -> None:
        """Ends the last archive."""
        if self._archive is not None:
            self._archive.close()


def _archive_size(members: int) -> int:
    """Bytes of an archive whose members take this many."""
    return _rounded(members + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)


def _rounded(size: int, block: int) -> int:
    return -(-size // block) * block
