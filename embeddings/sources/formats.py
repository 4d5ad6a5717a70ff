"""The file formats of tables: Parquet and CSV read into one shape, without the bytes of the images.

Every column of single values comes out as strings, so that a CSV and a Parquet file of the same table read alike: CSV
columns are never guessed to be numbers (``007`` stays), class numbers of Hugging Face files become their names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from embeddings import files
from embeddings.errors import SourceError, one_line
from embeddings.sources.blobs import leaf, missing
from embeddings.sources.rows import Columns

PATH_COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image_path", "image")
_UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)
_READ_AHEAD = 1 << 20  # bytes; without it Arrow reads whole column chunks, one of which may be the whole file


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a table says, in file order, apart from the bytes of the images."""

    columns: Columns
    paths: pa.Array  # where an image lies, or is said to come from; null where nothing is said
    present: np.ndarray  # bool [n]: the image's bytes are in the table
    path_column: str = ""  # the column that says where the image files lie, where they are files
    file: pq.ParquetFile | None = None
    image: str = ""  # the Parquet column that holds the bytes


def read_parquet(path: str) -> Content:
    """Columns of a Parquet file, and where its images are.

    Raises:
        SourceError: not readable, or without a column of images.
    """
    try:
        handle = files.open_binary(path) if files.is_remote(path) else path
        file = pq.ParquetFile(handle, buffer_size=_READ_AHEAD, pre_buffer=False)
        schema, n = file.schema_arrow, file.metadata.num_rows
        _check_names(schema.names, path)
        table = file.read(columns=[field.name for field in schema if _is_scalar(field.type)])
        columns = _as_strings(table, _class_names(schema))
        image = _image_field(schema, path)
        if image is None:
            return _with_paths(columns, n, schema.names, path)
        column, nested_path = image
        paths = _nested_strings(file, nested_path) if nested_path else pa.nulls(n, pa.string())
        present = ~missing(file, column)
    except _UNREADABLE as error:
        raise SourceError(
            f"{path!r} does not read as Parquet: {one_line(error)}", hint="Make or download the file again."
        ) from None
    return Content(columns=columns, paths=columns.get("path", paths), present=present, file=file, image=column)


def read_csv(path: str) -> Content:
    """Columns of a CSV or TSV file: UTF-8, a header line, separated by comma, semicolon or tab, whichever it has most.

    Raises:
        SourceError: not readable, or without a column of paths.
    """
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
    except _UNREADABLE as error:
        raise SourceError(
            f"{path!r} does not read as CSV: {one_line(error)}", hint="Save it as CSV in UTF-8, with a header line."
        ) from None
    return _with_paths(_as_strings(table, {}), len(table), names, path)


def _with_paths(columns: Columns, n: int, names: list[str], path: str) -> Content:
    column = next((name for name in PATH_COLUMNS if name in columns), None)
    if column is None:
        raise SourceError(
            f"No column of images in {path!r}; columns: {', '.join(names)}.",
            hint=f"Name a column of paths one of {', '.join(PATH_COLUMNS)}; a column of bytes 'image'.",
        )
    return Content(columns=columns, paths=columns[column], present=np.zeros(n, bool), path_column=column)


def _image_field(schema: pa.Schema, path: str) -> tuple[str, str] | None:
    """Names of the leaf columns of the image bytes and of their paths ("" if none), if the table holds bytes."""
    structs = [f for f in schema if pa.types.is_struct(f.type) and "bytes" in [inner.name for inner in f.type]]
    found = structs or [field for field in schema if _is_binary(field.type)]
    if len(found) > 1:
        found = [field for field in found if field.name == "image"] or found
    if len(found) > 1:
        raise SourceError(
            f"{path!r} has several columns of bytes: {', '.join(f.name for f in found)}.",
            hint="Name the one that holds the images 'image'.",
        )
    if not found:
        return None
    (field,) = found
    if not structs:
        return field.name, ""
    return f"{field.name}.bytes", f"{field.name}.path" if "path" in [inner.name for inner in field.type] else ""


def _nested_strings(file: pq.ParquetFile, column: str) -> pa.Array:
    return _flat(leaf(file.read(columns=[column]).column(0)).cast(pa.string()))


def _as_strings(table: pa.Table, class_names: dict[str, list[str]]) -> Columns:
    columns = {}
    for name in table.column_names:
        values = table[name]
        values.validate(full=True)  # text that is not UTF-8 would fail much later, far from its file
        named = name in class_names and pa.types.is_integer(values.type)
        columns[name] = _flat(_named(values, class_names[name]) if named else values.cast(pa.string()))
    return columns


def _named(numbers: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Names of class numbers; -1, which means unknown, becomes null; other strange numbers stay as they are."""
    numbers = numbers.cast(pa.int64())
    known = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
    index = pc.if_else(known, numbers, pa.scalar(None, pa.int64()))
    strange = pc.if_else(pc.equal(numbers, -1), pa.scalar(None, pa.string()), numbers.cast(pa.string()))
    return pc.coalesce(pa.array(names, pa.string()).take(index), strange)


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Class names by column from the metadata the Hugging Face ``datasets`` library leaves in its files."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel" and f.get("names")}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _check_names(names: list[str], path: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(f"{path!r} has several columns called {', '.join(repeated)}.", hint="Rename them.")


def _is_binary(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary(), pa.binary_view())


def _is_scalar(kind: pa.DataType) -> bool:
    """True for types with one value a row that has a usual form as text."""
    if _is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return False
    try:
        pa.array([], kind).cast(pa.string())
    except (pa.ArrowException, TypeError):
        return False
    return True


def _flat(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
