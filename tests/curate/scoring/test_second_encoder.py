import numpy as np
import pytest
from scipy import stats

from curate.reporting.sentences import judge_sentence
from curate.results import Estimate, PoolScore, ShiftReport
from curate.scoring import score
from curate.scoring.second_encoder import rank_agreement, second_opinion
from embeddings.errors import UsageError
from embeddings.pipeline import as_store


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


def test_what_two_pools_say_is_said_without_a_number():
    first, blurred = report({"a": 1, "b": 9}), report({"a": 5, "b": 4})
    alike = judge_sentence(second_opinion(first, report({"a": 2, "b": 7})))
    assert alike.startswith("x puts a before b, too. Two pools have one order only, on which two encoders agree half")
    turned = judge_sentence(second_opinion(first, report({"a": 9, "b": 1})))
    assert turned == (
        "x puts b before a, and surely so: it turns round what is settled here. That order is in the encoder."
    )
    open_order = judge_sentence(second_opinion(first, blurred))
    assert open_order == "x puts b before a, not as here, but the errors leave that open."
    one = judge_sentence(second_opinion(report({"a": 1}), report({"a": 2})))
    assert one == "x scored the one pool, too: index 2, near. There is no order to agree on."


def test_images_that_are_gone_are_counted_and_told(image_folder, pictures, tmp_path):
    target = image_folder(pictures(40, seed=1), "target")
    pools = {name: image_folder(pictures(30, seed=seed), name) for name, seed in (("a", 1), ("b", 5))}
    how = {"encoder": "encoder_weights:pooled", "work": None}
    stores = {name: as_store(folder, name=name, **how) for name, folder in pools.items()}
    for path in sorted(pools["b"].rglob("*.png"))[:4]:
        path.unlink()
    judge = score(target, stores, judge="color-texture", **how).findings["judge"]
    assert judge["gone"] == {"b": 4}
    said = " It did not see 4 images of b: they are not where they were embedded from."
    assert judge_sentence(judge).endswith(said)


def test_only_pairs_that_both_settle_are_called_turned():
    first, second = report({"a": 10, "b": 30, "c": 31, "d": 90}), report({"a": 40, "b": 10, "c": 9, "d": 90})
    assert second_opinion(first, second)["turned"] == [["a", "b"], ["a", "c"]]


def test_images_are_judged_with_their_groups_and_only_those_that_were_scored(image_folder, pictures, tmp_path):
    target = image_folder(pictures(40, seed=1), "target")
    pools = {name: image_folder(pictures(30, seed=seed), name) for name, seed in (("a", 1), ("b", 5), ("c", 9))}
    found = score(target, pools, encoder="encoder_weights:pooled", judge="color-texture", work=tmp_path / "work")
    judge = found.findings["judge"]
    assert judge["encoder"]["name"] == "color-texture"
    assert sorted(p["name"] for p in judge["pools"]) == ["a", "b", "c"]
    assert -1 <= judge["agreement"]["low"] <= judge["agreement"]["value"] <= judge["agreement"]["high"] <= 1
    assert ShiftReport.from_json(found.to_json()) == found


def test_vectors_cannot_be_judged():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="target is not made of images that color-texture could embed"):
        score(rng.normal(size=(50, 4)), {"a": rng.normal(size=(50, 4))}, judge="color-texture", work=None)
