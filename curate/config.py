"""curate.toml: a file of arms, read and checked as a whole before anything runs.

    encoder = "lite0"          seed = 0          work = ".curate"
    [target]        uri, label, group, where; terms: price, license, cap, floor
    [pools.NAME]    uri, label, group, where; terms: price, license, cap, floor, of (terms stand in no uri)
    [evaluate.NAME] train, test, label, group
    [budget]        images, bytes, money, hours, rate, epochs, far, order, licenses, max_per_label, ...
    [weights]       LABEL = FACTOR
    [[arms]]        name, select, method, backbone, init, samples

Paths are relative to the file. ``where`` holds selectors as in an address (``half=B,variant=base``).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from curate.terms import Budget, Terms, parse_weights, split_terms
from embeddings.errors import ConfigError, UsageError
from embeddings.files import is_remote
from embeddings.sources import NAMED, Address, parse_address

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """A target or a pool."""

    uri: str
    label: str | None = None
    group: str | None = None
    where: str | None = None
    price: float | str | None = None
    license: str | None = None
    cap: int | None = None
    floor: int = 0
    of: int | None = None

    def __post_init__(self) -> None:
        _ = self.terms  # refused here, before anything runs
        said = split_terms(self.uri)[1].to_json()
        if said:
            keys = ", ".join(f"{name} = {_as_toml(value)}" for name, value in said.items())
            raise UsageError(
                f"The uri {self.uri!r} holds terms ({', '.join(said)}).",
                hint=f"In a file they are keys of their own beside uri: {keys}.",
            )

    @property
    def terms(self) -> Terms:
        """On which conditions its images are to be had."""
        price = "" if self.price is None else str(self.price)
        return Terms(price=price, license=self.license or "", cap=self.cap, floor=self.floor, of=self.of)

    def address(self, root: Path) -> str:
        """The source address, its path relative to ``root`` made whole."""
        return with_selectors(self.uri, root, where=self.where, label=self.label, group=self.group)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """A labeled set; without ``test``, 30% of ``train`` is held out."""

    train: str
    test: str | None = None
    label: str | None = None
    group: str | None = None

    def address(self, root: Path) -> str:
        """TRAIN or TRAIN::TEST with selectors and whole paths."""
        parts = [self.train] if self.test is None else [self.train, self.test]
        return "::".join(with_selectors(part, root, label=self.label, group=self.group) for part in parts)


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """One way to choose the data, and the pretraining run on it."""

    name: str
    select: str = "near-first"
    method: str = "simclr"
    samples: int
    backbone: str | None = None
    init: str = "scratch"
    set: tuple[str, ...] = ()  # NAME=VALUE of knobs, as `curate pretrain --set` takes them

    def __post_init__(self) -> None:
        _require(self.samples > 0, f"samples of arm {self.name!r}", self.samples, "a positive number of samples seen")
        plain = self.name and self.name[0].isalnum() and all(c.isalnum() or c in "-_." for c in self.name)
        _require(bool(plain), "arms.name", self.name, "letters, digits, '-', '_' and '.'")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole curate.toml."""

    root: Path  # folder of the file
    target: SourceConfig
    pools: Mapping[str, SourceConfig] = field(default_factory=dict)
    evaluate: Mapping[str, EvaluateConfig] = field(default_factory=dict)
    budget: Budget | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    arms: tuple[ArmConfig, ...] = ()
    encoder: str | None = None
    work: str | None = None
    seed: int | None = None

    def located(self, path: str) -> str:
        """A path of the file, made whole."""
        return located(path, self.root)

    @property
    def target_address(self) -> str:
        """The target's source address, whole."""
        return self.target.address(self.root)

    @property
    def pool_addresses(self) -> dict[str, str]:
        """Pool name -> source address, whole."""
        return {name: pool.address(self.root) for name, pool in self.pools.items()}

    @property
    def terms(self) -> dict[str, Terms]:
        """Source name -> its terms, the target's under ``target``."""
        return {"target": self.target.terms} | {name: pool.terms for name, pool in self.pools.items()}

    @property
    def labeled_addresses(self) -> dict[str, str]:
        """Labeled set -> TRAIN or TRAIN::TEST, whole."""
        return {name: labeled.address(self.root) for name, labeled in self.evaluate.items()}


