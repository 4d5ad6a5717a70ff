"""What `curate evaluate` without a run, `curate pretrain` and `curate run` end with: figures, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from report_examples import arm_score, eval_report, frozen_scores, run_in
from study_report_examples import analysis_of, write_targets

from curate import cli, evaluation, experiments, pretraining
from curate.results import Run
from embeddings import files


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command prints."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in (*words, "--quiet")])
    assert stopped.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_an_evaluation_without_a_run_says_what_it_was_and_what_comes_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = frozen_scores()
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: eval_report(scores), raising=False)
    out = told(capsys, "evaluate", "--labeled", "emoji=mine")
    assert "emoji: the frozen public encoder reads linear 0.756 (0.736 to 0.776)" in out
    assert "so what the public encoder has learned is worth +0.240 (+0.200 to +0.280) here." in out
    assert "No run was compared" in out
    assert "Next: curate pretrain --selection" in out
    assert "--also references" in out
    assert "--also references" not in told(capsys, "evaluate", "--labeled", "emoji=mine", "--also", "labels")
    scores.append(arm_score("near", 0.8, gain=(0.01, 0.08)))
    out = told(capsys, "evaluate", "--labeled", "emoji=mine", "--arm", "near=run")
    assert "near beats the frozen public encoder" in out
    assert "Next:" not in out


def test_a_pretrained_network_is_told_with_what_d_is_and_how_to_judge_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = run_in(tmp_path / "run").facts
    facts |= {"epochs_equivalent": 20.0, "diversity": 0.05, "loss_first": 6.0, "loss_last": 3.4, "errors": 0}
    files.write_json(tmp_path / "run" / "run.json", facts)
    run = Run.open(tmp_path / "run")
    monkeypatch.setattr(pretraining, "pretrain", lambda *_, **__: run, raising=False)
    out = told(capsys, "pretrain", "--selection", tmp_path, "--samples", 100, "--out", tmp_path / "run")
    assert "diversity D = N / C 0.0500: 5% of the samples were first looks at an image" in out
    assert f"Did it pay? curate evaluate --arm run={tmp_path}/run --labeled NAME=TRAIN" in out


def test_a_study_ends_with_what_there_is_to_beat_then_the_primary_contrast_then_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Done:
        """A study that is at its end."""

        targets: ClassVar[dict[str, Any]] = {}
        folders: ClassVar[list[Path]] = []

        def __init__(self, **_: Any) -> None:
            pass

        def execute(self, **_: Any) -> list[Any]:
            return []

    monkeypatch.setattr(experiments, "Study", Done, raising=False)
    root = write_targets(tmp_path / "o", "a", "b", analysis=analysis_of())
    (tmp_path / "c.toml").write_text('[target]\nuri = "mine"\n[pools.web]\nuri = "web"\n', encoding="utf-8")
    out = told(capsys, "run", tmp_path / "c.toml", "--out", root)
    order = [
        "The frozen public encoder reads 60.0%",
        "Primary contrast, near is",
        "64 times of 100",
        "Arms, the most",
        "No arm was compared",
        f"Report: {root}/report.html",
    ]
    places = [out.index(words) for words in order]
    assert places == sorted(places)
    assert places[0] == 0
