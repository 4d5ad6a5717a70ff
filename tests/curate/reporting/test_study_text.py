"""A study on a terminal."""

# ruff: noqa: RUF001 - figures have real minus signs

from __future__ import annotations

from typing import Any

import pytest
from study_report_examples import PROTOCOL, analysis_of, claim_of, effect_of

from curate.experiments.protocol import Protocol
from curate.reporting.study_text import MOST, primary_lines, study_screen
from curate.reporting.study_words import what_it_takes
from curate.reporting.text import TextTable


def screen(*claims: Any, **rest: Any) -> tuple[list[str], list[TextTable]]:
    found = study_screen(analysis_of(*claims, **rest).to_json())
    return [p for p in found if isinstance(p, str)], [p for p in found if isinstance(p, TextTable)]


def test_the_frozen_encoder_comes_first_then_the_primary_contrast_with_its_power() -> None:
    lines, _ = screen()
    assert lines == [
        "The frozen public encoder reads 60.0%, linear accuracy: what every arm has to beat; fine-tuned it reads "
        "75.0%; a network trained on the labels alone 50.0%.",
        "Primary contrast, near is better by primary: yes, and settled. +3.0 points (+2.1 to +3.9) over 3 seeds, 2 "
        "targets and 600 test units.",
        "If the true difference were 1.0 points, such a study would tell it 64 times of 100; it tells 1.2 points 80 "
        "times of 100.",
        "",
    ]


def test_what_is_undecided_is_told_with_what_would_decide_it() -> None:
    effect = effect_of(0.007, 0.2, power=0.06, seeds_needed=44, units_needed=9_000)
    told = primary_lines(analysis_of(claim_of(status="undecided", effect=effect)).to_json())
    assert "undecided. +0.7 points (−19.3 to +20.7)" in told[0]
    assert told[-1] == (
        "To tell 1.0 points 80 times of 100 takes 44 seeds an arm on these test images or 9,000 test units with these "
        "seeds."
    )


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ({"power": 0.9}, None),
        ({"power": 0.1}, "80 times of 100 takes both, more seeds and more test images."),
        ({"power": 0.1, "seeds_needed": 9}, "takes 9 seeds an arm on these test images."),
        ({"power": 0.1, "seeds_needed": 2, "units_needed": 700}, "takes 700 test units with these seeds."),
        ({"reason": "one draw", "seeds": 1}, "(one draw). Two seeds or more of every arm would tell."),
        ({"reason": "the test images are of 3 groups"}, "3 groups). It takes more test images."),
    ],
)
def test_what_it_takes(effect: dict[str, Any], said: str | None) -> None:
    told = what_it_takes(effect_of(**effect).to_json())
    assert (told == []) if said is None else told[0].endswith(said) or said in told[0]


def test_arms_stand_under_the_references_the_most_accurate_first() -> None:
    arms = [claim_of("frozen", "undecided", f"a{i}", means=(0.6 + i / 100, 0.6)) for i in range(3)]
    _, (table, *others) = screen(claim_of(), *arms)
    assert [row[0] for row in table.rows] == [
        "frozen public encoder",
        "fine-tuned public encoder",
        "trained on the labels alone",
        "untrained",
        "a2",
        "a1",
        "a0",
    ]
    assert table.rows[-1] == ["a0", "60.0%", "+3.0 (+2.1 to +3.9)", "undecided"]
    assert others == []


def test_other_claims_are_as_many_as_a_screen_holds() -> None:
    claims = [claim_of("supervised", arm=f"s{i}") for i in range(5)]
    claims += [claim_of("Q1", arm=f"q{i}") for i in range(MOST)] + [claim_of("own", arm="named")]
    _, tables = screen(claim_of(), *claims)
    assert [row[0] for row in tables[1].rows] == ["named is better by own"] + [
        f"q{i} is better by Q1" for i in range(MOST - 1)
    ]
    assert tables[1].below == ("6 further claims on the page.",)


def test_an_exploratory_study_and_one_without_runs_to_compare() -> None:
    lines, _ = screen(claim_of("Q1"), protocol=Protocol())
    assert lines[1].startswith("No primary contrast was written down")
    nothing = claim_of(status="undecided", effect=None, means=None, notes=("no pairs",))
    assert primary_lines(analysis_of(nothing).to_json()) == ["Primary contrast, near is better by primary: no pairs."]
    assert PROTOCOL.primary is not None
