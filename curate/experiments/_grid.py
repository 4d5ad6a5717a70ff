"""A file of arms as cells: every arm at every value of the grid that it does not fix itself.

A **cell** is one run: an arm, for one target, with one N, C, method, start, backbone, selecting encoder and seed. Its
name is the arm's, followed by what varies: ``near-first~N500~C20000~s1``; without a grid it is the arm's name.

A **draw** is one selection. Cells that differ in training alone share it, as do arms that select alike; its name says
how it differs from the file's plain selection by that method: ``random~no-own~N500~s1``.

Both names are those of folders: other characters than letters, digits and ``-_.+=`` become ``-``, and a short digest
keeps apart what would then look alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import product
from math import floor
from typing import Any

from curate.config import ArmConfig, Config, GridConfig
from curate.config_tables import parse_shares
from curate.results import TARGET
from curate.terms import Budget, Terms
from embeddings.errors import ConfigError

KEYS = {  # of [grid], targets apart -> of an arm, and what stands before a value in a name
    "images": ("images", "N"),
    "samples": ("samples", "C"),
    "methods": ("method", ""),
    "inits": ("init", ""),
    "backbones": ("backbone", ""),
    "encoders": ("encoder", "by-"),
    "seeds": ("seed", "s"),
}
PLAIN = {"method": "simclr", "init": "scratch"}  # of an arm that says nothing
MOST_LETTERS = 60  # of one part of a name


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One selection for a target; None and defaults are what the file says for all."""

    select: str
    images: int | None = None
    encoder: str | None = None
    seed: int | None = None
    pools: tuple[str, ...] | None = None
    own: bool = True
    shares: tuple[str, ...] = ()
    far: float | None = None

    @property
    def name(self) -> str:
        """The name of its folder; plain selections have that of their method."""
        parts = [self.select]
        parts += [] if self.own else ["no-own"]
        parts += [] if self.pools is None else ["of-" + ("+".join(_safe(p, "+") for p in self.pools) or "no-pool")]
        parts += ["+".join(_safe(share, "+") for share in self.shares)] if self.shares else []
        parts += [] if self.far is None else [f"far{self.far!r}"]
        parts += [] if self.images is None else [f"N{self.images}"]
        parts += [] if self.encoder is None else [f"by-{self.encoder}"]
        parts += [] if self.seed is None else [f"s{self.seed}"]
        return "~".join(_safe(part) for part in parts)

    def budget(self, of_file: Budget | None) -> Budget:
        """What may be selected.

        Raises:
            ConfigError: neither the file nor the arm says it, or shares have no number of images to be shares of.
        """
        if of_file is None and self.images is None:
            raise ConfigError("The file has no [budget] table.", hint="Add it, or images to [grid] or to every arm.")
        said = {"images": self.images, "far": self.far}
        given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        return Budget(**given) if of_file is None else replace(of_file, **given)

    def terms(self, of_file: Mapping[str, Terms], budget: Budget) -> dict[str, Terms]:
        """The sources' terms, those that give nothing capped at 0, and those with a share at just that.

        Raises:
            ConfigError: a share above a source's cap, or of a budget that is not in images.
        """
        if self.shares:
            return self._shared(of_file, budget)
        shut = [] if self.own else [TARGET]
        shut += [name for name in of_file if name != TARGET and self.pools is not None and name not in self.pools]
        return {name: replace(t, cap=0, floor=0) if name in shut else t for name, t in of_file.items()}

    def _shared(self, of_file: Mapping[str, Terms], budget: Budget) -> dict[str, Terms]:
        if budget.most_images is None:
            raise ConfigError("Shares need a budget in images.", hint="Say images in [budget], [grid] or the arm.")
        counts = in_shares(parse_shares(self.shares), budget.most_images)
        for name, n in counts.items():
            if name not in of_file:
                raise ConfigError(f"{name} is the target itself: it has no share.", hint="Give the arm a target.")
            cap = of_file[name].cap
            if cap is not None and n > cap:
                raise ConfigError(f"The share of {name} is {n:,} images, its cap {cap:,}.", hint="Change one.")
        return {name: replace(t, cap=counts.get(name, 0), floor=counts.get(name, 0)) for name, t in of_file.items()}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run for one target."""

    name: str
    arm: str
    target: str
    draw: Draw
    method: str
    samples: int
    init: str
    backbone: str | None = None
    seed: int | None = None  # None: the file's
    set: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object; the draw by its name and by what it is."""
        drawn = {name: value for name, value in vars(self.draw).items() if name not in ("seed", "select")}
        told = {**vars(self), "set": list(self.set), "select": self.draw.select, "selection": self.draw.name}
        return {**{k: v for k, v in told.items() if k != "draw"}, **drawn}


