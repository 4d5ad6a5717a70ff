"""What every selection method keeps, the controls included."""

import numpy as np
import pytest
from selection_data import make_world

from curate.results import LEFT_OUT, SELECTION, Selection
from curate.selection import METHODS, NEEDS_REPORT, select
from embeddings.neighbors import Engine

BUDGET = 150
PARTS = ("selection.parquet", "left_out.parquet", "selection.json")
every_method = pytest.mark.parametrize("method", sorted(METHODS))


@pytest.fixture(scope="module")
def world():
    return make_world()


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
def test_or_it_stops_and_says_why(world, everything, method):
    selection, n = everything[method], sum(everything[method].facts["candidates"].values())
    if method in NEEDS_REPORT:
        stopped = selection.facts["stopped"]
        assert stopped["at"] == len(selection) < n
        assert f"{len(selection):,}" in stopped["reason"]
    else:
        assert selection.facts["stopped"] is None
        assert len(selection) == n


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
    monkeypatch.setattr(Engine, "uses_faiss", property(lambda _: faiss))
    assert same(run(world, method), chosen[method])


@every_method
def test_the_seed_decides(world, chosen, method):
    assert picks(run(world, method, seed=1)) != picks(chosen[method])


@every_method
def test_the_lowest_ranks_are_what_a_smaller_budget_takes(world, chosen, method):
    smaller = run(world, method, budget=40)
    assert smaller.rows().equals(chosen[method].truncate(40).rows())


@every_method
def test_the_target_stays_out_if_asked(world, method):
    selection = run(world, method, include_target=False, budget=60)
    assert "target" not in selection.counts()
    assert selection.facts["candidates"]["target"] == 0


@every_method
def test_the_report_is_computed_if_it_is_needed(world, chosen, method):
    assert same(run(world, method, report=None), chosen[method])
