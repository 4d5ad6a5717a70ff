"""Pairs of images that are nearly the same picture, among any number of images, without comparing all pairs.

Vectors x are seen from the images' mean and become (x / |x|, log |x|): direction and length, so that a distance of 0
means one vector and 1.4 no likeness. Directions are projected on 64 principal ones. A projection never lengthens a
difference: what is within a distance in all dimensions is within it in 64, so pairs are searched there and measured in
all.

Only images of one area are compared. Areas are k-means clusters of some 1,500 images, and every image belongs to its
nearest few. Up to ``EXACT`` images all pairs are compared.

Two images are nearly the same picture where vectors, hashes and pictures agree (``Rule``). How near is near depends on
what lives around, so each area is asked what its images that are no copies look like, by their 8th and 32nd neighbors:

    chance   the distance within which one image in 1,000 has a neighbor by chance: d32 (.001 / 32)^(1 / D), where
             1 / D = mean log(d32 / d8) / (psi(32) - psi(8)), the maximum likelihood dimension of the neighborhood
    blind    more than a fifth of the 32nd neighbors have hashes as near as copies' (one camera, blank pages): hashes
             and colors tell nothing there, and only what is nearer than chance is a copy. A picture that was encoded
             anew a thousand times looks like one camera, too; equal vectors are copies anywhere

Source: Levina and Bickel, Maximum likelihood estimation of intrinsic dimension (NIPS 2004); Abbas et al., SemDeDup
(2023), for pairs within clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg
from scipy.special import digamma
from threadpoolctl import threadpool_limits

from curate.selection._small_pictures import PictureColors, SmallPictures
from embeddings.clusters import fit_centers, nearest_centers
from embeddings.neighbors import nearest
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore

DIRECTIONS = 64
EXACT = 20_000  # images up to which all pairs are compared
AREA = 1500  # images per area, on average
SAMPLE = 4096  # rows that fix center and directions
FIT_ROWS = 64  # sampled rows per area
ASKED = 64  # images of an area that are asked for their neighbors
NEIGHBORS, FEW = 32, 8
CHANCE, BLIND = 0.001, 0.2
TILE = 2048
SLACK = 1e-5  # share of the squared lengths by which a float32 product of 67 terms may be off
DECIMALS = 6
FAR_OFF = 8.0  # largest logarithm of a length that is told apart
PAIR_BYTES = 1 << 24
ROUNDING = 1e-9  # of the largest coordinate of the center
NO_HASH = 255  # bits between hashes of which one is missing


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Distances of vectors and bits of hashes up to which a pair may be one picture."""

    near: float  # distance that is enough alone
    far: float  # distance that is enough if the hashes agree
    bits: int  # up to which they agree

    def hold(self, distance: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Whether [p] pairs are within them."""
        return np.asarray((distance <= self.near) | ((distance <= self.far) & (bits <= self.bits)))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What counts as nearly the same picture."""

    seen: Limits  # where both pictures can be read, and then have at most this
    contrast: float  # in levels (``_small_pictures``)
    unseen: Limits  # where they cannot


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images of several stores seen as one list."""

    stores: Sequence[EmbeddingStore]
    origin: np.ndarray  # [n] int64, number of the store
    place: np.ndarray  # [n] int64, row in it
    colors: PictureColors | None = None  # of the stores, as far as other searches have read them

    def __len__(self) -> int:
        return len(self.origin)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Vectors [r, d] float64."""
        out = np.empty((len(rows), self.stores[0].spec.dim))
        origin = self.origin[rows]
        for number in np.unique(origin):
            where = np.flatnonzero(origin == number)
            out[where] = self.stores[number].vectors()[self.place[rows[where]]]
        return out

    @cached_property
    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Perceptual hashes uint64 [n], and whether [n] there is one."""
        value, known = np.zeros(len(self), np.uint64), np.zeros(len(self), bool)
        for number, store in enumerate(self.stores):
            column = store.column("phash")
            where = np.flatnonzero(self.origin == number)
            texts = [column[i] for i in self.place[where]]
            known[where] = [bool(text) for text in texts]
            value[where] = np.array([int(text, 16) if text else 0 for text in texts], np.uint64)
        return value, known

    def bits(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Bits [p] uint8 in which the hashes of pairs differ; ``NO_HASH`` where one is missing."""
        value, known = self.hashes
        found: np.ndarray = np.bitwise_count(value[a] ^ value[b])
        found[~(known[a] & known[b])] = NO_HASH
        return found

    @cached_property
    def pictures(self) -> SmallPictures:
        """What they look like, as far as they can be read."""
        return SmallPictures(self.stores, self.colors)

    def places(self, rows: np.ndarray) -> list[tuple[int, int]]:
        """Store and row in it of some images."""
        return list(zip(self.origin[rows].tolist(), self.place[rows].tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Frame:
    """Where vectors are seen from: center, common length and principal directions."""

    center: np.ndarray  # [d] float64
    length: float  # median distance from the center
    basis: np.ndarray  # [d, p] float64, orthonormal

    @classmethod
    def fit(cls, images: Images) -> Frame:
        """From a sample of rows at even steps; one thread, so that the same machine gives the same digits."""
        x = images.vectors(spaced(np.arange(len(images)), SAMPLE))
        center, d = x.mean(axis=0), x.shape[1]
        length = float(np.median(np.linalg.norm(x - center, axis=1)))
        frame = cls(center, length, np.eye(d, 0))
        directions = frame.polar(x)[:, :-1]
        with threadpool_limits(1):
            scatter = directions.T @ directions
            _, basis = linalg.eigh(scatter, subset_by_index=[max(0, d - DIRECTIONS), d - 1])
        return cls(center, length, basis)

    def polar(self, vectors: np.ndarray) -> np.ndarray:
        """Directions and logarithms of the lengths [r, d + 1]; what lies in the center has no direction."""
        x = vectors - self.center
        length = np.sqrt(np.einsum("ij,ij->i", x, x))
        length[length <= ROUNDING * np.abs(self.center).max()] = 0
        x /= np.where(length > 0, length, np.inf)[:, None]
        with np.errstate(divide="ignore"):
            logarithm = np.log(length / (self.length or 1.0))
        return np.column_stack([x, np.clip(logarithm, -FAR_OFF, FAR_OFF)])

    def project(self, images: Images, progress: Progress) -> np.ndarray:
        """Directions in the basis and lengths [n, p + 1] float32 of all images; all that is held of each."""
        n = len(images)
        points = np.empty((n, self.basis.shape[1] + 1), np.float32)
        with threadpool_limits(1):
            for start in range(0, n, TILE):
                rows = np.arange(start, min(start + TILE, n))
                polar = self.polar(images.vectors(rows))
                points[rows] = np.column_stack([polar[:, :-1] @ self.basis, polar[:, -1]])
                progress("vectors for near duplicates", int(rows[-1]) + 1, n)
        return points


@dataclass(frozen=True, eq=False)
class Areas:
    """Which images are compared with which, and what is near in each area."""

    nearest: np.ndarray  # [n, MOST] int64, the nearest areas of every image, nearest first
    chance: np.ndarray  # [areas] float64, distance within which a neighbor is no chance
    blind: np.ndarray  # [areas] bool, where hashes tell nothing

    MOST = 4

    @classmethod
    def of(cls, images: Images, points: np.ndarray, bits: int) -> Areas:
        """Cuts the images into areas and asks each what its neighbors look like; ``bits`` as in ``Limits``."""
        k = -(-len(images) // AREA)
        centers = fit_centers(points[spaced(np.arange(len(points)), max(FIT_ROWS * k, SAMPLE))], k)
        nearest = nearest_centers(points, centers, min(cls.MOST, len(centers)))
        facts = [_ask(images, points, rows, bits) for rows in _members(nearest[:, 0], len(centers))]
        return cls(nearest, *(np.array(column) for column in zip(*facts, strict=True)))

    def listed(self, rows: np.ndarray, spread: int) -> dict[int, np.ndarray]:
        """Those of some images [r] that belong to each area, each in its nearest ``spread``."""
        area = self.nearest[rows, :spread].ravel()
        order = np.argsort(area, kind="stable")
        found, start = np.unique(area[order], return_index=True)
        return dict(
            zip(found.tolist(), np.split(rows[order // min(spread, self.nearest.shape[1])], start[1:]), strict=True)
        )


@dataclass(eq=False)
class NearPairs:
    """Finds the pairs of some images that are nearly the same picture."""

    images: Images
    rule: Rule
    frame: Frame
    points: np.ndarray  # [n, p + 1] float32
    areas: Areas
    pictures: SmallPictures
    rare: np.ndarray  # [n] float64, distance within which each has a neighbor hardly ever by chance
    telling: np.ndarray  # [n] bool, whether hashes tell anything where each lives
    spread: int = 2  # areas that an image belongs to
    compared: int = 0  # pairs multiplied so far

    @classmethod
    def of(cls, images: Images, rule: Rule, progress: Progress = silent) -> NearPairs:
        """Reads every vector once; the areas are asked with ``rule``."""
        frame, pictures = Frame.fit(images), images.pictures
        points = frame.project(images, progress)
        areas = Areas.of(images, points, (rule.seen if pictures else rule.unseen).bits)
        own = areas.nearest[:, 0]
        return cls(images, rule, frame, points, areas, pictures, areas.chance[own], ~areas.blind[own])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What was read and measured of the images, with the state."""
        frame, areas = self.frame, self.areas
        return {
            **_arrays(center=frame.center, length=frame.length, basis=frame.basis, points=self.points),
            **_arrays(nearest=areas.nearest, chance=areas.chance, blind=areas.blind, spread=self.spread),
            **self.state(),
        }

    @classmethod
    def from_arrays(cls, images: Images, rule: Rule, known: dict[str, np.ndarray]) -> NearPairs:
        """From what ``to_arrays`` gave for these images."""
        frame = Frame(known["center"], float(known["length"]), known["basis"])
        areas = Areas(known["nearest"], known["chance"], known["blind"])
        own, pictures, spread = areas.nearest[:, 0], images.pictures, int(known["spread"])
        rare, telling = areas.chance[own], ~areas.blind[own]
        pairs = cls(images, rule, frame, known["points"], areas, pictures, rare, telling, spread)
        pairs.restore(known)
        return pairs

    def state(self) -> dict[str, np.ndarray]:
        """What was counted so far."""
        return {**_arrays(compared=self.compared), **self.pictures.to_arrays()}

    def restore(self, known: dict[str, np.ndarray]) -> None:
        """Counts on from a state."""
        self.compared = int(known["compared"])
        self.pictures.restore(known)

    @property
    def exact(self) -> bool:
        """Whether all pairs are compared."""
        return len(self.images) <= EXACT

    @property
    def limits(self) -> Limits:
        """The limits that no pair is beyond."""
        return self.rule.seen if self.pictures else self.rule.unseen

    @cached_property
    def near(self) -> np.ndarray:
        """Distance [n] up to which vectors alone may call others one picture with each image."""
        bounded = np.minimum(self.limits.near, self.rare)
        return np.where(self.telling, self.limits.near, bounded) if self.pictures else bounded

    @cached_property
    def tells(self) -> np.ndarray:
        """Whether [n] each image has a hash that tells anything."""
        return np.asarray(self.telling & self.images.hashes[1])

    def between(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (a, b) of images from two disjoint lists that may be one picture, each once."""
        if self.exact:
            return self._once(self._tiles(first, second))
        ours, theirs = (self.areas.listed(rows, self.spread) for rows in (first, second))
        shared = sorted(ours.keys() & theirs.keys())
        return self._once(pair for area in shared for pair in self._tiles(ours[area], theirs[area]))

    def among(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (a, b) of images from one short list, a before b in it, that may be one picture."""
        turn = np.empty(len(self.images), np.int64)
        turn[rows] = np.arange(len(rows))
        a, b = self._once(self._tiles(rows, rows))
        self.compared -= len(rows) * (len(rows) + 1) // 2
        before = turn[a] < turn[b]
        return a[before], b[before]

    def everywhere(self, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (a, b) of sampled images and any others that vectors and hashes call one picture, areas or none."""
        rows = np.arange(len(self.images))
        a, b = self._once(self._tiles(sample, rows))
        hits = (a != b) & self.limits.hold(self.distances(a, b), self.images.bits(a, b))
        return a[hits], b[hits]

    def share_found(self, a: np.ndarray, b: np.ndarray) -> float:
        """Share of some pairs [p] that have an area in common; 1 of no pairs."""
        x, y = (self.areas.nearest[rows, : self.spread] for rows in (a, b))
        shared = (x[:, :, None] == y[:, None, :]).any(axis=(1, 2))
        return float(shared.mean()) if len(a) else 1.0

    def confirm(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pairs [p] are nearly the same picture, and their distances [p]."""
        distance, bits = self.distances(a, b), self.images.bits(a, b)
        rare, unseen = distance <= np.minimum(self.rare[a], self.rare[b]), self.rule.unseen
        telling = self.telling[a] & self.telling[b]
        contrast = self._contrast(a, b, self.rule.seen.hold(distance, bits) & (telling | rare))
        by_sight = contrast <= self.rule.contrast  # NaN is not
        by_hash = (distance <= unseen.far) & (bits <= unseen.bits) & telling
        return by_sight | (np.isnan(contrast) & (by_hash | (distance <= unseen.near) & rare)), distance

    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Distances float64 [p] of pairs in all dimensions, rounded to 1e-6."""
        step = max(1, PAIR_BYTES // (8 * self.images.stores[0].spec.dim))
        found = np.empty(len(a))
        for start in range(0, len(a), step):
            part = slice(start, start + step)
            x, y = (self.frame.polar(self.images.vectors(rows[part])) for rows in (a, b))
            found[part] = np.sqrt(np.square(x - y).sum(axis=1))
        return found.round(DECIMALS)

    def _contrast(self, a: np.ndarray, b: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Contrast [p] of the pairs that are asked for; infinite for others of which pictures can be had."""
        contrast = np.full(len(a), np.inf if self.pictures else np.nan)
        if not self.pictures:
            return contrast
        pairs = (self.images.places(rows[asked]) for rows in (a, b))
        contrast[asked] = self.pictures.contrast(*pairs)
        return contrast

    def _tiles(self, first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs that may be one picture, tile by tile."""
        self.compared += len(first) * len(second)
        for i in range(0, len(first), TILE):
            for j in range(0, len(second), TILE):
                yield self._alike(first[i : i + TILE], second[j : j + TILE])

    def _alike(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of two lists whose projections and hashes are within the limits.

        One product gives squared distances, norms and all; of the pairs within the widest limit the others are asked.
        """
        gap = self._with_norms(a, ours=True) @ self._with_norms(b, ours=False).T
        widest = max(self.limits.far, self.limits.near)
        i, j = np.divmod(np.flatnonzero(gap <= widest**2), len(b))
        gaps, a, b = gap[i, j], a[i], b[j]
        hits = gaps <= np.minimum(self.near[a], self.near[b]) ** 2
        if self.tells[a].any() and self.tells[b].any():
            agree = self.images.bits(a, b) <= self.limits.bits
            hits |= agree & self.tells[a] & self.tells[b] & (gaps <= self.limits.far**2)
        return a[hits], b[hits]

    def _with_norms(self, rows: np.ndarray, *, ours: bool) -> np.ndarray:
        """(-2x, |x|^2, 1) or (y, 1, |y|^2) [r, p + 3] float32, whose products are squared distances less ``SLACK``."""
        x = self.points[rows]
        norms, ones = (1 - SLACK) * np.einsum("ij,ij->i", x, x), np.ones(len(x), np.float32)
        return np.column_stack([-2 * x, norms, ones] if ours else [x, ones, norms]).astype(np.float32, copy=False)

    def _once(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of all parts, each once, in order of a and b."""
        n = len(self.images)
        found = [a * n + b for a, b in parts]
        pairs = np.unique(np.concatenate([np.zeros(0, np.int64), *found]))
        return pairs // n, pairs % n


def spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of some rows, at even steps."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64))]


def _arrays(**values: np.ndarray | float) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items()}


def _members(area: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows of every area."""
    return np.split(np.argsort(area, kind="stable"), np.cumsum(np.bincount(area, minlength=count))[:-1])


def _ask(images: Images, points: np.ndarray, rows: np.ndarray, bits: int) -> tuple[float, bool]:
    """Chance and blindness of the area of some rows; what is too small to ask gives no limit."""
    far = min(NEIGHBORS, len(rows) - 1)
    few = far * FEW // NEIGHBORS
    if few < 1:
        return np.inf, False
    asked = spaced(np.arange(len(rows)), ASKED)
    squared, near = nearest(points[rows[asked]], points[rows], far + 1)
    at_few, at_far = np.sqrt(squared[:, few]), np.sqrt(squared[:, far])  # column 0 is the image itself
    apart = at_few > 0
    if not apart.any():
        return np.inf, False
    dimension = np.mean(np.log(at_far[apart] / at_few[apart])) / (digamma(far) - digamma(few))  # its inverse
    agree = images.bits(rows[asked], rows[near[:, far]]) <= bits
    return float(np.median(at_far[apart]) * (CHANCE / far) ** dimension), bool(agree.mean() > BLIND)
