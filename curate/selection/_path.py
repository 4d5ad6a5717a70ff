"""select(target, pools, budget=N): the path that every method takes, controls included.

Open and embed -> forbidden licenses, exact and near duplicates and excluded images out -> the method, under the ledger
of the budget -> the knee -> manifest. The Selection has the same bytes for any order of arguments, rows and shards,
with and without FAISS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from curate.results import TARGET, Selection, ShiftReport
from curate.scoring import score
from curate.selection._candidates import Candidates, Choice
from curate.selection._composition import composition
from curate.selection._folder import find_selection
from curate.selection._gather import Gathered, Gatherer
from curate.selection._inputs import Inputs
from curate.selection._knee import Supply, cut, is_far, supply_of
from curate.selection._ledger import SLACK, Ledger
from curate.selection._limits import open_ledger, weights_of
from curate.selection._manifest import build_manifest
from curate.selection._methods import find_method
from curate.terms import Budget, Terms, parse_weights
from embeddings.approximate import VARIABLE, IndexSearch
from embeddings.errors import UsageError
from embeddings.neighbors import nearest

MOST_NAMED = 5  # limits in a message


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of a selection, whatever the method."""

    budget: Budget
    terms: Mapping[str, Terms] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    past_knee: bool = False
    near_duplicates: bool = True  # whether they go
    index: str = ""  # of FAISS, to search by; "" searches exactly
    seed: int = 0

    @classmethod
    def of(
        cls,
        *,
        budget: int | np.integer[Any] | str | Budget,
        include_target: bool = True,
        terms: Mapping[str, Terms] | None = None,
        weights: Mapping[str, float] | None = None,
        past_knee: bool = False,
        near_duplicates: bool = True,
        seed: int = 0,
    ) -> Wish:
        """From arguments of ``select``, and the index that the environment names.

        Raises:
            UsageError, UnknownNameError: as ``select``.
        """
        terms = dict(terms or {})
        if not include_target:
            terms[TARGET] = replace(terms.get(TARGET, Terms()), cap=0, floor=0)
        return cls(
            budget=Budget.of(budget),
            terms=terms,
            weights=parse_weights(weights or {}),
            past_knee=past_knee,
            near_duplicates=near_duplicates,
            index=os.environ.get(VARIABLE, "").strip(),
            seed=int(seed),
        )

    def to_json(self) -> dict[str, Any]:
        """What was asked for, as JSON."""
        terms = {name: said.to_json() for name, said in sorted(self.terms.items()) if said != Terms()}
        budget, most = self.budget.to_json(), self.budget.most_images
        weights = dict(sorted(self.weights.items()))
        return {
            "budget": most,
            "limits": budget,
            "terms": terms,
            "weights": weights,
            "past_knee": self.past_knee,
            "near_duplicates": self.near_duplicates,
            "index": self.index,
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Selector:
    """Opened stores and what is asked of them; selects by any method, on the same candidates."""

    gatherer: Gatherer
    wish: Wish
    settings: Mapping[str, Any]  # of everything that may have to embed a source
    given: ShiftReport | None = None

    @property
    def inputs(self) -> Inputs:
        """What is selected from."""
        return self.gatherer.inputs

    def asking(self, wish: Wish) -> Selector:
        """Selects from the same inputs by another wish; what both wishes need is found once."""
        return replace(self, wish=wish)

    @cached_property
    def report(self) -> ShiftReport:
        """What ``score`` says of the target and the pools: the report given, if it is of these images; else a new one.

        Raises:
            UsageError: the report given is of other images.
        """
        if self.given is None:
            return score(self.inputs.target, self.inputs.pools, **self.settings)
        self.inputs.require_report(self.given)
        return replace(self.given, pools=tuple(p for p in self.given.pools if p.name in self.inputs.pools))

    @cached_property
    def _index(self) -> IndexSearch | None:
        return IndexSearch.of(self.wish.index) if self.wish.index else None

    @cached_property
    def gathered(self) -> Gathered:
        """What the methods may choose from, if there is enough of it.

        Raises:
            UsageError: every target image is excluded, or the budget is above all candidates.
        """
        wish = self.wish
        gathered = self.gatherer.gathered(terms=wish.terms, licenses=wish.budget.licenses, near=wish.near_duplicates)
        candidates = gathered.candidates
        if not len(candidates.queries):
            raise UsageError(
                "Every image of the target is excluded: nothing is left to select for.",
                hint="Give the target's training part as --target, its test part as --exclude.",
            )
        _require_enough(gathered, wish.budget.images)
        candidates = candidates.asked(
            target_weights=weights_of(self.inputs.target, candidates.queries, wish.weights),
            far=wish.budget.far,
            start=self.inputs.start,
            search=self._index or nearest,
            progress=self.settings["progress"],
        )
        return replace(gathered, candidates=candidates)

    def select(self, method: str, out: Path | None = None) -> Selection:
        """The selection by a method, from ``out`` where it is there already.

        Raises:
            UsageError, UnknownNameError, ForeignFolderError: as ``select``.
        """
        report = self.report_for(method)
        verdicts = [[p.name, p.verdict] for p in report.pools] if report else None
        request = {"method": method, **self.wish.to_json(), **self.inputs.describe(), "verdicts": verdicts}
        found = find_selection(out, request, self.inputs.sources) if out is not None else None
        if found is not None:
            return found
        candidates = self.candidates_for(method)
        choice, ledger = choose(candidates, method, self.wish)
        supply = supply_of(candidates, choice, self.wish.terms) if find_method(method).near_first else None
        if supply is not None and supply.knee is not None and not self.wish.past_knee:
            choice, ledger = _cut(candidates, choice, supply, self.wish)
        outcome = _outcome(self.gathered, choice, ledger) | {"supply": supply.to_json() if supply else None}
        outcome["recall"] = min(self._index.recalls, default=None) if self._index else None
        heeded = find_method(method).weighted
        outcome["shares"] = composition(candidates, choice.rows, self.wish.weights, heeded=heeded)
        selection = Selection(
            table=build_manifest(candidates, choice, method, _stages(choice, self.wish.budget.order)),
            left_out=self.gathered.left_out,
            facts={**request, **outcome},
            sources=self.inputs.sources,
        )
        return selection if out is None else selection.save(out)

    def report_for(self, method: str) -> ShiftReport | None:
        """The report where the method goes by it."""
        return find_method(method).report_from(lambda: self.report)

    def candidates_for(self, method: str) -> Candidates:
        """The candidates, with the report where the method goes by it."""
        return self.gathered.candidates.asked(report=self.report_for(method))


def choose(candidates: Candidates, method: str, wish: Wish) -> tuple[Choice, Ledger]:
    """What a method takes of some candidates, and the ledger afterwards.

    Raises:
        UsageError: floors that cannot be met, or nothing the method would take.
    """
    ledger = open_ledger(candidates, wish.budget, wish.terms)
    choice = find_method(method).load()(candidates, ledger, seed=wish.seed)
    if not len(choice.rows):
        raise UsageError(
            f"Nothing to select: {_why_stopped(choice, ledger, len(candidates)) or 'no candidate fits the budget'}.",
            hint="Raise the budget or the caps, or find nearer pools; random chooses whatever the score says.",
        )
    if unmet := ledger.unmet():
        raise UsageError(
            f"{method} ended below a floor ({_first_of(unmet)}): "
            f"{_why_stopped(choice, ledger, len(candidates)) or 'the budget was spent'}.",
            hint="Lower the floor, raise the budget, or take a method that chooses from every source.",
        )
    return choice, ledger


LOST = {  # code of what was left out -> of several, in words
    "duplicate": "duplicates",
    "near-duplicate": "near duplicates",
    "excluded": "excluded",
    "contaminated": "that resemble excluded ones",
    "license": "of a license that is not allowed",
}


def _require_enough(gathered: Gathered, images: int | None) -> None:
    n, dropped = len(gathered.candidates), gathered.dropped()
    if n and (images is None or images <= n):
        return
    asked = "There are no candidates" if images is None else f"The budget is {images:,}, but there are {n:,} candidates"
    lost = ", ".join(f"{count:,} {LOST[code]}" for code, count in dropped.items() if count)
    raise UsageError(
        asked + (f": of {n + sum(dropped.values()):,} images these were left out: {lost}." if lost else "."),
        hint=f"Ask for at most {n:,}, or add pools." if n else "Add pools, or allow more licenses and higher caps.",
    )


def _cut(candidates: Candidates, choice: Choice, supply: Supply, wish: Wish) -> tuple[Choice, Ledger]:
    """The choice up to the knee, and the ledger of that; the choice as it is where a floor needs more.

    Raises:
        UsageError: nothing is near.
    """
    assert supply.knee is not None
    if not supply.knee.n:
        raise UsageError(
            f"Nothing to select: {supply.words[0]}",
            hint="Do not pretrain on these pools, or say --past-knee to take what is there all the same.",
        )
    near = cut(choice, supply.knee, supply.words[0], far=candidates.far)
    ledger = open_ledger(candidates, wish.budget, wish.terms)
    ledger.walk(near.rows)
    if not ledger.unmet():
        return near, ledger
    ledger.walk(choice.rows)
    return choice, ledger


def _stages(choice: Choice, order: str) -> np.ndarray:
    """When each chosen image [r] is trained on: 0 first, 1 after that."""
    far = is_far(choice)
    stages = {"near-first": far, "near-last": ~far & far.any(), "mixed": np.zeros(len(far), bool)}
    return stages[order].astype(np.int32)


def _outcome(gathered: Gathered, choice: Choice, ledger: Ledger) -> dict[str, Any]:
    """What came of a request, as JSON."""
    candidates = gathered.candidates
    reason = _why_stopped(choice, ledger, len(candidates))
    chosen = np.bincount(candidates.source[choice.rows], minlength=len(candidates.names)).tolist()
    return {
        "candidates": candidates.counts(),
        "chosen": dict(zip(candidates.names, chosen, strict=True)),
        "dropped": gathered.dropped(),
        "deduplication": gathered.facts,
        "spent": ledger.spent(),
        "parameters": choice.parameters,
        "stopped": {"reason": reason, "at": len(choice.rows)} if reason else None,
    }


def _why_stopped(choice: Choice, ledger: Ledger, n: int) -> str:
    """Why there is less than the budget allows; "" where a limit ended the selection."""
    if choice.stopped:
        return choice.stopped
    if any(amount["binding"] or amount["used"] >= amount["most"] * (1 - SLACK) for amount in ledger.spent().values()):
        return ""
    if full := ledger.full():
        return f"caps hold back the other {n - len(choice.rows):,} candidates ({_first_of(full)})"
    return f"there are no more than {n:,} candidates"


def _first_of(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - MOST_NAMED:,} more"] if len(texts) > MOST_NAMED else []
    return "; ".join([*texts[:MOST_NAMED], *more])
