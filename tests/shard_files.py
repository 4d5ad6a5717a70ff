"""Tar shards for tests, written by the standard library."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

Content = dict[str, bytes]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def info(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(data)
    for field, value in more.items():
        setattr(member, field, value)
    return member, data


def write(path: Path, members: Content | list[tuple[tarfile.TarInfo, bytes]], form: str = "ustar") -> Path:
    entries = [info(*entry) for entry in members.items()] if isinstance(members, dict) else members
    with tarfile.open(path, "w", format=FORMATS[form]) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    return path
