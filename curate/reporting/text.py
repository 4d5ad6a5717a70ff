"""Results as small tables for the terminal; the page has more of each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from curate.comparison import CONTROL, Comparison, Reading, called
from curate.eval_report import EvalReport
from curate.printable import printable
from curate.reporting.closing import below
from curate.reporting.examined import Examination, examinations, text_rows, writer
from curate.reporting.score_lines import finding_lines
from curate.reporting.selections import how_it_ended, own_words
from curate.reporting.sentences import headline, judge_sentence
from curate.reporting.summary import summarize
from curate.reporting.wording import NOTHING, counted, likely, number, percent, signed, span, with_error, with_interval
from curate.results import FAR, Estimate, Run, Selection, ShiftReport

NAME_WIDTH = 34  # of an encoder or a label in a table
NAMED = 4  # classes
SAME_OWN = "random, same own images"  # the row of a method's own control
ON_TERMINAL = ("linear", "knn")  # of the accuracies
BETWEEN = 2  # blanks between two columns
CONTINUED = "(continued)"
HOW_READ = (
    "linear: by a linear head on frozen features; knn: by the nearest training images; 95% intervals over the test "
    "images (± half their width), not over seeds."
)
NEW = "of the samples were first looks at an image"  # a share D = N / C


class TextTable(NamedTuple):
    """A title, a header and rows of ready strings; the first column is a name."""

    title: str  # its first line stands out
    header: list[str]
    rows: list[list[str]]
    below: tuple[str, ...] = ()  # sentences under it
    kept: int = 0  # columns that every part repeats where the table is too wide; 0: its cells are folded instead

    def printable(self) -> TextTable:
        """The table as a terminal may show it; titles and headers keep the line breaks that they are laid out with."""
        return self._replace(
            title=printable(self.title, breaks=True),
            header=[printable(name, breaks=True) for name in self.header],
            rows=[[printable(cell) for cell in row] for row in self.rows],
            below=tuple(map(printable, self.below)),
        )

    def parts(self, width: int) -> list[TextTable]:
        """The table, or parts of it side by side that are at most so many characters wide where that can be had.

        As few parts as can be, with about as many columns each; headers are broken at blanks where that saves a part.
        """
        if not 0 < self.kept < len(self.header):
            return [self]
        broken = self._replace(header=[_broken(name, cells) for name, *cells in self._columns()])
        return min((table._cut(width) for table in (self, broken)), key=len)  # of equals the first

    def _cut(self, width: int) -> list[TextTable]:
        widths = [max(map(_widest_line, column)) + BETWEEN for column in self._columns()]
        room = width + BETWEEN - sum(widths[: self.kept])
        parts = even_parts(widths[self.kept :], room)
        tables = [self._of([*range(self.kept), *(self.kept + column for column in part)]) for part in parts]
        heads = [self.title, *[CONTINUED] * (len(tables) - 1)]
        tables = [table._replace(title=head, below=()) for table, head in zip(tables, heads, strict=True)]
        return [*tables[:-1], tables[-1]._replace(below=self.below)]

    def _columns(self) -> list[tuple[str, ...]]:
        return list(zip(self.header, *self.rows, strict=True))

    def _of(self, columns: Sequence[int]) -> TextTable:
        header, *rows = ([line[i] for i in columns] for line in (self.header, *self.rows))
        return self._replace(header=header, rows=rows)


def even_parts(widths: Sequence[int], room: int) -> list[range]:
    """Columns in their order, in as few parts as fit the room, whose numbers of columns differ as little as they can.

    Args:
        widths: Of the columns; one wider than the room is a part by itself.
        room: Of a part.
    """
    best: list[tuple[int, int, list[range]]] = [(0, 0, [])]  # by end: number of parts, sum of squared lengths, parts
    for end in range(1, len(widths) + 1):
        starts = [start for start in range(end) if start == end - 1 or sum(widths[start:end]) <= room]
        choices = [
            (count + 1, squares + (end - start) ** 2, [*parts, range(start, end)])
            for start in reversed(starts)  # of equals the one whose last part is short
            for count, squares, parts in [best[start]]
        ]
        best.append(min(choices, key=lambda choice: choice[:2]))
    return best[-1][2]


def _broken(name: str, cells: Sequence[str]) -> str:
    """A header over several lines, no wider than the cells below it where its words allow that."""
    width = max(map(_widest_line, [*cells, *name.split()]), default=1)
    lines = [textwrap.wrap(line, width, break_on_hyphens=False) for line in name.split("\n")]
    return "\n".join(chain.from_iterable(lines))


def _widest_line(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def score_output(reports: Mapping[str, ShiftReport]) -> tuple[dict[str, Any], list[str], list[TextTable]]:
    """What ``curate score`` says of one target or of several: a JSON document, lines and tables."""
    if len(reports) > 1:
        document = {"schema": "curate.scores/1", "targets": {name: r.to_json() for name, r in reports.items()}}
        lines = [
            f"{name}: {line}"
            for name, report in reports.items()
            for line in (*_headline(report)[:2], *_remarks(report), *finding_lines(report.to_json()))
        ]
        return document, lines, [matrix_table(reports)]
    (report,) = reports.values()
    if not report.pools:
        return report.to_json(), _headline(report), [profile_table(report)]
    return (
        report.to_json(),
        [*_headline(report), *_remarks(report), *finding_lines(report.to_json())],
        [score_table(report)],
    )


def score_table(report: ShiftReport) -> TextTable:
    """Pools, nearest first."""
    rows = []
    for pool in report.pools:
        coverage, copies = (pool.metrics[name] for name in ("coverage", "copies"))
        rows.append(
            [
                f"{pool.rank}. {pool.name}",
                pool.verdict,
                pool.action,
                _half_width(pool.index),
                likely(pool.before_next),
                f"{percent(coverage.value, 0)} ({percent(coverage.null, 0)})",
                percent(copies.value),
                f"{pool.n:,}",
            ]
        )
    header = ["pool", "verdict", "what to do", "index ±95%", "before next", "coverage (null)", "copies", "n"]
    return TextTable("Nearest first. Index: 0 = the target itself, 50 = its own total variance.", header, rows, kept=1)


def matrix_table(reports: Mapping[str, ShiftReport]) -> TextTable:
    """Index and verdict of every pool for every target."""
    pools = dict.fromkeys(pool.name for report in reports.values() for pool in report.pools)
    rows = [[name, *(f"{_half_width(r[name].index)} {r[name].verdict}" for r in reports.values())] for name in pools]
    return TextTable("Index ±95% of every pool, by target.", ["pool", *map(printable, reports)], rows, kept=1)


def profile_table(report: ShiftReport) -> TextTable:
    """What one knows of the target by itself."""
    target = report.target
    sizes = target["sizes"]["width"], target["sizes"]["height"]
    classes = dict(sorted((target["classes"] or {}).items(), key=lambda held: (-held[1], held[0])))
    largest = [f"{_class(name)}: {count:,}" for name, count in list(classes.items())[:NAMED]]
    largest += [f"{len(classes) - NAMED:,} more"] if len(classes) > NAMED else []
    facts = [
        ["images", f"{target['n']:,}"],
        ["not readable", f"{target['errors']:,}"],
        ["exact duplicates", number(target["duplicates"])],
        ["median size", " x ".join(number(s[1], 0) for s in sizes) if all(sizes) else "-"],
        ["gray", percent(target["gray_share"])],
        ["classes", f"{len(classes):,} ({', '.join(largest)})" if classes else "no labels"],
        ["groups", f"{target['groups']:,}" if target["groups"] else "none"],
        ["effective rank", number(target["effective_rank"], 0)],
        ["half against half", _floor_words(report.floor)],
        *[[c["measure"], "yes" if c["ok"] else f"no: {c['why']}"] for c in target["carries"]],
    ]
    return TextTable("Target", ["", ""], facts)


def _floor_words(floor: Estimate) -> str:
    """The distance between two halves of the target, or why there is none."""
    if floor.value is None:
        return f"{NOTHING}: {floor.reason.rstrip('.')}" if floor.reason else NOTHING
    return f"{with_error(floor.to_json(), 1)} standard error (truth 0)"


def selection_table(selection: Selection) -> TextTable:
    """Chosen images per source."""
    counts = selection.counts()
    rows = [[name, f"{n:,}", percent(n / max(len(selection), 1))] for name, n in counts.items()]
    return TextTable(
        f"{counted(len(selection), 'image')} by {selection.facts['method']}", ["source", "images", "share"], rows
    )


def selection_lines(selection: Selection) -> list[str]:
    """Why it stopped, what of its limits was used, and what it lacks."""
    facts, supply = selection.facts, selection.facts["supply"]
    stopped, lines = facts["stopped"], []
    if stopped:
        lines.append(how_it_ended(stopped))
    elif supply and supply["knee"]:
        lines.append(f"{supply['words'][0]} It was told to go on past that.")
    lines += supply["words"][1:] if supply else []
    for name, limit in facts["spent"].items():
        if name != "images":
            ended = ", which ended it" if limit["binding"] else ""
            lines.append(f"{name.capitalize()}: {limit['used']:,.6g} of {limit['most']:,.6g} used{ended}.")
    if facts["limits"].get("far") and FAR not in selection.rows()["code"].to_pylist():
        lines.append("The far part is empty: no candidate is far, or the method draws none.")
    return [*lines, *filter(None, [own_words(selection)])]


def comparison_table(comparison: Comparison) -> TextTable:
    """Methods of selection, nearest to the judging images first; below each what the judges see. For 100 columns."""
    first, best = comparison.encoder, comparison.best(comparison.encoder)
    rows = []
    for contender in comparison.contenders:
        if contender.n:
            name = f"{contender.method}{' *' if contender.method == best else ''}"
            instead = comparison.without_gain(contender)
            rows.append([name, f"{contender.n:,}", *_figures(contender.readings[first], instead)])
            judges = [encoder for encoder in comparison.encoders if encoder != first]
            rows += [
                [f"  {_short(called(judge))}", "", *_figures(contender.readings[judge], instead)] for judge in judges
            ]
            if (control := contender.control) is not None and control.n:
                rows.append([f"  {SAME_OWN}", f"{control.n:,}", *_figures(control.readings[first], CONTROL)])
    settled = "; *: settled" if best else ""
    title = (
        f"On {comparison.judging:,} target images that no method saw, nearest by {_short(called(first))} first{settled}"
    )
    header = ["method and judges", "images", "index ±95%", "against random ±95%", "coverage (null)"]
    return TextTable(title, header, rows, kept=1)


def comparison_lines(comparison: Comparison) -> list[str]:
    """What came out of a comparison, in words, and what to know with it."""
    silent = [f"{called(j.name)} could not judge: {j.reason.rstrip('.')}." for j in comparison.judges if j.reason]
    if comparison.reason:
        return [f"The selection was not compared with others: {comparison.reason}"]
    return [*comparison.words, *silent, *comparison.notes]


def run_table(run: Run) -> TextTable:
    """What a run really did."""
    facts = run.facts
    rows = [
        ["unique images N", f"{facts['unique_images']:,}"],
        ["samples seen C", f"{facts['samples_seen']:,}"],
        ["epochs E = C / N", number(facts["epochs_equivalent"], 1)],
        ["diversity D = N / C", _new_words(facts["diversity"])],
        *([["probe", _probe_words(facts["probe"])]] if facts.get("probe") else []),
        ["health", f"{facts['health']['verdict']}: {facts['health']['detail']}"],
        *([["what to do", facts["health"]["remedy"]]] if facts["health"].get("remedy") else []),
        *([["stopped", _stop_words(facts["stopped"])]] if facts.get("stopped") else []),
    ]
    return TextTable(f"Run {printable(run.path.name)}", ["", ""], rows)


def _new_words(diversity: float) -> str:
    """D, and what it says: N images that are seen for the first time among C samples."""
    told = number(diversity, 4)
    return f"{told}: {percent(diversity, 0)} {NEW}" if diversity <= 1 else told


def _probe_words(probe: Mapping[str, Any]) -> str:
    start, end, frozen = (percent(probe[key]["accuracy"]) for key in ("start", "end", "frozen"))
    return (
        f"{start} to {end} (±{percent(probe['end']['se'])}) on {probe['images']:,}; {probe['encoder']} frozen {frozen}"
    )


def _stop_words(stopped: Mapping[str, Any]) -> str:
    return f"at {stopped['at']:,} samples, {percent(stopped['saved'], 0)} of C saved; without abort=true it goes on"


def evaluation_table(report: EvalReport) -> TextTable:
    """Arms on every labeled set, the frozen public encoder first; the page has the other metrics."""
    metrics = [name for name in ON_TERMINAL if any(name in s.metrics for s in report.scores)]
    names = list(dict.fromkeys(s.labeled for s in report.scores))
    many, write = len(names) > 1, writer(_plain(s.metrics.get(name)) for s in report.scores for name in metrics)
    rows = [
        [
            f"{s.labeled} / {s.arm}" if many else s.arm,
            *(write(_plain(s.metrics.get(name))) for name in metrics),
            _gain(s.against_frozen.get("linear")),
            _labels(s.label_equivalents),
        ]
        for s in report.scores
    ]
    header = ["set / arm" if many else "arm", *metrics, "against frozen", "worth in labels"]
    title = "Accuracy on test images" if many else f"{printable(names[0])}: accuracy on test images"
    return TextTable(f"{title}\n{HOW_READ}", header, rows, kept=1)


def examination_tables(report: EvalReport) -> list[TextTable]:
    """Further examinations of every labeled set: one table each, a column for each arm."""
    summary = summarize(evaluation=report, thumbnails=False)["evaluation"]
    return [
        _examination_table(labeled["name"], found) for labeled in summary["labeled"] for found in examinations(labeled)
    ]


def _examination_table(labeled: str, found: Examination) -> TextTable:
    """One examination, the frozen arm's column in every part; below it why figures are missing, and what it says."""
    header, rows = text_rows(found, grouped=True)
    title = f"{printable(labeled)}: {found.title}\n{found.lead}".strip()
    return TextTable(title, [printable(name).replace(":", ":\n") for name in header], rows, tuple(below(found)), kept=2)


