"""A summary as Markdown: the sentences and the main tables, for an issue, a chat or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from curate.reporting import accuracies, findings, study
from curate.reporting.closing import below
from curate.reporting.examined import examinations, text_rows
from curate.reporting.score_lines import LINES
from curate.reporting.selections import (
    comparison_rows,
    how_it_ended,
    left_out_words,
    mmd_decimals,
    selections_lead,
    share_rows,
    share_words,
    supply_words,
)
from curate.reporting.sentences import judge_sentence, ordered_metrics
from curate.reporting.wording import (
    NOTHING,
    amount,
    counted,
    decimals_for,
    number,
    percent,
    points,
    signed,
    span,
    with_error,
)
from curate.scoring.repairs import repair_words

Row = Sequence[str]
PAIRS = 8  # of runs


def render_markdown(summary: dict[str, Any]) -> str:
    """The report's words and tables, without pictures."""
    parts = ["# Curation report", *map(_escaped, summary["headline"]), *_of_study(summary["study"])]
    if summary["part_of"]:
        parts.append(f"One target of a [study]({summary['part_of']['page']}): {_escaped(summary['part_of']['words'])}")
    pools, chosen = _of_pools(summary["shift"]), _of_selections(summary)
    parts += chosen + pools if selections_lead(summary) else pools + chosen
    if summary["runs"]:
        parts += ["## Runs", _runs(summary["runs"])]
    for labeled in (summary["evaluation"] or {"labeled": []})["labeled"]:
        parts += [f"## Accuracies on {_escaped(labeled['name'])}", _accuracies(labeled)]
        parts.append(_escaped(accuracies.intervals_over(summary["study"])))
        parts += [_escaped(f"Careful: {told}.") for told in accuracies.seen_before(labeled)]
        parts += [*_references(labeled), *_matches(labeled), *_examined(labeled)]
    return "\n\n".join(parts) + "\n"


def _of_study(part: dict[str, Any] | None) -> list[str]:
    if part is None:
        return []
    links = [f"- [{_escaped(target['name'])}]({quote(target['page'])})" for target in part["targets"]]
    found = ["## What the study says", *(["\n".join(links)] if links else [])]
    results = part["results"]
    if results is None:
        return found
    for heading, claims in study.by_question(results).items():
        found += [f"### {_escaped(heading)}", _claims(claims)]
    found += ["### Does the score predict accuracy?", _predicted(results)] if study.predicted(results) else []
    found += map(_escaped, results["notes"])
    return [*found, "### Protocol", _table(("", ""), study.protocol_rows(results))]


def _claims(claims: Sequence[study.Claim]) -> str:
    header = ("marker", "claim", "difference, points", "accuracies", "over", "test", "power", "notes")
    rows = [
        (
            claim["status"],
            claim["statement"],
            *(show(claim) for show in (study.difference, study.accuracies, study.size, study.tested, study.power)),
            "; ".join(claim["notes"]),
        )
        for claim in claims
    ]
    return _table(header, rows)


def _predicted(results: study.Results) -> str:
    keys = ("called", "share", "interval", "pairs", "goal", "regret", "lost")
    header = ("distance", "pairs right", "95% interval", "pairs", "goal", "regret, points", "95% interval")
    return _table(header, [[row[key] for key in keys] for row in study.predicted(results)])


def _of_pools(shift: dict[str, Any] | None) -> list[str]:
    return ["## Pools", _pools(shift), *_explanations(shift)] if shift and shift["pools"] else []


def _of_selections(summary: dict[str, Any]) -> list[str]:
    selections, parts = summary["selections"], list[str]()
    if selections:
        parts += ["## Selections", _selections(selections), *map(_selection_notes, selections)]
        parts += _shares(selections[0]["shares"]) if len(selections) == 1 and selections[0]["shares"] else []
    for comparison in summary["comparisons"]:
        parts += [f"## Methods compared: {_escaped(comparison['name'])}", *_comparison(comparison)]
    return parts


def _pools(shift: dict[str, Any]) -> str:
    decimals = decimals_for(p["metrics"]["frechet"]["se"] for p in shift["pools"] if "frechet" in p["metrics"])
    header = ("rank", "pool", "verdict", "index", "95% interval", "distance ± SE", "images", "order open against")
    rows = [
        (
            str(p["rank"]),
            p["name"],
            p["verdict"],
            number(p["index"]["value"], 1),
            span(p["index"], 1),
            with_error(p["metrics"]["frechet"], decimals) if "frechet" in p["metrics"] else "",
            number(p["n"]),
            ", ".join(p["tied_with"]),
        )
        for p in shift["pools"]
    ]
    return _table(header, rows)


