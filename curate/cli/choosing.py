"""score, select, explain, export: which images, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from curate.cli.application import Encoder, Pools, Sources, app, refuse_foreign, require_out, require_place
from curate.session import Shared, open_session
from embeddings.errors import GateError, ImageError, TooFewImagesError, UsageError

if TYPE_CHECKING:
    from curate.results import Selection, ShiftReport


@app.command
def score(
    *,
    target: Sources = None,
    pool: Pools = None,
    out: Path | None = None,
    encoder: Encoder = None,
    judge: str | None = None,
    also: Sources = None,
    pool_size: int | None = None,
    fail_above: float | None = None,
    shared: Shared | None = None,
) -> None:
    """Rank pools by their distance to a target; without a pool, profile the target.

    Args:
        target: Images of the downstream task: folder, table, store or moments; several as NAME=SOURCE.
        pool: NAME=SOURCE, repeated: a candidate pool.
        out: Folder for score.json and report.html; a folder in it for each of several targets.
        encoder: What embeds the images (default lite0).
        judge: A second encoder, to see whether it orders the pools alike.
        also: Further measures and explanations, or all: factors, slices, images, memorized, diversity, manifold, c2st,
            neurons, sliced, gaussian, kid, cmmd, fd-infinity, sinkhorn, otdd.
        pool_size: The pools are samples of deliveries of this many images: how many would be usable?
        fail_above: Exit with code 3 if the nearest pool's index is above this.
        shared: Flags of every command.
    """
    from curate import reporting, scoring
    from curate.reporting import text

    with open_session(shared) as session:
        targets, pools = session.targets(target), session.pools(pool)
        _require_pools(pools, {"--judge": judge, "--pool-size": pool_size, "--fail-above": fail_above, "--also": also})
        if session.shared.dry_run:
            session.show_sources({**targets, **pools})
            return
        folders = {name: out if out is None or len(targets) == 1 else out / name for name in targets}
        for folder in folders.values():
            refuse_foreign(folder, "score.json")
        options = {"judge": judge, "also": also or (), "pool_size": pool_size, **session.embedding}
        reports = scoring.score_each(targets, pools, encoder=session.encoder(encoder), **options)
        pages = {}
        for name, found in reports.items():
            if folder := folders[name]:
                found.save(folder)
                pages[name] = reporting.refresh(folder)
    document, lines, tables = text.score_output(reports)
    session.show(document, [*lines, *(f"Report: {page}" for page in pages.values())], tables)
    for name, found in reports.items():
        _check_gate(found, fail_above, name)


@app.command
def select(
    *,
    out: Path | None = None,
    budget: str | None = None,
    target: str | None = None,
    pool: Pools = None,
    method: str = "near-first",
    compare: Sources = None,
    exclude: Sources = None,
    weight: Sources = None,
    past_knee: Annotated[bool, Parameter(negative="")] = False,
    encoder: Encoder = None,
    judge: str | None = None,
    shared: Shared | None = None,
) -> None:
    """Choose images from the pools under a budget, nearest to the target first.

    Args:
        out: Folder for the selection and its report; only a dry run does without.
        budget: N unique images, or limits: images=5000,bytes=2GB,money=200,hours=3,rate=450,epochs=100,far=0.2,
            max-per-label=100,licenses=cc0+cc-by.
        target: Unlabeled images of the downstream task (its training part); #cap:0 in the address leaves them out.
        pool: NAME=SOURCE, repeated: a candidate pool; its terms stand in its address (#price:0.02,license:cc-by,cap:9).
        method: What chooses: near-first, pool-gated, best-pool, uniform, random, knn-quota, assignment, herding,
            classifier, dsir, simcore, label-aware, move, cluster-balanced or global-top.
        compare: A,B,C: further methods to set beside it, on target images that none of them saw.
        exclude: SOURCE, repeated: images that must never be chosen (validation and test images).
        weight: VALUE=FACTOR, repeated: how much the target images of a label or group count (defect=10).
        past_knee: Go on where near images have run out.
        encoder: What embeds the images (default lite0).
        judge: A second encoder, to see whether it orders the methods alike; without one, color-texture and an untrained
            network stand in.
        shared: Flags of every command.
    """
    from curate import reporting, selection
    from curate.reporting import text
    from curate.results import TARGET
    from curate.selection._folder import refuse_foreign as refuse_other_files

    with open_session(shared) as session:
        pools, name = session.pools(pool), session.encoder(encoder)
        with _sources_first([target or "", *pools.values(), *(exclude or ())]):
            source = session.target(target)
            methods, judges = _methods([method, *(compare or ())]), _judges(judge, name)
            wish: dict[str, Any] = {"budget": session.budget(budget), "terms": session.terms(target, pool)}
            wish["weights"] = session.weights(weight)
        if out is not None:
            require_place(out)
            refuse_other_files(out)
        selection.require_possible(source, pools, methods=methods, exclude=exclude or (), **wish)
        if session.shared.dry_run:
            # "#" stands in no pool's name that a flag can give
            excluded = {f"exclude #{number}": address for number, address in enumerate(exclude or (), 1)}
            session.show_sources({TARGET: source, **pools, **excluded})
            return
        out = require_out(out)
        selector = selection.open_selector(
            source,
            pools,
            exclude=[*(exclude or ()), *session.evaluation_parts(name)],
            past_knee=past_knee,
            encoder=name,
            seed=session.seed,
            **wish,
            **session.embedding,
        )
        report = _score_of_enough(lambda: selector.report)
        chosen, comparison = selection.audited(selector, method, out, against=methods[1:], judges=judges)
        if report is not None:
            report.save(out)
        page = reporting.refresh(out)
    lines = text.selection_lines(chosen) + (text.unread_lines(report) if report else [])
    document = {"schema": "curate.select/1", "digest": chosen.digest, "counts": chosen.counts(), "facts": chosen.facts}
    document |= {"comparison": comparison.to_json()}
    lines += text.comparison_lines(comparison)
    tables = [text.selection_table(chosen)] + ([] if comparison.reason else [text.comparison_table(comparison)])
    session.show(document, [*lines, f"Report: {page}"], tables)


@app.command
def explain(folder: Path, key: str, /, *, shared: Shared | None = None) -> None:
    """Say why an image was chosen or left out.

    Args:
        folder: Folder that `curate select` wrote.
        key: Key of the image, or SOURCE/KEY.
        shared: Flags of every command.
    """
    from curate.results import Selection

    with open_session(shared) as session:
        chosen = Selection.open(folder)
        lines = chosen.explain(key) or _passed_over(chosen, key)
    session.show({"schema": "curate.explain/1", "key": key, "reasons": lines}, lines)


@app.command
def export(
    folder: Path,
    /,
    *,
    to: str,
    out: Path | None = None,
    first: int | None = None,
    link: str | None = None,
    label: Annotated[bool, Parameter(negative="")] = False,
    shard_size: float | None = None,
    shared: Shared | None = None,
) -> None:
    """Write a selection for other programs: a manifest, files, tar shards or a data set.

    The sources are only read. Every image is checked to be the one that was selected.

    Args:
        folder: Folder that `curate select` wrote.
        to: parquet, csv or paths (where the images are); folder, webdataset or huggingface (the images themselves).
        out: File or folder to make; the same command again finds it; only a dry run does without.
        first: Only the first N images, by rank.
        link: With folder: hard, symbolic or copy (default: hard where possible, else a copy).
        label: With folder: sub-folders are labels, not sources.
        shard_size: With webdataset: MB of the largest shard (default 500).
        shared: Flags of every command.
    """
    from curate import exports
    from curate.exports.settings import Options, Settings

    with open_session(shared) as session:
        options: Options = {"first": first, "link": link, "label": label, "shard_size": shard_size}
        workers, progress = session.shared.workers, session.progress
        if session.shared.dry_run:
            plan = exports.forecast(folder, to=to, workers=workers, progress=progress, **options)
            session.show(plan.to_json(), [*plan.lines(), "Nothing was done (--dry-run)."])
            return
        if out is None:
            Settings(to=to, **options).chosen(folder)  # says what else is wrong
        made = exports.export(folder, to=to, out=require_out(out), workers=workers, progress=progress, **options)
    exports.require_most_images(made)
    session.show(made.to_json(), made.lines())


def _passed_over(chosen: Selection, key: str) -> list[str]:
    """What to say of an image that was neither chosen nor left out: others came before it, or it cannot be read."""
    from curate.reporting.selections import how_it_ended
    from embeddings.pictures.views import load_image
    from embeddings.sources import open_source

    for name, address in chosen.sources.items():
        if not address:
            continue
        source, own = open_source(address), key.removeprefix(f"{name}/")
        images = source.listing().images
        uris = dict(zip(images["key"].to_pylist(), images["uri"].to_pylist(), strict=True))
        if own in uris:
            try:
                load_image(source, uris[own])
            except ImageError as error:
                return [f"{name}/{own} cannot be read, so it was no candidate: {error.message}"]
            if stopped := chosen.facts.get("stopped"):
                return [f"{name}/{own} was a candidate whose turn did not come. {how_it_ended(stopped)}"]
            return [f"{name}/{own} was a candidate that others came before."]
    near = get_close_matches(key, chosen.rows()["key"].to_pylist(), n=3)
    raise UsageError(
        f"No image {key!r} in the sources of this selection ({', '.join(chosen.sources)}).",
        hint=f"Did you mean {' or '.join(near)}?" if near else "Take a key from selection.parquet or left_out.parquet.",
    )


@contextmanager
def _sources_first(addresses: Sequence[str]) -> Iterator[None]:
    """Where something else is missing or wrong, a source that is not on this disk is told instead: it is worse."""
    from curate.terms import split_terms
    from embeddings import files
    from embeddings.sources import kind_of, parse_address

    try:
        yield
    except UsageError:
        for address in filter(None, addresses):
            path = parse_address(split_terms(address)[0]).path
            if not files.is_remote(path) and not files.exists(path):
                kind_of(path)  # refuses it, but for patterns and names
        raise


def _score_of_enough(score: Callable[[], ShiftReport]) -> ShiftReport | None:
    """The score, or None where a set is too small for one; some methods of selection do without."""
    try:
        return score()
    except TooFewImagesError:
        return None


def _judges(judge: str | None, encoder: str) -> tuple[str, ...]:
    """The encoders that look at a selection: the one that was named, or those that stand in.

    Raises:
        UnknownNameError: no such encoder.
        UsageError: the encoder that selects.
    """
    from curate.selection._judges import JUDGES
    from embeddings.encoders import encoder_spec

    if judge is None:
        return JUDGES
    if encoder_spec(judge) == encoder_spec(encoder):
        raise UsageError(f"{judge} selects and judges itself.", hint="Name another encoder with --judge.")
    return (judge,)


def _methods(texts: Sequence[str]) -> list[str]:
    """Names of selection methods, each known."""
    from curate.selection import find_method

    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        find_method(name)
    return names


def _require_pools(pools: dict[str, str], flags: dict[str, object]) -> None:
    """Refuses flags that say something of pools where there is none."""
    idle = [flag for flag, value in flags.items() if value is not None]
    if idle and not pools:
        raise UsageError(f"{idle[0]} says something of pools, and there is none.", hint="Add --pool NAME=SOURCE.")


def _check_gate(report: ShiftReport, limit: float | None, target: str) -> None:
    """Fails if even the nearest pool is too far."""
    if limit is None or not report.pools or (report.pools[0].index.value or 0.0) <= limit:
        return
    nearest = report.pools[0]
    raise GateError(
        f"The pool nearest to {target}, {nearest.name}, has index {nearest.index}; the gate is {limit}.",
        hint="Find data nearer to the target, or raise --fail-above.",
    )
