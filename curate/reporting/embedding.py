"""What the command line says of a store: a document, warnings, and a forecast of one that was not made."""

from __future__ import annotations

import math
import os
from typing import Any

from embeddings.errors import UsageError
from embeddings.pipeline.estimate import Forecast
from embeddings.store import EmbeddingStore

PRICE = "CURATE_HOURLY_PRICE"


def store_document(store: EmbeddingStore) -> dict[str, Any]:
    """The answer of ``curate embed --json``."""
    document = {"schema": "curate.embed/1", "n": len(store), "errors": len(store.errors), "digest": store.digest}
    return {**document, "encoder": store.spec.name, "dim": store.spec.dim, "shrinkage": round(store.shrinkage, 2)}


def store_warnings(store: EmbeddingStore) -> list[str]:
    """What a person should know before using it."""
    found = store.notes()
    if len(store.errors):
        found.append(f"{len(store.errors):,} images failed; {store.path}/errors.parquet says why.")
    return found


def forecast_lines(forecast: Forecast) -> list[str]:
    """A forecast for a person; with a price where CURATE_HOURLY_PRICE says what an hour of this machine costs."""
    waiting = ", ".join(f"{share:.0%} for {stage}" for stage, share in forecast.waiting.items() if share >= 0.01)
    lines = [
        f"{forecast.images:,} images, {_bytes(forecast.bytes)} to read; {forecast.rejected:,} rejected while listing",
        f"Sample of {forecast.sampled}: {forecast.images_per_second:,.0f} images/s, {forecast.failed} failed; "
        f"waiting {waiting or 'for nothing'}",
        f"All of them: {_duration(forecast.seconds)}, a store of {_bytes(forecast.store_bytes)}",
    ]
    if forecast.pictures_per_image != 1:
        lines.insert(1, f"{forecast.pictures_per_image:g} tiles an image")
    if forecast.cost is not None:
        lines.append(f"Cost: {forecast.cost:,.2f} at {hourly_price():g} an hour")
    return [*lines, "Nothing was done (--dry-run)."]


def hourly_price() -> float:
    """What an hour of this machine costs, by CURATE_HOURLY_PRICE; 0 if that is not set.

    Raises:
        UsageError: it is no amount.
    """
    text = os.environ.get(PRICE, "0")
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < math.inf:
        raise UsageError(
            f"{PRICE} is {text!r}, wanted an amount such as 2.50.", hint=f"Unset it, or mend it: {PRICE}=2.50"
        )
    return price


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:,.1f} h"
