"""What may be taken and what it costs: a budget for the whole selection, terms for each source.

    Budget.parse("5000")                                          5,000 unique images
    Budget.parse("images=5000,bytes=2GB,money=200")               whatever is reached first
    Budget.parse("hours=3,rate=450,epochs=100")                   3 GPU-hours at 450 images/s, each image seen 100 times
    Budget.parse("5000,max-per-label=100,licenses=cc0+cc-by")     caps, floors, licenses
    split_terms("web/#half=B,price:0.02,license:cc-by,cap:500")   ("web/#half=B", Terms(price="0.02", ...))

In a file the same names stand in [budget] and [pools.NAME].
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from embeddings.errors import SourceError, UnknownNameError, UsageError
from embeddings.sources import parse_address

ORDERS = ("near-first", "mixed", "near-last")
ROUNDING = 1e-12  # relative: 0.1 hours x 3,600 is a little less than 360
LARGEST = 2**53  # whole number: up to here a float64 holds each one
SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may be selected; every limit given holds, the first one reached ends the selection.

    GPU-hours become images: N = hours x 3,600 x rate / epochs, what fits when each image is seen E times.
    """

    images: int | None = None  # N, unique images
    bytes: int | None = None  # of their files
    money: float | None = None  # in the currency of the prices
    hours: float | None = None  # GPU-hours of pretraining; needs rate and epochs
    rate: float | None = None  # images/s that one GPU trains on, measured
    epochs: float | None = None  # E, how often an image will be seen
    far: float = 0.0  # share of the images that is drawn from far data, balanced over its clusters
    order: str = "near-first"  # in which the near and the far part are trained on
    max_per_label: int | None = None
    min_per_label: int | None = None
    max_per_group: int | None = None
    licenses: tuple[str, ...] = ()  # classes allowed; empty: all

    def __post_init__(self) -> None:
        amounts = ("images", "bytes", "money", "hours")
        if all(getattr(self, name) is None for name in amounts):
            raise UsageError("The budget has no limit.", hint=f"Give one of {', '.join(amounts)}.")
        for name in ("images", "bytes", "max_per_label", "min_per_label", "max_per_group"):
            _require_whole(name, getattr(self, name))
        for name in ("money", "hours", "rate", "epochs"):
            _require_positive(name, getattr(self, name))
        if self.hours is not None and (self.rate is None or self.epochs is None):
            raise UsageError(
                "A budget of GPU-hours needs to know how many images that is.",
                hint="Add the measured rate in images/s and how often each is seen: hours=3,rate=450,epochs=100.",
            )
        if self.hours is not None and not self._images_by_time < LARGEST:
            raise UsageError(
                f"{self.hours:g} GPU-hours at {self.rate:g} images/s show {self._images_by_time:.3g} images "
                f"{self.epochs:g} times.",
                hint="Check hours, rate and epochs.",
            )
        if self.hours is not None and self.most_images == 0:
            raise UsageError(
                f"{self.hours:g} GPU-hours at {self.rate:g} images/s do not show one image {self.epochs:g} times.",
                hint="Raise hours, or lower epochs.",
            )
        if self.max_per_label is not None and self.max_per_label < (self.min_per_label or 0):
            raise UsageError(
                f"max_per_label is {self.max_per_label:,}, below min_per_label, {self.min_per_label:,}.",
                hint="Change one.",
            )
        object.__setattr__(self, "licenses", _sorted_names("licenses", self.licenses))
        if not 0 <= self.far < 1:
            raise UsageError(f"far is {self.far!r}; wanted a share of the images, 0 to 1.", hint="Say far=0.2.")
        if self.order not in ORDERS:
            raise UnknownNameError("order", self.order, ORDERS)

    @property
    def most_images(self) -> int | None:
        """The largest N that the limits on images and GPU-hours allow; None without either."""
        by_time = None if self.hours is None else math.floor(self._images_by_time * (1 + ROUNDING))
        return min((n for n in (self.images, by_time) if n is not None), default=None)

    @property
    def _images_by_time(self) -> float:
        """What fits into the GPU-hours; infinite without them."""
        if self.hours is None or self.rate is None or self.epochs is None:
            return math.inf
        return self.hours * 3600 * self.rate / self.epochs

    def to_json(self) -> dict[str, Any]:
        """What was asked for, as JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in _said(self).items()}

    @classmethod
    def of(cls, given: int | np.integer[Any] | str | Budget) -> Budget:
        """From a number of images, a text or a budget."""
        if isinstance(given, Budget):
            return given
        if isinstance(given, str):
            return cls.parse(given)
        return cls(images=int(given) if isinstance(given, np.integer) else given)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """From NAME=VALUE, separated by commas; a number alone is images.

        Raises:
            UsageError: an unknown name, a value of the wrong kind, or no limit.
        """
        return cls(**_named_values(text))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On which conditions the images of one source are to be had."""

    price: str = ""  # money per image, or the column that holds it; "" is free
    license: str = ""  # license class, or the column that holds it
    cap: int | None = None  # images at most
    floor: int = 0  # images at least
    of: int | None = None  # the source is a sample of a delivery of so many images

    def __post_init__(self) -> None:
        for name, least in (("cap", 0), ("floor", 0), ("of", 1)):
            _require_whole(name, getattr(self, name), least=least)
        if self.cap is not None and self.cap < self.floor:
            raise UsageError(f"A cap of {self.cap:,} stands below a floor of {self.floor:,}.", hint="Change one.")

    def to_json(self) -> dict[str, Any]:
        """What was said, as JSON."""
        return _said(self)

    def over(self, others: Terms) -> Terms:
        """These terms, completed by others where they say nothing."""
        return replace(others, **_said(self))