def _headline(report: ShiftReport) -> list[str]:
    return headline(summarize(shift=report, thumbnails=False))


def _remarks(report: ShiftReport) -> list[str]:
    """What other measures and a second encoder add."""
    of_pools = [f"{pool.name}: {note}" for pool in report.pools for note in pool.notes]
    return [*of_pools, *report.notes, *_judged(report), *unread_lines(report)]


def unread_lines(report: ShiftReport) -> list[str]:
    """How many images of which sources count nowhere, since they could not be read."""
    sources = {"target": report.target, **{pool.name: pool.facts for pool in report.pools}}
    lost = [
        f"{facts['errors']:,} of {facts['errors'] + facts['n']:,} of {name}"
        for name, facts in sources.items()
        if facts.get("errors")
    ]
    hint = "`curate embed SOURCE --out DIR` lists them with the reason in errors.parquet"
    return [f"Images that could not be read and count nowhere: {', '.join(lost)}; {hint}."] if lost else []


def _judged(report: ShiftReport) -> list[str]:
    found = report.findings.get("judge")
    return [judge_sentence(found)] if found else []


def _half_width(index: Estimate) -> str:
    """The index and half the width of its 95% interval."""
    if index.value is None or index.low is None or index.high is None:
        return number(index.value, 1)
    return f"{number(index.value, 1)} ±{number((index.high - index.low) / 2, 1)}"


