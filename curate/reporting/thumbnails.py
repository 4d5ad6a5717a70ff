"""Small pictures inside the report: asked for by source and uri, read from the sources once, kept under a size cap.

WebP as data URIs. All shrink together, then the last ones asked for are left out, until what is used of them fits.
What cannot be read or decoded any more is reported with its reason in the picture's place.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from PIL import Image

from embeddings.errors import CurateError
from embeddings.pictures.tiles import Box, split_key, tile_uri
from embeddings.pictures.views import load_image
from embeddings.sources import Source, open_source

MAX_BYTES = 6_000_000  # of all pictures in one report, as text; the report then stays under 8 MB
EDGES = (112, 80, 56)  # pixels, longer side; tried in this order
SAMPLE = 8
QUALITY = 80


class Album:
    """Collects which images a report shows, then makes their thumbnails in one go."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._uses: Counter[str] = Counter()
        self._sources: dict[str, Source] = {}
        self._uris: dict[str, dict[str, str]] = {}
        self._unlisted: dict[str, str] = {}
        self._lock = Lock()

    def add(self, address: str, uri: str) -> str:
        """Asks for one image; returns the name by which ``develop`` will know it."""
        name = self._names.setdefault((address, uri), f"i{len(self._names)}")
        self._uses[name] += 1
        return name

    def sample(self, address: str, count: int = SAMPLE) -> dict[str, Any]:
        """Asks for ``count`` images of a source, those with the lowest key hash: a random draw, alike everywhere."""
        if not address:
            return {"pictures": [], "problem": "No pictures: these are vectors without a source of images."}
        try:
            uris = self._listed(address)
        except (CurateError, OSError) as error:
            return {"pictures": [], "problem": f"No pictures: {_reason(error)}"}
        keys = heapq.nsmallest(count, uris, key=lambda key: hashlib.sha256(key.encode()).digest())
        return {"pictures": [{"key": key, "image": self.add(address, uris[key])} for key in keys], "problem": None}

    def by_key(self, address: str, keys: Iterable[str]) -> dict[str, Any]:
        """Asks for the images of a source with these keys; ``pictures`` maps each key to its name."""
        if not address:
            return {"pictures": {}, "problem": "No pictures: these are vectors without a source of images."}
        try:
            uris = self._listed(address)
        except (CurateError, OSError) as error:
            return {"pictures": {}, "problem": f"No pictures: {_reason(error)}"}
        places = {key: _uri_of(key, uris) for key in keys}
        named = {key: self.add(address, uri) if uri else self._gone(address, key) for key, uri in places.items()}
        return {"pictures": named, "problem": None}

    def develop(self, limit: int = MAX_BYTES) -> tuple[dict[str, str], dict[str, str]]:
        """Data URI of every picture by name, and the reason of every one that is missing."""
        with ThreadPoolExecutor() as threads:
            read = dict(zip(self._names.values(), threads.map(self._read, self._names), strict=True))
        pictures = {name: found for name, found in read.items() if isinstance(found, Image.Image)}
        missing = self._unlisted | {name: found for name, found in read.items() if isinstance(found, str)}
        for edge in EDGES:
            images = {name: data_uri(_shrunk(picture, edge)) for name, picture in pictures.items()}
            if self._weight(images) <= limit:
                break
        return self._within(limit, images, missing)

    def _gone(self, address: str, key: str) -> str:
        """The name of an image that the source does not list any more."""
        name = f"gone:{hashlib.sha256(f'{address} {key}'.encode()).hexdigest()[:12]}"
        self._unlisted[name] = "the source lists no image of this key any more"
        return name

    def _listed(self, address: str) -> dict[str, str]:
        """Uri of every image of a source by its key."""
        if address not in self._uris:
            images = self._open(address).listing().images
            self._uris[address] = dict(zip(images["key"].to_pylist(), images["uri"].to_pylist(), strict=True))
        return self._uris[address]

    def _read(self, place: tuple[str, str]) -> Image.Image | str:
        """The picture at (address, uri), shrunk, or why there is none."""
        address, uri = place
        try:
            return _shrunk(load_image(self._open(address), uri), EDGES[0])
        except (CurateError, OSError) as error:
            return _reason(error)

    def _within(
        self, limit: int, images: dict[str, str], missing: dict[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        weight = self._weight(images)
        while weight > limit:
            name, text = images.popitem()
            weight -= self._uses[name] * len(text)
            missing[name] = "left out: the report would grow too large"
        return images, missing

    def _weight(self, images: dict[str, str]) -> int:
        return sum(self._uses[name] * len(text) for name, text in images.items())

    def _open(self, address: str) -> Source:
        with self._lock:
            if address not in self._sources:
                self._sources[address] = open_source(address)
            return self._sources[address]


def _uri_of(key: str, uris: Mapping[str, str]) -> str | None:
    """The uri of a listed image, or of a part of one, by the key that a store gives it."""
    image = split_key(key)
    if key in uris or image not in uris or image == key:
        return uris.get(key)
    left, top, width, height = map(int, key[len(image) + 1 :].split(","))
    return tile_uri(uris[image], Box(left, top, width, height))


def data_uri(picture: Image.Image) -> str:
    """The picture as a WebP data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shrunk(picture: Image.Image, edge: int) -> Image.Image:
    """A copy whose longer side is at most ``edge``; small pictures keep their pixels."""
    copy = picture.copy()
    copy.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return copy


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, CurateError) else str(error) or type(error).__name__
