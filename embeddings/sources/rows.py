"""What every kind of source shares: rows as they were found, made into a listing as the address selects.

Everything is Arrow arrays, never a Python loop over rows, so that a million rows list in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings.errors import SourceError, UnknownNameError
from embeddings.sources import LISTING, REJECTED, Address, Listing

Columns = dict[str, pa.Array]
REPEATED = "another image has this key"
MISSING = "no such file"
_ESCAPED = np.isin(np.arange(256), [*range(0x20), ord('"'), ord("\\")])  # bytes that JSON does not take as they are


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One entry per row of a source, before its selectors apply; arrays of equal length."""

    key: pa.Array  # string, no nulls
    uri: pa.Array
    size: pa.Array
    stamp: pa.Array
    reason: pa.Array  # why the row is no image; null where it is one
    columns: Columns  # all the columns selectors may name, as strings
    hidden: frozenset[str] = frozenset()  # columns that key or uri already tell; kept out of meta

    def __len__(self) -> int:
        return len(self.key)

    def _each(self, change: Callable[[pa.Array], pa.Array]) -> Rows:
        arrays = {f.name: change(getattr(self, f.name)) for f in fields(self) if f.name not in ("columns", "hidden")}
        return replace(self, **arrays, columns={name: change(values) for name, values in self.columns.items()})

    def take(self, order: np.ndarray) -> Rows:
        """The rows at these positions."""
        indices = pa.array(order)
        return self._each(lambda values: values.take(indices))

    def keep(self, mask: pa.Array) -> Rows:
        """The rows where ``mask`` is true."""
        return self._each(lambda values: values.filter(mask))


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other; a column that some lack is null there."""
    names = sorted(set[str]().union(*(part.columns for part in parts)))
    columns = {
        name: pa.concat_arrays([part.columns.get(name, pa.nulls(len(part), pa.string())) for part in parts])
        for name in names
    }
    arrays = {
        field.name: pa.concat_arrays([getattr(part, field.name) for part in parts])
        for field in fields(Rows)
        if field.name not in ("columns", "hidden")
    }
    return Rows(**arrays, columns=columns, hidden=frozenset[str]().union(*(part.hidden for part in parts)))


def key_order(keys: pa.Array) -> np.ndarray:
    """Positions [n] that sort the keys by code point, which is Python's order too."""
    if len(keys) < 2 or pc.all(pc.less_equal(keys[:-1], keys[1:])).as_py():
        return np.arange(len(keys))
    order: np.ndarray = pc.array_sort_indices(keys).to_numpy().astype(np.int64)
    return order


def reject(reason: pa.Array, mask: pa.Array | np.ndarray, text: str) -> pa.Array:
    """``text`` where ``mask`` holds and no reason stands yet."""
    return pc.coalesce(reason, pc.if_else(pa.array(mask), pa.scalar(text), pa.scalar(None, pa.string())))


def reject_repeats(rows: Rows) -> Rows:
    """Leaves each key, of rows sorted by key, to one usable row.

    Which one follows from what the rows say (uri, then columns by name), not from their order in the file.
    """
    if len(rows) < 2:
        return rows
    same = np.concatenate([[False], pc.equal(rows.key[1:], rows.key[:-1]).to_numpy(zero_copy_only=False), [False]])
    shared = np.flatnonzero((same[1:] | same[:-1]) & rows.reason.is_null().to_numpy(zero_copy_only=False))
    if not len(shared):
        return rows
    few = rows.take(shared)
    told = [few.key, few.uri, *(few.columns[name] for name in sorted(few.columns))]
    entries = zip(*(pc.fill_null(values, "").to_pylist() for values in told), shared.tolist(), strict=True)
    mask, held = np.zeros(len(rows), bool), None
    for key, *_, row in sorted(entries):
        mask[row], held = key == held, key
    return replace(rows, reason=reject(rows.reason, mask, REPEATED))


