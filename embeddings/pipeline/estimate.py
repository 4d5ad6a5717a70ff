"""What embedding a source would take, from its listing and a measured sample; nothing is written."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings.encoders.registry import get_encoder
from embeddings.pipeline.batches import Embedder, core_count
from embeddings.pipeline.clock import Clock
from embeddings.sources import Address, open_source

SAMPLE = 128  # images measured at most, spread over the listing
LIMIT_S = 5.0  # that the measurement may take
STEP, WARM_UP = 16, 4  # images
ROW_BYTES = 250  # of the tables, for each picture


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Counts, bytes and times of a store that was not made."""

    source: str
    images: int
    rejected: int  # while listing
    bytes: int  # of the files to be read
    sampled: int
    failed: int  # of the sampled images
    pictures_per_image: float  # tiles; 1 for whole images
    images_per_second: float
    waiting: dict[str, float]  # share of the time by stage
    seconds: float
    store_bytes: int
    cost: float | None = None  # at the hourly price that was given

    def to_json(self) -> dict[str, Any]:
        """The same as a plain document."""
        return asdict(self)


def forecast(
    address: Address, *, encoder: str, device: str = "auto", workers: int | None = None, hourly_price: float = 0.0
) -> Forecast:
    """Embeds a sample, after a first batch that warms up, and extrapolates.

    Args:
        address: A source of images.
        encoder: A name from ``encoder_names``.
        device: As in ``embed``.
        workers: As in ``embed``.
        hourly_price: Of this machine, in any currency; 0 if that is not known.

    Raises:
        SourceError: nothing there, or a selector that does not fit.
        MissingExtraError: the encoder's weights are not on this machine.
    """
    source, built = open_source(address), get_encoder(encoder, device=device)
    listing = source.listing()
    images = listing.images
    spread = np.unique(np.linspace(0, len(images) - 1, SAMPLE).astype(np.int64))
    sample = images.take(pa.array(np.random.default_rng(0).permutation(spread)))
    embedder = Embedder(source, built, workers=workers or core_count())
    _measure(embedder, sample.slice(0, WARM_UP))
    sampled, pictures, failed, timing = _measure(embedder, sample)
    each = pictures / max(sampled - failed, 1)
    seconds = len(images) / timing["images_per_second"]
    return Forecast(
        source=str(source.address),
        images=len(images),
        rejected=len(listing.rejected),
        bytes=_bytes(images),
        sampled=sampled,
        failed=failed,
        pictures_per_image=round(each, 2),
        images_per_second=timing["images_per_second"],
        waiting=timing["waiting"],
        seconds=round(seconds, 1),
        store_bytes=round(len(images) * each * (2 * built.spec.dim + ROW_BYTES)),
        cost=round(hourly_price * seconds / 3600, 2) if hourly_price else None,
    )


def _measure(embedder: Embedder, table: pa.Table) -> tuple[int, int, int, dict[str, Any]]:
    """Records, rows and errors of as many records as fit into LIMIT_S, and the time they took."""
    clock, started = Clock(), perf_counter()
    records = rows = errors = 0
    tables = [table.slice(start, STEP) for start in range(0, len(table), STEP)]
    with closing(embedder.parts(tables, known=None, clock=clock, told=lambda _: None)) as parts:
        for part in parts:
            records, rows, errors = records + part.records, rows + len(part.rows), errors + len(part.errors)
            if perf_counter() - started > LIMIT_S:
                break
    return records, rows, errors, clock.lap(records)


def _bytes(images: pa.Table) -> int:
    """Bytes of the files; one that holds many images counts once."""
    inside = pc.match_substring(images["uri"], "#")
    shared = images.filter(inside).group_by(["size", "stamp"]).aggregate([])
    alone = images.filter(pc.invert(inside))
    return sum(pc.sum(table["size"]).as_py() or 0 for table in (shared, alone))
