"""Exports the moments of a store, so that a set can be scored by others without its images or their embeddings.

What is refused, and why:

- fewer than 50 different images in a fold or a class, whose mean would be nearly theirs;
- all dimensions of folds of fewer than 2 d images, whose scatter would nearly spell the images out. Such a set is
  projected to k of its own main directions, with at least 2 k images in every fold (see principal_moments.py);
- taking the place of an export of nearly the same images: two exports that differ by one image reveal it, since
  n mean - n' mean' is its embedding.

Copies of one image count as one. A fold without images shows none and is no obstacle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embeddings.class_moments import ClassMoments
from embeddings.errors import ForeignFolderError, SourceError, TooFewImagesError, UsageError
from embeddings.histograms import BINS, NeuronHistograms
from embeddings.moments import Folded, Moments, connected_rows
from embeddings.moments_file import ExportedMoments, is_moments_file, read_moments, write_moments
from embeddings.principal_moments import PrincipalMoments
from embeddings.store import EmbeddingStore

MIN_ROWS = 50  # different images of a fold or a class
# At d = 1280 the headline distance between a target of 938 images (36 directions) and six real pools (40 to 64) is then
# within 0.9 of the one from the stores: 0.2 standard errors or less, 0.7 for a pool of the target's own distribution,
# 0.15 index points. With directions of all folds together and an isotropic rest it read high by 2 to 19, 1.8 points.
MAX_DIRECTIONS = 64  # unless told otherwise
MAX_FURTHER = 192
SAME = 1e-7  # of the largest component: means that differ by less are of the same images
DIFFERENCING = (
    "Give out one export of a set only. Two that differ by one image reveal it (the difference of n times the mean is "
    "its embedding), and two that differ by a few reveal their sum."
)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported."""

    path: Path
    n: int
    d: int
    rank: int | None  # directions of the scatter; None: all d
    bytes: int
    classes: tuple[str, ...]  # whose statistics and names are in the file
    left_out_classes: tuple[str, ...]  # too small
    notes: tuple[str, ...]  # what a person should know before giving it away


def export_moments(
    store: EmbeddingStore,
    out: Path | str,
    *,
    directions: int | None = None,
    classes: bool = False,
    histograms: bool | Path | str = False,
) -> ExportReport:
    """Writes the statistics of a store, by fold, to one file that holds no key, path, source or single embedding.

    Args:
        store: At least 50 different images in every fold that has any; 750 images do, 650 mostly.
        out: The file.
        directions: Main directions to keep of the scatter. By default all dimensions if every fold has 2 d images or
            more, else half as many as the smallest fold has images, at most 64.
        classes: Statistics and names of the classes of 50 different images or more, too.
        histograms: Counts of the activations of every dimension, too: True over a range of this set's own (what a
            target gives out), the path of a target's export over that one's range (what a pool answers with).

    Returns:
        ExportReport.

    Raises:
        TooFewImagesError: folds too small, for any export or for so many directions.
        SourceError: classes are asked for and there is no label, or a range and there is no file.
        ForeignFolderError: ``out`` is something else, or an export of nearly the same images.
        EncoderMismatchError: the other export is of another encoder.
        UsageError: an impossible number of directions, a range from an export without histograms, a file too large.
        CorruptError: an earlier or another export does not read back.
    """
    folded = Folded(store)
    folds, pictures = folded.folds(), connected_rows(store.rows()["sha256"], store.rows()["pixels"])
    smallest = _smallest_fold(folds, pictures)
    rank = _rank(smallest, store.spec.dim, directions)
    members, left_out = _classes(store, pictures) if classes else ({}, ())
    moments = folded.moments
    export = ExportedMoments(
        spec=store.spec,
        statistics=moments
        if rank is None
        else PrincipalMoments.of(moments, rank, _further(folds, pictures, rank, store.spec.dim)),
        classes=ClassMoments.of(store.vectors(), members) if members else None,
        histograms=_histograms(store, folds, moments, histograms) if histograms else None,
    )
    path = Path(out)
    _refuse_difference(path, export)
    return ExportReport(
        path=path,
        n=len(store),
        d=store.spec.dim,
        rank=rank,
        bytes=write_moments(path, export),
        classes=tuple(members),
        left_out_classes=left_out,
        notes=(DIFFERENCING, _says_rank(smallest, store.spec.dim, rank), *_says_more(export, left_out)),
    )


