"""embed, moments, encoders: from images to what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from curate import terminal
from curate.cli.application import Encoder, app, require_out
from curate.session import Shared, open_session

if TYPE_CHECKING:
    pass


@app.command
def embed(
    source: str,
    /,
    *,
    out: Path | None = None,
    encoder: Encoder = None,
    tiles: int | None = None,
    overlap: float | None = None,
    roi: str | None = None,
    exact_decode: Annotated[bool, Parameter(negative="")] = False,
    max_errors: float = 0.05,
    retry_errors: Annotated[bool, Parameter(negative="")] = False,
    shared: Shared | None = None,
) -> None:
    """Embed the images of a source into a store.

    Args:
        source: Folder, list, table, tar shards, data set or vectors; FILE#half=B,label:subgroup keeps rows and names
            columns.
        out: Folder of the store; the same command continues or reuses it; only a dry run does without.
        encoder: lite0, lite0@224, torchvision:NAME, timm:NAME, random, run:DIR (see `curate encoders`).
        tiles: Cut images into squares of this many pixels, so that small things are not lost.
        overlap: Share of a tile that the next one repeats.
        roi: Region of interest: a mask for all images, or a folder with a mask for each; white is in.
        exact_decode: Decode large JPEGs in full, not only as large as the encoder needs.
        max_errors: Share of images that may fail before the exit code is 4.
        retry_errors: Try the images again that failed before.
        shared: Flags of every command.
    """
    from curate.reporting import embedding as wording
    from embeddings.encoders import encoder_spec
    from embeddings.pipeline import embed as embed_source
    from embeddings.pipeline import is_complete, preview
    from embeddings.pipeline.estimate import forecast
    from embeddings.sources import holds_vectors, viewed

    with open_session(shared) as session:
        decode = "exact" if exact_decode else None
        address = viewed(source, tiles=tiles, overlap=overlap, roi=roi, decode=decode)
        name = session.encoder(encoder)
        if session.shared.dry_run and holds_vectors(address):
            session.show_sources({"vectors": str(address)})
            return
        if session.shared.dry_run and out is not None and is_complete(address, encoder=name, out=out):
            document = {"schema": "curate.dry-run/1", "source": str(address), "complete": True}
            session.show(document, [f"{out} is complete: there is nothing to do.", "Nothing was done (--dry-run)."])
            return
        if session.shared.dry_run:
            found = forecast(
                address,
                encoder=name,
                device=session.device,
                workers=session.shared.workers,
                hourly_price=wording.hourly_price(),
            )
            session.show({"schema": "curate.dry-run/1", **found.to_json()}, wording.forecast_lines(found))
            return
        if out is None:
            encoder_spec(name), preview(address)  # say what else is wrong
        out = require_out(out)
        store = embed_source(
            address,
            encoder=name,
            out=out,
            max_errors=max_errors,
            retry_errors=retry_errors,
            device=session.device,
            workers=session.shared.workers,
            progress=session.progress,
        )
    terminal.print_notes(wording.store_warnings(store))
    session.show(wording.store_document(store), [repr(store).splitlines()[0], f"Store: {out}"])


@app.command
def moments(
    source: str,
    /,
    *,
    out: Path | None = None,
    encoder: Encoder = None,
    directions: int | None = None,
    classes: Annotated[bool, Parameter(negative="")] = False,
    histograms: Annotated[bool, Parameter(negative="")] = False,
    over: Path | None = None,
    shared: Shared | None = None,
) -> None:
    """Write the statistics of a source to one file that `curate score` takes in its place.

    The file holds no image, key, path or embedding: a partner can be scored without sharing data.

    Args:
        source: Images or a store; at least 750 different images.
        out: The file; only a dry run does without.
        encoder: What embeds the images (default lite0).
        directions: Main directions to keep (default: all where images are many enough, else up to 64).
        classes: Add the statistics and names of classes of 50 images or more.
        histograms: Add histograms of every dimension, for `--also neurons`.
        over: Count them over the range in this file, the other side's export with histograms.
        shared: Flags of every command.
    """
    from dataclasses import asdict

    from embeddings.encoders import encoder_spec
    from embeddings.moments_export import export_moments
    from embeddings.pipeline import as_store, preview

    with open_session(shared) as session:
        if session.shared.dry_run:
            session.show_sources({"source": source})
            return
        name = session.encoder(encoder)
        if out is None:
            encoder_spec(name), preview(source)  # say what else is wrong
        out = require_out(out)
        store = as_store(source, name="source", encoder=name, **session.embedding)
        found = export_moments(store, out, directions=directions, classes=classes, histograms=over or histograms)
    kept = f"{found.rank} directions" if found.rank else f"all {found.d:,} dimensions"
    document = {"schema": "curate.moments-export/1", **asdict(found), "path": str(found.path)}
    lines = [f"Moments of {found.n:,} images, {kept}, {found.bytes:,} bytes: {found.path}", *found.notes]
    session.show(document, lines)


@app.command
def encoders(pattern: str = "*", *, shared: Shared | None = None) -> None:
    """List the encoders whose name matches, with what is known of them without their weights.

    Args:
        pattern: A word or a pattern: dinov2, timm:vit_small*, *:resnet50*; without one, those that are built in.
        shared: Flags of every command.
    """
    from curate.reporting.text import TextTable
    from embeddings.encoders import describe_encoder, encoder_names

    with open_session(shared) as session:
        names = encoder_names(pattern)
        details = [describe_encoder(name) for name in names]
    header = ["name", "size", "dim", "license"]
    rows = [["-" if found[field] is None else str(found[field]) for field in header] for found in details]
    note = [] if rows else [f"No encoder matches {pattern!r}."]
    document = {"schema": "curate.encoders/1", "encoders": names, "details": details}
    session.show(document, note, [TextTable("", header, rows)] if rows else [])
