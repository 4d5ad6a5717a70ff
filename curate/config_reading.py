"""One dataclass from one TOML table, every key checked by name and type; what does not hold up is refused in words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from embeddings.errors import ConfigError, UsageError

T = TypeVar("T")
PLURALS = {str: "texts", int: "whole numbers", float: "numbers"}


def build(kind: type[T], table: Any, where: str) -> T:
    """One dataclass from one table.

    Raises:
        ConfigError: not a table, an unknown key (with the nearest known one), a missing key, a wrong type or an
            impossible value.
    """
    require(isinstance(table, dict), where, table, "a table")
    hints = get_type_hints(kind)
    refuse_unknown(table, list(hints), where)
    for known in fields(kind):  # type: ignore[arg-type]
        needed = known.default is MISSING and known.default_factory is MISSING
        require(not needed or known.name in table, f"{where}.{known.name}", "nothing", "a value")
    values = {key: typed(value, hints[key], f"{where}.{key}") for key, value in table.items()}
    return refused_as(where, lambda: kind(**values))


def build_named(kind: type[T], tables: Any, where: str) -> dict[str, T]:
    """One dataclass for each of the tables ``[WHERE.NAME]``; raises as ``build``."""
    require(isinstance(tables, dict), where, tables, f"tables [{where}.NAME]")
    return {name: build(kind, table, f"{where}.{name}") for name, table in tables.items()}


def typed(value: Any, kind: Any, where: str) -> Any:
    """The value, a list as a tuple.

    Raises:
        ConfigError: it is of another type; true is no number.
    """
    kinds = tuple(k for k in get_args(kind) if k is not NoneType) if isinstance(kind, UnionType) else (kind,)
    if get_origin(kinds[0]) is tuple:
        item = get_args(kinds[0])[0]
        fits = isinstance(value, list) and all(_is_one(entry, (item,)) for entry in value)
        require(fits, where, value, f"a list of {PLURALS[item]}")
        return tuple(value)
    require(_is_one(value, kinds), where, value, " or ".join(k.__name__ for k in kinds))
    return value


def refuse_unknown(table: Iterable[str], known: Iterable[str], where: str, *, what: str = "key") -> None:
    """Refuses names that are not known, with the nearest one that is.

    Raises:
        ConfigError: as said.
    """
    names = list(known)
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(names)) or 'none'}."
            raise ConfigError(f"Unknown {what} {key!r} in {where}.", hint=hint)


def refused_as(where: str, make: Callable[[], T]) -> T:
    """What ``make`` returns; what it refuses, with the table that says it."""
    try:
        return make()
    except ConfigError:
        raise
    except UsageError as error:
        raise ConfigError(f"[{where}]: {error.message}", hint=error.hint) from None


def require(holds: bool, what: str, found: Any, wanted: str) -> None:
    """Refuses what does not hold.

    Raises:
        ConfigError: what was found and what was wanted.
    """
    if not holds:
        raise ConfigError(f"{what}: found {found!r}, wanted {wanted}.", hint="Mend the file and run it again.")


def as_toml(value: object) -> str:
    """A term as one writes it in a file: numbers as they are, names in quotes."""
    text = str(value)
    return text if text.replace(".", "", 1).isdecimal() else f'"{text}"'


def said(tables: Mapping[str, Any]) -> str:
    """Keys and values as one writes them in a file."""
    return ", ".join(f"{name} = {as_toml(value)}" for name, value in tables.items())


def _is_one(value: Any, kinds: tuple[Any, ...]) -> bool:
    accepted = (*kinds, int) if float in kinds else kinds
    return isinstance(value, accepted) and not (isinstance(value, bool) and bool not in kinds)
