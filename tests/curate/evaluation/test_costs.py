"""Tables of costs: what is refused, and decisions against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from curate.evaluation._intervals import Resamples
from curate.evaluation.examinations._costs import cheapest, cost_questions, read_costs
from curate.evaluation.examinations._detection import figures
from embeddings.errors import SourceError, UsageError

NAMES = ["dent", "good", "scratch"]


@pytest.fixture
def table(tmp_path):
    def _table(text, encoding="utf-8"):
        path = tmp_path / "costs.csv"
        path.write_bytes(text.encode(encoding))
        return str(path)

    return _table


def test_rows_and_columns_come_in_any_order(table):
    path = table(",good,scratch,dent\nscratch, 50 ,0,2.5\n\ngood,0,1,1\ndent,20,2,0\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(read_costs(path, NAMES), [[0, 20, 2], [1, 0, 1], [2.5, 50, 0]])


def test_further_classes_and_names_with_commas(table):
    path = table('true,"good, clean",bad,other\n"good, clean",0,1,9\nbad,5,0,9\nother,9,9,0\n')
    np.testing.assert_array_equal(read_costs(path, ["bad", "good, clean"]), [[0, 5], [1, 0]])


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (",dent,good\ndent,0,1\ngood,1,0\n", UsageError, "no column for 'scratch'"),
        (",dent,good,scratch\ndent,0,1,1\ngood,1,0,1\n", UsageError, "no row for 'scratch'"),
        (",dent,good,scratch\ndent,0,1\ngood,1,0,1\nscratch,1,1,0\n", UsageError, "not square: row 'dent' has 2"),
        (",dent,good,scratch,x\ndent,0,1,1,1\ngood,1,0,1,1\nscratch,1,1,0,1\n", UsageError, "there are 3 rows, and 4"),
        (",dent,good,scratch\ndent,0,1,1\ngood,1,0,1\nscratch,1,-1,0\n", UsageError, "of 'good' for 'scratch' is '-1'"),
        (",dent,good,scratch\ndent,0,1,1\ngood,1,0,one\nscratch,1,1,0\n", UsageError, "'scratch' for 'good' is 'one'"),
        (",dent,good,scratch\ndent,0,nan,1\ngood,1,0,1\nscratch,1,1,0\n", UsageError, "is 'nan'"),
        (",dent,good,scratch\ndent,0,1,1\ngood,inf,0,1\nscratch,1,1,0\n", UsageError, "is 'inf'"),
        (",dent,good,scratch\ndent,,1,1\ngood,1,0,1\nscratch,1,1,0\n", UsageError, "is ''"),
        (",dent,good,scratch\ndent,0,1,1\ngood,1,0,1\nscratch,1,1,0\ngood,1,0,1\n", UsageError, "two rows for 'good'"),
        (",dent,good,good,scratch\ndent,0,1,1,1\n", UsageError, "two columns for 'good'"),
        ("", UsageError, "has 0 lines"),
        (',"dent\n', SourceError, "cannot be read"),
    ],
)
def test_tables_that_do_not_hold_up(table, text, error, said):
    with pytest.raises(error, match=r"costs\.csv") as caught:
        read_costs(table(text), NAMES)
    assert said in caught.value.message
    assert caught.value.hint


def test_no_text_no_file_too_large(table, tmp_path, monkeypatch):
    with pytest.raises(SourceError, match="cannot be read"):
        read_costs(table("dent,\u00e9", encoding="latin-1"), NAMES)
    with pytest.raises(SourceError, match="No file"):
        read_costs(str(tmp_path / "none.csv"), NAMES)
    monkeypatch.setattr("curate.evaluation.examinations._costs.LARGEST", 10)
    with pytest.raises(UsageError, match="11 bytes"):
        read_costs(table("a" * 11), NAMES)


def said_and_truth(m=200, classes=4):
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(classes), m), rng.integers(0, classes, m), 5 * rng.random((classes, classes))


def test_decisions_are_those_of_brute_force():
    said, _, costs = said_and_truth()
    for p, chosen in zip(said, cheapest(said, costs), strict=True):
        expected = [sum(p[c] * costs[c, k] for c in range(4)) for k in range(4)]
        assert chosen == np.argmin(expected)


def test_ties_go_to_the_class_that_sorts_first():
    assert cheapest(np.array([[0.5, 0.5, 0.0]]), 1 - np.eye(3)).tolist() == [0]


def test_with_every_error_costing_one_it_is_the_share_of_errors():
    said, truth, _ = said_and_truth()
    found = {f.metric: f for f in figures(Resamples(units=np.arange(200), n_train=9), cost_questions(
        said, truth, 1 - np.eye(4), 2))}  # fmt: skip
    errors = (said.argmax(axis=1) != truth).mean()
    assert found["cost"].found.value == pytest.approx(errors)
    assert found["cost_most_probable"].found.value == pytest.approx(errors)
    assert found["cost_accepting_all"].found.value == pytest.approx((truth != 2).mean())
    assert found["saved_over_most_probable"].found.value == 0
    assert [f.lower_is_better for f in found.values()] == [True, True, True, False, False]


def test_savings_are_paired_differences():
    said, truth, costs = said_and_truth()
    drawn = Resamples(units=np.arange(200) // 2, n_train=9)
    found = {f.metric: f.found for f in figures(drawn, cost_questions(said, truth, costs, 1))}
    for name in ("most_probable", "accepting_all"):
        wanted = found[f"cost_{name}"].draws - found["cost"].draws
        np.testing.assert_allclose(found[f"saved_over_{name}"].draws, wanted, atol=1e-12)
    assert found["cost"].value == pytest.approx(costs[truth, cheapest(said, costs)].mean())


def test_true_probabilities_cost_least_on_average():
    rng = np.random.default_rng(1)
    said = rng.dirichlet(np.ones(3), 4000)
    truth = np.array([rng.choice(3, p=p) for p in said])
    costs = np.array([[0, 1, 8], [1, 0, 8], [30, 20, 0.0]])
    found = {f.metric: f.found for f in figures(
        Resamples(units=np.arange(4000), n_train=9), cost_questions(said, truth, costs, 0))}  # fmt: skip
    assert np.quantile(found["saved_over_most_probable"].draws, 0.025) > 0
    assert np.quantile(found["saved_over_accepting_all"].draws, 0.025) > 0
