"""What every selection method keeps, the controls included."""

import numpy as np
import pytest
from selection_data import make_world

from curate.results import LEFT_OUT, SELECTION, TARGET, Selection
from curate.selection import METHODS, select
from curate.terms import Terms
from embeddings.errors import UsageError
from embeddings.neighbors import Engine

BUDGET = 150
PARTS = ("selection.parquet", "left_out.parquet", "selection.json")
PRICES = {"web": 0.05, "open": 0.02, "far": 0.01}
every_method = pytest.mark.parametrize("method", sorted(METHODS))


@pytest.fixture(scope="module")
def world():
    return make_world().labeled()


@pytest.fixture(scope="module")
def chosen(world):
    return {method: run(world, method) for method in METHODS}


@pytest.fixture(scope="module")
def everything(world):
    """All that each method would take."""
    n = sum(run(world, "random", budget=1).facts["candidates"].values())
    return {method: run(world, method, budget=n) for method in METHODS}


def run(world, method, **options):
    options = {"budget": BUDGET, "exclude": world.exclude, "report": world.report, "work": None, **options}
    return select(world.target, world.pools, method=method, **options)


def picks(selection):
    return list(zip(selection.rows()["source"].to_pylist(), selection.rows()["key"].to_pylist(), strict=True))


def same(a, b):
    return a.rows().equals(b.rows()) and a.left_out.equals(b.left_out) and a.facts == b.facts and a.digest == b.digest


@every_method
def test_the_budget_is_met_exactly(chosen, method):
    assert len(chosen[method]) == BUDGET
    assert chosen[method].facts["stopped"] is None
    assert sum(chosen[method].facts["chosen"].values()) == BUDGET


@every_method
def test_or_it_stops_and_says_why(everything, method):
    selection, n = everything[method], sum(everything[method].facts["candidates"].values())
    stopped = selection.facts["stopped"]
    assert (stopped is None) == (len(selection) == n)
    assert METHODS[method].stops or METHODS[method].near_first or stopped is None
    if stopped:
        assert METHODS[method].needs_report <= (f"{len(selection):,}" in stopped["reason"])
        assert (stopped["at"], bool(stopped["reason"])) == (len(selection), True)


@every_method
def test_the_manifest_is_complete(world, chosen, method):
    table = chosen[method].rows()
    assert table.schema.equals(SELECTION)
    assert table["rank"].to_pylist() == list(range(BUDGET))
    assert all(reason.startswith(f"{method}: ") for reason in table["reason"].to_pylist())
    assert all(uri == f"{key}.png" for uri, key in zip(table["uri"].to_pylist(), table["key"].to_pylist(), strict=True))
    assert not any(table[name].null_count for name in table.column_names)
    stores = {"target": world.target, **world.pools}
    known = {(n, k): d for n, s in stores.items() for k, d in zip(s.column("key"), s.column("sha256"), strict=True)}
    assert table["sha256"].to_pylist() == [known[pick] for pick in picks(chosen[method])]
    assert np.array_equal(table["score"].to_numpy(), table["score"].to_numpy().round(6))
    assert set(table["stage"].to_pylist()) == {0}
    assert set(table["repeats"].to_pylist()) == {1}
    assert chosen[method].left_out.schema.equals(LEFT_OUT)


@every_method
def test_nothing_is_taken_twice_in_any_guise(world, everything, method):
    stores = {"target": world.target, **world.pools}
    for column in ("sha256", "pixels"):
        digests = {name: dict(zip(s.column("key"), s.column(column), strict=True)) for name, s in stores.items()}
        assert len({digests[source][key] for source, key in picks(everything[method])}) == len(everything[method])
    assert len(set(picks(everything[method]))) == len(everything[method])


@every_method
def test_no_excluded_image_is_taken_by_file_or_by_pixels(world, everything, method):
    assert not world.excluded & set(picks(everything[method]))
    free = run(world, method, budget=len(everything[method]) + 1, exclude=())
    assert world.excluded & set(picks(free))
    assert (free.facts["dropped"]["excluded"], everything[method].facts["dropped"]["excluded"]) == (0, 4)


