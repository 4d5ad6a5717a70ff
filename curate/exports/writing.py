"""export(selection, to=KIND, out=PATH): the path that every kind takes.

Read and check every image once -> write under a temporary name beside PATH -> mark -> rename. So nothing half-written
ever stands at PATH, and nothing that stood there before is touched. One process at a time makes what will stand at
PATH, in a folder beside it (``.PATH.DIGEST.part``). A folder that was interrupted keeps there what is whole; the same
export checks that, image by image, and goes on from it. Once PATH stands nothing can go on there, and all of it goes.
Two files go with an export, in its folder or, for an export that is a file, beside it under its name
(``chosen.csv.export.json``):

    export.json    what was exported, how, and from which selection; the same command again finds it done
    errors.csv     images that could not be read or have changed since they were selected, with the reason; if any
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from curate.exports.originals import MAX_ERRORS, Originals
from curate.exports.settings import ERRORS, FOLDERS, MARK, MARKS, Options, Settings, load_writer
from curate.exports.table_file import write_rows
from curate.results import Selection
from embeddings import files
from embeddings.errors import CurateError, ForeignFolderError, PartialError, StorageError, UsageError
from embeddings.pipeline.locks import locked
from embeddings.progress import Progress, silent

SCHEMA = "curate.export/1"
NAME_BYTES = 100  # of PATH in the name of the folder beside it; file systems take 255


@dataclass(frozen=True, kw_only=True)
class Export:
    """A finished export."""

    path: Path
    to: str
    images: int  # that were exported
    errors: int  # selected images that were not
    files: int  # that were made
    notes: tuple[str, ...] = ()
    existed: bool = False  # it was there already

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {"schema": SCHEMA, **asdict(self), "path": str(self.path), "notes": list(self.notes)}

    def lines(self) -> list[str]:
        """What a person reads."""
        there = "is there already" if self.existed else "is written"
        lost = f"; {self.errors:,} could not be had, see {_beside(self.path, ERRORS)}" if self.errors else ""
        return [f"{self.path} {there}: {self.images:,} images{lost}", *self.notes]


def export(
    selection: Selection | str | Path,
    *,
    to: str,
    out: Path | str,
    workers: int | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Export:
    """Writes the images of a selection, or where they are, for other programs. The sources are only read.

    Args:
        selection: A Selection or the folder it was saved in.
        to: A name in KINDS.
        out: File (parquet, csv, paths) or folder to make; the same export is found there, not made again, and one that
            was interrupted goes on.
        workers: Threads that read.
        progress: Told how many images are done.
        **options: first, link, label, shard_size; see ``Options``.

    Raises:
        UnknownNameError: no such kind.
        UsageError: a setting of another kind, a link that cannot be made, or ``out`` inside a source.
        ForeignFolderError: ``out`` holds something else (names the field that differs), or a process writes there.
        PartialError: not one image could be read; nothing is written then.
        StorageError: no space.
    """
    settings, path = Settings(to=to, **options), Path(files.absolute(str(out)))
    chosen = settings.chosen(selection)
    request = {**asdict(settings), "selection": chosen.digest, "sources": chosen.sources}
    _require_place(path)
    found = find_export(path, request)
    if found is not None:
        _clear(path)
        return found
    originals = Originals(chosen, workers=workers, progress=progress)
    _refuse_sources(path, originals)
    part = _part_of(path)
    with _alone(part, path):
        found = find_export(path, request)  # another process may have made it meanwhile
        if found is None:
            with _place(part, path, request) as temporary:
                found = _make(path, temporary, request, originals, settings)
        files.remove_folder(part)
    return found


def require_most_images(made: Export) -> None:
    """Refuses to let pass unnoticed that more than a few of the selected images are not in an export.

    Raises:
        PartialError: more than MAX_ERRORS of them; the export stays usable.
    """
    lost, n = made.errors, made.errors + made.images
    if lost > MAX_ERRORS * n:
        raise PartialError(
            f"{lost:,} of {n:,} selected images could not be exported; {made.images:,} were.",
            hint=f"{_beside(made.path, ERRORS)} says why. Put them back and export to a new --out, or select again.",
        )


def find_export(path: Path, request: dict[str, Any]) -> Export | None:
    """The finished export of this request; None if there is nothing yet.

    Raises:
        ForeignFolderError: something else is there: other files, another export, one that was changed, or a folder,
            be it empty, where a file shall stand.
    """
    if request["to"] not in FOLDERS and path.is_dir():
        why = f"it is a folder, and {request['to']} makes a file"
        raise ForeignFolderError(f"{path} exists and is no export: {why}.", hint="Choose a new --out.")
    mark, errors = (_beside(path, name, request["to"]) for name in (MARK, ERRORS))
    is_there = os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))
    taken = [str(found) for found, stands in ((path, is_there), (errors, errors.exists())) if stands]
    if taken and not mark.exists():
        raise ForeignFolderError(f"{taken[0]} exists and is no export.", hint="Choose a new --out.")
    if not is_there and not mark.exists():
        return None
    document = files.read_json(mark)
    if not isinstance(document, dict) or document.get("request", {}).get("schema") != SCHEMA:
        raise ForeignFolderError(f"{mark} is not of an export by this version.", hint="Choose a new --out.")
    if not is_there:
        return None
    files.require_same_config(path, document["request"], {"schema": SCHEMA, **request})
    result = document["result"]
    if _count(path) != result["files"]:
        raise ForeignFolderError(f"{path} was changed after it was exported.", hint="Choose a new --out, or delete it.")
    return Export(path=path, **{**result, "notes": tuple(result["notes"])}, existed=True)


def _make(path: Path, temporary: Path, request: dict[str, Any], originals: Originals, settings: Settings) -> Export:
    """Writes the export under a temporary name, marks it and gives it its name."""
    notes = load_writer(settings.to)(temporary, originals, settings)
    _require_some(originals)
    made = Export(
        path=path,
        to=settings.to,
        images=len(originals.places),
        errors=len(originals) - len(originals.places),
        files=_count(temporary),
        notes=tuple(notes),
    )
    find_export(path, request)  # refuses what came to stand there meanwhile: a file would take its place
    _mark(temporary if settings.to in FOLDERS else path, made, {"schema": SCHEMA, **request}, originals)
    temporary.rename(path)
    return made


def _mark(place: Path, made: Export, request: dict[str, Any], originals: Originals) -> None:
    """Writes what goes with an export: into the folder, or beside the file."""
    if made.errors:
        with files.atomic_path(_beside(place, ERRORS, made.to)) as temporary:
            write_rows(temporary, originals.errors)
    else:
        _beside(place, ERRORS, made.to).unlink(missing_ok=True)
    result = {name: value for name, value in made.to_json().items() if name not in ("schema", "path", "existed")}
    files.write_json(_beside(place, MARK, made.to), {"request": request, "result": result})


def _beside(path: Path, name: str, to: str | None = None) -> Path:
    """Where a file that goes with an export at ``path`` is."""
    is_folder = path.is_dir() if to is None else to in FOLDERS
    return path / name if is_folder else path.with_name(f"{path.name}.{name}")


def _require_some(originals: Originals) -> None:
    if not originals.places:
        first = originals.errors.slice(0, 1).to_pylist()
        reason = f"; the first says: {first[0]['reason']}" if first else ""
        raise PartialError(
            f"None of the {len(originals):,} selected images could be read{reason}.",
            hint="Check that the sources still hold the images.",
        )


def _require_place(path: Path) -> None:
    """Refuses the root, and a path below what is no folder."""
    if not path.name:
        raise UsageError(f"{path} is no place for an export.", hint="Choose another --out.")
    above = next(parent for parent in path.parents if os.path.lexists(parent))
    if not above.is_dir():
        raise UsageError(f"{path} cannot be made: {above} is no folder.", hint="Choose another --out.")


def _refuse_sources(path: Path, originals: Originals) -> None:
    """Refuses to write into a folder of images, where the next reader would take the export for more of them."""
    for name, source in originals.sources.items():
        if path.is_relative_to(source.address.path) and Path(source.address.path).is_dir():
            raise UsageError(f"{path} lies in the folder of the source {name!r}.", hint="Choose --out outside of it.")


def _count(path: Path) -> int:
    """Files of an export, without what goes with it."""
    if not path.is_dir():
        return 1
    return sum(len(names) for _, _, names in os.walk(path)) - sum((path / name).exists() for name in MARKS)


def _part_of(path: Path) -> Path:
    """The folder beside ``path`` in which exports to it are made, of this very path alone."""
    begin = os.fsencode(path.name)[:NAME_BYTES].decode(errors="ignore")
    return path.with_name(f".{begin}.{files.digest([SCHEMA, path.name])[:12]}.part")


@contextmanager
def _alone(part: Path, path: Path) -> Iterator[None]:
    """Makes exports to ``path`` for this process alone; errors name that, not the hidden folder beside it.

    Raises:
        ForeignFolderError: another process makes one.
        StorageError: nothing can be made there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(part))
        except ForeignFolderError:
            hint = "Wait until it is done, or choose another --out."
            raise ForeignFolderError(f"Another process is exporting to {path}.", hint=hint) from None
        except StorageError as error:
            raise StorageError(error.message.replace(str(part), str(path)), hint=error.hint) from error
        yield


@contextmanager
def _place(part: Path, path: Path, request: dict[str, Any]) -> Iterator[Path]:
    """Where to make this export. A folder that is cut short waits there; a file, or what cannot be made, does not.

    Raises:
        StorageError: no space, or no permission.
    """
    own = part / files.digest(request)[:12]
    try:
        (own / "made" if request["to"] in FOLDERS else own).mkdir(parents=True, exist_ok=True)
        for folder, _, _ in os.walk(own):
            files.sweep(Path(folder))
        yield own / "made"
    except BaseException as error:
        is_final = isinstance(error, CurateError) and not isinstance(error, StorageError | ForeignFolderError)
        if is_final or request["to"] not in FOLDERS:
            files.remove_folder(own)
        if isinstance(error, OSError):
            raise files.storage_error(path, error) from error
        raise


def _clear(path: Path) -> None:
    """Removes what killed exports left beside one that stands; not what another process is at, or what may not go."""
    part = _part_of(path)
    if part.is_dir():
        with suppress(ForeignFolderError, StorageError), locked(part):
            files.remove_folder(part)
