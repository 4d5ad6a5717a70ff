"""A folder of image files in sub-folders, as ImageFolder of torchvision reads it.

    SOURCE/00000012-KEY.jpg    or LABEL/00000012-KEY.jpg: the number is the row of the selection, so names never collide
    manifest.csv               ``file``, and all that is known of the image, license and attribution included

A file of its own is linked or copied. A hard link takes no space and stays when the original is deleted, but it is the
same file: who edits one edits both. What lies in an archive or table, behind a URL, or is a tile is written out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from curate.exports.names import safe_names, safe_stem
from curate.exports.originals import Original, Originals
from curate.exports.settings import MARKS, Settings
from curate.exports.table_file import write_rows
from embeddings import files
from embeddings.errors import UsageError

MANIFEST = "manifest.csv"
ROW_DIGITS = 8
UNLABELED = "unlabeled"


def write_folder(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """Writes the files and their manifest.

    Raises:
        UsageError: a link that was asked for cannot be made.
    """
    rows = originals.table.to_pylist()
    groups = [(row["label"] or UNLABELED) if settings.label else row["source"] for row in rows]
    folders = safe_names(groups, reserved=(MANIFEST, *MARKS))
    stems = [f"{folders[group]}/{row:0{ROW_DIGITS}d}-{safe_stem(rows[row]['key'])}" for row, group in enumerate(groups)]
    names = _found(out, originals, stems)
    for image in originals.read(originals.remaining()):
        names[image.row] = stems[image.row] + image.suffix
        target = out / names[image.row]
        target.parent.mkdir(exist_ok=True)
        _put(target, image, settings.link)
    in_order = [name for _, name in sorted(names.items())]
    write_rows(out / MANIFEST, originals.kept().add_column(0, "file", pa.array(in_order, pa.string())))
    return []


def _found(out: Path, originals: Originals, stems: Sequence[str]) -> dict[int, str]:
    """Files of an export that was interrupted, by row; those that are not what was selected are deleted."""
    names, rows = {}, {stem: row for row, stem in enumerate(stems)}
    for path in sorted(out.glob("*/*")):
        name = path.relative_to(out).as_posix()
        row = rows.get(name.removesuffix(path.suffix))  # none where a label is another one by now
        if row is not None and path.exists() and originals.holds(row, path.read_bytes()):
            names[row] = name
        else:
            path.unlink()
    return names


def _put(target: Path, image: Original, link: str | None) -> None:
    """Links or writes one image."""
    original = image.place.file if link != "copy" else None
    if original is not None and _is_linked(target, original, link):
        if target.read_bytes() == image.data:
            return
        target.unlink()  # another file has taken its place just now
    with files.atomic_path(target) as temporary:
        temporary.write_bytes(image.data)


def _is_linked(target: Path, original: Path, link: str | None) -> bool:
    """Makes the link; False where none can be made and none was asked for by name.

    Raises:
        UsageError: it was asked for by name.
    """
    try:
        if link == "symbolic":
            target.symlink_to(original)
        else:
            os.link(original.resolve(), target)
    except OSError as error:
        if link is None:
            return False
        raise UsageError(
            f"No {link} link to {original} can be made: {error.strerror or error}.", hint="Say --link copy."
        ) from error
    return True
