"""The command line: parse, call, print. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from curate import terminal
from curate.experiments.steps import Step
from curate.session import Session, Shared, open_session, parse_named
from embeddings.errors import CurateError, GateError, TooFewImagesError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from curate.results import Selection, ShiftReport

EXIT_CODES = (
    "Exit codes: 0 done; 1 failure (disk, crash); 2 usage; 3 a gate failed; 4 too many images failed; 130 interrupted."
)
app = App(
    name="curate",
    help="Measure distribution shift, select pretraining images under a budget, pretrain, and see whether it paid.",
    help_epilogue=EXIT_CODES,
    version=lambda: metadata.version("curate-pretraining"),
    suppress_keyboard_interrupt=False,  # Ctrl-C has an exit code of its own
)


Encoder = Annotated[str | None, Parameter(env_var="CURATE_ENCODER")]
Pools = Annotated[list[str] | None, Parameter(negative="")]
Sources = Annotated[list[str] | None, Parameter(negative="")]


@app.command
def embed(
    source: str,
    /,
    *,
    out: Path,
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
        out: Folder of the store; the same command continues or reuses it.
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
    from embeddings.pipeline import embed as embed_source
    from embeddings.pipeline import is_complete
    from embeddings.pipeline.estimate import forecast
    from embeddings.sources import holds_vectors, viewed

    with open_session(shared) as session:
        decode = "exact" if exact_decode else None
        address = viewed(source, tiles=tiles, overlap=overlap, roi=roi, decode=decode)
        name = session.encoder(encoder)
        if session.shared.dry_run and holds_vectors(address):
            session.show_sources({"vectors": str(address)})
            return
        if session.shared.dry_run and is_complete(address, encoder=name, out=out):
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
    out: Path,
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
        out: The file.
        encoder: What embeds the images (default lite0).
        directions: Main directions to keep (default: all where images are many enough, else up to 64).
        classes: Add the statistics and names of classes of 50 images or more.
        histograms: Add histograms of every dimension, for `--also neurons`.
        over: Count them over the range in this file, the other side's export with histograms.
        shared: Flags of every command.
    """
    from dataclasses import asdict

    from embeddings.moments_export import export_moments
    from embeddings.pipeline import as_store

    with open_session(shared) as session:
        if session.shared.dry_run:
            session.show_sources({"source": source})
            return
        store = as_store(source, name="source", encoder=session.encoder(encoder), **session.embedding)
        found = export_moments(store, out, directions=directions, classes=classes, histograms=over or histograms)
    kept = f"{found.rank} directions" if found.rank else f"all {found.d:,} dimensions"
    document = {"schema": "curate.moments-export/1", **asdict(found), "path": str(found.path)}
    lines = [f"Moments of {found.n:,} images, {kept}, {found.bytes:,} bytes: {found.path}", *found.notes]
    session.show(document, lines)


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
            _refuse_foreign(folder, "score.json")
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
    out: Path,
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
        out: Folder for the selection and its report.
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

    with open_session(shared) as session:
        source, pools, name = session.target(target), session.pools(pool), session.encoder(encoder)
        wish: dict[str, Any] = {"budget": session.budget(budget), "terms": session.terms(target, pool)}
        wish["weights"] = session.weights(weight)
        methods, judges = _methods([method, *(compare or ())]), _judges(judge, name)
        selection.require_possible(source, pools, methods=methods, exclude=exclude or (), **wish)
        if session.shared.dry_run:
            # "#" stands in no pool's name that a flag can give
            excluded = {f"exclude #{number}": address for number, address in enumerate(exclude or (), 1)}
            session.show_sources({TARGET: source, **pools, **excluded})
            return
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
    lines = text.selection_lines(chosen)
    if set(chosen.counts()) == {TARGET} and pools:
        lines.append(
            "All of them are the target's own images, which are candidates too and the nearest there are. For images "
            "of the pools raise --budget, or leave them out with #cap:0 at the end of the target's address."
        )
    document = {"schema": "curate.select/1", "digest": chosen.digest, "counts": chosen.counts(), "facts": chosen.facts}
    document |= {"comparison": comparison.to_json()}
    lines += text.comparison_lines(comparison)
    tables = [text.selection_table(chosen)] + ([] if comparison.reason else [text.comparison_table(comparison)])
    session.show(document, [*lines, f"Report: {page}"], tables)


