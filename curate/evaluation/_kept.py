"""Results that are made once: each under the digest of all that it depends on, so that none is ever stale.

    with remembered(folder, kinds) as memory:
        result = memory.on(lambda: document)("name", make)         # as it was kept, else make()

A result is one file, written in one step: its arrays as they are, each under its own digest, and a tree of the rest as
JSON. Nothing in it is executed when it is read; one that is damaged is made anew. The digest is of the documents, the
name, the version and all sources of this project, and the versions of the libraries that compute: who changes a line
anywhere measures again. The machine and the device are not in it, nor the device that torch was built for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from embeddings import files
from embeddings.errors import CorruptError
from embeddings.pipeline.locks import locked
from embeddings.progress import Progress, silent

log = logging.getLogger(__name__)
SCHEMA = "curate.kept/1"
ENDING = ".safetensors"
PACKAGES = (Path(__file__).parents[1], Path(files.__file__).parent)  # curate, embeddings
LIBRARIES = ("numpy", "pillow", "scipy", "timm", "torch", "torchvision")

DAMAGE = (  # what it takes to read what was cut, changed, or made by someone else
    CorruptError,
    OSError,
    SafetensorError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    RecursionError,
    pa.ArrowException,
)

T = TypeVar("T")
Arrays = dict[str, np.ndarray]  # by digest
Document = Callable[[], Mapping[str, Any]]  # makes plain JSON


class Memory(Protocol):
    """What was made before, as long as nothing has changed that it depends on."""

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        """What was kept under a name, else what ``make`` makes: the same to the last bit."""

    def on(self, document: Document) -> Memory:
        """The memory of results that depend on this besides."""


class NoMemory:
    """Makes everything anew."""

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        """See ``Memory``."""
        return make()

    def on(self, document: Document) -> Memory:
        """See ``Memory``."""
        return self


@dataclass(frozen=True)
class Kept:
    """A folder of results.

    ``kinds`` are the dataclasses they are made of, beside numbers, texts, lists, tuples, mappings, arrays and tables.
    """

    folder: Path
    kinds: Iterable[type]
    base: str = ""  # digest of what results depend on
    _known: set[str] = field(default_factory=set)  # every base that there is

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        """See ``Memory``; ``name`` is a part of the file's."""
        path = self.folder / f"{self.base}-{name}{ENDING}"
        found = self._read(path)
        if found is None:
            found = (make(),)
            self._write(path, found[0])
        return found[0]

    def on(self, document: Document) -> Memory:
        """See ``Memory``."""
        base = files.digest([SCHEMA, code_digest(), self.base, document()])[:32]
        self._known.add(base)
        return replace(self, base=base)

    def forget_others(self) -> None:
        """Deletes the results that depend on something else than what was named since it was opened."""
        for path in self.folder.glob(f"*{ENDING}"):
            if path.name.partition("-")[0] not in self._known:
                path.unlink(missing_ok=True)

    def _write(self, path: Path, value: Any) -> None:
        arrays: Arrays = {}
        tree = json.dumps(_flat(value, self._named_kinds, arrays))
        facts = {"schema": SCHEMA, "tree": tree, "sha256": files.digest_bytes(tree.encode())}
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(save(arrays, metadata=facts))

    def _read(self, path: Path) -> tuple[Any] | None:
        """The value; None if there is none, or none that reads back."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                facts, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if files.digest_bytes(facts["tree"].encode()) != facts["sha256"] or any(
                digest_array(array) != name for name, array in arrays.items()
            ):
                raise CorruptError(f"{path.name} is damaged.")
            return (_whole(json.loads(facts["tree"]), self._named_kinds, arrays),)
        except DAMAGE as error:
            log.warning("The result in %s does not read back (%s); it is made anew.", path, error)
            return None

    @property
    def _named_kinds(self) -> dict[str, Any]:
        return {kind.__name__: kind for kind in self.kinds}


@contextmanager
def remembered(folder: Path | None, kinds: Iterable[type], progress: Progress = silent) -> Iterator[Memory]:
    """The memory in a folder, for this process alone; at a good end it holds what was asked for here and nothing else.

    Without a folder everything is made anew. Where another process is at work in it, that one is waited for: it makes
    what is wanted here.

    Raises:
        StorageError: it cannot be made or written to.
    """
    if folder is None:
        yield NoMemory()
        return
    with locked(folder, announce=lambda told: progress("evaluate", 0, 0, told)):
        files.sweep(folder)
        memory = Kept(folder, kinds)
        yield memory
        memory.forget_others()


def digest_array(array: np.ndarray) -> str:
    """sha256 (hex) of type, shape and values."""
    return files.digest_bytes(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())


@cache
def code_digest() -> str:
    """sha256 (hex) of what computes: the sources and version of this project, and the versions of its libraries."""
    sources = {
        path.relative_to(package.parent).as_posix(): files.digest_file(path)
        for package in PACKAGES
        for path in package.rglob("*.py")
    }
    versions = {name: version(name).partition("+")[0] for name in ("curate-pretraining", *LIBRARIES)}
    return files.digest([sources, versions])


def _flat(value: Any, kinds: Mapping[str, Any], arrays: Arrays) -> Any:
    """A value as JSON: numbers and texts as they are, all else as {what it is: content}; arrays are put aside."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        return {"array": _aside(value, arrays)}
    if isinstance(value, pa.Table):
        return {"table": _aside(np.frombuffer(_stream(value), np.uint8), arrays)}
    if isinstance(value, Mapping):
        return {"dict": [[_flat(side, kinds, arrays) for side in item] for item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_flat(item, kinds, arrays) for item in value]}
    kind = kinds.get(name := type(value).__name__)
    if kind is not type(value):
        raise TypeError(f"A {name} cannot be kept.")
    return {name: {part.name: _flat(getattr(value, part.name), kinds, arrays) for part in fields(kind)}}


def _whole(flat: Any, kinds: Mapping[str, Any], arrays: Arrays) -> Any:
    """What ``_flat`` took apart."""
    if not isinstance(flat, dict):
        return flat
    ((what, content),) = flat.items()
    if what == "array":
        return arrays[content]
    if what == "table":
        return pa.ipc.open_stream(pa.py_buffer(arrays[content].tobytes())).read_all()
    if what == "dict":
        return {_whole(key, kinds, arrays): _whole(item, kinds, arrays) for key, item in content}
    if what in ("list", "tuple"):
        items = [_whole(item, kinds, arrays) for item in content]
        return items if what == "list" else tuple(items)
    return kinds[what](**{name: _whole(part, kinds, arrays) for name, part in content.items()})


def _aside(array: np.ndarray, arrays: Arrays) -> str:
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)  # as the file has it
    name = digest_array(array)
    arrays[name] = array
    return name


def _stream(table: pa.Table) -> bytes:
    """Arrow's own format, in which nulls, types and the schema stay as they are."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
