"""Near duplicates and what resembles evaluation images, left out before any method sees them.

    decontaminate   an image that resembles an evaluation image goes, and so does every image that is nearly the same
                    picture as one that went, and so on: whole components
    deduplicate     the others are gone through by priority, and an image is kept unless it is nearly the same picture
                    as one that is kept already

So an image is only left out because of one that stays (an independent set). Leaving out whatever resembles anything
deletes up to a third more, and a chain of images, each a little different from the one before, would go but for one.

Of n images in order of priority the first half is settled, then what resembles a kept one goes from the second half,
then that is settled. Pairs with images that went are never looked at, so a picture that comes 10,000 times costs
10,000 comparisons. The recall of the areas is measured on a sample of images against all others; where it is below
.95, images are searched in one area more.

Distances (see ``_near_pairs``) of copies under Lite0: JPEG of quality 95 to 50 .1 to .9, 0.5 to 2 times as large 0 to
1.1, 3% cropped .2 to .5. But an emoji in another skin tone is .1 to .5 away, the nearest other digit .3, garment .4:
vectors and hashes cannot tell, pictures can. Share of copies found (60 images a cell) among 17,000 to 27,000 images of
several pools, and of a pool's own different images that went. The limits were chosen on these same pools:

              JPEG 95  JPEG 75  JPEG 50  0.9 times  0.75 times  0.5 times  3% cropped   own images
    emoji        1.00      .98      .95       1.00        1.00        .98         .97         .009
    clip art     1.00     1.00      .98       1.00        1.00        .98         .83         .013
    photos       1.00     1.00      .95       1.00        1.00       1.00         .95         .020
    digits       1.00     1.00      .97       1.00        1.00        .72         .75         .003
    garments     1.00      .95      .78       1.00        1.00        .33         .08         .001

The photographs that went are crops of one photograph. Another design of emoji, of flat shapes, lost .082 of its own.
Where pictures cannot be read, limits are strict: no digit went, .030 of the emoji did, nearly all of them skin tones;
of the copies of emoji those twice as large were found and .70 of those 0.9 times as large, but hardly a JPEG, and of
digits hardly any.

With a work folder, what is done is kept there: areas and projections, what resembles evaluation images, and every
32,768 images how far the priorities were gone through. A run that was killed goes on from there, to the same result,
within a week (``_kept_parts``). Of two that search for the same at once, one waits for the other.

Source: Abbas et al., SemDeDup (2023), whose rule this mends; Oquab et al., DINOv2 (2023), for the looser limit against
evaluation images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.selection._kept_parts import NOTHING, KeptParts
from curate.selection._near_pairs import Images, Limits, NearPairs, Rule, spaced
from curate.selection._small_pictures import PictureColors
from embeddings.files import digest_bytes
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore

SAME = Rule(
    seen=Limits(near=0.35, far=0.9, bits=4), contrast=18.0, unseen=Limits(near=0.05, far=0.15, bits=2)
)  # nearly the same picture
ALIKE = Rule(
    seen=Limits(near=0.5, far=1.1, bits=8), contrast=26.0, unseen=Limits(near=0.1, far=0.35, bits=4)
)  # too near to an evaluation image
LEAF = 2048  # images that are settled at once
QUERIES = 1024  # evaluation images looked up at once
ASKED = 1024  # images whose pairs are searched among all others
WANTED = 0.95
FEWEST = 20  # pairs that tell a recall
SAVED = 32_768  # images settled from one kept state to the next
STAGE = "near duplicates"
AREAS, CLEAN, SETTLED, RESULT = "areas", "contaminated", "settled", "near-duplicates"  # parts
NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class NearDuplicates:
    """What became of each image."""

    kept_for: np.ndarray  # [n] int64, the kept row that the image resembles; its own row if it stays
    cause: np.ndarray  # [n] int64, the evaluation row because of which it goes; -1 if there is none
    facts: dict[str, Any] = field(default_factory=dict)  # JSON: counts, recall and what was compared


def near_duplicates(
    stores: Sequence[EmbeddingStore],
    places: tuple[np.ndarray, np.ndarray],
    order: np.ndarray,
    *,
    evaluation: np.ndarray,
    checked: np.ndarray | None = None,
    colors: PictureColors | None = None,
    work: Path | None = None,
    progress: Progress = silent,
) -> NearDuplicates:
    """Finds near duplicates among candidates, and candidates that resemble evaluation images.

    Args:
        stores: of one encoder.
        places: number of the store [n] and row in it [n] of every image.
        order: rows [c] of the candidates, the ones to be kept first.
        evaluation: rows [e] of the images never to be chosen.
        checked: rows that are no candidates, and are only compared with the evaluation images.
        colors: of the stores' pictures, shared by one search after the other.
        work: folder where finished parts are kept; None keeps nothing.
        progress: told how many images are settled.

    Returns:
        For every image [n] what became of it; the same for any shards, FAISS and thread count.
    """
    others = NO_ROWS if checked is None else checked
    rows = np.concatenate([order, others, evaluation]).astype(np.int64)
    kept_for, cause = np.arange(len(places[0])), np.full(len(places[0]), -1)
    if not len(order) + len(others):
        return NearDuplicates(kept_for=kept_for, cause=cause)
    images = Images(stores=stores, origin=places[0][rows], place=places[1][rows], colors=colors)
    parts = KeptParts(work, *_made_of(images, len(order), len(others))) if work is not None else NOTHING
    found, kept, facts = _finished(images, parts) or _made(
        images, len(order), len(others), parts=parts, progress=progress
    )
    clean, hit = np.flatnonzero(found[: len(order)] < 0), np.flatnonzero(found >= 0)
    kept_for[rows[clean]], cause[rows[hit]] = rows[kept], rows[found[hit]]
    return NearDuplicates(kept_for=kept_for, cause=cause, facts=facts)


def _made_of(images: Images, candidates: int, checked: int) -> list[Any]:
    """All that decides the result, as JSON."""
    stores = [[s.digest, s.source, seen] for s, seen in zip(images.stores, images.pictures.opened, strict=True)]
    sample = images.vectors(spaced(np.arange(len(images)), ASKED))
    arrays = [images.origin, images.place, *images.hashes, sample]
    return [stores, [digest_bytes(array.tobytes()) for array in arrays], candidates, checked, *_rules()]


def _rules() -> list[Any]:
    return [asdict(SAME), asdict(ALIKE), LEAF, QUERIES]


def _made(
    images: Images, candidates: int, checked: int, *, parts: KeptParts, progress: Progress
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The result, by this process or by another one that was at it already."""
    with parts.held(progress):
        if (known := _finished(images, parts)) is not None:
            return known
        found = _found(images, candidates, checked, parts=parts, progress=progress)
        parts.sweep(RESULT, AREAS, CLEAN, SETTLED)
        return found