def expand(config: Config) -> tuple[Cell, ...]:
    """Every cell of a file, target by target, arm by arm.

    Raises:
        ConfigError: an arm that nothing tells its samples, or whose pools are all the target itself.
    """
    asked = (config.grid and config.grid.targets) or tuple(config.all_targets)
    cells: list[Cell] = []
    for target in config.all_targets:
        pools = config.for_target(target).pools
        for arm in config.arms:
            if target in ((arm.target,) if arm.target else asked):
                _require_some_pool(arm, target, pools)
                cells += _cells(arm, target, config)
    return tuple(cells)


def in_shares(shares: Mapping[str, Fraction], n: int) -> dict[str, int]:
    """Whole numbers with the sum n in given shares, by largest remainder; of equal ones the first goes up."""
    counts = {name: floor(share * n) for name, share in shares.items()}
    left = n - sum(counts.values())
    for name in sorted(shares, key=lambda name: counts[name] - shares[name] * n)[:left]:
        counts[name] += 1
    return counts


def written(arm: ArmConfig) -> dict[str, Any]:
    """An arm as the file says it: what every arm has, and what it says beyond."""
    plain = {field.name: field.default for field in fields(ArmConfig)}
    always = ("name", "select", "method", "samples", "backbone", "init", "set")
    told = {name: value for name, value in vars(arm).items() if name in always or value != plain[name]}
    return told | {name: told[name] or value for name, value in PLAIN.items()}


def _cells(arm: ArmConfig, target: str, config: Config) -> Iterator[Cell]:
    axes = _axes(arm, config.grid or GridConfig())
    for values in product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        if at["samples"] is None:
            raise ConfigError(f"Arm {arm.name!r} has no samples.", hint="Say them in the arm, or in [grid].")
        parts = [_safe(f"{mark}{at[key]}") for key, mark in KEYS.values() if len(axes[key]) > 1]
        training = {name: at[name] for name in ("method", "samples", "init", "backbone", "seed")}
        yield Cell(
            name="~".join([arm.name, *parts]),
            arm=arm.name,
            target=target,
            draw=Draw(
                select=arm.select,
                **{name: at[name] for name in ("images", "encoder", "seed")},
                **{name: getattr(arm, name) for name in ("pools", "own", "shares", "far")},
            ),
            set=arm.set,
            **training,
        )


def _axes(arm: ArmConfig, grid: GridConfig) -> dict[str, tuple[Any, ...]]:
    """The values of every key for an arm: its own one, the grid's, or what holds where nothing is said."""
    axes: dict[str, tuple[Any, ...]] = {}
    for plural, (key, _) in KEYS.items():
        fixed = getattr(arm, key)
        axes[key] = (fixed,) if fixed is not None else getattr(grid, plural) or (PLAIN.get(key),)
    return axes


def _require_some_pool(arm: ArmConfig, target: str, pools: Collection[str]) -> None:
    if arm.pools and not set(arm.pools) & set(pools):
        raise ConfigError(
            f"The pools of arm {arm.name!r}, {', '.join(arm.pools)}, are the target {target!r} itself.",
            hint="Give the arm another target, or other pools.",
        )


def _safe(text: str, refused: str = "") -> str:
    """The text as a part of a folder's name; a changed one ends with a digest of what it was."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.+=") and c not in refused else "-" for c in text)
    if kept == text and len(text) <= MOST_LETTERS:
        return text
    return f"{kept[:MOST_LETTERS]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
