"""What tells that a call of a study found everything done."""

from __future__ import annotations

import pytest

from curate.experiments.finished import NOTHING_TO_DO, WORK, in_words, standing
from embeddings import files


@pytest.fixture
def folder(tmp_path):
    for place in ("selections/a/selection.json", "runs/a/run.json", "evaluated/x-arm.safetensors", "score.json"):
        files.write_json(tmp_path / place, {})
    return tmp_path


def test_what_stands_as_it_was_is_told(folder):
    before = standing([folder])
    assert len(before) == len(WORK)
    files.write_json(folder / "score.json", {"written": "again"})
    assert in_words(before, standing([folder])) == [NOTHING_TO_DO]


@pytest.mark.parametrize("place", ["runs/a/run.json", "runs/b/run.json", "evaluated/y-arm.safetensors"])
def test_work_that_was_done_or_done_again_is_not_nothing(folder, place):
    before = standing([folder])
    files.write_json(folder / place, {})
    assert in_words(before, standing([folder])) == []


def test_where_nothing_stands_nothing_is_told(tmp_path):
    assert in_words(standing([tmp_path]), standing([tmp_path])) == []