def _found(
    images: Images, candidates: int, checked: int, *, parts: KeptParts, progress: Progress
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The cause [candidates + checked] of what goes, what each clean candidate is kept for, and facts."""
    pairs, recall = _prepared(images, parts, progress)
    count = candidates + checked
    if (known := _known(images, parts, CLEAN)) is not None:
        found = known["found"]
        pairs.restore(known)
    else:
        found = contaminated(pairs, np.arange(count), np.arange(count, len(images)), progress)
        parts.write(CLEAN, {"found": found, **pairs.state()})
    clean = np.flatnonzero(found[:candidates] < 0)
    kept = independent_set(pairs, clean, progress, parts)
    facts = _facts(pairs, recall, kept != clean, np.flatnonzero(found >= 0))
    told = {"found": found, "kept": kept, "facts": np.array(json.dumps(facts))}
    parts.write(RESULT, {**told, **pairs.state()})
    parts.drop(AREAS, CLEAN, SETTLED)
    return found, kept, facts


def _known(images: Images, parts: KeptParts, name: str) -> dict[str, np.ndarray] | None:
    """A part of an earlier run, unless a picture that it did without can be read now."""
    known = parts.read(name)
    return None if known is None or images.pictures.is_back(known) else known


def _finished(images: Images, parts: KeptParts) -> tuple[np.ndarray, np.ndarray, dict[str, Any]] | None:
    """The result of an earlier run."""
    known = _known(images, parts, RESULT)
    return None if known is None else (known["found"], known["kept"], json.loads(str(known["facts"])))


def _prepared(images: Images, parts: KeptParts, progress: Progress) -> tuple[NearPairs, dict[str, Any]]:
    """The areas, wide enough, and the recall measured."""
    if (known := parts.read(AREAS)) is not None:
        pairs = NearPairs.from_arrays(images, SAME, known)
        return pairs, json.loads(str(known["recall"]))
    pairs = NearPairs.of(images, SAME, progress)
    recall = widen(pairs)
    parts.write(AREAS, {**pairs.to_arrays(), "recall": np.array(json.dumps(recall))})
    return pairs, recall


def independent_set(
    pairs: NearPairs, order: np.ndarray, progress: Progress = silent, parts: KeptParts = NOTHING
) -> np.ndarray:
    """Goes through images [c] by priority; for each the kept one that it resembles, itself if it is kept.

    What is to be done is a list, last first: settle some rows; or, once the first half of a list is settled, drop from
    the second what resembles a kept one, and settle the rest.
    """
    kept_for, todo = _resumed(pairs, parts) or (np.arange(len(pairs.images)), [(NO_ROWS, order)])
    settled = 0
    while todo:
        first, rows = todo.pop()
        if len(first):
            claim(pairs, first[kept_for[first] == first], rows, kept_for)
            progress(STAGE, int(np.searchsorted(order, rows[0])), len(order))
            rows = rows[kept_for[rows] == rows]
        if len(rows) > LEAF:
            half = len(rows) // 2
            todo += [(rows[:half], rows[half:]), (NO_ROWS, rows[:half])]
            continue
        _settle_leaf(pairs, rows, kept_for)
        settled += len(rows)
        if settled >= SAVED:
            settled = 0
            parts.write(SETTLED, {"kept_for": kept_for, **_listed(todo), **pairs.state()})
    progress(STAGE, len(order), len(order))
    found: np.ndarray = kept_for[order]
    return found


Todo = list[tuple[np.ndarray, np.ndarray]]


def _listed(todo: Todo) -> dict[str, np.ndarray]:
    """What is to be done, as arrays."""
    rows = [part for pair in todo for part in pair]
    return {"rows": np.concatenate([NO_ROWS, *rows]), "lengths": np.array([len(part) for part in rows], np.int64)}


def _resumed(pairs: NearPairs, parts: KeptParts) -> tuple[np.ndarray, Todo] | None:
    """How far an earlier run came."""
    known = _known(pairs.images, parts, SETTLED)
    if known is None:
        return None
    pairs.restore(known)
    rows = np.split(known["rows"], np.cumsum(known["lengths"]))[:-1]
    return known["kept_for"], list(zip(rows[::2], rows[1::2], strict=True))


def claim(pairs: NearPairs, kept: np.ndarray, rows: np.ndarray, kept_for: np.ndarray) -> None:
    """Writes into ``kept_for`` which of some rows resemble a kept one, and the nearest of these."""
    a, b = pairs.between(kept, rows)
    _write_nearest(a, b, pairs.confirm(a, b), kept_for)


def _settle_leaf(pairs: NearPairs, rows: np.ndarray, kept_for: np.ndarray) -> None:
    """Settles a short list: what no open row before it may resemble is kept, and what resembles it goes; repeat.

    In a clump of copies the first row answers for all. Where most pairs turn out to be apart, all are asked at once.
    """
    a, b = pairs.among(rows)
    while len(a):
        first = ~np.isin(a, b)
        found = pairs.confirm(a[first], b[first])
        _write_nearest(a[first], b[first], found, kept_for)
        is_open = ~first & (kept_for[a] == a) & (kept_for[b] == b)
        a, b = a[is_open], b[is_open]
        if 2 * found[0].sum() < len(found[0]):
            same = pairs.confirm(a, b)[0]
            a, b = a[same], b[same]


def _write_nearest(a: np.ndarray, b: np.ndarray, found: tuple[np.ndarray, np.ndarray], kept_for: np.ndarray) -> None:
    same, distance = found
    order = np.lexsort((a, distance))[::-1]  # of several values for one place the last stays
    order = order[same[order]]
    kept_for[b[order]] = a[order]


def contaminated(pairs: NearPairs, rows: np.ndarray, evaluation: np.ndarray, progress: Progress = silent) -> np.ndarray:
    """For each of some rows [r] the evaluation row because of which it goes, or -1.

    A row goes if it resembles an evaluation row by the looser rule, or is nearly the same picture as a row that goes.
    """
    cause = np.full(len(pairs.images), -1)
    loose = replace(pairs, rule=ALIKE)
    gone = _spread(loose, evaluation, rows, cause, progress)
    pairs.compared = loose.compared
    while len(gone):
        gone = _spread(pairs, gone, rows, cause, progress)
    found: np.ndarray = cause[rows]
    return found


def _spread(
    pairs: NearPairs, sources: np.ndarray, rows: np.ndarray, cause: np.ndarray, progress: Progress
) -> np.ndarray:
    """Writes the cause of each row not yet gone that resembles a source; returns the rows that go."""
    gone = [np.zeros(0, np.int64)]
    for start in range(0, len(sources), QUERIES):
        part, left = sources[start : start + QUERIES], rows[cause[rows] < 0]
        because = np.arange(len(cause))
        claim(pairs, part, left, because)
        hit = left[because[left] != left]
        origin = because[hit]
        cause[hit] = np.where(cause[origin] < 0, origin, cause[origin])
        gone.append(hit)
        progress("evaluation images", min(start + QUERIES, len(sources)), len(sources))
    return np.concatenate(gone)


def widen(pairs: NearPairs) -> dict[str, Any]:
    """Searches images in more areas until 95% of a sample's pairs share one; says what was measured."""
    if pairs.exact:
        return {"recall": 1.0, "recall_pairs": None, "areas": None}
    sample = spaced(np.arange(len(pairs.images)), ASKED)
    a, b = pairs.everywhere(sample)
    most = pairs.areas.nearest.shape[1]
    recall = pairs.share_found(a, b)
    while len(a) >= FEWEST and recall < WANTED and pairs.spread < most:
        pairs.spread += 1
        recall = pairs.share_found(a, b)
    return {"recall": round(recall, 4) if len(a) else None, "recall_pairs": len(a), "areas": pairs.spread}


def _facts(pairs: NearPairs, recall: dict[str, Any], removed: np.ndarray, hit: np.ndarray) -> dict[str, Any]:
    n = len(pairs.images)
    return {
        **recall,
        "compared_share": round(pairs.compared / max(n * (n - 1) / 2, 1), 4),
        "pictures_read": pairs.pictures.read,
        "near_duplicates": int(removed.sum()),
        "contaminated": len(hit),
    }
