"""What a study claims, and by which rule, written down before its first run.

    [protocol]
    primary   = ["near-first", "pool-gated"]   # the one contrast the study is for: this arm against that one
    metric    = "linear"                       # or linear_balanced
    labeled   = ["kinds"]                      # default: all labeled sets, averaged
    matters   = 0.01                           # smallest difference that matters
    level     = 0.95                           # of intervals; tests are at 1 - level
    where     = { init = "public" }            # which runs the contrasts of arms are about; others are averaged over
    secondary = [["near-first", "random"]]     # default "all pairs"; the primary one, either way round, is left out
    contrasts = [{ name = "order", first = { arm = "near-then-far" }, second = { arm = "mixed" } }]

Two arms are equivalent where two one-sided tests, each at 1 - level, place their difference inside +-matters. The
primary contrast stands alone; everything else is corrected by Holm within its family: the secondary contrasts, the
references, each further question. ``contrasts`` compares any two kinds of runs and makes a family of each name, which
is none of the others; what their sides do not name is equal in both (and limited by ``where``). All of it must
speak of runs that there are.

protocol.json holds it with its digest, which goes into every result. A file without the table has no primary contrast,
and all that is found is exploratory. What a study compares cannot be changed once it has begun: who may add seeds or
arms until a difference shows will find one, and none of the intervals and p values would hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from curate.config_reading import refuse_unknown, require, typed
from embeddings import files
from embeddings.errors import CorruptError, ForeignFolderError

FILE = "protocol.json"
SCHEMA = "curate.protocol/1"
ALL_PAIRS = "all pairs"
METRICS = ("linear", "linear_balanced")  # known image by image
COORDINATES = ("target", "images", "samples", "method", "init", "backbone", "encoder", "seed")  # what arms share
OF_ARMS = ("arm", "select", "own", "far")  # what a side may name beside them
RESERVED = (
    "primary",
    "secondary",
    "frozen",
    "finetuned",
    "finetuned, both",
    "supervised",
    "Q1",
    "Q2",
    "Q3",
)  # families

Side = Mapping[str, tuple[Any, ...]]  # coordinate -> its values
DERIVED = ("cells", "selections", "runs", "samples")  # of a study's plan: what follows from the rest
RULE = "two one-sided tests: the interval of level 1 - 2 (1 - level) lies inside +-matters"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two kinds of runs to compare, by the coordinates of their cells."""

    name: str
    first: Side
    second: Side

    @classmethod
    def of_arms(cls, first: str, second: str, name: str) -> Contrast:
        """One arm against another."""
        return cls(name=name, first={"arm": (first,)}, second={"arm": (second,)})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {"name": self.name, "first": _lists(self.first), "second": _lists(self.second)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Contrast:
        """Reads what ``to_json`` wrote."""
        return cls(name=document["name"], first=_tuples(document["first"]), second=_tuples(document["second"]))


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Primary contrast, what matters, and how the rest is told."""

    primary: tuple[str, str] | None = None
    metric: str = "linear"
    labeled: tuple[str, ...] = ()  # none: all
    matters: float = 0.01
    level: float = 0.95
    where: Side = field(default_factory=dict)
    secondary: tuple[tuple[str, str], ...] | None = None  # None: all pairs of arms
    contrasts: tuple[Contrast, ...] = ()

    @property
    def is_exploratory(self) -> bool:
        """True where no primary contrast was written down."""
        return self.primary is None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        pairs = None if self.secondary is None else [list(pair) for pair in self.secondary]
        return {
            "primary": None if self.primary is None else list(self.primary),
            "metric": self.metric,
            "labeled": list(self.labeled),
            "matters": self.matters,
            "level": self.level,
            "equivalence": RULE,
            "where": _lists(self.where),
            "secondary": ALL_PAIRS if pairs is None else pairs,
            "contrasts": [contrast.to_json() for contrast in self.contrasts],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Protocol:
        """Reads what ``to_json`` wrote."""
        primary, secondary = document["primary"], document["secondary"]
        return cls(
            primary=(primary[0], primary[1]) if primary else None,
            secondary=None if secondary == ALL_PAIRS else tuple((pair[0], pair[1]) for pair in secondary),
            where=_tuples(document["where"]),
            labeled=tuple(document["labeled"]),
            contrasts=tuple(Contrast.from_json(contrast) for contrast in document["contrasts"]),
            **{name: document[name] for name in ("metric", "matters", "level")},
        )


def read_protocol(table: Any, *, arms: Iterable[str] = (), labeled: Iterable[str] = ()) -> Protocol:
    """The protocol of a file's table ``[protocol]``; None is a file without one.

    Args:
        table: As TOML gives it.
        arms: Names of the file's arms; a protocol may speak of these only. None given: any name.
        labeled: Names of the file's labeled sets, likewise.

    Raises:
        ConfigError: an unknown key, arm, set or metric (with the nearest known one), a wrong type, or an impossible
            value.
    """
    if table is None:
        return Protocol()
    require(isinstance(table, dict), "protocol", table, "a table")
    refuse_unknown(table, [known.name for known in fields(Protocol)], "protocol")
    known_arms, known_sets = tuple(arms), tuple(labeled)
    plain = {name: typed(table[name], kind, f"protocol.{name}") for name, kind in _PLAIN.items() if name in table}
    found = Protocol(
        **plain,
        primary=_pair(table["primary"], "protocol.primary", known_arms) if "primary" in table else None,
        where=_side(table.get("where", {}), "protocol.where", COORDINATES, known_arms),
        secondary=_pairs(table.get("secondary", ALL_PAIRS), known_arms, but=table.get("primary")),
        contrasts=_contrasts(table.get("contrasts", []), known_arms),
    )
    refuse_unknown([found.metric], METRICS, "protocol.metric", what="metric")
    if known_sets:
        refuse_unknown(found.labeled, known_sets, "protocol.labeled", what="labeled set")
    require(0 < found.matters < 1, "protocol.matters", found.matters, "a difference of accuracy between 0 and 1")
    require(0.5 < found.level < 1, "protocol.level", found.level, "a level between 0.5 and 1")
    return found


def require_runs(protocol: Protocol, cells: Sequence[Mapping[str, Any]]) -> None:
    """Refuses a protocol that speaks of runs that there are none of.

    Args:
        protocol: Of the file.
        cells: Every cell of the file as cells.json tells it.

    Raises:
        ConfigError: a value that no cell has, or values that no cell has together.
    """
    pairs = {"primary": protocol.primary} if protocol.primary else {}
    pairs |= {f"secondary[{i}]": pair for i, pair in enumerate(protocol.secondary or ())}
    contrasts = {name: Contrast.of_arms(*pair, name) for name, pair in pairs.items()}
    contrasts |= {f"contrasts[{i}]": contrast for i, contrast in enumerate(protocol.contrasts)}
    _require_cell(protocol.where, cells, "protocol.where")
    for name, contrast in contrasts.items():
        named = {*contrast.first, *contrast.second}
        limits = {key: values for key, values in protocol.where.items() if key not in named}
        for key, side in (("first", contrast.first), ("second", contrast.second)):
            _require_cell({**limits, **side}, cells, f"protocol.{name}.{key}")


def _require_cell(side: Side, cells: Sequence[Mapping[str, Any]], where: str) -> None:
    for key, values in side.items():
        known = dict.fromkeys(cell.get(key) for cell in cells)
        for value in values:
            require(value in known, f"{where}.{key}", value, f"what some run has: {', '.join(map(str, known))}")
    together = any(all(cell.get(key) in values for key, values in side.items()) for cell in cells)
    require(together, where, _lists(side), "values that some run has together")


def require_same_study(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses to go on in a study's folder with another study, and says what may be done instead.

    Args:
        out: The folder.
        found: The study that it was begun with, as its plan tells it; a protocol with its digests will do too.
        wanted: The one that is to go on there.

    Raises:
        ForeignFolderError: they differ; names new and missing arms, else the first field and both values.
    """
    if change := _change(found, wanted):
        raise ForeignFolderError(f"{out} holds a study that was begun otherwise: {change}.", hint=_way_out(out))


def _change(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    theirs, ours = ([arm["name"] for arm in told.get("arms", ())] for told in (found, wanted))
    new, gone = ([name for name in a if name not in b] for a, b in ((ours, theirs), (theirs, ours)))
    if new or gone:
        parts = {"it has no arm": new, "this file has no arm": gone}
        return ", and ".join(f"{what} {', '.join(map(repr, names))}" for what, names in parts.items() if names)
    given = [{name: value for name, value in told.items() if name not in DERIVED} for told in (found, wanted)]
    return files.first_difference(*given) or files.first_difference(dict(found), dict(wanted))


def _way_out(out: Path) -> str:
    """What to do with a changed file, by whether the study has runs already."""
    if not any(out.rglob("runs/*/config.json")):
        return f"No run has begun: delete {out} to begin anew, or choose a new folder for --out."
    return (
        "What is compared is fixed before the first run; seeds or arms that are added after a look at the results "
        "would make its intervals and p values wrong. Choose a new folder for --out: embeddings and scores are reused, "
        "runs are trained anew. To train nothing twice, give it the new seeds alone and read both reports."
    )


_PLAIN: dict[str, Any] = {"metric": str, "labeled": tuple[str, ...], "matters": float, "level": float}


def write_protocol(protocol: Protocol, config_digest: str, out: Path) -> str:
    """Writes protocol.json and returns its digest; the same one there already is left as it is.

    Raises:
        ForeignFolderError: another protocol is there, or runs that began without one.
        CorruptError: what is there was changed after it was written.
    """
    stated = {"schema": SCHEMA, "protocol": protocol.to_json(), "config": config_digest}
    document = {**stated, "sha256": files.digest(stated)}
    if (out / FILE).exists():
        require_same_study(out, _checked(out), document)
        return str(document["sha256"])
    if not protocol.is_exploratory and next(out.rglob("run.json"), None):
        raise ForeignFolderError(
            f"{out} holds runs, but no protocol: it was not written down before them.",
            hint="Choose a new folder for --out, or take [protocol] out of the file and explore.",
        )
    files.write_json(out / FILE, document)
    return str(document["sha256"])


def open_protocol(out: Path) -> tuple[Protocol, str]:
    """The protocol of a study's folder and its digest; without protocol.json one that explores, and no digest.

    Raises:
        CorruptError: it was changed after it was written.
    """
    if not (out / FILE).exists():
        return Protocol(), ""
    document = _checked(out)
    return Protocol.from_json(document["protocol"]), str(document["sha256"])


def _checked(out: Path) -> dict[str, Any]:
    document = files.read_json(out / FILE)
    stated = {key: value for key, value in document.items() if key != "sha256"} if isinstance(document, dict) else {}
    if not stated or files.digest(stated) != document.get("sha256"):
        raise CorruptError(f"{out / FILE} was changed after it was written.", hint="Choose a new folder for --out.")
    return dict(document)


def _pair(value: Any, where: str, arms: tuple[str, ...]) -> tuple[str, str]:
    found = typed(value, tuple[str, ...], where)
    require(len(found) == 2 and found[0] != found[1], where, value, "two arms")
    if arms:
        refuse_unknown(found, arms, where, what="arm")
    return found[0], found[1]


def _pairs(value: Any, arms: tuple[str, ...], *, but: Any) -> tuple[tuple[str, str], ...] | None:
    if value == ALL_PAIRS:
        return None
    require(isinstance(value, list), "protocol.secondary", value, f"{ALL_PAIRS!r} or a list of pairs of arms")
    found = tuple(_pair(pair, f"protocol.secondary[{i}]", arms) for i, pair in enumerate(value))
    return tuple(pair for pair in found if set(pair) != set(but or ()))


def _contrasts(tables: Any, arms: tuple[str, ...]) -> tuple[Contrast, ...]:
    require(isinstance(tables, list), "protocol.contrasts", tables, "a list of tables")
    return tuple(_contrast(table, f"protocol.contrasts[{i}]", arms) for i, table in enumerate(tables))


def _contrast(table: Any, where: str, arms: tuple[str, ...]) -> Contrast:
    require(isinstance(table, dict), where, table, "a table")
    refuse_unknown(table, ("name", "first", "second"), where)
    for key in ("name", "first", "second"):
        require(key in table, f"{where}.{key}", "nothing", "a value")
    known = (*OF_ARMS, *COORDINATES[1:])  # runs for different targets have no test image in common
    sides = {key: _side(table[key], f"{where}.{key}", known, arms) for key in ("first", "second")}
    require(sides["first"] != sides["second"], where, "two sides that are the same", "different ones")
    name = typed(table["name"], str, f"{where}.name")
    free = bool(name.strip()) and name not in RESERVED
    require(free, f"{where}.name", name, f"a name of its own: {', '.join(RESERVED)} are families already")
    return Contrast(name=name, **sides)


def _side(table: Any, where: str, known: tuple[str, ...], arms: tuple[str, ...]) -> Side:
    require(isinstance(table, dict), where, table, "a table")
    refuse_unknown(table, known, where)
    side = {}
    for key, value in sorted(table.items()):
        values = tuple(value) if isinstance(value, list) else (value,)
        fits = bool(values) and all(isinstance(v, str | int | float) for v in values)
        require(fits, f"{where}.{key}", value, "a value or a list of values")
        if key == "arm" and arms:
            refuse_unknown(values, arms, f"{where}.arm", what="arm")
        side[key] = values
    return side


def _lists(side: Side) -> dict[str, list[Any]]:
    return {key: list(values) for key, values in side.items()}


def _tuples(side: Mapping[str, Any]) -> Side:
    return {key: tuple(values) for key, values in side.items()}
