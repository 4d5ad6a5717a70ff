"""What the command line says of a store: a document, warnings, and a forecast of one that was not made."""

from __future__ import annotations

import os
from typing import Any

from embeddings.pipeline.estimate import Forecast
from embeddings.store import EmbeddingStore

MUCH_SHRUNK = 4.0
PRICE = "CURATE_HOURLY_PRICE"


def store_document(store: EmbeddingStore) -> dict[str, Any]:
    """The answer of ``curate embed --json``."""
    document = {"schema": "curate.embed/1", "n": len(store), "errors": len(store.errors), "digest": store.digest}
    return {**document, "encoder": store.spec.name, "dim": store.spec.dim, "shrinkage": round(store.shrinkage, 2)}


def store_warnings(store: EmbeddingStore) -> list[str]:
    """What a person should know before using it."""
    found = []
    if store.shrinkage > MUCH_SHRUNK:
        found.append(
            f"The encoder sees the images shrunk {store.shrinkage:.1f} times (to {store.spec.size} pixels): what is "
            "small vanishes. Cut them with --tiles PX, or take an encoder with a larger edge."
        )
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
    if price := _hourly_price():
        lines.append(f"Cost: {price * forecast.seconds / 3600:,.2f} at {price:g} an hour")
    return [*lines, "Nothing was done (--dry-run)."]


def _hourly_price() -> float:
    try:
        return float(os.environ.get(PRICE, "0"))
    except ValueError:
        return 0.0


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
