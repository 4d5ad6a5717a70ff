"""The file formats of tables: Parquet, Arrow and CSV read into one shape, without the bytes of the images.

Every column of single values comes out as strings, so that a CSV and a Parquet file of the same table read alike: CSV
columns are never guessed to be numbers (``007`` stays), class numbers of Hugging Face files become their names. What a
file says is not trusted: what is used of it is validated first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from embeddings import files
from embeddings.errors import SourceError, one_line
from embeddings.sources.arrow_blobs import ArrowBlobs, ArrowFile, binary_values, places_of
from embeddings.sources.blobs import Blobs, leaf, missing
from embeddings.sources.rows import Columns

PATH_COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image_path", "image")
ARROW_SUFFIXES = (".arrow", ".feather")
_UNREADABLE = (OSError, ValueError, pa.ArrowException)  # ValueError: text that is not UTF-8, among others
_READ_AHEAD = 1 << 20  # bytes; without it Arrow reads whole column chunks, one of which may be the whole file
_MEND = "Make or download the file again."


class BlobReader(Protocol):
    """Thread-safe reads of the bytes of images."""

    def read(self, row: int) -> bytes | None:
        """The bytes in a row of the file; None where there are none."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a table says, in file order, apart from the bytes of the images."""

    columns: Columns
    paths: pa.Array  # where an image lies, or is said to come from; null where nothing is said
    present: np.ndarray  # bool [n]: the image's bytes are in the table
    path_column: str = ""  # the column that says where the image files lie, where they are files
    blobs: Callable[[np.ndarray], BlobReader] | None = None  # given the rows [n] in the order they are mostly read in


def read_content(path: str) -> Content:
    """Columns of a table of images, and where its images are.

    Raises:
        SourceError: not readable, or without a column of images.
        StorageError: no space for the temporary copy of a remote Arrow file.
    """
    if _is_parquet(path):
        return read_parquet(path)
    return read_arrow(path) if _is_arrow(path) else read_csv(path)


def read_parquet(path: str) -> Content:
    """As ``read_content``, of a Parquet file."""
    with reading(path, "Parquet"):
        file = open_parquet(path)
        schema, n = _checked(file.schema_arrow, path), file.metadata.num_rows
        columns = _as_strings(file.read(columns=_scalar_names(schema)), class_names(schema))
        image = _image_field(schema, path)
        if image is None:
            return _with_paths(columns, n, schema.names, path)
        inner = _inner_names(image)
        column = f"{image.name}.bytes" if inner else image.name
        paths = _nested_strings(file, f"{image.name}.path") if "path" in inner else pa.nulls(n, pa.string())
        present = ~missing(file, column)
    return Content(
        columns=columns,
        paths=columns.get("path", paths),
        present=present,
        blobs=lambda order: Blobs(file, column, order=order),
    )


def read_arrow(path: str, *, names: Mapping[str, list[str]] | None = None) -> Content:
    """As ``read_content``, of an Arrow file; ``names`` of classes by column, beside those the file tells itself."""
    with reading(path, "Arrow"):
        file = ArrowFile(path)
        _checked(file.schema, path)
        image = _image_field(file.schema, path)
        if image is None:
            columns = _arrow_columns(file, names)
            n = len(next(iter(columns.values()), ()))
            return _with_paths(columns, n, file.schema.names, path)
        paths, places = [], []
        for batch in file.batches([image.name]):
            values = batch.column(0)
            paths.append(_nested_paths(values))
            places.append(places_of(binary_values(values), file))
        columns, nested = _arrow_columns(file, names), _owned(paths)
        blobs = ArrowBlobs(file, image.name, places)
    return Content(columns=columns, paths=columns.get("path", nested), present=blobs.present, blobs=lambda order: blobs)


def read_csv(path: str) -> Content:
    """As ``read_content``, of a CSV or TSV file, which has paths only."""
    columns = _csv_columns(path)
    return _with_paths(columns, len(next(iter(columns.values()))), list(columns), path)


