"""The kinds of export, and what can be asked of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from curate.results import Selection
from embeddings.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from curate.exports.originals import Originals

LINKS = ("hard", "symbolic", "copy")
KINDS = {
    "parquet": "table_file:write_parquet",
    "csv": "table_file:write_csv",
    "paths": "path_list:write_paths",
    "folder": "image_folder:write_folder",
    "webdataset": "tar_shards:write_shards",
    "huggingface": "hugging_face:write_data_set",
}
FOLDERS = ("folder", "webdataset", "huggingface")  # the kinds that are folders, not files
MARK, ERRORS = "export.json", "errors.csv"
MARKS = (MARK, ERRORS)  # what stands beside the images: what this is, and which images could not be had
DEFAULT_SHARD_MB = 500.0


class Options(TypedDict, total=False):
    """What ``export`` and ``forecast`` both take beside the kind."""

    first: int | None  # only the first N images, by rank
    link: str | None  # of folder: hard, symbolic or copy; default: hard where possible, else a copy
    label: bool  # of folder: sub-folders are labels, not sources
    shard_size: float | None  # of webdataset: MB of the largest shard; default 500


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One export, as asked for; see ``Options``."""

    to: str
    first: int | None = None
    link: str | None = None
    label: bool = False
    shard_size: float | None = None

    def __post_init__(self) -> None:
        if self.to not in KINDS:
            raise UnknownNameError("kind of export", self.to, KINDS)
        if self.link is not None and self.link not in LINKS:
            raise UnknownNameError("kind of link", self.link, LINKS)
        if self.first is not None and self.first < 1:
            raise UsageError(f"The first {self.first} images; wanted 1 or more.", hint="Choose another --first.")
        if self.shard_size is not None and not 0 < self.shard_size < math.inf:
            raise UsageError(f"Shards of {self.shard_size:g} MB; wanted more than 0.", hint="Try --shard-size 500.")
        self._require("folder", "--link", self.link is not None)
        self._require("folder", "--label", self.label)
        self._require("webdataset", "--shard-size", self.shard_size is not None)

    def _require(self, kind: str, flag: str, given: bool) -> None:
        if given and self.to != kind:
            raise UsageError(f"{flag} says something of --to {kind}, not of {self.to}.", hint="Leave it out.")

    def chosen(self, selection: Selection | str | Path) -> Selection:
        """The selection, or the one saved in a folder; of it the first images."""
        found = selection if isinstance(selection, Selection) else Selection.open(selection)
        return found if self.first is None or self.first >= len(found) else found.truncate(self.first)

    @property
    def shard_bytes(self) -> int:
        """Largest size of a tar shard."""
        return int((self.shard_size or DEFAULT_SHARD_MB) * 1e6)


Writer = Callable[[Path, "Originals", Settings], list[str]]


def load_writer(to: str) -> Writer:
    """The function that writes a kind at a path; it returns what a person should know of the result."""
    module, name = KINDS[to].split(":")
    writer: Writer = getattr(import_module(f"curate.exports.{module}"), name)
    return writer
