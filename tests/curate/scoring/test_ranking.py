import pytest

from curate.results import Estimate, PoolScore
from curate.scoring.ranking import ranked, settled


def pool(name, value):
    nothing = Estimate(value=None)
    metrics = {"frechet": Estimate(value=value)}
    return PoolScore(name=name, rank=0, verdict="near", n=100, index=nothing, metrics=metrics)


def table(**probabilities):
    """Probability by "a_b": that a is nearer than b; the other way round it is the rest."""
    known = probabilities | {"_".join(pair.split("_")[::-1]): 1 - p for pair, p in probabilities.items()}
    return lambda a, b: known[f"{a}_{b}"]


def test_nearest_first_with_ties_and_how_sure_each_place_is():
    order = ranked([pool("far", 50), pool("b", 12), pool("a", 10)], table(a_b=0.7, a_far=1.0, b_far=0.99))
    assert [(p.name, p.rank) for p in order] == [("a", 1), ("b", 2), ("far", 3)]
    assert [p.tied_with for p in order] == [("b",), ("a",), ()]
    assert [p.before_next for p in order] == [0.7, 0.99, None]


def test_an_order_is_settled_beyond_the_error_of_the_difference():
    a, b, far = ranked([pool("far", 50), pool("b", 12), pool("a", 10)], table(a_b=0.7, a_far=1.0, b_far=0.99))
    assert settled(a, far)
    assert settled(b, far)
    assert not settled(a, b)
    assert not settled(far, a)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_equal_distances_are_ordered_by_name(names):
    assert [p.name for p in ranked([pool(name, 1) for name in names], table(a_b=0.5))] == ["a", "b"]
