"""Knobs that would change nothing are refused."""

from __future__ import annotations

import dataclasses

import pytest

from curate.evaluation.examinations import EXAMINATIONS, ROWS
from curate.evaluation.heeded import HEEDED, require_heeded
from curate.evaluation.settings import Settings
from embeddings.errors import UsageError

ALWAYS = {"folds", "label_price", "hour_price"}


def test_every_knob_is_known_to_be_heeded_by_something():
    assert set(HEEDED) | ALWAYS == {field.name for field in dataclasses.fields(Settings)}
    assert {name for takers in HEEDED.values() for name in takers} == {*ROWS, *EXAMINATIONS}


@pytest.mark.parametrize(
    ("pair", "examinations", "said", "hint"),
    [
        ("reject=0.1", (), "reject changes nothing here: it is a knob of the examinations rare and anomaly", "rare"),
        ("fractions=5", ("rare",), "of the examination labels", "labels"),
        ("shift.winter=w", ("labels",), "shift.winter changes nothing here", "robustness"),
        ("depth=head", ("labels",), "references and finetune", "references"),
    ],
)
def test_a_knob_of_what_was_not_asked_for(pair, examinations, said, hint):
    with pytest.raises(UsageError, match=said) as caught:
        require_heeded([pair], examinations)
    assert f"--also {hint}" in caught.value.hint


def test_knobs_that_are_heeded_pass():
    require_heeded(["reject=0.1", "shift.w=w", "depth=head"], ("anomaly", "robustness", "finetune"))
    require_heeded(["label_price=0.5", "hour_price=2"], ())