def _explanations(shift: dict[str, Any]) -> list[str]:
    """Short tables of what else was found, each under its heading."""
    tables = {"kinds": _kinds, "slices": _slices, "judge": _judge, "delivery": _delivery}
    found = []
    for name, title in findings.parts(shift).items():
        words = [] if name == "delivery" else [_escaped(line) for line in LINES.get(name, _nothing)(shift)]
        table = list(filter(None, [tables[name](shift)])) if name in tables else []
        if words or table:
            found += [f"## {title}", *words, *table]
    return found


def _nothing(shift: findings.Shift) -> list[str]:
    """A part that has no words beside its table."""
    return []


def _kinds(shift: dict[str, Any]) -> str:
    rows = []
    for pool, found in findings.found_in(shift, "factors"):
        known = [] if found.get("reason") else [found["index"], found["content"]]
        figures = [f"{number(f['value'], 1)} ({span(f, 1)})" for f in known] or ["n/a", "n/a"]
        rows.append((pool["name"], *figures, repair_words(found)))
    return _table(("pool", "index of the sample", "index after the best repair", "what repairs it"), rows)


def _slices(shift: dict[str, Any]) -> str:
    found = shift["findings"]["slices"]
    if found.get("reason"):
        return ""
    columns = findings.slice_columns(shift)
    nulls = [f"{c['name']} (null {percent(c['null'], 0)})" for c in columns]
    rows = [
        (
            row["name"],
            number(row["n"]),
            row["verdict"],
            *(percent(row["coverage"][c["name"]]["value"], 0) for c in columns),
            row["best"] or "none",
        )
        for row in found["slices"][: findings.SLICES]
    ]
    return _table(("slice", "images", "verdict", *nulls, "best"), rows)


def _judge(shift: dict[str, Any]) -> str:
    judge = shift["findings"]["judge"]
    if judge.get("reason"):
        return _not_measured(judge)
    ours, theirs = shift["encoder"]["name"], judge["encoder"]["name"]
    rows = [
        [row["ours"]["name"], *(f(side) for f in (_rank, _index) for side in (row["ours"], row["theirs"]))]
        for row in findings.rank_rows(shift)
    ]
    header = ["pool", f"rank by {ours}", f"rank by {theirs}", f"index by {ours}", f"index by {theirs}"]
    return "\n\n".join([_escaped(judge_sentence(judge)), _table(header, rows)])


def _rank(pool: dict[str, Any]) -> str:
    return str(pool["rank"])


def _index(pool: dict[str, Any]) -> str:
    return f"{number(pool['index']['value'], 1)} {pool['verdict']}"


def _delivery(shift: dict[str, Any]) -> str:
    rows = []
    for pool, found in findings.found_in(shift, "delivery"):
        if found.get("reason"):
            rows.append((pool["name"], "n/a", "", "", "", found["reason"]))
            continue
        usable, share = found["images"], found["share"]
        figures = (f"{number(usable['value'])} of {number(found['size'])}", span(usable), percent(share["value"], 0))
        rows.append(
            (pool["name"], *figures, number(found["distinct"]["value"]), " ".join(findings.delivery_notes(pool)))
        )
    return _table(("pool", "usable images", "95% prediction", "share", "different images", "to be read with it"), rows)


def _not_measured(found: dict[str, Any]) -> str:
    return _escaped(f"Not measured: {found['reason']}")


def _selections(selections: Sequence[dict[str, Any]]) -> str:
    rows = [
        (s["name"], str(s["method"]), number(s["n"]), ", ".join(f"{k} {v:,}" for k, v in s["counts"].items()))
        for s in selections
    ]
    return _table(("selection", "method", "images", "by source"), rows)


def _selection_notes(selection: dict[str, Any]) -> str:
    """Limits and their use, wishes, why it stopped, what was left out and how far near images last."""
    far = selection["parts"]["far"]
    costs = [f"{row['name']} {amount(row['cost'])}" for row in selection["by_source"] if row["cost"]]
    told = [f"{row['name']}: {amount(row['used'])} of {amount(row['most'])} used" for row in selection["limits"]]
    told += [f"the far part is {counted(far, 'image')}"] if far else []
    told += [f"cost: {', '.join(costs)}"] if costs else []
    told += selection["wishes"]
    words = [f"{selection['name']}: {'; '.join(told)}."] if told else [f"{selection['name']}:"]
    words += [how_it_ended(selection["stopped"]), left_out_words(selection), *supply_words(selection)]
    words += [selection["own"], selection["early"]]
    return _escaped(" ".join(filter(None, words)))


