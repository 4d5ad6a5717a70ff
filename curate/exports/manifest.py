"""What is known of every selected image, as one table: the selection's own columns and what its source says.

every column of the selection
label, group         of the source
meta_NAME            every other column of the source, license and attribution among them, as text
path                 file, URL or data set that holds the image
offset, length       bytes of it there, for an image in a tar archive; null for a whole file
entry                key of its row, for an image in a table or data set
box                  left,top,width,height in pixels, for a tile
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.exports.places import Place
from curate.results import Selection
from embeddings.pictures.tiles import split_key
from embeddings.sources import Source

_TOLD = ("label", "group", "meta")
_META = "meta_"


def described(selection: Selection, sources: Mapping[str, Source]) -> pa.Table:
    """The rows of a selection with what its sources say of the images now; null where they no longer list one.

    Raises:
        SourceError: a source holds nothing any more.
    """
    rows = selection.rows()
    told = _told(rows, sources)
    columns = {name: told[name] for name in ("label", "group")} | _spread(told["meta"].to_pylist())
    for name, values in columns.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, values)
    return rows


def placed(rows: pa.Table, places: Sequence[Place]) -> pa.Table:
    """Rows [n] with where their images lie."""
    for name, values in _place_columns(places).items():
        rows = rows.append_column(name, values)
    return rows


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, date | datetime) else value


def _told(rows: pa.Table, sources: Mapping[str, Source]) -> pa.Table:
    """Columns label, group and meta [n], as the sources list them."""
    names = rows["source"].to_pylist()
    found: list[dict[str, str | None]] = [dict.fromkeys(_TOLD)] * len(rows)
    for name, source in sources.items():
        places = [place for place, own in enumerate(names) if own == name]
        keys = rows["key"].take(pa.array(places, pa.int64())).to_pylist()
        listed = source.listing().images
        if source.address.view.tiles:
            keys = [split_key(key) for key in keys]
        among = pc.index_in(pa.array(keys, pa.string()), value_set=listed["key"].combine_chunks())
        for place, told in zip(places, listed.select(_TOLD).take(among).to_pylist(), strict=True):
            found[place] = told
    return pa.Table.from_pylist(found, pa.schema([(name, pa.string()) for name in _TOLD]))


def _spread(metas: Sequence[str | None]) -> dict[str, pa.Array]:
    """A column for every name in JSON objects [n] of strings."""
    objects = [json.loads(meta) if meta else {} for meta in metas]
    names = sorted(set[str]().union(*objects))
    return {_META + name: pa.array([told.get(name) for told in objects], pa.string()) for name in names}


def _place_columns(places: Sequence[Place]) -> dict[str, pa.Array]:
    boxes = [str(place.box) if place.box else None for place in places]
    return {
        "path": pa.array([place.path for place in places], pa.string()),
        "offset": pa.array([place.offset for place in places], pa.int64()),
        "length": pa.array([place.length for place in places], pa.int64()),
        "entry": pa.array([place.entry for place in places], pa.string()),
        "box": pa.array(boxes, pa.string()),
    }
