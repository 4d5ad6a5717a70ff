"""From a folder of results to the report in it."""

# ruff: noqa: RUF001 - the report prints real minus signs

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_examples import pool_score, run_in, selection_of, shift_report

from curate import reporting
from curate.reporting import headline, refresh, render_html, summarize, summarize_folder, without_images, write_report
from embeddings.errors import CorruptError, SourceError, UsageError


@pytest.fixture
def results(study: dict[str, Any], tmp_path: Path) -> Path:
    """The study as its commands would have left it."""
    folder = tmp_path / "study"
    study["shift"].save(folder)
    study["evaluation"].save(folder)
    for name, selection in study["selections"].items():
        selection.save(folder / "selections" / name)
    study["comparisons"]["near"].save(folder / "selections" / "near")
    (tmp_path / "runs").rename(folder / "runs")
    return folder


def test_everything_in_a_folder_is_found(results: Path) -> None:
    summary = summarize_folder(results)
    assert [s["name"] for s in summary["selections"]] == ["few", "near"]
    assert [c["name"] for c in summary["comparisons"]] == ["near"]
    assert [r["name"] for r in summary["runs"]] == ["near", "random"]
    assert len(summary["shift"]["pools"]) == 2
    assert len(summary["evaluation"]["labeled"]) == 2


def test_report_files_say_the_same(results: Path) -> None:
    page = refresh(results)
    summary = summarize_folder(results)
    assert page == results / "report.html"
    assert page.read_text(encoding="utf-8") == render_html(summary)
    document = json.loads((results / "report.json").read_text(encoding="utf-8"))
    assert document == without_images(summary)
    assert "base64" not in json.dumps(document)
    assert headline(document) == document["headline"]
    markdown = (results / "report.md").read_text(encoding="utf-8")
    assert "| 1 | web | near | 8.0 | 6.0 to 10.0 |" in markdown
    assert "| near | 65.6% (−10.0: −13.0 to −7.0) |" in markdown
    assert sorted(p.name for p in results.iterdir() if p.is_file()) == [
        "evaluate.json",
        "report.html",
        "report.json",
        "report.md",
        "score.json",
    ]


def test_a_saved_score_gives_the_same_page(study: dict[str, Any], tmp_path: Path) -> None:
    study["shift"].save(tmp_path / "own")
    assert render_html(summarize_folder(tmp_path / "own")) == render_html(summarize(shift=study["shift"]))


def test_again_gives_the_same_bytes(results: Path) -> None:
    first = refresh(results).read_bytes()
    assert refresh(results).read_bytes() == first


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("a/run", "b/run", "c"):
        run_in(tmp_path / name)
    assert [r["name"] for r in summarize_folder(tmp_path)["runs"]] == ["a/run", "b/run", "c"]


def test_a_result_of_its_own_is_named_after_its_folder(tmp_path: Path) -> None:
    selection_of([("web", "a", "a.png")], {"web": "nowhere"}).save(tmp_path / "chosen")
    assert [s["name"] for s in summarize_folder(tmp_path / "chosen")["selections"]] == ["chosen"]


def test_the_topmost_score_counts_and_hidden_folders_do_not(tmp_path: Path) -> None:
    shift_report([pool_score("top", 5, rank=1)]).save(tmp_path)
    shift_report([pool_score("deep", 5, rank=1)]).save(tmp_path / "sub")
    shift_report([pool_score("hidden", 5, rank=1)]).save(tmp_path / ".curate")
    assert [p["name"] for p in summarize_folder(tmp_path)["shift"]["pools"]] == ["top"]


def test_what_cannot_be_reported_on(tmp_path: Path) -> None:
    for empty in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SourceError, match="No result"):
            summarize_folder(empty)
    for name in ("a", "b"):
        shift_report([]).save(tmp_path / name)
    with pytest.raises(UsageError, match="More than one study"):
        summarize_folder(tmp_path)
    (tmp_path / "a/score.json").write_text("{", encoding="utf-8")
    with pytest.raises(CorruptError):
        summarize_folder(tmp_path / "a")


def test_a_failed_write_leaves_the_old_report(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = refresh(results).read_bytes()

    def fail(summary: dict[str, Any]) -> str:
        raise RuntimeError("template broken")

    monkeypatch.setattr("curate.reporting.folder.render_html", fail)
    with pytest.raises(RuntimeError):
        write_report(results, summarize())
    assert (results / "report.html").read_bytes() == before
    assert not list(results.glob(".*"))


def test_every_export_reads_twice_and_hides_no_module() -> None:
    for name in reporting.__all__:
        assert getattr(reporting, name) is getattr(reporting, name)
        assert callable(getattr(reporting, name))
    modules = {path.stem for path in Path(reporting.__file__).parent.glob("*.py")}
    assert not modules & set(reporting.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = reporting.nothing
