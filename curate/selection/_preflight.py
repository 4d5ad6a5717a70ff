"""What can be refused before anything is embedded: wishes that the sources' listings show to be impossible.

A listing holds the keys, labels, groups and other columns of every image, and no vector. The candidates of a selection
are a part of what is listed: a floor, a budget or a weight that the listing cannot carry, they cannot either. Sizes in
bytes are known only after reading, and tiles only after cutting, so limits on those wait.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from curate.results import TARGET
from curate.selection._candidates import Candidates
from curate.selection._limits import are_licensed, licenses_of, open_ledger, prices_of, weights_of
from curate.selection._methods import find_method
from curate.terms import LARGEST, Budget, Terms
from embeddings.errors import UnknownNameError, UsageError
from embeddings.pipeline import Embeddable, listed_store
from embeddings.sources import parse_address
from embeddings.store import EmbeddingStore


def require_possible(
    target: Embeddable,
    pools: Mapping[str, Embeddable],
    *,
    budget: Budget,
    terms: Mapping[str, Terms] | None = None,
    weights: Mapping[str, float] | None = None,
    methods: Sequence[str] = (),
    exclude: Sequence[Embeddable] = (),
) -> None:
    """Refuses what no images of these sources can meet; opens and lists the sources, embeds nothing.

    Args:
        target: As in ``select``, like the rest.
        pools: Name -> what to select from.
        budget: What may be taken.
        terms: Source -> price, license, cap, floor.
        weights: Label or group of the target -> how much its images count.
        methods: Names of the methods that will be asked.
        exclude: Images never to be chosen.

    Raises:
        UsageError: a floor, cap, price, license or budget that cannot be met, or labels that a method needs.
        UnknownNameError: a weight for a label, or terms for a source, that is not there.
        SourceError: a source that is not there, or a column of prices that is not.
    """
    stores = {TARGET: listed_store(target, name=TARGET)}
    stores |= {name: listed_store(pools[name], name=name) for name in sorted(pools)}
    for thing in exclude:
        listed_store(thing, name="exclude")
    if not pools:
        raise UsageError("No pool to select from.", hint="Give at least one: --pool NAME=SOURCE.")
    terms = dict(terms or {})
    for name in terms:
        if name not in stores:
            raise UnknownNameError("source that terms are given for", name, stores)
    _require_labels(stores[TARGET], methods)
    weights_of(stores[TARGET], np.arange(len(stores[TARGET])), weights or {})
    candidates = _offered(stores, budget, terms)
    if not any(_in_tiles(thing) for thing in (target, *pools.values())):
        _require_enough(candidates, budget)
        open_ledger(candidates, _without_bytes(budget), terms)


def _in_tiles(thing: Embeddable) -> bool:
    return isinstance(thing, str | Path) and parse_address(str(thing)).view.tiles is not None


def _require_labels(target: EmbeddingStore, methods: Sequence[str]) -> None:
    labels = target.rows()["label"]
    for name in methods:
        if find_method(name).needs_labels and labels.null_count == len(labels):
            raise UsageError(
                f"{name} needs labels of the target, and none of its images has one.",
                hint="Name their column in the target's address: SOURCE#label:COLUMN.",
            )


def _offered(stores: Mapping[str, EmbeddingStore], budget: Budget, terms: Mapping[str, Terms]) -> Candidates:
    """Every listed image that may be chosen, copies among them."""
    said = {name: terms.get(name, Terms()) for name in stores}
    held = {name: licenses_of(store, said[name]) for name, store in stores.items()}
    _require_licenses([value for name in held if name != TARGET for value in held[name]], budget.licenses)
    prices = [prices_of(store, name, said[name]) for name, store in stores.items()]
    places = []
    for name, store in stores.items():
        free = name == TARGET or not budget.licenses
        allowed = np.ones(len(store), bool) if free else are_licensed(held[name], budget.licenses)
        places.append(np.flatnonzero(allowed & (said[name].cap != 0)))
    paid = np.concatenate([price[place] for price, place in zip(prices, places, strict=True)])
    source = np.repeat(np.arange(len(stores)), [len(place) for place in places])
    return Candidates(
        stores=stores,
        source=source,
        place=np.concatenate(places),
        copies=np.ones(len(source), np.int64),
        queries=np.arange(len(stores[TARGET])),
        prices=paid if any(price.any() for price in prices) else None,
    )


def _require_licenses(held: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuses a class that no pool has, where it is another one misspelt or where it leaves the target's own images."""
    stated = sorted({name for name in held if name})
    if not allowed:
        return
    absent = [name for name in allowed if not are_licensed([name], stated)[0]]
    for name in absent:
        unasked = [other for other in stated if not are_licensed([other], allowed)[0]]
        same = [other for other in unasked if _letters(other) == _letters(name)]
        near = same or difflib.get_close_matches(name, stated, n=3, cutoff=0.5)
        if same or len(absent) == len(allowed):
            known = f"Stated are: {', '.join(stated)}." if stated else "Say it in a pool's address: #license:NAME."
            hint = f"Did you mean {' or '.join(near)}?" if near else known
            raise UsageError(f"No image of the pools has the license {name!r}.", hint=hint)


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _require_enough(candidates: Candidates, budget: Budget) -> None:
    n, most = len(candidates), budget.images
    if most is not None and most > n:
        raise UsageError(
            f"The budget is {most:,} images, but the sources list {n:,} that may be chosen.",
            hint=f"Ask for at most {n:,}, or add pools." if n else "Add pools, or allow more licenses and higher caps.",
        )


def _without_bytes(budget: Budget) -> Budget:
    """The budget without its limit on bytes."""
    only = all(amount is None for amount in (budget.images, budget.money, budget.hours))
    return replace(budget, bytes=None, images=LARGEST if only else budget.images)