def _passed_over(chosen: Selection, key: str) -> list[str]:
    """What to say of an image that was neither chosen nor left out."""
    from embeddings.sources import open_source

    for name, address in chosen.sources.items():
        keys = set(open_source(address).listing().images["key"].to_pylist()) if address else set()
        if key.removeprefix(f"{name}/") in keys:
            return [f"{name}/{key.removeprefix(f'{name}/')} was a candidate that others came before."]
    raise UnknownNameError("image of this selection's sources", key, chosen.rows()["key"].to_pylist()[:1000])


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
        raise UsageError(f"{judge} judges itself.", hint="Name another encoder with --judge.")
    return (judge,)


def _methods(texts: Sequence[str]) -> list[str]:
    """Names of selection methods, each known."""
    from curate.selection import find_method

    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        find_method(name)
    return names


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
def pretrain(
    *,
    selection: Path,
    samples: str,
    out: Path,
    method: str = "simclr",
    backbone: str | None = None,
    init: str = "scratch",
    knobs: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    explain: Annotated[bool, Parameter(negative="")] = False,
    shared: Shared | None = None,
) -> None:
    """Pretrain a backbone on a selection, under a budget of samples seen.

    Args:
        selection: Folder that `curate select` wrote.
        samples: C, the images processed in all (E = C / N follows), or hours=2 (of GPU), or money=20,rate=2.5.
        out: Folder of the run; the same command continues or reuses it.
        method: simclr, mocov3, byol, barlow, vicreg, dino, mae or distill (from a frozen encoder).
        backbone: tiny-resnet, tiny-vit, resnet18, resnet50, vit-s, lite0, timm:NAME, ... (default: the method's; lite0
            with public).
        init: scratch, public (the packaged Lite0 weights) or run:DIR.
        knobs: NAME=VALUE, repeated: any knob that --explain lists, such as batch=64, size=64, augmentation=inspection,
            order=ramp, recipe=paper.
        explain: Print the resolved recipe beside the published one, and the plan; train nothing.
        shared: Flags of every command.
    """
    from curate import pretraining
    from curate.reporting import text

    with open_session(shared) as session:
        options = {"method": method, "backbone": backbone, "init": init, "seed": session.seed, "device": session.device}
        options |= {"workers": session.shared.workers}
        wanted: dict[str, Any] = options | pretraining.read_knobs(knobs or [], method=method, init=init)
        if explain:
            found = pretraining.explain(selection, samples=samples, **wanted)
            table = text.TextTable("Recipe", found.header(), found.rows())
            session.show({"schema": "curate.explain/1", **found.to_json()}, found.lines(), [table])
            return
        if session.shared.dry_run:
            plan = pretraining.plan(selection, samples=samples, **wanted)
            session.show({"schema": "curate.plan/1", **plan.to_json()}, plan.lines())
            return
        run = pretraining.pretrain(selection, samples=samples, out=out, progress=session.progress, **wanted)
    session.show(run.facts, [f"Run: {out}"], [text.run_table(run)])
    pretraining.require_most_images(run)


