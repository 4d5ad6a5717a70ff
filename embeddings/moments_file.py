"""The file that an export of moments is: statistics of a set, and nothing that names an image, a path or a person.

One safetensors file: plain arrays, no compression, no code. Its header: schema, encoder, rank, further, classes, bins.

    n, mean                                           always
    scatter                                           of all dimensions: packed triangles, float32
    directions, inside, outside, shares               or of the main directions (see principal_moments.py)
    class_n, class_mean, class_root, class_rest       where classes were asked for
    low, width, counts, beyond                        where histograms were asked for

It comes from others, so it is checked in full before it is used: size before it is read, then names, shapes, types,
finite and sane values.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy import linalg

from embeddings import files
from embeddings.class_moments import DIRECTIONS, ClassMoments
from embeddings.errors import CorruptError, SourceError, UsageError, one_line
from embeddings.histograms import NeuronHistograms
from embeddings.moments import FOLDS, Moments, unpack
from embeddings.principal_moments import PrincipalMoments
from embeddings.spec import EncoderSpec

SCHEMA = "curate.moments-export/1"
FIELD = "curate.moments-export"
START = f'{{"__metadata__":{{"{FIELD}":'.encode()
PRINCIPAL = ("directions", "inside", "outside", "shares")
MAX_BYTES = 512 * 2**20
MAX_DIM = 4096  # a small file of so many dimensions takes 0.7 GB of memory when its scatter is unfolded
MAX_BINS = 1024
MAX_HEADER = 16 * 2**20  # bytes
MAX_TEXT = 1_000  # characters of a text in it: a field of the encoder, the name of a class
MAX_ROWS = 10**9  # of a fold or a class; products of two fit into int64
LARGEST = 1e30  # value whose square is still finite
AGAIN = "Ask for the file again, or export the store anew: curate moments STORE --out FILE."

Layout = dict[str, tuple[str, tuple[int, ...]]]  # kind of number and shape by name


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedMoments:
    """What an export holds."""

    spec: EncoderSpec
    statistics: Moments | PrincipalMoments
    classes: ClassMoments | None = None
    histograms: NeuronHistograms | None = None
    digest: str = ""  # sha256 of the file it was read from

    @cached_property
    def moments(self) -> Moments:
        """The moments that distances take; with a rank where they hold some directions only."""
        return self.statistics if isinstance(self.statistics, Moments) else self.statistics.expanded()

    @property
    def rank(self) -> int | None:
        """Directions in which every fold has its own scatter; None: all d."""
        return None if isinstance(self.statistics, Moments) else self.statistics.rank

    def __len__(self) -> int:
        return int(self.statistics.n.sum())


def is_moments_file(path: Path | str) -> bool:
    """True if a local file begins like an export of moments, whatever its name; reads some fifty bytes."""
    try:
        with Path(path).open("rb") as file:
            return file.read(8 + len(START))[8:] == START
    except (OSError, ValueError):
        return False


def read_moments(path: Path | str) -> ExportedMoments:
    """Reads and checks an export of moments.

    Raises:
        SourceError: no such file.
        CorruptError: not an export, cut, changed, too large, or with values that no set of images has.
    """
    try:
        data = _read(Path(path))
        arrays = load(data)
        header = _header(data)
        _require_layout(arrays, _layout(header))
        return _decoded(header, arrays, files.digest_bytes(data))
    except FileNotFoundError:
        raise SourceError(f"No file at {str(path)!r}.", hint="Check the path.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{path} does not read back as an export of moments ({one_line(error)})."
        raise CorruptError(message, hint=AGAIN) from None


def write_moments(path: Path, export: ExportedMoments) -> int:
    """Writes an export atomically and returns its size in bytes; the same statistics give the same bytes.

    Raises:
        UsageError: more dimensions, classes or bins than ``read_moments`` accepts.
        StorageError: no space, no permission.
    """
    header, arrays = _encoded(export)
    size = sum(array.nbytes for array in arrays.values())
    if export.spec.dim > MAX_DIM or size > MAX_BYTES - 2**20:
        raise UsageError(
            f"An export of {export.spec.dim:,} dimensions and {size:,} bytes is too large; the limits are {MAX_DIM:,} "
            f"dimensions and {MAX_BYTES:,} bytes.",
            hint="Leave out classes and histograms, or give --directions.",
        )
    texts = [str(value) for value in asdict(export.spec).values()] + list(
        export.classes.names if export.classes else ()
    )
    if longest := max(texts, key=len)[MAX_TEXT:]:
        raise UsageError(
            f"A name of {MAX_TEXT + len(longest):,} characters cannot be exported; the limit is {MAX_TEXT:,}.",
            hint="Shorten the class names, or leave out classes.",
        )
    data = save(arrays, metadata={FIELD: json.dumps(header, sort_keys=True, allow_nan=False)})
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return len(data)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES:,} bytes")
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise ValueError(f"a header of more than {MAX_HEADER:,} bytes")
    if data[8 : 8 + len(START)] != START:
        raise ValueError("it does not begin like one")
    return data


def _header(data: bytes) -> dict[str, Any]:
    """The header of a file whose frame safetensors has checked."""
    whole = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header: dict[str, Any] = json.loads(whole["__metadata__"][FIELD])
    _require(header["schema"] == SCHEMA, f"schema {str(header['schema'])[:40]!r}, wanted {SCHEMA!r}")
    spec, names = header["encoder"], header["classes"]
    for field in fields(EncoderSpec):
        kind = int if field.name in ("dim", "size") else str
        value, what = spec[field.name], f"{field.name} of the encoder"
        _require(type(value) is kind, f"{what} is of type {type(value).__name__}, wanted {kind.__name__}")
        if isinstance(value, str):
            _require(value.isprintable(), f"{what} is no plain text")
            _require(len(value) <= MAX_TEXT, f"{what} has {len(value):,} characters; up to {MAX_TEXT:,} are read")
    _require(1 <= spec["dim"] <= MAX_DIM, f"{spec['dim']:,} dimensions; up to {MAX_DIM:,} are read")
    _require_count(header["rank"], spec["dim"] - 1, "directions")
    if header["rank"] is not None:
        further = header["further"]
        _require(type(further) is int and 0 <= further < spec["dim"] - header["rank"], "impossible further directions")
    _require_count(header["bins"], MAX_BINS, "bins")
    if names is not None:
        _require(isinstance(names, list) and all(isinstance(n, str) for n in names), "class names are no texts")
        _require(len(set(names)) == len(names), "a class has two entries")
        longest = max(map(len, names), default=0)
        _require(longest <= MAX_TEXT, f"a class name of {longest:,} characters; up to {MAX_TEXT:,} are read")
    return header


def _layout(header: dict[str, Any]) -> Layout:
    """Kind and shape of every array that belongs to a header."""
    d, k, names, bins = header["encoder"]["dim"], header["rank"], header["classes"], header["bins"]
    layout: Layout = {"n": ("i", (FOLDS,)), "mean": ("f", (FOLDS, d))}
    if k is None:
        layout |= {"scatter": ("f", (FOLDS, d * (d + 1) // 2))}
    else:
        further = header["further"]
        layout |= {"directions": ("f", (2, d, k + further)), "shares": ("f", (2, further))}
        layout |= {"inside": ("f", (FOLDS, k, k)), "outside": ("f", (FOLDS,))}
    if names is not None:
        c = len(names)
        layout |= {"class_n": ("i", (c,)), "class_mean": ("f", (c, d)), "class_root": ("f", (c, d, DIRECTIONS))}
        layout |= {"class_rest": ("f", (c,))}
    if bins is not None:
        layout |= {"low": ("f", (d,)), "width": ("f", (d,))}
        layout |= {"counts": ("u", (FOLDS, d, bins + 2)), "beyond": ("f", (FOLDS, d, 2))}
    return layout


def _encoded(export: ExportedMoments) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    statistics, classes, histograms = export.statistics, export.classes, export.histograms
    arrays = {"n": statistics.n, "mean": statistics.mean}
    if isinstance(statistics, Moments):
        arrays |= {"scatter": statistics.scatter.astype(np.float32)}
    else:
        arrays |= {name: getattr(statistics, name) for name in PRINCIPAL}
    if classes is not None:
        arrays |= {f"class_{name}": getattr(classes, name) for name in ("n", "mean", "root", "rest")}
    if histograms is not None:
        arrays |= {name: getattr(histograms, name) for name in ("low", "width", "beyond")}
        arrays |= {"counts": histograms.counts.astype(np.min_scalar_type(int(histograms.counts.max())))}
    header = {
        "schema": SCHEMA,
        "encoder": asdict(export.spec),
        "rank": export.rank,
        "further": None if isinstance(statistics, Moments) else statistics.shares.shape[1],
        "classes": None if classes is None else list(classes.names),
        "bins": None if histograms is None else histograms.bins,
    }
    return header, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _decoded(header: dict[str, Any], arrays: dict[str, np.ndarray], digest: str) -> ExportedMoments:
    spec = EncoderSpec(**header["encoder"])
    n, mean = _wide(arrays["n"]), _wide(arrays["mean"])
    statistics: Moments | PrincipalMoments
    if header["rank"] is None:
        statistics = Moments(n=n, mean=mean, scatter=_wide(arrays["scatter"]), encoder=spec.fingerprint)
    else:
        inner = {name: arrays[name] for name in PRINCIPAL}
        statistics = PrincipalMoments(n=n, mean=mean, **inner, encoder=spec.fingerprint)
    _check_statistics(statistics)
    classes = histograms = None
    if header["classes"] is not None:
        parts = {name: arrays[f"class_{name}"] for name in ("n", "mean", "root", "rest")}
        classes = ClassMoments(names=tuple(header["classes"]), **parts)
        _require(bool((classes.n >= 2).all() and (classes.n <= MAX_ROWS).all()), "a class with an impossible size")
        _require(bool((classes.rest >= 0).all()), "a class with a negative variance")
    if header["bins"] is not None:
        parts = {name: _wide(arrays[name]) for name in ("low", "width", "counts", "beyond")}
        histograms = NeuronHistograms(**parts, encoder=spec.fingerprint)
        _check_histograms(histograms, n)
    return ExportedMoments(spec=spec, statistics=statistics, classes=classes, histograms=histograms, digest=digest)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _require_count(value: Any, most: int, what: str) -> None:
    _require(value is None or (type(value) is int and 1 <= value <= most), f"{value!r} {what}")


def _require_layout(arrays: dict[str, np.ndarray], layout: Layout) -> None:
    _require(arrays.keys() == layout.keys(), f"arrays {sorted(arrays)}, wanted {sorted(layout)}")
    for name, (kind, shape) in layout.items():
        array = arrays[name]
        found, wanted = (array.dtype.kind, array.shape), (kind, shape)
        _require(found == wanted, f"{name} is {found}, wanted {wanted}")
        if kind == "f":
            _require(bool((np.abs(array) < LARGEST).all()), f"{name} holds values that are not finite or far too large")


def _check_statistics(statistics: Moments | PrincipalMoments) -> None:
    n = statistics.n
    _require(bool((n >= 0).all() and (n <= MAX_ROWS).all() and n.any()), "a fold with an impossible number of images")
    if isinstance(statistics, Moments):
        matrices = (unpack(triangle) for triangle in statistics.scatter)
    else:
        shares = statistics.shares
        _require(bool((statistics.outside >= 0).all() and (shares >= 0).all()), "a negative variance")
        _require(bool((shares.sum(axis=1) <= 1 + 1e-6).all()), "shares of more than all variance")
        for basis in statistics.directions.astype(np.float64):
            gap = np.abs(basis.T @ basis - np.eye(basis.shape[1])).max()
            _require(bool(gap < 1e-5), "directions that are not orthonormal")
        matrices = (matrix for matrix in statistics.inside)
    for matrix in matrices:
        _require(_is_scatter(matrix), "a scatter that no set of images has")


def _is_scatter(matrix: np.ndarray) -> bool:
    """True if symmetric and, but for rounding, positive semidefinite."""
    slack = 1e-6 * max(float(np.trace(matrix)), 1e-30)
    if np.abs(matrix - matrix.T).max() > slack:
        return False
    return int(linalg.lapack.dpotrf(matrix + slack * np.eye(len(matrix)))[1]) == 0


def _check_histograms(histograms: NeuronHistograms, n: np.ndarray) -> None:
    counts = histograms.counts
    _require(bool((counts >= 0).all() and (counts <= MAX_ROWS).all()), "a histogram with impossible counts")
    _require(bool((counts.sum(axis=2) == n[:, None]).all()), "histograms of other images")
    _require(bool((histograms.width >= 0).all() and (histograms.beyond >= 0).all()), "histograms with a negative width")