def split_terms(address: str) -> tuple[str, Terms]:
    """Parts the terms from the address that carries them.

    Raises:
        UsageError: a value of the wrong kind, or one said twice.
    """
    path, mark, options = address.rpartition("#")
    if not mark:
        return address, Terms()
    names = {field.name for field in fields(Terms)}
    said: dict[str, Any] = {}
    others = []
    for option in options.split(","):
        name, colon, value = option.partition(":")
        if not colon or name not in names:
            _refuse_misspelt(name if colon else "", address, names)
            others.append(option)
        elif name in said:
            raise UsageError(f"{address!r} says {name} twice.", hint="Keep one.")
        elif not value:
            raise UsageError(f"{address!r} says no {name}.", hint=f"Give {name} a value, or leave {name}: out.")
        else:
            said[name] = _whole(name, value) if name in ("cap", "floor", "of") else value
    return (f"{path}#{','.join(others)}" if others else path) if said else address, Terms(**said)


def _refuse_misspelt(name: str, address: str, known: Iterable[str]) -> None:
    """Refuses an option that is no term, no selector and no role, but nearly a term."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    if not near or "=" in name:
        return
    try:
        parse_address(address.rpartition("#")[0] + f"#{name}:1")
    except SourceError:  # nobody knows it
        raise UnknownNameError("term or selector", name, known, nearest=near) from None


def _said(of: Budget | Terms) -> dict[str, Any]:
    """Name -> value, of what is not as it would be unsaid."""
    defaults = {field.name: field.default for field in fields(of)}
    return {name: value for name, value in asdict(of).items() if value != defaults[name]}


def _named_values(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = {field.name for field in fields(Budget)}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        name, value = (name.strip().replace("-", "_"), value.strip()) if equals else ("images", part)
        if name not in known:
            raise UnknownNameError("limit of a budget", name, [k.replace("_", "-") for k in known])
        if name in found:
            hint = "Keep one; numbers are written without commas." if name == "images" else "Keep one."
            raise UsageError(f"The budget {text!r} says {name} twice.", hint=hint)
        found[name] = _VALUES.get(name, _whole)(name, value)
    return found


def _whole(name: str, value: str) -> int:
    try:
        return int(value.replace("_", ""))
    except ValueError:
        raise UsageError(f"{name} is {value!r}; wanted a whole number.", hint=f"Say {name}=500.") from None


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"{name} is {value!r}; wanted a number.", hint=f"Say {name}=2.5.") from None


def _size(name: str, value: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?B)?", value.upper(), re.ASCII)
    if not found:
        raise UsageError(f"{name} is {value!r}; wanted bytes, KB, MB, GB or TB.", hint="Say bytes=2GB.")
    return round(float(found[1]) * SIZES[found[2] or "B"])


def _text(_: str, value: str) -> str:
    return value


def _names(_: str, value: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in value.split("+"))))


_VALUES = {
    **dict.fromkeys(("money", "hours", "rate", "epochs", "far"), _number),
    "bytes": _size,
    "order": _text,
    "licenses": _names,
}


def _sorted_names(name: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, tuple | list) or not all(isinstance(value, str) for value in values):
        raise UsageError(f"{name} is {values!r}; wanted a tuple of names.", hint=f"Say {name}=('cc0', 'cc-by').")
    return tuple(sorted(set(values)))


def _require_whole(name: str, value: Any, least: int = 1) -> None:
    fits = value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST)
    if not fits:
        wanted = f"at most {LARGEST:,}" if isinstance(value, int) and value > LARGEST else f"at least {least}"
        raise UsageError(f"{name} is {value!r}; wanted a whole number, {wanted}.", hint=f"Say {name}=500.")


def _require_positive(name: str, value: Any) -> None:
    fits = value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf)
    if not fits:
        raise UsageError(f"{name} is {value!r}; wanted a number above 0.", hint=f"Say {name}=2.5.")


def parse_weights(flags: Mapping[str, float] | list[str]) -> dict[str, float]:
    """VALUE=FACTOR texts as a dict; a value with a colon names its column (``defect:scratch=10``).

    Raises:
        UsageError: no factor, one that is not a number of 0 or more, or a value given twice.
    """
    weights: dict[str, float] = {}
    for flag in flags.items() if isinstance(flags, Mapping) else flags:
        name, text = flag if isinstance(flag, tuple) else flag.rpartition("=")[::2]
        if not name:
            raise UsageError(f"The weight {text!r} names nothing; wanted VALUE=FACTOR.", hint="Say defect=10.")
        if name in weights:
            raise UsageError(f"{name!r} is given a weight twice.", hint="Keep one.")
        weights[name] = _factor(name, str(text))
    return weights


def _factor(name: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 <= factor < math.inf:
        raise UsageError(f"The weight of {name!r} is {text!r}; wanted a number, 0 or more.", hint=f"Say {name}=10.")
    return factor
