"""What a selection is made from: the target, the pools, and what must not be chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from curate.results import TARGET, ShiftReport, check_pool_names
from curate.selection._small_pictures import PictureColors
from embeddings.errors import UsageError
from embeddings.pipeline import Embeddable
from embeddings.store import EmbeddingStore, digest_columns


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Opened stores of one encoder, in an order that does not depend on that of the arguments."""

    stores: dict[str, EmbeddingStore]  # target first, then the pools by name
    excluded: list[tuple[str, EmbeddingStore]]  # by name, then by content
    start: EmbeddingStore | None = None  # what the starting model was trained on

    @property
    def target(self) -> EmbeddingStore:
        """The target's store."""
        return self.stores[TARGET]

    @property
    def pools(self) -> dict[str, EmbeddingStore]:
        """The pools' stores, by name."""
        return {name: store for name, store in self.stores.items() if name != TARGET}

    @property
    def everything(self) -> list[tuple[str, EmbeddingStore]]:
        """All stores by name: target, pools, what must not be chosen."""
        return [*self.stores.items(), *self.excluded]

    @cached_property
    def colors(self) -> PictureColors:
        """Of the pictures of all these stores: what one search for near duplicates has read, the next need not."""
        return PictureColors([store for _, store in self.everything])

    @property
    def sources(self) -> dict[str, str]:
        """Where the images are."""
        return {name: store.source for name, store in self.stores.items()}

    def describe(self) -> dict[str, Any]:
        """Encoder, sizes and digests, as JSON."""
        told = {name: _describe(store) | {"told": self._told[name]} for name, store in self.stores.items()}
        return {
            "encoder": asdict(self.target.spec),
            "target": told.pop(TARGET),
            "pools": told,
            "excluded": [{"name": name, **_describe(store)} for name, store in self.excluded],
            "start": None if self.start is None else _describe(self.start),
        }

    @cached_property
    def _told(self) -> dict[str, str]:
        """Digest of what each source says of its images: labels and groups, licenses and prices."""
        return {name: digest_columns(s.rows(), ("label", "group", "meta")) for name, s in self.stores.items()}

    def require_report(self, report: ShiftReport) -> None:
        """Refuses a report that is not of these images.

        Raises:
            UsageError: a pool that the report does not know, or other images than those it measured.
        """
        digests = {pool.name: pool.facts.get("digest") for pool in report.pools}
        digests[TARGET] = report.target.get("digest")
        for name, store in self.stores.items():
            if digests.get(name) != store.digest:
                found = "of other images under that name" if name in digests else f"of {', '.join(sorted(digests))}"
                raise UsageError(
                    f"The report given does not tell of {name!r}: it is {found}.",
                    hint="Score the same target and pools, or leave the report out.",
                )


def open_inputs(
    target: Embeddable,
    pools: Mapping[str, Embeddable],
    exclude: Embeddable | Sequence[Embeddable],
    start: Embeddable | None = None,
    *,
    opener: Callable[..., EmbeddingStore],
) -> Inputs:
    """Opens or embeds everything.

    Args:
        target: What to select for.
        pools: What to select from, by name.
        exclude: What not to select, one thing or several.
        start: What the starting model was trained on, if anything.
        opener: ``opener(thing, name=...) -> EmbeddingStore``.

    Raises:
        UsageError: no pool, or a name that no pool may have.
        EncoderMismatchError: stores from different encoders.
    """
    if not pools:
        raise UsageError("No pool to select from.", hint="Give at least one: --pool NAME=SOURCE.")
    check_pool_names(pools)
    stores = {TARGET: opener(target, name=TARGET)} | {name: opener(pools[name], name=name) for name in sorted(pools)}
    things = [exclude] if isinstance(exclude, EmbeddingStore | str | Path | np.ndarray) else exclude
    excluded = [(_name_of(thing), opener(thing, name=_name_of(thing))) for thing in things]
    started = None if start is None else opener(start, name="start")
    for name, store in [*stores.items(), *excluded, *([("start", started)] if started else [])]:
        stores[TARGET].spec.require_same(store.spec, (TARGET, name))
    in_order = sorted(excluded, key=lambda pair: (pair[0], pair[1].digest))
    return Inputs(stores=stores, excluded=in_order, start=started)


def _describe(store: EmbeddingStore) -> dict[str, Any]:
    return {"n": len(store), "digest": store.digest}


def _name_of(thing: Embeddable) -> str:
    """What to call an excluded source: the last part of its address."""
    address = thing.source if isinstance(thing, EmbeddingStore) else "" if isinstance(thing, np.ndarray) else str(thing)
    return address.partition("#")[0].rstrip("/").rpartition("/")[2] or "images"