def read_columns(path: str) -> tuple[Columns, int]:
    """The columns of single values of any table, as strings, and the number of rows.

    Raises:
        SourceError: not readable.
    """
    if _is_parquet(path):
        with reading(path, "Parquet"):
            file = open_parquet(path)
            schema = _checked(file.schema_arrow, path)
            return _as_strings(file.read(columns=_scalar_names(schema)), class_names(schema)), file.metadata.num_rows
    if _is_arrow(path):
        with reading(path, "Arrow"):
            arrow = ArrowFile(path)
            _checked(arrow.schema, path)
            return _arrow_columns(arrow), sum(batch.num_rows for batch in arrow.batches([]))
    columns = _csv_columns(path)
    return columns, len(next(iter(columns.values())))


def read_schema(path: str) -> pa.Schema:
    """The schema of a Parquet or Arrow file; of Parquet only the footer is read.

    Raises:
        SourceError: not readable.
    """
    if _is_parquet(path):
        with reading(path, "Parquet"):
            return _checked(open_parquet(path).schema_arrow, path)
    with reading(path, "Arrow"):
        return _checked(ArrowFile(path).schema, path)


def read_batches(path: str, column: str, *, rows: int) -> Iterator[pa.Array]:
    """The values of one column of a Parquet or Arrow file, validated, piece by piece; of Parquet ``rows`` at a time.

    Raises:
        SourceError: not readable.
    """
    if _is_parquet(path):
        with reading(path, "Parquet"):
            for batch in open_parquet(path).iter_batches(rows, columns=[column], use_threads=False):
                batch.validate(full=True)
                yield batch.column(0)
        return
    with reading(path, "Arrow"):
        for batch in ArrowFile(path).batches([column]):
            yield batch.column(0)


def has_images(schema: pa.Schema) -> bool:
    """True for a table with a column of image bytes or of paths."""
    return bool(_byte_fields(schema)) or any(name in PATH_COLUMNS for name in _scalar_names(schema))


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Class names by column from the metadata the Hugging Face ``datasets`` library leaves in its files."""
    try:
        return feature_names(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def feature_names(features: dict[str, Any]) -> dict[str, list[str]]:
    """Class names by column from the features of a Hugging Face data set.

    Raises:
        AttributeError, KeyError, TypeError: it is something else.
    """
    classes = {name: f["names"] for name, f in features.items() if isinstance(f, dict) and f.get("names")}
    return {name: [str(n) for n in names] for name, names in classes.items() if features[name]["_type"] == "ClassLabel"}


@contextmanager
def reading(path: str, kind: str) -> Iterator[None]:
    """Turns what Arrow raises on a damaged file into words.

    Raises:
        SourceError: it did.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise SourceError(f"{path!r} does not read as {kind}: {one_line(error)}", hint=_MEND) from None


def open_parquet(path: str) -> pq.ParquetFile:
    """A Parquet file, of which nothing but the footer is read yet."""
    handle = files.open_binary(path) if files.is_remote(path) else path
    return pq.ParquetFile(handle, buffer_size=_READ_AHEAD, pre_buffer=False)


def _csv_columns(path: str) -> Columns:
    """Columns of a CSV or TSV file: UTF-8, a header line, separated by comma, semicolon or tab, as it has most."""
    try:
        with files.open_binary(path) as file:
            header = file.readline().decode("utf-8", "replace")
        parse = pacsv.ParseOptions(delimiter=max(",;\t", key=header.count), newlines_in_values=True)
        with files.open_binary(path) as file:
            names = pacsv.open_csv(file, parse_options=parse).schema.names
        _check_names(names, path)
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        with files.open_binary(path) as file:
            table = pacsv.read_csv(file, parse_options=parse, convert_options=convert)
        return _as_strings(table, {})
    except _UNREADABLE as error:
        raise SourceError(
            f"{path!r} does not read as CSV: {one_line(error)}", hint="Save it as CSV in UTF-8, with a header line."
        ) from None


def _arrow_columns(file: ArrowFile, names: Mapping[str, list[str]] | None = None) -> Columns:
    wanted = _scalar_names(file.schema)
    if not wanted:
        return {}
    table = pa.Table.from_batches(file.batches(wanted), pa.schema([file.schema.field(name) for name in wanted]))
    columns = _as_strings(table, class_names(file.schema) | dict(names or {}))
    return {name: _owned([values]) for name, values in columns.items()}


