"""Every error this project raises on purpose.

    CurateError                    exit 1   something failed that the user could not have typed differently
    ├── StorageError               exit 1   disk full, permission denied, a file that vanished
    ├── CorruptError               exit 1   an output folder of ours that does not read back
    ├── TrainingError              exit 1   a run that cannot go on (loss is not finite, no usable images)
    ├── TasksFailedError           exit 1   some runs of a study failed; the others are done
    ├── ImageError                 exit 1   one image that cannot be read or decoded; becomes a row in errors.parquet
    ├── UsageError                 exit 2   wrong path, flag, key, or a wish the data cannot carry
    │   ├── UnknownNameError       exit 2   a name that does not exist; lists the nearest ones
    │   ├── MissingExtraError      exit 2   an optional dependency or downloadable file is absent
    │   ├── SourceError            exit 2   a source that does not exist, is empty or cannot be understood
    │   ├── TooFewImagesError      exit 2   fewer images than the asked-for figure needs
    │   ├── EncoderMismatchError   exit 2   two stores made by different encoders
    │   ├── ForeignFolderError     exit 2   an output folder that belongs to something else
    │   └── ConfigError            exit 2   a curate.toml that does not hold up
    ├── GateError                  exit 3   a gate the user set has failed (--fail-above)
    └── PartialError               exit 4   too large a share of the images failed; what was done is kept

A message says what failed, what was found and what was wanted; ``hint`` says what to do next.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib import metadata

DISTRIBUTION = "curate-pretraining"


class CurateError(Exception):
    """Base of every deliberate error; carries the exit code and the remedy."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class StorageError(CurateError):
    """Raised when the file system refuses: no space, no permission, a file gone."""


class CorruptError(CurateError):
    """Raised when a folder this project wrote does not read back as written."""


class TrainingError(CurateError):
    """Raised when a pretraining run cannot go on."""


class TasksFailedError(CurateError):
    """Raised when some tasks of a queue failed, after the others were done; ``failed`` says why, by name."""

    def __init__(self, message: str, *, failed: Mapping[str, str], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.failed = dict(failed)


class ImageError(CurateError):
    """Raised for one image; callers turn it into a row of errors.parquet."""


class UsageError(CurateError):
    """Raised when the request itself cannot be met as typed."""

    exit_code = 2


class UnknownNameError(UsageError):
    """Raised for a name that is not known; names the nearest known ones, found by spelling unless given."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, nearest: Iterable[str] = ()) -> None:
        names = sorted(known)
        near = list(nearest) or difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
        super().__init__(f"Unknown {kind} {name!r}.", hint=hint)
        self.kind, self.name, self.nearest = kind, name, near


class MissingExtraError(UsageError):
    """Raised when an optional package or a weights file is absent; the hint is the command that mends it."""


class SourceError(UsageError):
    """Raised when a source does not exist, holds no image, or lacks a column it was asked for."""


class TooFewImagesError(UsageError):
    """Raised when the number of images cannot carry the figure that was asked for."""


class EncoderMismatchError(UsageError):
    """Raised when stores made by different encoders would be compared."""


class ForeignFolderError(UsageError):
    """Raised when an output folder holds something this command did not write, or another configuration's result."""


class ConfigError(UsageError):
    """Raised for an unknown key, a wrong type or an impossible value in curate.toml."""


class GateError(CurateError):
    """Raised when a gate set by the user has failed."""

    exit_code = 3


class PartialError(CurateError):
    """Raised when more images failed than allowed; the result so far stays usable."""

    exit_code = 4


def install_command(extra: str) -> str:
    """The command that installs the packages of one of our extras, however this distribution was installed.

    It names the packages themselves: ``curate-pretraining[EXTRA]`` means something to an index that has the
    distribution, not to who installed it from a clone.
    """
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from its folder
        required = []
    wanted = re.compile(rf"extra == ['\"]{re.escape(extra)}['\"]")
    packages = [name.strip() for name, _, marker in (r.partition(";") for r in required) if wanted.search(marker)]
    return " ".join(["pip install", *(f"'{name}'" for name in packages or [f"{DISTRIBUTION}[{extra}]"])])


def one_line(error: BaseException, *, width: int = 160) -> str:
    """What an exception says, on one line of at most ``width`` characters; its type if it says nothing."""
    return " ".join(str(error).split())[:width] or type(error).__name__