def _figures(reading: Reading, instead: str) -> list[str]:
    """Index, its difference to random or what stands there instead, and coverage."""
    return [_half_width(reading.index), _versus(reading, instead), _covered(reading.coverage)]


def _versus(reading: Reading, instead: str) -> str:
    gain = reading.against_random
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return instead if instead and reading.index.value is not None else NOTHING
    return f"{signed(gain.value)} ±{number((gain.high - gain.low) / 2, 1)}, {reading.verdict}"


def _class(label: str) -> str:
    """A label of at most 34 characters; one of blanks in quotes."""
    told = label if label.strip() else f'"{label}"'
    return told if len(told) <= NAME_WIDTH else f"{told[: NAME_WIDTH - 1]}…"


def _short(name: str) -> str:
    """A name of at most 34 characters, its middle left out if need be."""
    return name if len(name) <= NAME_WIDTH else f"{name[:16]}…{name[-17:]}"


def _covered(coverage: Estimate) -> str:
    return f"{percent(coverage.value, 0)} ({percent(coverage.null, 0)})" if coverage.value is not None else NOTHING


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_json()


def _gain(estimate: Estimate | None) -> str:
    """A paired difference and its interval, which need not be even."""
    if estimate is None or estimate.value is None:
        return "-"
    return with_interval(estimate.to_json(), 3, plus=True)


def _labels(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    value = estimate.reason if estimate.value is None else number(estimate.value)
    interval = span(estimate.to_json())
    return f"{value} ({interval})" if interval else value