def _owned(arrays: list[pa.Array]) -> pa.Array:
    """Strings in memory of their own: what lies in a mapped file can change under our feet."""
    return pa.concat_arrays([*arrays, pa.array([], pa.string()), pa.array([], pa.string())])


def _with_paths(columns: Columns, n: int, names: list[str], path: str) -> Content:
    column = next((name for name in PATH_COLUMNS if name in columns), None)
    if column is None:
        raise SourceError(
            f"No column of images in {path!r}; columns: {', '.join(names)}.",
            hint=f"Name a column of paths one of {', '.join(PATH_COLUMNS)}; a column of bytes 'image'.",
        )
    return Content(columns=columns, paths=columns[column], present=np.zeros(n, bool), path_column=column)


def _image_field(schema: pa.Schema, path: str) -> pa.Field | None:
    """The column of the image bytes, if the table holds any."""
    found = _byte_fields(schema)
    if len(found) > 1:
        found = [field for field in found if field.name == "image"] or found
    if len(found) > 1:
        raise SourceError(
            f"{path!r} has several columns of bytes: {', '.join(f.name for f in found)}.",
            hint="Name the one that holds the images 'image'.",
        )
    return found[0] if found else None


def _byte_fields(schema: pa.Schema) -> list[pa.Field]:
    structs = [field for field in schema if "bytes" in _inner_names(field)]
    return structs or [field for field in schema if _is_binary(field.type)]


def _inner_names(field: pa.Field) -> list[str]:
    return [inner.name for inner in field.type] if pa.types.is_struct(field.type) else []


def _nested_strings(file: pq.ParquetFile, column: str) -> pa.Array:
    values = leaf(file.read(columns=[column]).column(0))
    values.validate(full=True)
    return _flat(values.cast(pa.string()))


def _nested_paths(values: pa.Array) -> pa.Array:
    """The field ``path`` of a struct; nulls where there is none."""
    index = values.type.get_field_index("path") if pa.types.is_struct(values.type) else -1
    nothing = pa.nulls(len(values), pa.string())
    return nothing if index < 0 else pc.struct_field(values, [index]).cast(pa.string())


def _as_strings(table: pa.Table, names: dict[str, list[str]]) -> Columns:
    columns = {}
    for name in table.column_names:
        values = table[name]
        values.validate(full=True)  # text that is not UTF-8 would fail much later, far from its file
        named = name in names and pa.types.is_integer(values.type)
        columns[name] = _flat(_named(values, names[name]) if named else values.cast(pa.string()))
    return columns


def _named(numbers: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Names of class numbers; -1, which means unknown, becomes null; other strange numbers stay as they are."""
    numbers = numbers.cast(pa.int64())
    known = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
    index = pc.if_else(known, numbers, pa.scalar(None, pa.int64()))
    strange = pc.if_else(pc.equal(numbers, -1), pa.scalar(None, pa.string()), numbers.cast(pa.string()))
    return pc.coalesce(pa.array(names, pa.string()).take(index), strange)


def _checked(schema: pa.Schema, path: str) -> pa.Schema:
    """The schema, if no column has the name of another.

    Raises:
        UnicodeDecodeError: a name is not text, which no later place expects.
    """
    for field in schema:
        _inner_names(field)
    _check_names(schema.names, path)
    return schema


def _check_names(names: list[str], path: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(f"{path!r} has several columns called {', '.join(repeated)}.", hint="Rename them.")


def _scalar_names(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _is_scalar(field.type)]


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _is_arrow(path: str) -> bool:
    return path.lower().endswith(ARROW_SUFFIXES)


def _is_binary(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary(), pa.binary_view())


def _is_scalar(kind: pa.DataType) -> bool:
    """True for types with one value a row that has a usual form as text."""
    if _is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return False
    try:
        pa.nulls(0, kind).cast(pa.string())  # an array of a list would look for pandas, which takes a second
    except (pa.ArrowException, TypeError):
        return False
    return True


def _flat(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