@app.command
def evaluate(
    *,
    labeled: Sources = None,
    arm: Sources = None,
    out: Path | None = None,
    encoder: Encoder = None,
    allow_unequal: bool = False,
    shared: Shared | None = None,
) -> None:
    """Compare runs with the frozen public encoder on labeled images.

    Args:
        labeled: NAME=TRAIN[::TEST], repeated: a labeled set; without TEST, 30% is held out by group.
        arm: NAME=DIR, repeated: a run of `curate pretrain`.
        out: Folder for evaluate.json and report.html.
        encoder: The frozen public encoder to beat (default lite0).
        allow_unequal: Compare runs that saw unequal numbers of samples.
        shared: Flags of every command.
    """
    from curate import evaluation, reporting
    from curate.reporting import text

    with open_session(shared) as session:
        sets = session.labeled(labeled)
        arms = parse_named(arm or [], "--arm")
        if session.shared.dry_run:
            session.show_sources({f"{n} {p}": a for n, s in sets.items() for p, a in _parts(s).items()})
            return
        _refuse_foreign(out, "evaluate.json")
        report = evaluation.evaluate(
            arms,
            sets,
            encoder=session.encoder(encoder),
            allow_unequal=allow_unequal,
            seed=session.seed,
            **session.embedding,
        )
        lines = list(evaluation.verdicts(report))
        if out is not None:
            report.save(out)
            lines.append(f"Report: {reporting.refresh(out)}")
    session.show(report.to_json(), lines, [text.evaluation_table(report)])


@app.command
def augmentations(
    *,
    labeled: Sources = None,
    out: Path | None = None,
    encoder: Encoder = None,
    shared: Shared | None = None,
) -> None:
    """Tell what each augmentation would destroy of the labels, and which preset to pretrain with.

    Args:
        labeled: NAME=TRAIN, repeated: a labeled set; of TRAIN::TEST only the first part is looked at.
        out: Folder for augmentations.json.
        encoder: The frozen encoder that looks at the views (default lite0; lite0@64 is four times as fast).
        shared: Flags of every command.
    """
    from curate.evaluation import audit_augmentations
    from curate.reporting.text import TextTable
    from embeddings import files

    with open_session(shared) as session:
        sets, name = session.labeled(labeled), session.encoder(encoder)
        if session.shared.dry_run:
            session.show_sources({title: _parts(address)["train"] for title, address in sets.items()})
            return
        _refuse_foreign(out, "augmentations.json")
        audits = [
            audit_augmentations(address, name=title, encoder=name, seed=session.seed, **session.embedding)
            for title, address in sets.items()
        ]
    document = {"schema": "curate.augmentations/1", "sets": [audit.to_json() for audit in audits]}
    if out is not None:
        files.write_json(out / "augmentations.json", document)
    tables = [TextTable(f"Labels of {audit.name}", audit.header(), audit.rows()) for audit in audits]
    session.show(document, [line for audit in audits for line in audit.lines()], tables)


