"""A manifest that other programs open: Parquet with exact values, or CSV that is safe in a spreadsheet.

A spreadsheet takes text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return for a formula. In CSV
such text gets an apostrophe in front, as the OWASP page on CSV injection advises; numbers, and paths, which are
absolute, never do.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.exports.manifest import placed
from curate.exports.originals import Originals
from curate.exports.settings import Settings
from embeddings import files

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_parquet(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """The manifest as Parquet."""
    files.write_table(out, _read_all(originals))
    return []


def write_csv(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """The manifest as CSV: UTF-8, a header, empty for null."""
    write_rows(out, _read_all(originals))
    return ["Text that a spreadsheet would run begins with an apostrophe; Parquet has every value as it is."]


def write_rows(out: Path, table: pa.Table) -> None:
    """A table as CSV that is safe in a spreadsheet."""
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # ends lines with CR LF, and therefore quotes text that holds either
        writer.writerow(_cell(name) for name in table.column_names)
        for batch in table.to_batches(max_chunksize=1024):
            columns = [column.to_pylist() for column in batch.columns]
            writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))


def _read_all(originals: Originals) -> pa.Table:
    for _ in originals:  # every image is checked, so that the manifest names none that is gone
        pass
    return placed(originals.kept(), [place for _, place in sorted(originals.places.items())])


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
