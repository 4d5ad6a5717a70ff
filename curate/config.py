"""curate.toml: a file of arms, read and checked as a whole before anything runs.

    encoder = "lite0"          seed = 0          work = ".curate"
    [target]        uri, label, group, where; terms: price, license, cap, floor
    [targets.NAME]  the same, one for each of several targets
    [pools.NAME]    uri, label, group, where; terms: price, license, cap, floor, of (terms stand in no uri)
    [evaluate.NAME] train, test, label, group, target
    [budget]        images, bytes, money, hours, rate, epochs, far, order, licenses, max_per_label, ...
    [weights]       LABEL = FACTOR
    [[arms]]        name, select, method, backbone, init, samples, set; pools, own, shares, far; images, encoder, seed,
                    target
    [grid]          targets, images, samples, methods, inits, backbones, encoders, seeds: lists
    [study]         also, set, devices
    [protocol]      see curate.experiments.protocol

Paths are relative to the file. ``where`` holds selectors as in an address (``half=B,variant=base``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from curate.config_reading import build, build_named, refuse_unknown, refused_as, require, typed
from curate.config_tables import (
    ArmConfig,
    EvaluateConfig,
    GridConfig,
    SourceConfig,
    StudyConfig,
    located,
    require_plain,
)
from curate.results import TARGET
from curate.terms import Budget, Terms, parse_weights
from embeddings.errors import ConfigError

RESERVED = (TARGET, "runs", "selections", "tasks")  # no name of a target: that of [target], and of folders

__all__ = [
    "ArmConfig",
    "Config",
    "EvaluateConfig",
    "GridConfig",
    "SourceConfig",
    "StudyConfig",
    "load_config",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole curate.toml."""

    root: Path  # folder of the file
    target: SourceConfig | None = None
    targets: Mapping[str, SourceConfig] = field(default_factory=dict)
    pools: Mapping[str, SourceConfig] = field(default_factory=dict)
    evaluate: Mapping[str, EvaluateConfig] = field(default_factory=dict)
    budget: Budget | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    arms: tuple[ArmConfig, ...] = ()
    grid: GridConfig | None = None
    study: StudyConfig | None = None
    protocol: Mapping[str, Any] | None = None
    encoder: str | None = None
    work: str | None = None
    seed: int | None = None

    def located(self, path: str) -> str:
        """A path of the file, made whole."""
        return located(path, self.root)

    @property
    def all_targets(self) -> dict[str, SourceConfig]:
        """Target -> its source; that of [target] is called ``target``."""
        return ({TARGET: self.target} if self.target else {}) | dict(self.targets)

    @property
    def target_address(self) -> str:
        """The target's source address, whole.

        Raises:
            ConfigError: the file has several targets.
        """
        if self.target is None:
            names = ", ".join(self.targets)
            raise ConfigError(f"The file has several targets: {names}.", hint="Say which with --target SOURCE.")
        return self.target.address(self.root)

    @property
    def pool_addresses(self) -> dict[str, str]:
        """Pool name -> source address, whole."""
        return {name: pool.address(self.root) for name, pool in self.pools.items()}

    @property
    def terms(self) -> dict[str, Terms]:
        """Source name -> its terms, the target's under ``target``."""
        own = {TARGET: self.target.terms} if self.target else {}
        return own | {name: pool.terms for name, pool in self.pools.items()}

    @property
    def labeled_addresses(self) -> dict[str, str]:
        """Labeled set -> TRAIN or TRAIN::TEST, whole."""
        return {name: labeled.address(self.root) for name, labeled in self.evaluate.items()}

    def for_target(self, name: str) -> Config:
        """The file as it is for one of its targets: its labeled sets, and no pool that is the target itself."""
        target = self.all_targets[name]
        images = target.images(self.root)
        return replace(
            self,
            target=target,
            targets={},
            pools={pool: source for pool, source in self.pools.items() if source.images(self.root) != images},
            evaluate={key: labeled for key, labeled in self.evaluate.items() if labeled.target in (None, name)},
        )


def load_config(path: Path | str) -> Config:
    """Reads and checks a whole file.

    Raises:
        ConfigError: no such file, not TOML, an unknown key or table (with the nearest known one), a missing key, a
            wrong type, an impossible value, or a target or pool that is named and not there.
    """
    document = _parse(Path(path))
    refuse_unknown(document, [f.name for f in fields(Config) if f.name != "root"], "the file")
    has_target = "target" in document or bool(document.get("targets"))
    require(has_target, "target", "nothing", "a [target] table with a uri")
    scalars: dict[str, Any] = {
        key: typed(document[key], kind, key) for key, kind in _SCALARS.items() if key in document
    }
    require(scalars.get("seed", 0) >= 0, "seed", scalars.get("seed"), "zero or more")
    protocol = document.get("protocol")
    require(protocol is None or isinstance(protocol, dict), "protocol", protocol, "a table")
    tables: dict[str, Any] = {
        name: build(kind, document[name], name) for name, kind in _TABLES.items() if name in document
    }
    named: dict[str, Any] = {name: build_named(kind, document.get(name, {}), name) for name, kind in _NAMED.items()}
    config = Config(
        root=Path(path).resolve().parent,
        **tables,
        **named,
        weights=_weights(document.get("weights", {})),
        arms=_build_arms(document.get("arms", [])),
        protocol=protocol,
        **scalars,
    )
    _require_known(config)
    return config


_SCALARS = {"encoder": str, "work": str, "seed": int}
_TABLES: dict[str, Any] = {"target": SourceConfig, "budget": Budget, "grid": GridConfig, "study": StudyConfig}
_NAMED: dict[str, Any] = {"targets": SourceConfig, "pools": SourceConfig, "evaluate": EvaluateConfig}


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"No config file at {path}: {error.strerror}.", hint="Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", hint="Mend that line.") from None


def _weights(table: Any) -> dict[str, float]:
    require(isinstance(table, dict), "weights", table, "a table of LABEL = FACTOR")
    factors = {name: typed(value, float, f"weights.{name}") for name, value in table.items()}
    return refused_as("weights", lambda: parse_weights(factors))


def _build_arms(tables: Any) -> tuple[ArmConfig, ...]:
    require(isinstance(tables, list), "arms", tables, "tables [[arms]]")
    arms = tuple(build(ArmConfig, table, f"arms[{i}]") for i, table in enumerate(tables))
    names = [arm.name for arm in arms]
    require(len(set(names)) == len(names), "arms.name", ", ".join(names), "names that do not repeat")
    return arms


def _require_known(config: Config) -> None:
    """Refuses targets and sources that are named and not there."""
    targets = config.all_targets
    for name in config.targets:
        require_plain("targets.NAME", name)
        require(name not in RESERVED, "targets.NAME", name, f"another name than {', '.join(RESERVED)}")
    refuse_unknown(config.grid.targets if config.grid else (), targets, "grid.targets", what="target")
    for name, labeled in config.evaluate.items():
        refuse_unknown([labeled.target] if labeled.target else [], targets, f"evaluate.{name}", what="target")
    for arm in config.arms:
        where = f"arm {arm.name!r}"
        refuse_unknown([arm.target] if arm.target else [], targets, where, what="target")
        refuse_unknown(arm.pools or (), config.pools, where, what="pool")
        refuse_unknown(arm.parts, [TARGET, *config.pools], where, what="source")
