"""Results as small tables for the terminal: the same figures as the page, nothing more."""

from __future__ import annotations

from typing import NamedTuple

from curate.results import Estimate, EvalReport, Run, Selection, ShiftReport


class TextTable(NamedTuple):
    """A title, a header and rows of ready strings; the first column is a name."""

    title: str
    header: list[str]
    rows: list[list[str]]


def score_table(report: ShiftReport) -> TextTable:
    """Pools, nearest first."""
    rows = []
    for pool in report.pools:
        m = pool.metrics
        rows.append(
            [
                f"{pool.rank}. {pool.name}",
                pool.verdict,
                _plus_minus(pool.index),
                f"{_share(m['coverage'].value)} ({_share(m['coverage'].null)})",
                _share(m["copies"].value),
                f"{_number(m['frechet_full'].value, 0)} ({_number(m['frechet_full'].null, 0)})",
                f"{pool.n:,}",
            ]
        )
    header = ["pool", "verdict", "index", "coverage (null)", "copies", "full FD (null)", "n"]
    return TextTable("Nearest first. Index: 0 = the target itself, 50 = its own total variance.", header, rows)


def profile_table(report: ShiftReport) -> TextTable:
    """What one knows of the target by itself."""
    target = report.target
    sizes = target["sizes"]["width"], target["sizes"]["height"]
    classes = target["classes"] or {}
    largest = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:4])
    facts = [
        ["images", f"{target['n']:,}"],
        ["not readable", f"{target['errors']:,}"],
        ["exact duplicates", f"{target['duplicates']:,}"],
        ["median size", " x ".join(_number(s[1], 0) for s in sizes) if all(sizes) else "-"],
        ["gray", _share(target["gray_share"])],
        ["classes", f"{len(classes)} ({largest})" if classes else "no labels"],
        ["groups", f"{target['groups']:,}" if target["groups"] else "none"],
        ["effective rank", _number(target["effective_rank"], 0)],
        ["half against half", f"{_number(report.floor.value, 1)} ±{_number(report.floor.se, 1)} (truth 0)"],
        *[[c["measure"], "yes" if c["ok"] else f"no: {c['why']}"] for c in target["carries"]],
    ]
    return TextTable("Target", ["", ""], facts)


def selection_table(selection: Selection) -> TextTable:
    """Chosen images per source."""
    counts = selection.counts()
    rows = [[name, f"{n:,}", _share(n / max(len(selection), 1))] for name, n in counts.items()]
    return TextTable(f"{len(selection):,} images by {selection.facts['method']}", ["source", "images", "share"], rows)


def run_table(run: Run) -> TextTable:
    """What a run really did."""
    facts = run.facts
    rows = [
        ["unique images N", f"{facts['unique_images']:,}"],
        ["samples seen C", f"{facts['samples_seen']:,}"],
        ["epochs E = C / N", _number(facts["epochs_equivalent"], 1)],
        ["diversity D = N / C", _number(facts["diversity"], 4)],
        ["loss", f"{_number(facts['loss_first'], 3)} to {_number(facts['loss_last'], 3)}"],
        ["health", f"{facts['health']['verdict']}: {facts['health']['detail']}"],
    ]
    return TextTable(f"Run {run.path.name}", ["", ""], rows)


def evaluation_table(report: EvalReport) -> TextTable:
    """Arms on every labeled set, the frozen public encoder first."""
    metrics = list(dict.fromkeys(name for s in report.scores for name in s.metrics))
    rows = []
    for s in report.scores:
        cells = [_interval(m.value, m.low, m.high, 3) if (m := s.metrics.get(name)) else "-" for name in metrics]
        gain = s.against_frozen.get("linear")
        labels = s.label_equivalents
        rows.append(
            [
                f"{s.labeled} / {s.arm}",
                *cells,
                _interval(gain.value, gain.low, gain.high, 3, signed=True) if gain else "-",
                "-" if labels is None else _number(labels.value, 0) if labels.value is not None else labels.reason,
            ]
        )
    header = ["set / arm", *metrics, "linear against frozen", "worth how many labels"]
    return TextTable("Accuracy (95% interval)", header, rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _plus_minus(estimate: Estimate) -> str:
    """Value and half the width of its interval."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return _number(estimate.value, 1)
    return f"{estimate.value:.1f} ±{(estimate.high - estimate.low) / 2:.1f}"


def _interval(value: float | None, low: float | None, high: float | None, digits: int, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    sign = "+" if signed else ""
    text = f"{value:{sign}.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