def listing_of(rows: Rows, address: Address, *, ignored: Mapping[str, int] | None = None) -> Listing:
    """The listing of rows sorted by key: what the selectors keep, with the roles they name.

    Raises:
        SourceError: an unknown column, nothing left, or nothing usable.
    """
    _check_columns(rows, address)
    rows = _where(rows, address)
    usable = rows.reason.is_null()
    images, refused = rows.keep(usable), rows.keep(pc.invert(usable))
    if not len(images):
        raise _nothing_usable(refused, address)
    rejected = pa.table([refused.key, refused.uri, refused.reason], schema=REJECTED)
    return Listing(_with_roles(images, address), rejected, ignored or {})


def _check_columns(rows: Rows, address: Address) -> None:
    asked = [column for column, _ in address.where] + [c for c in (address.label, address.group) if c]
    for column in asked:
        if column not in rows.columns:
            unknown = UnknownNameError("column", column, rows.columns)
            known = ", ".join(sorted(rows.columns)) or "none"
            raise SourceError(f"No column {column!r} in {address.path}; columns: {known}.", hint=unknown.hint)


def _where(rows: Rows, address: Address) -> Rows:
    for column, allowed in address.where:
        values = pc.fill_null(rows.columns[column], "")
        mask = pc.is_in(values, value_set=pa.array(allowed, pa.string()))
        if not pc.any(mask).as_py():
            counts = sorted(values.value_counts().to_pylist(), key=lambda c: (-c["counts"], c["values"]))
            found = ", ".join(f"{c['values']!r} ({c['counts']:,})" for c in counts[:8])
            raise SourceError(
                f"Nothing in {address} has {column}={' or '.join(allowed)}.",
                hint=f"Values of {column!r} {'here' if len(counts) <= 8 else 'here, the most frequent'}: {found}.",
            )
        rows = rows.keep(mask)
    return rows


def _told(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Labels or groups; an empty text is none, as it is in CSV."""
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _with_roles(rows: Rows, address: Address) -> pa.Table:
    nothing = pa.nulls(len(rows), pa.string())
    roles = {"label": address.label or "label", "group": address.group or "group"}
    covered = rows.hidden | {role for role, column in roles.items() if role == column}
    label, group = (_told(rows.columns.get(column, nothing)) for column in roles.values())
    meta = json_objects({name: v for name, v in rows.columns.items() if name not in covered}, len(rows))
    return pa.table([rows.key, rows.uri, rows.size, rows.stamp, label, group, meta], schema=LISTING)


def json_objects(columns: Columns, n: int) -> pa.Array:
    """One JSON object per row, [n] strings, names sorted; null where there is no column at all."""
    if not columns:
        return pa.nulls(n, pa.string())
    parts: list[pa.Array | pa.Scalar] = []
    for name in sorted(columns):
        parts += [pa.scalar((", " if parts else "{") + json.dumps(name) + ": "), _json_strings(columns[name])]
    return pc.binary_join_element_wise(*parts, pa.scalar("}"), pa.scalar(""))


def _json_strings(values: pa.Array) -> pa.Array:
    if _ESCAPED[np.frombuffer(values.buffers()[2] or b"", np.uint8)].any():
        codes = values.dictionary_encode()
        encoded = [json.dumps(v, ensure_ascii=False) for v in codes.dictionary.to_pylist()]
        quoted = pa.array(encoded, pa.string()).take(codes.indices)
    else:
        quoted = pc.binary_join_element_wise(pa.scalar('"'), values, pa.scalar('"'), pa.scalar(""))
    return pc.fill_null(quoted, "null")


def _nothing_usable(refused: Rows, address: Address) -> SourceError:
    reasons = sorted(refused.reason.value_counts().to_pylist(), key=lambda c: (-c["counts"], c["values"]))
    counts = ", ".join(f"{c['values']} ({c['counts']:,})" for c in reasons)
    relative = "Paths in a table are relative to the folder that holds it."
    return SourceError(
        f"None of the {len(refused):,} rows of {address} can be used: {counts}; first: {refused.uri[0].as_py()!r}.",
        hint=relative if MISSING in counts else "Mend these rows, or select others.",
    )