def load_config(path: Path | str) -> Config:
    """Reads and checks a whole file.

    Raises:
        ConfigError: no such file, not TOML, an unknown key or table (with the nearest known one), a missing key, a
            wrong type or an impossible value.
    """
    document = _parse(Path(path))
    _refuse_unknown(document, [f.name for f in fields(Config) if f.name != "root"], "the file")
    _require("target" in document, "target", "nothing", "a [target] table with a uri")
    scalars = {key: _typed(document[key], kind, key) for key, kind in _SCALARS.items() if key in document}
    _require(scalars.get("seed", 0) >= 0, "seed", scalars.get("seed"), "zero or more")
    return Config(
        root=Path(path).resolve().parent,
        target=_build(SourceConfig, document["target"], "target"),
        pools=_build_named(SourceConfig, document.get("pools", {}), "pools"),
        evaluate=_build_named(EvaluateConfig, document.get("evaluate", {}), "evaluate"),
        budget=_build(Budget, document["budget"], "budget") if "budget" in document else None,
        weights=_weights(document.get("weights", {})),
        arms=_build_arms(document.get("arms", [])),
        **scalars,
    )


_SCALARS = {"encoder": str, "work": str, "seed": int}


def located(uri: str, root: Path) -> str:
    """A path relative to ``root``, made whole; remote addresses and names (``hf:NAME``) as they are."""
    scheme, _, name = uri.partition(":")
    if scheme == "torchvision":  # NAME@FOLDER
        data_set, _, folder = name.partition("@")
        return f"{scheme}:{data_set}@{located(folder, root)}" if folder else uri
    if is_remote(uri) or scheme in NAMED:
        return uri
    return str(root / Path(uri.removeprefix("file://")).expanduser())


def with_selectors(
    uri: str, root: Path, *, where: str | None = None, label: str | None = None, group: str | None = None
) -> str:
    """An address, its paths relative to ``root`` made whole, with selectors and roles added to those it already has."""
    roles = [f"{role}:{column}" for role, column in (("label", label), ("group", group)) if column]
    added = ",".join(part for part in (where, *roles) if part)
    address = parse_address(located(uri, root))
    if address.view.roi:
        address = replace(address, view=replace(address.view, roi=located(address.view.roi, root)))
    has_selectors = address != Address(path=address.path)
    return f"{address}{',' if has_selectors else '#'}{added}" if added else str(address)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"No config file at {path}: {error.strerror}.", hint="Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", hint="Mend that line.") from None


def _build(kind: type[T], table: Any, where: str) -> T:
    """One dataclass from one table; every key checked by name and type."""
    _require(isinstance(table, dict), where, table, "a table")
    hints = get_type_hints(kind)
    _refuse_unknown(table, list(hints), where)
    for known in fields(kind):  # type: ignore[arg-type]
        needed = known.default is MISSING and known.default_factory is MISSING
        _require(not needed or known.name in table, f"{where}.{known.name}", "nothing", "a value")
    values = {key: _typed(value, hints[key], f"{where}.{key}") for key, value in table.items()}
    return _refused_as(where, lambda: kind(**values))


def _build_named(kind: type[T], tables: Any, where: str) -> dict[str, T]:
    _require(isinstance(tables, dict), where, tables, f"tables [{where}.NAME]")
    return {name: _build(kind, table, f"{where}.{name}") for name, table in tables.items()}


def _typed(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) is tuple:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        _require(fits, where, value, "a list of texts")
        return tuple(sorted(value))
    kinds = tuple(k for k in get_args(kind) if k is not type(None)) if isinstance(kind, UnionType) else (kind,)
    accepted = (*kinds, int) if float in kinds else kinds
    fits = isinstance(value, accepted) and not (isinstance(value, bool) and bool not in kinds)
    _require(fits, where, value, " or ".join(k.__name__ for k in kinds))
    return value


def _weights(table: Any) -> dict[str, float]:
    _require(isinstance(table, dict), "weights", table, "a table of LABEL = FACTOR")
    factors = {name: _typed(value, float, f"weights.{name}") for name, value in table.items()}
    return _refused_as("weights", lambda: parse_weights(factors))


def _as_toml(value: object) -> str:
    """A term as one writes it in a file: numbers as they are, names in quotes."""
    text = str(value)
    return text if text.replace(".", "", 1).isdecimal() else f'"{text}"'


def _refused_as(where: str, build: Callable[[], T]) -> T:
    """What ``build`` makes; what it refuses, with the table that says it."""
    try:
        return build()
    except ConfigError:
        raise
    except UsageError as error:
        raise ConfigError(f"[{where}]: {error.message}", hint=error.hint) from None


def _build_arms(tables: Any) -> tuple[ArmConfig, ...]:
    _require(isinstance(tables, list), "arms", tables, "tables [[arms]]")
    arms = tuple(_build(ArmConfig, table, f"arms[{i}]") for i, table in enumerate(tables))
    names = [arm.name for arm in arms]
    _require(len(set(names)) == len(names), "arms.name", ", ".join(names), "names that do not repeat")
    return arms


def _refuse_unknown(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
            raise ConfigError(f"Unknown key {key!r} in {where}.", hint=hint)


def _require(holds: bool, what: str, found: Any, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"{what}: found {found!r}, wanted {wanted}.", hint="Mend the file and run it again.")
