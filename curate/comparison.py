"""Comparison: methods of selection side by side, judged by the part of the target that none of them saw.

A method's control is a random draw from all candidates. Where the method chose own images of the target, which are
near without any choice, such a draw would credit it with them; so the control holds the same ones, and random images of
the pools for those that the method chose there. Where it chose own images alone there is nothing to compare.

Written by ``curate.selection``, read by ``curate.reporting``; on disk one JSON document, comparison.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate.numerals import between, number
from curate.result_cards import estimate_words
from curate.results import TARGET, Estimate
from embeddings import files
from embeddings.cards import Card
from embeddings.errors import CorruptError

FILE = "comparison.json"
SCHEMA = "curate.comparison/2"
RANDOM = "random"  # what the same budget buys blindly; the control of methods that chose no own image
UNTRAINED = "random"  # the encoder of that name
CONTROL, REFERENCE, OWN_ALONE = "the control", "for reference", "own images alone"  # in place of a difference


def called(encoder: str) -> str:
    """What people read for an encoder: ``random`` would be taken for the method."""
    name, _, seed = encoder.partition(":")
    return f"untrained network {seed if seed != '0' else ''}".strip() if name == UNTRAINED else encoder


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one encoder says of one selection against the judging images."""

    index: Estimate  # as in ``curate score``: 0 = the judging images themselves
    distance: Estimate  # headline distance
    mmd: Estimate
    coverage: Estimate  # of the judging images
    against_random: Estimate | None = None  # points of the index; negative = nearer than its control; None for random
    tied_with: tuple[str, ...] = ()  # methods that it cannot be told from

    @property
    def verdict(self) -> str:
        """Nearer or farther than its random control, not settled, or "" where that is unknown."""
        gain = self.against_random
        if gain is None or gain.value is None or gain.low is None or gain.high is None:
            return ""
        return "nearer" if gain.high < 0 else "farther" if gain.low > 0 else "not settled"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        figures = {name: getattr(self, name).to_json() for name in _FIGURES}
        gain = None if self.against_random is None else self.against_random.to_json()
        return {**figures, "against_random": gain, "tied_with": list(self.tied_with), "verdict": self.verdict}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reading:
        """Reads what ``to_json`` wrote."""
        gain = document["against_random"]
        return cls(
            **{name: Estimate.from_json(document[name]) for name in _FIGURES},
            against_random=None if gain is None else Estimate.from_json(gain),
            tied_with=tuple(document["tied_with"]),
        )