@every_method
def test_the_same_request_gives_the_same_bytes(world, tmp_path, method):
    first, second = (run(world, method, out=tmp_path / name) for name in ("a", "b"))
    assert same(first, second)
    for part in PARTS:
        assert (tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes()
    assert same(Selection.open(tmp_path / "a"), first)


@every_method
@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_rows_and_pools_does_not_matter(world, chosen, method, seed):
    assert same(run(world.shuffled(seed), method), chosen[method])


@every_method
@pytest.mark.parametrize("shards", [2, 7, 16])
def test_the_number_of_shards_does_not_matter(world, chosen, method, shards):
    assert same(run(world.sharded(shards), method), chosen[method])


@every_method
@pytest.mark.parametrize("faiss", [False, True])
def test_faiss_does_not_matter(world, chosen, method, faiss, monkeypatch):
    if faiss:
        pytest.importorskip("faiss")
    monkeypatch.setattr(Engine, "uses_faiss", lambda _, d: faiss)
    assert same(run(world, method), chosen[method])


@every_method
def test_the_seed_decides_where_something_is_drawn(world, chosen, method):
    assert (picks(run(world, method, seed=1)) == picks(chosen[method])) != METHODS[method].seeded


@every_method
def test_truncation_keeps_the_lowest_ranks_which_a_smaller_budget_takes_if_nested(world, chosen, method):
    truncated = chosen[method].truncate(40).rows()
    assert truncated.equals(chosen[method].rows().slice(0, 40))
    if METHODS[method].nested:
        assert run(world, method, budget=40).rows().equals(truncated)


@every_method
def test_the_target_stays_out_if_asked(world, method):
    selection = run(world, method, include_target=False, budget=60)
    assert "target" not in selection.counts()
    assert selection.facts["candidates"]["target"] == 0


@every_method
def test_the_report_is_computed_if_it_is_needed(world, chosen, method):
    assert same(run(world, method, report=None), chosen[method])


def roles(world, selection):
    """Label and group of every chosen image."""
    stores = {TARGET: world.target, **world.pools}
    known = {
        (name, key): (label, None if group is None else f"{name}/{group}")
        for name, store in stores.items()
        for key, label, group in zip(*(store.column(c) for c in ("key", "label", "group")), strict=True)
    }
    return [known[pick] for pick in picks(selection)]


def full_or_stopped(selection, budget):
    return len(selection) == budget or bool(selection.facts["stopped"]["reason"])


@every_method
def test_no_cap_is_passed(world, method):
    terms = {"web": Terms(cap=25), TARGET: Terms(cap=30)}
    selection = run(world, method, terms=terms, budget="90,max-per-label=40,max-per-group=2")
    labels, groups = zip(*roles(world, selection), strict=True)
    assert selection.counts().get("web", 0) <= 25
    assert selection.counts().get(TARGET, 0) <= 30
    assert all(labels.count(label) <= 40 for label in set(labels))
    assert all(groups.count(group) <= 2 for group in set(groups) - {None})
    assert full_or_stopped(selection, 90)


@every_method
def test_money_is_spent_and_not_exceeded(world, method):
    terms = {name: Terms(price=str(price)) for name, price in PRICES.items()}
    selection = run(world, method, terms=terms, budget="money=2.5")
    costs = [PRICES.get(source, 0.0) for source, _ in picks(selection)]
    assert selection.rows()["cost"].to_pylist() == costs
    assert selection.facts["spent"]["money"]["used"] == pytest.approx(sum(costs))
    assert sum(costs) <= 2.5 + 1e-9
    assert sum(costs) > 2.5 - max(PRICES.values()) or selection.facts["stopped"]["reason"]


@every_method
@pytest.mark.parametrize(
    ("terms", "budget", "short"),
    [({"far": Terms(floor=12), "open": Terms(floor=20)}, "60", "source"), ({}, "70,min-per-label=12", "label")],
)
def test_floors_are_met_or_refused_in_words(world, method, terms, budget, short):
    try:
        selection = run(world, method, terms=terms, budget=budget)
    except UsageError as error:
        if not METHODS[method].stops or f"{method} ended below a floor ({short} " not in error.message:
            raise
        return
    labels = [label for label, _ in roles(world, selection) if label]
    assert all(selection.counts().get(name, 0) >= said.floor for name, said in terms.items())
    assert short == "source" or all(labels.count(f"mode {mode}") >= 12 for mode in range(5))


@every_method
def test_a_license_that_is_not_allowed_never_appears(world, method):
    terms = {"web": Terms(license="cc-by"), "open": Terms(license="cc-by-nc"), TARGET: Terms(cap=0)}
    selection = run(world, method, terms=terms, budget="40,licenses=cc0+cc-by")
    assert set(selection.counts()) == {"web"}
    left_out = {row["source"]: row["reason"] for row in selection.left_out.to_pylist() if row["code"] == "license"}
    assert left_out == {
        "open": "its license is not among those allowed (cc-by, cc0): cc-by-nc",
        "far": "its license is not among those allowed (cc-by, cc0): none is known",
    }


@every_method
def test_what_weighs_more_is_chosen_for_more_often(world, method):
    def share(weights):
        selection = run(world, method, weights=weights, include_target=False, budget=100)
        labels = dict(zip(world.target.column("key"), world.target.column("label"), strict=True))
        near = [labels[key] == "mode 2" for key in selection.rows()["target_key"].to_pylist()]
        return np.mean(near), picks(selection)

    (plain, as_before), (weighted, picked) = share({}), share({"mode 2": 20})
    if METHODS[method].weighted:
        assert weighted > plain
    else:
        assert picked == as_before
