import pytest
from scipy import stats

from curate.results import Estimate, PoolScore
from curate.scoring.ranking import nearer, ranked


def pool(name, value, se):
    nothing = Estimate(value=None)
    return PoolScore(name=name, rank=0, verdict="near", n=100, index=nothing, metrics={"frechet": estimate(value, se)})


def estimate(value, se):
    return Estimate(value=value, se=se)


def test_the_probability_of_an_order_is_that_of_a_normal_difference():
    assert nearer(estimate(10, 3), estimate(15, 4)) == pytest.approx(stats.norm.cdf(1.0))
    assert nearer(estimate(15, 4), estimate(10, 3)) == pytest.approx(1 - stats.norm.cdf(1.0))
    assert nearer(estimate(10, 3), estimate(10, 4)) == 0.5


def test_without_errors_the_order_is_certain_or_open():
    assert nearer(estimate(1, None), estimate(2, None)) == 1.0
    assert nearer(estimate(2, 0.0), estimate(1, 0.0)) == 0.0
    assert nearer(estimate(1, 0.0), estimate(1, 0.0)) == 0.5


def test_nearest_first_with_ties_and_how_sure_each_place_is():
    order = ranked([pool("far", 50, 1), pool("b", 12, 3), pool("a", 10, 3)])
    assert [(p.name, p.rank) for p in order] == [("a", 1), ("b", 2), ("far", 3)]
    assert [p.tied_with for p in order] == [("b",), ("a",), ()]
    assert order[0].before_next == pytest.approx(nearer(estimate(10, 3), estimate(12, 3)))
    assert order[1].before_next > 0.999
    assert order[2].before_next is None


def test_equal_distances_are_ordered_by_name():
    assert [p.name for p in ranked([pool("b", 1, 1), pool("a", 1, 1)])] == ["a", "b"]
