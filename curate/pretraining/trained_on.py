"""Which images the weights of a run have seen: a table in its folder, by which an evaluation notices its test images.

trained_on.parquet has one row per image: those of the selection that could be read, and those of every run that this
one started from (``init run:DIR``) or was taught by. An image whose digests nobody took has none. A run before this
one that has no such table counts as one image of that kind: what else was seen is then not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import CorruptError

NAME = "trained_on.parquet"
DIGESTS = ["sha256", "pixels"]  # of the file, and of the picture in it
TRAINED_ON = pa.schema([(name, pa.string()) for name in ("source", "key", *DIGESTS)])
EARLIER = "an earlier run"  # source of the one row for images that are not known


def write_trained_on(folder: Path, chosen: pa.Table, errors: pa.Table, *, earlier: Sequence[Path]) -> None:
    """Writes the table of a run.

    Args:
        folder: of the run.
        chosen: schema SELECTION.
        errors: schema ERRORS, of the images among them that could not be read.
        earlier: folders of the runs that this one learned from.

    Raises:
        StorageError: no space.
    """
    table = _without(chosen, errors).select(TRAINED_ON.names).cast(TRAINED_ON)
    for place in earlier:
        others = _of_earlier(place)
        is_new = pc.invert(pc.is_in(others["sha256"], value_set=table["sha256"].combine_chunks(), skip_nulls=True))
        table = pa.concat_tables([table, others.filter(is_new)])
    files.write_table(folder / NAME, table.combine_chunks())


def read_digests(folder: Path) -> pa.Table | None:
    """The columns DIGESTS of a run's table; None if it has no table.

    Raises:
        CorruptError: the table does not read back.
    """
    path = folder / NAME
    if not path.exists():
        return None
    return _read(path, DIGESTS)


def _without(chosen: pa.Table, errors: pa.Table) -> pa.Table:
    if not len(errors):
        return chosen
    names, lost = (pc.binary_join_element_wise(table["source"], table["key"], "\0") for table in (chosen, errors))
    return chosen.filter(pc.invert(pc.is_in(names, value_set=lost.combine_chunks())))


def _of_earlier(folder: Path) -> pa.Table:
    try:
        return _read(folder / NAME, TRAINED_ON.names)
    except CorruptError:
        return TRAINED_ON.empty_table().from_pylist([{"source": EARLIER}], schema=TRAINED_ON)


def _read(path: Path, columns: list[str]) -> pa.Table:
    """Some columns of a table.

    Raises:
        CorruptError: it is not there, or not one of a run.
    """
    table = files.read_table(path, columns)
    wanted = pa.schema([TRAINED_ON.field(name) for name in columns])
    if not table.schema.equals(wanted):
        raise CorruptError(f"{path} has columns {table.column_names}, wanted {columns}, all of them text.")
    return table