def _shares(shares: dict[str, Any]) -> list[str]:
    """Shares of labels or groups, and what to make of them."""
    rows = [
        [row["group"], *(percent(row[side]) for side in ("target", "pools", "selection")), points(row["gap"])]
        for row in share_rows(shares)
    ]
    header = (shares["column"], "target", "pools", "selection", "off by, points")
    return [_table(header, rows), _escaped(" ".join(share_words(shares)))]


def _comparison(comparison: dict[str, Any]) -> list[str]:
    """The table of methods, and what came out in words."""
    words = [_escaped(sentence) for sentence in (*comparison["words"], *comparison["notes"])]
    silent = [judge for judge in comparison["judges"] if judge["reason"]]
    words += [
        _escaped(f"{comparison['called'][j['name']]} could not judge: {j['reason'].rstrip('.')}.") for j in silent
    ]
    if comparison["reason"]:
        return words
    first, *judges = (comparison["called"][name] for name in comparison["encoders"])
    header = ["method", "images", f"index by {first}", *(f"index by {name}" for name in judges)]
    return [_table([*header, "against random", "MMD", "coverage"], _contenders(comparison)), *words]


def _contenders(comparison: dict[str, Any]) -> Iterable[Row]:
    decimals = mmd_decimals(comparison)
    for row in comparison_rows(comparison):
        known = [row["readings"][name] for name in comparison["encoders"]]
        gain = known[0]["against_random"]
        versus = f"{signed(gain['value'])} ({span(gain, 1, plus=True)})" if gain else row["without_gain"] or NOTHING
        indices = [f"{number(r['index']['value'], 1)} ({span(r['index'], 1)})" for r in known]
        mmd, covered = with_error(known[0]["mmd"], decimals), percent(known[0]["coverage"]["value"], 0)
        yield [row["method"], number(row["n"]), *indices, versus, mmd, covered]


def _runs(runs: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            r["name"],
            str(r["method"]),
            number(r["unique_images"]),
            number(r["epochs"], 1),
            number(r["samples_seen"]),
            number(r["diversity"], 3),
            r["health"]["verdict"] if r["health"] else "",
            _probed(r.get("probe")),
        )
        for r in runs
    ]
    return _table(("run", "method", "N", "E", "C", "D", "health", "probe (frozen)"), rows)


def _probed(probe: dict[str, Any] | None) -> str:
    return f"{percent(probe['end']['accuracy'])} ({percent(probe['frozen']['accuracy'])})" if probe else ""


def _accuracies(labeled: dict[str, Any]) -> str:
    metrics = ordered_metrics(labeled["scores"])
    rows = [[s["arm"], *(_accuracy(s, metric) for metric in metrics)] for s in labeled["scores"]]
    return _table(["arm", *metrics], rows)


def _references(labeled: dict[str, Any]) -> list[str]:
    said = "The public encoder was not fine-tuned here: --also references adds that as a reference."
    return [said] if accuracies.lacks_tuned(labeled["scores"]) else []


def _matches(labeled: dict[str, Any]) -> list[str]:
    """The closest of the pairs of runs, best run first."""
    found = accuracies.matches(labeled)
    header = ("better", "than", "difference, points", "units on which each alone is right", "test", "told apart")
    return ["### Runs against each other", _table(header, found[:PAIRS])] if found else []


def _examined(labeled: dict[str, Any]) -> list[str]:
    parts = []
    for examination in examinations(labeled):
        parts += [f"### {examination.title}", *([examination.lead] if examination.lead else [])]
        parts += [_table(*text_rows(examination))] if examination.summary else []
        parts += map(_escaped, below(examination))
    return parts


def _accuracy(score: dict[str, Any], metric: str) -> str:
    """78.7% (+3.1 points against frozen: +1.2 to +5.0)."""
    figure, gain = score["metrics"].get(metric), score["against_frozen"].get(metric)
    if figure is None:
        return ""
    difference = f" ({points(gain['value'])}: {span(gain, 1, scale=100, plus=True)})" if gain else ""
    return percent(figure["value"]) + difference


def _table(header: Row, rows: Iterable[Row]) -> str:
    lines = [[_escaped(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """The text with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))