@app.command
def export(
    folder: Path,
    /,
    *,
    to: str,
    out: Path,
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
        out: File or folder to make; the same command again finds it.
        first: Only the first N images, by rank.
        link: With folder: hard, symbolic or copy (default: hard where possible, else a copy).
        label: With folder: sub-folders are labels, not sources.
        shard_size: With webdataset: MB of the largest shard (default 500).
        shared: Flags of every command.
    """
    from curate import exports
    from curate.exports.settings import Options

    with open_session(shared) as session:
        options: Options = {"first": first, "link": link, "label": label, "shard_size": shard_size}
        workers, progress = session.shared.workers, session.progress
        if session.shared.dry_run:
            plan = exports.forecast(folder, to=to, workers=workers, progress=progress, **options)
            session.show(plan.to_json(), [*plan.lines(), "Nothing was done (--dry-run)."])
            return
        made = exports.export(folder, to=to, out=out, workers=workers, progress=progress, **options)
    exports.require_most_images(made)
    session.show(made.to_json(), made.lines())


@app.command
def run(
    file: Path,
    /,
    *,
    out: Path | None = None,
    until: Step = "evaluate",
    encoder: Encoder = None,
    shared: Shared | None = None,
) -> None:
    """Run a file of arms: score, select, pretrain, evaluate, report; continues where it stopped.

    Args:
        file: The curate.toml.
        out: Folder of all results (default runs/NAME-OF-THE-FILE).
        until: Stop after score, select, pretrain or evaluate.
        encoder: What embeds the images and is the frozen encoder to beat (default lite0).
        shared: Flags of every command.
    """
    from dataclasses import replace

    shared = replace(shared or Shared(), config=file)
    with open_session(shared) as session:
        _run_file(session, out or Path("runs") / file.stem, until, encoder)


@app.command
def demo(
    *,
    out: Path = Path("curate-demo"),
    until: Step = "evaluate",
    encoder: Encoder = None,
    shared: Shared | None = None,
) -> None:
    """Run everything on a small real data set that comes with the package.

    Args:
        out: Folder of all results.
        until: Stop after score, select (about a minute), pretrain or evaluate.
        encoder: What embeds the images and is the frozen encoder to beat (default lite0).
        shared: Flags of every command.
    """
    from dataclasses import replace

    from curate.demo import demo_folder

    shared = shared or Shared()
    work = shared.work or out / "work"
    with open_session(replace(shared, config=demo_folder() / "curate.toml", work=work)) as session:
        _run_file(session, out, until, encoder)


@app.command
def report(folder: Path, /, *, shared: Shared | None = None) -> None:
    """Write report.html and report.json from whatever results a folder holds.

    Args:
        folder: Folder of a score, selection, run, evaluation, or of `curate run`.
        shared: Flags of every command.
    """
    from curate import reporting

    with open_session(shared) as session:
        summary = reporting.summarize_folder(folder)
        page = folder / "report.html" if session.shared.dry_run else reporting.write_report(folder, summary)
    session.show(reporting.without_images(summary), [*reporting.headline(summary), f"Report: {page}"])


@app.command
def doctor(*, shared: Shared | None = None) -> None:
    """Tell what works on this machine, and the command that mends what does not.

    Exits with 1 if something that every command needs is broken.

    Args:
        shared: Flags of every command.
    """
    from curate.doctor import as_table, examine, to_json, verdict
    from curate.probes import PROBLEM

    with open_session(shared) as session:
        findings = examine(session.work, progress=session.progress)
    if session.shared.json:
        terminal.print_json(to_json(findings))
    else:
        terminal.result_console().print(as_table(findings))
        terminal.print_lines(["", verdict(findings)])
    if any(finding.state == PROBLEM for finding in findings):
        sys.exit(CurateError.exit_code)


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


def main(tokens: Sequence[str] | None = None) -> None:
    """Entry point: runs one command and exits with its code."""
    # Read by OpenMP when torch loads: threads that spin while they wait make a busy machine 3 to 4 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        app(arguments, exit_on_error=False, print_error=True, error_console=terminal.usage_console())
    except CycloptsError:
        return UsageError.exit_code  # already printed, with the nearest flag
    except CurateError as error:
        if debug:
            terminal.error_console().print_exception()
        # A gate fails after its result was printed, and stdout holds one document only.
        terminal.print_error(error, as_json="--json" in arguments and not isinstance(error, GateError))
        return error.exit_code
    except KeyboardInterrupt:
        terminal.print_notes(["Interrupted. What was finished is kept; the same command continues."])
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        terminal.print_error(_unexpected(error), as_json="--json" in arguments)
        return CurateError.exit_code
    return 0


def _unexpected(error: Exception) -> CurateError:
    return CurateError(
        f"Unexpected {type(error).__name__}: {error}", hint="This is a defect. Run again with --debug and report it."
    )


def _refuse_foreign(out: Path | None, marker: str) -> None:
    from embeddings import files

    if out is not None:
        files.refuse_foreign(out, (marker,))


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


def _parts(labeled: str) -> dict[str, str]:
    train, _, test = labeled.partition("::")
    return {"train": train, "test": test} if test else {"train": train}


def _run_file(session: Session, out: Path, until: Step, encoder: str | None) -> None:
    """Executes the session's file of arms and prints what came out."""
    from curate import experiments, reporting
    from embeddings import files

    assert session.config is not None
    study = experiments.Study(
        config=session.config, out=out, encoder=session.encoder(encoder), seed=session.seed, until=until
    )
    if session.shared.dry_run:
        session.show(study.plan(), study.plan_lines())
        return
    tables = study.execute(**session.embedding)
    page = reporting.refresh(out)
    summary = files.read_json(out / "report.json")
    session.show(summary, [*reporting.headline(summary), f"Report: {page}"], tables)
