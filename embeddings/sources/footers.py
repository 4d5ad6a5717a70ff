"""What the footer of a Parquet file says of one column, read without Arrow.

Arrow ends the whole process when it is asked through Python for the chunk of a damaged footer: there its C++ errors are
not caught. The footer is Thrift's compact protocol, which this reads as far as is needed.

Source: the parquet-format specification (parquet.thrift) and Thrift's compact protocol specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_DEEPEST = 24
_TRUE, _FALSE, _BYTE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_FIXED = {_BYTE: 1, 7: 8, 13: 16}  # bytes of a byte, a double, a UUID
# field numbers of parquet.thrift
_ROW_GROUPS, _COLUMNS, _META_DATA, _PATH, _UNCOMPRESSED, _STATISTICS, _NULL_COUNT = 4, 1, 3, 3, 6, 12, 3


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column in one row group."""

    size: int  # bytes, uncompressed
    nulls: int | None  # where it is told


def chunks_of(file: pq.ParquetFile, column: str) -> list[Chunk]:
    """The chunks of a column (``image.bytes`` for a field of a struct), one for each row group.

    Raises:
        OSError: the footer is damaged, or a row group lacks the column.
    """
    sink = pa.BufferOutputStream()
    file.metadata.write_metadata_file(sink)
    data = sink.getvalue().to_pybytes()
    try:
        footer = _Thrift(data[4:-8]).struct(0)
        chunks = [_chunk(group[_COLUMNS], column.encode()) for group in footer.get(_ROW_GROUPS, [])]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise OSError("its footer is damaged") from None
    if len(chunks) != file.num_row_groups:
        raise OSError("its footer is damaged")
    return chunks


def _chunk(columns: list[Any], column: bytes) -> Chunk:
    (found,) = (c[_META_DATA] for c in columns if b".".join(c[_META_DATA][_PATH]) == column)
    nulls = found.get(_STATISTICS, {}).get(_NULL_COUNT)
    return Chunk(size=max(0, int(found[_UNCOMPRESSED])), nulls=None if nulls is None else int(nulls))


class _Thrift:
    """Values one after the other; structs as dicts by field number.

    Raises:
        IndexError, ValueError: the data ends early, or is nothing that Thrift writes.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("too deep")
        nested = {_LIST: self._list, _SET: self._list, _MAP: self._map, _STRUCT: self.struct}.get(kind)
        if nested is not None:
            return nested(depth)
        if kind in _INTEGERS:
            return self._integer()
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        return self._take(self._unsigned() if kind == _BINARY else _FIXED[kind])

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size, kind = (self._unsigned() if head >> 4 == 15 else head >> 4), head & 15
        kind = _BYTE if kind in (_TRUE, _FALSE) else kind  # in a list they take a byte each
        return [self._value(kind, depth + 1) for _ in range(size)]

    def _map(self, depth: int) -> dict[Any, Any]:
        size = self._unsigned()
        kinds = self._byte() if size else 0
        return {self._value(kinds >> 4, depth + 1): self._value(kinds & 15, depth + 1) for _ in range(size)}

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("ends early")
        return self._data[self._at - size : self._at]

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 0x80:
            number, shift = number | (byte & 0x7F) << shift, shift + 7
            if shift > 63:
                raise ValueError("no number")
        return number | byte << shift

    def _integer(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)