_FIGURES = ("index", "distance", "mmd", "coverage")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What one method chose for the seen half of the target, and how the judging half sees it."""

    method: str
    n: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # chosen images per source
    cost: float = 0.0  # money
    diversity: Estimate | None = None  # Vendi score, every method at the same number of images
    readings: dict[str, Reading] = field(default_factory=dict)  # by encoder, the selecting one first
    stopped: str = ""  # why it took less than the budget allows, where the method says so
    reason: str = ""  # why it chose nothing
    control: Contender | None = None  # random with the same own images; None: the method ``random`` is its control

    @property
    def own(self) -> int:
        """How many of the target's own images it chose."""
        return self.counts.get(TARGET, 0)

    @property
    def shares(self) -> dict[str, float]:
        """Share of every source, 0 to 1, largest first."""
        largest_first = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return {name: count / max(self.n, 1) for name, count in largest_first}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {
            **{name: getattr(self, name) for name in ("method", "n", "counts", "shares", "cost", "stopped", "reason")},
            "diversity": None if self.diversity is None else self.diversity.to_json(),
            "readings": {name: reading.to_json() for name, reading in self.readings.items()},
            "control": None if self.control is None else self.control.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Contender:
        """Reads what ``to_json`` wrote."""
        control = document["control"]
        known = {name: document[name] for name in ("method", "n", "counts", "cost", "stopped", "reason")}
        diversity = document["diversity"]
        return cls(
            **known,
            diversity=None if diversity is None else Estimate.from_json(diversity),
            readings={name: Reading.from_json(reading) for name, reading in document["readings"].items()},
            control=None if control is None else cls.from_json(control),
        )


@dataclass(frozen=True, kw_only=True)
class Judge:
    """An encoder that looks at the selections and had no part in making them."""

    name: str
    limits: str = ""  # what it does not see
    reason: str = ""  # why it could not judge

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods side by side, nearest to the judging images first; methods that chose nothing come last."""

    encoder: str  # that selects
    seen: int  # target images that the methods selected for
    judging: int  # target images that they did not see, and that judge them
    contenders: tuple[Contender, ...] = ()
    judges: tuple[Judge, ...] = ()
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # what was asked, digests
    reason: str = ""  # why nothing could be judged

    def __getitem__(self, method: str) -> Contender:
        return next(c for c in self.contenders if c.method == method)

    @property
    def encoders(self) -> tuple[str, ...]:
        """The selecting encoder and the judges that could judge."""
        return (self.encoder, *(judge.name for judge in self.judges if not judge.reason))

    def best(self, encoder: str) -> str | None:
        """The method whose images this encoder sees nearest, if that is settled against every other and its control."""
        found = [(c.readings[encoder], c.method) for c in self.contenders if encoder in c.readings]
        known = [(r.index.value, method, r.tied_with) for r, method in found if r.index.value is not None]
        if len(known) < 2:
            return None
        _, method, tied = min(known)
        credited = self[method].control is None or self[method].readings[encoder].verdict == "nearer"
        return method if credited and not tied else None

    def control_of(self, contender: Contender) -> Contender:
        """What a method is held against: random images."""
        return contender.control or self[RANDOM]

    def without_gain(self, contender: Contender) -> str:
        """What stands in place of a difference to random: what ``random`` is, or why a method has none; else ""."""
        if contender.method != RANDOM:
            return OWN_ALONE if contender.control is not None and contender.control.reason else ""
        others = [c for c in self.contenders if c.n and c.method != RANDOM]
        return REFERENCE if others and all(c.control is not None for c in others) else CONTROL

    @property
    def words(self) -> tuple[str, ...]:
        """What came out, one sentence for each method."""
        if self.reason:
            return (f"The methods could not be compared: {self.reason}",)
        return tuple(self._sentence(contender) for contender in self.contenders if contender.method != RANDOM)

    def _sentence(self, contender: Contender) -> str:
        if contender.reason:
            return f"{contender.method} chose nothing on half the target: {contender.reason}"
        if contender.control is not None and contender.control.reason:
            return f"{contender.method} is not compared with random: {contender.control.reason}"
        told = [self._against_random(contender, self.encoder)]
        for name in self.encoders[1:]:
            judge = f"judge {name}" if called(name) == name else f"the {called(name)}"
            told.append(f"under {judge}: {self._against_random(contender, name)}")
        return f"{_same_own(contender)}{contender.method} is {'; '.join(told)}."

    def _against_random(self, contender: Contender, encoder: str) -> str:
        ours = contender.readings[encoder]
        blind = self.control_of(contender).readings.get(encoder)
        if not ours.verdict or blind is None:
            reason = ours.index.reason or (blind.index.reason if blind else "random chose nothing")
            return f"not measured against random ({reason.rstrip('.')})"
        figures = f"index {number(ours.index.value, 1)} against {number(blind.index.value, 1)}"
        if ours.verdict != "not settled":
            return f"{ours.verdict} than random ({figures}, settled)"
        assert ours.against_random is not None
        ends = between(ours.against_random.low, ours.against_random.high, 1, plus=True)
        return f"not settled against random ({figures}; the difference is {ends})"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object, schema curate.comparison/2."""
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("encoder", "seen", "judging", "reason", "facts")},
            "contenders": [contender.to_json() for contender in self.contenders],
            "judges": [judge.to_json() for judge in self.judges],
            "best": {encoder: self.best(encoder) for encoder in self.encoders},
            "words": list(self.words),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Comparison:
        """Reads what ``to_json`` wrote."""
        return cls(
            **{name: document[name] for name in ("encoder", "seen", "judging", "reason", "facts")},
            contenders=tuple(Contender.from_json(found) for found in document["contenders"]),
            judges=tuple(Judge(**found) for found in document["judges"]),
            notes=tuple(document["notes"]),
        )

    def save(self, folder: Path) -> None:
        """Writes comparison.json."""
        files.write_json(folder / FILE, self.to_json())

    @classmethod
    def open(cls, folder: Path | str) -> Comparison:
        """Reads what ``save`` wrote.

        Raises:
            CorruptError: missing, damaged, or of an unknown schema.
        """
        path = Path(folder) / FILE
        document = files.read_json(path)
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise CorruptError(
                f"{path} has schema {schema!r}, wanted {SCHEMA!r}.",
                hint="It was written by another version; compare again.",
            )
        try:
            return cls.from_json(document)
        except (AttributeError, KeyError, TypeError) as error:
            raise CorruptError(f"{path} is damaged: {error!r}.", hint="Delete it and compare again.") from None

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()

    def _card(self) -> Card:
        found = [(c, [c.readings.get(encoder) for encoder in self.encoders]) for c in self.contenders]
        return Card(
            title=f"Comparison({len(self.contenders)} methods, {self.judging:,} judging images)",
            notes=self.words,
            columns=("method", "images", *(f"index under {called(encoder)}" for encoder in self.encoders)),
            rows=[[c.method, f"{c.n:,}", *(_reading_words(reading) for reading in read)] for c, read in found],
            then=".contenders .best(encoder) .words .notes",
        )


def _same_own(contender: Contender) -> str:
    """What a method and its control share."""
    if contender.control is None:
        return ""
    return f"With the same {contender.own:,} own image{'' if contender.own == 1 else 's'} on both sides, "


def _reading_words(reading: Reading | None) -> str:
    """The index of a selection, and what it is against random."""
    if reading is None:
        return ""
    verdict = {"nearer": "nearer than random", "farther": "farther than random"}.get(reading.verdict, reading.verdict)
    return ", ".join(filter(None, [estimate_words(reading.index, decimals=1), verdict]))
