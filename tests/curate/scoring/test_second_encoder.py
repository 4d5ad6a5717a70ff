import numpy as np
import pytest
from scipy import stats

from curate.results import Estimate, PoolScore, ShiftReport
from curate.scoring import score
from curate.scoring.second_encoder import rank_agreement, second_opinion
from embeddings.errors import UsageError


def report(distances, se=1.0):
    """Pools by distance; those closer than 2 to each other are tied."""
    pools = tuple(
        PoolScore(
            name=name,
            rank=rank,
            verdict="near",
            n=100,
            index=Estimate(value=float(value)),
            metrics={"frechet": Estimate(value=float(value), se=se)},
            tied_with=tuple(o for o, other in distances.items() if o != name and abs(other - value) < 2),
        )
        for rank, (name, value) in enumerate(sorted(distances.items(), key=lambda kv: kv[1]), 1)
    )
    return ShiftReport(target={}, encoder={"name": "x"}, pools=pools, floor=Estimate(value=0.0))


def test_it_is_kendall_s_tau():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = ({str(i): v for i, v in enumerate(rng.normal(size=6))} for _ in range(2))
        found = rank_agreement(report(a).pools, report(b).pools)
        assert found.value == pytest.approx(stats.kendalltau(list(a.values()), list(b.values())).statistic)


def test_the_interval_is_narrow_where_distances_are_sharp_and_wide_where_they_are_not():
    distances = {"a": 10, "b": 30, "c": 50, "d": 90}
    sharp = rank_agreement(report(distances).pools, report(distances).pools)
    assert (sharp.value, sharp.low, sharp.high) == (1.0, 1.0, 1.0)
    blurred = rank_agreement(report(distances, 40.0).pools, report(distances, 40.0).pools)
    assert blurred.low < 0 < blurred.high <= 1.0
    assert blurred == rank_agreement(report(distances, 40.0).pools, report(distances, 40.0).pools)


def test_two_pools_have_no_order_to_agree_on():
    found = rank_agreement(report({"a": 1, "b": 9}).pools, report({"a": 1, "b": 9}).pools)
    assert (found.value, found.reason) == (None, "2 pools are too few to agree on an order; 3 are needed")


def test_only_pairs_that_both_settle_are_called_turned():
    first, second = report({"a": 10, "b": 30, "c": 31, "d": 90}), report({"a": 40, "b": 10, "c": 9, "d": 90})
    assert second_opinion(first, second)["turned"] == [["a", "b"], ["a", "c"]]


def test_images_are_judged_with_their_groups_and_only_those_that_were_scored(image_folder, pictures, tmp_path):
    target = image_folder(pictures(40, seed=1), "target")
    pools = {name: image_folder(pictures(30, seed=seed), name) for name, seed in (("a", 1), ("b", 5), ("c", 9))}
    found = score(target, pools, encoder="lite0@32", judge="color-texture", work=tmp_path / "work")
    judge = found.findings["judge"]
    assert judge["encoder"]["name"] == "color-texture"
    assert sorted(p["name"] for p in judge["pools"]) == ["a", "b", "c"]
    assert -1 <= judge["agreement"]["low"] <= judge["agreement"]["value"] <= judge["agreement"]["high"] <= 1
    assert ShiftReport.from_json(found.to_json()) == found


def test_vectors_cannot_be_judged():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="target is not made of images that color-texture could embed"):
        score(rng.normal(size=(50, 4)), {"a": rng.normal(size=(50, 4))}, judge="color-texture", work=None)
