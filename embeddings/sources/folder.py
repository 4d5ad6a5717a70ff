"""A folder of images, searched recursively.

Key: POSIX path below the folder, in Unicode NFC; bytes are read by the name as it stands on disk. Label: the first
sub-folder, null for images at the top; column ``folder``: the whole path of the folder an image lies in. Files count
as images by suffix, in any case; the others are ignored and counted. Hidden files and folders do not exist.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import ImageError, SourceError
from embeddings.sources import TABLE_SUFFIXES, Address, Listing
from embeddings.sources.rows import Rows, key_order, listing_of, reject, reject_repeats

# HEIC is among them although nothing here decodes it: then it is counted as an error with a remedy, not passed over.
_SUFFIXES = "apng avif bmp gif heic heif ico j2k jfif jp2 jpe jpeg jpg pbm pfm pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())


class FolderSource:
    """Images in a folder; see the module."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def listing(self) -> Listing:
        """Every image below the folder as it is now, sorted by key.

        Raises:
            SourceError: no image there, or selectors that do not fit.
        """
        found = files.list_files(self.address.path)
        images = [info for info in found if _suffix(info.path) in IMAGE_SUFFIXES]
        ignored = Counter(_suffix(info.path) for info in found)
        for suffix in IMAGE_SUFFIXES:
            del ignored[suffix]
        if not images:
            raise _no_images(self.address.path, ignored)
        return listing_of(_rows(images), self.address, ignored=dict(sorted(ignored.items())))

    def read(self, uri: str) -> bytes:
        """Encoded bytes of the image at a path below the folder.

        Raises:
            ImageError: the file is gone or may not be read.
        """
        return read_file(self.address.path, uri)

    def locate(self, uri: str) -> str:
        """Path of the image."""
        return f"{self.address.path.rstrip('/')}/{uri}"


def read_file(folder: str, path: str) -> bytes:
    """Bytes of one image file below a folder.

    Raises:
        ImageError: the file is gone, may not be read, or lies outside the folder.
    """
    try:
        return read_path(files.join(folder, path))
    except SourceError as error:
        raise ImageError(error.message) from None


def read_path(path: str) -> bytes:
    """Bytes of one image file anywhere.

    Raises:
        ImageError: the file is gone or may not be read.
    """
    try:
        return files.read_bytes(path)
    except ValueError as error:  # a NUL character in the name
        raise ImageError(f"cannot be read: {error}") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or type(error).__name__}") from error


def _rows(infos: list[files.FileInfo]) -> Rows:
    """Rows sorted by key; names that are not UTF-8 cannot be told apart from others and are refused."""
    paths = [_printable(info.path) for info in infos]
    uri = pa.array(paths, pa.string())
    key = pc.utf8_normalize(uri, form="NFC")
    garbled = [path != info.path for path, info in zip(paths, infos, strict=True)]
    folder = pc.replace_substring_regex(key, r"/?[^/]*$", "")
    top = pc.replace_substring_regex(folder, "/(?s:.*)$", "")
    rows = Rows(
        key=key,
        uri=uri,
        size=pa.array([info.size for info in infos], pa.int64()),
        stamp=pa.array([info.stamp for info in infos], pa.string()),
        reason=reject(pa.nulls(len(infos), pa.string()), pa.array(garbled), "the file's name is not UTF-8"),
        columns={"label": pc.if_else(pc.equal(top, ""), pa.scalar(None, pa.string()), top), "folder": folder},
    )
    return reject_repeats(rows.take(key_order(key)))


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def _printable(path: str) -> str:
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _no_images(path: str, ignored: Counter[str]) -> SourceError:
    if not ignored:
        return SourceError(f"The folder {path!r} is empty.", hint="Give a folder that holds images, at any depth.")
    found = ", ".join(f"{n:,} {suffix or '(no suffix)'}" for suffix, n in ignored.most_common(8))
    shards = [suffix for suffix, _ in ignored.most_common() if suffix in (*TABLE_SUFFIXES, ".tar")]
    hint = f"Give '{path.rstrip('/')}/*{shards[0]}'." if shards else "Images are known by suffix, as .jpg."
    return SourceError(f"No image in the folder {path!r}; found: {found}.", hint=hint)