def _different(labels: np.ndarray, pictures: np.ndarray) -> dict[int, int]:
    """Different pictures under every label [n] of whole numbers."""
    pairs = np.unique(np.stack([labels.astype(np.int64), pictures]), axis=1)
    found, counts = np.unique(pairs[0], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _smallest_fold(folds: np.ndarray, pictures: np.ndarray) -> int:
    """Different pictures in the smallest fold that has any."""
    smallest = min(_different(folds, pictures).values())
    if smallest < MIN_ROWS:
        raise TooFewImagesError(
            f"The smallest of the random tenths (folds) of these {len(folds):,} images has {smallest} different ones; "
            f"an export needs {MIN_ROWS} in each, else it would show single images.",
            hint="Use about 650 images or more (750 nearly always do). Folds keep groups and copies whole: with large "
            "groups they are uneven, so use more groups or a finer group column.",
        )
    return smallest


def _rank(smallest: int, dim: int, directions: int | None) -> int | None:
    if directions is None:
        return None if smallest >= 2 * dim else min(smallest // 2, MAX_DIRECTIONS)
    if not 1 <= directions < dim:
        raise UsageError(
            f"{directions} directions of {dim:,} dimensions; wanted 1 to {dim - 1:,}.",
            hint="Leave the number out: all dimensions are exported if every fold has twice as many images.",
        )
    if smallest < 2 * directions:
        raise TooFewImagesError(
            f"{directions} directions need {2 * directions} different images in every fold; one has {smallest}.",
            hint=f"Ask for {smallest // 2} directions or fewer, or use more images.",
        )
    return directions


def _further(folds: np.ndarray, pictures: np.ndarray, rank: int, dim: int) -> int:
    """Directions beside k whose variance the even folds together, and the odd ones, have images enough to show."""
    smaller = min(_different(folds % 2, pictures).values())
    return max(min(smaller // 2 - rank, MAX_FURTHER, dim - 1 - rank), 0)


def _classes(store: EmbeddingStore, pictures: np.ndarray) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Row numbers of the classes that are large enough, and the names of those that are not."""
    labels = store.column("label")
    names = sorted({label for label in labels if label is not None})
    if not names:
        raise SourceError(
            "Classes were asked for, and no image has a label.", hint="Name the label column, or leave out classes."
        )
    number = {name: i for i, name in enumerate(names)}
    codes = np.array([-1 if label is None else number[label] for label in labels])
    sizes = _different(codes, pictures)
    kept = [name for name, i in number.items() if sizes[i] >= MIN_ROWS]
    kept.sort(key=lambda name: sizes[number[name]])
    # All of them taken from the folds leave the other images' sum: these, too, must be many, or none.
    while kept and 0 < _others(codes, pictures, [number[name] for name in kept]) < MIN_ROWS:
        kept.pop(0)
    members = {name: np.flatnonzero(codes == number[name]) for name in sorted(kept)}
    return members, tuple(name for name in names if name not in members)


def _others(codes: np.ndarray, pictures: np.ndarray, kept: list[int]) -> int:
    """Different pictures outside some classes."""
    return len(np.unique(pictures[~np.isin(codes, kept)]))


def _histograms(
    store: EmbeddingStore, folds: np.ndarray, moments: Moments, wanted: bool | Path | str
) -> NeuronHistograms:
    if isinstance(wanted, bool):
        _, mean, covariance = moments.pooled()
        empty = NeuronHistograms.around(mean, np.sqrt(np.diag(covariance)), encoder=store.spec.fingerprint)
    else:
        target = read_moments(Path(wanted))
        target.spec.require_same(store.spec, (str(wanted), "this store"))
        if target.histograms is None:
            raise UsageError(f"{wanted} holds no histograms.", hint="Ask for an export with --histograms.")
        if target.histograms.bins != BINS:
            raise UsageError(
                f"{wanted} counts in {target.histograms.bins} bins; an answer is given in {BINS}.",
                hint="Ask for an export by `curate moments --histograms`: finer bins would show single images.",
            )
        empty = target.histograms.emptied()
    counted = empty.count(store.vectors(), folds)
    # How far beyond the range the outermost images lie would be their very activations: half a bin is told instead.
    outside = counted.counts[:, :, [0, -1]] * (counted.width / 2)[:, None]
    return replace(counted, beyond=outside)


def _refuse_difference(path: Path, export: ExportedMoments) -> None:
    """Keeps an export from taking the place of one of nearly the same images."""
    if not path.exists():
        return
    if not is_moments_file(path):
        raise ForeignFolderError(f"{path} exists and is no export of moments.", hint="Choose another file for --out.")
    earlier = read_moments(path)
    if earlier.spec != export.spec:
        return
    before, now = _parts(earlier), _parts(export)
    for name in before.keys() & now.keys():
        (n, mean), (m, other) = before[name], now[name]
        apart = n != m or np.abs(mean - other).max() > SAME * np.abs(mean).max()
        if apart and abs(n - m) < MIN_ROWS:
            raise ForeignFolderError(
                f"{path} is an earlier export: its {name} has {n:,} images, the new one {m:,}, and they are not all "
                f"the same. Two exports that differ by fewer than {MIN_ROWS} images reveal them.",
                hint="Keep the earlier export. If no one has it, delete it first; if it is of a set that has nothing "
                "to do with this one, choose another file for --out.",
            )


def _parts(export: ExportedMoments) -> dict[str, tuple[int, np.ndarray]]:
    """Count and mean of every fold that holds images, and of every class."""
    n, mean, classes = export.statistics.n, export.statistics.mean, export.classes
    parts = {f"fold {fold}": (int(n[fold]), mean[fold]) for fold in np.flatnonzero(n)}
    if classes is not None:
        found = zip(classes.names, classes.n, classes.mean, strict=True)
        parts |= {f"class {name!r}": (int(count), center) for name, count, center in found}
    return parts


def _says_rank(smallest: int, dim: int, rank: int | None) -> str:
    if rank is None:
        return f"The scatter is exported in all {dim:,} dimensions: every fold has {2 * dim:,} images or more."
    return (
        f"The scatter is exported in {rank} main directions, its rest in outline: the smallest fold has "
        f"{smallest:,} different images, and all {dim:,} dimensions need {2 * dim:,}. Figures of all dimensions cannot "
        "be had from it."
    )


def _says_more(export: ExportedMoments, left_out: tuple[str, ...]) -> list[str]:
    notes = []
    if export.classes is not None:
        notes.append(f"The file holds the names of {len(export.classes.names)} classes.")
    if left_out:
        notes.append(f"Left out, with fewer than {MIN_ROWS} different images: {', '.join(left_out)}.")
    if export.histograms is not None:
        notes.append(
            "Histograms show how often each activation occurs, dimension by dimension; rare ones can be of one image."
        )
    return notes
