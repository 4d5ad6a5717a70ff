import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from selection_data import labeled, make_store, make_world, near_modes

import curate.selection._candidates as candidates
import curate.selection._gather as gather
from curate.results import Selection
from curate.selection import select
from curate.terms import Terms
from embeddings.encoders.registry import encoder_spec
from embeddings.errors import EncoderMismatchError, ForeignFolderError, UnknownNameError, UsageError
from embeddings.store import ROWS, EmbeddingStore


@pytest.fixture(scope="module")
def world():
    return make_world()


def pick(world, budget=20, **options):
    return select(world.target, options.pop("pools", world.pools), budget=budget, **{"work": None, **options})


@pytest.mark.parametrize("budget", [0, -1, True, 2.5])
def test_a_budget_is_a_positive_number_of_images(world, budget):
    with pytest.raises(UsageError, match="wanted a whole number, at least 1"):
        pick(world, budget)


def test_a_numpy_integer_is_a_budget(world):
    assert len(pick(world, np.int64(7), method="random", seed=np.int32(3))) == 7


def test_a_budget_above_all_candidates_says_how_many_there_are_and_why(world):
    with pytest.raises(UsageError) as caught:
        pick(world, 10_000, exclude=world.exclude)
    assert caught.value.message == (
        "The budget is 10,000, but there are 671 candidates: of 680 images these were left out: "
        "5 duplicates, 4 excluded."
    )
    assert "at most 671" in caught.value.hint
    assert len(pick(world, 671, exclude=world.exclude, past_knee=True)) == 671


@pytest.mark.parametrize("name", ["target", "", " "])
def test_reserved_and_empty_pool_names_are_refused(world, name):
    with pytest.raises(UsageError, match="cannot name a pool"):
        pick(world, pools={name: world.pools["web"]})


def test_no_pool_is_refused(world):
    with pytest.raises(UsageError, match="No pool to select from"):
        pick(world, pools={})


def test_an_unknown_method_names_the_nearest(world):
    with pytest.raises(UnknownNameError, match="near-first"):
        pick(world, method="nearfirst")


@pytest.mark.parametrize("where", ["pool", "exclude"])
def test_stores_of_different_encoders_are_refused(world, where):
    web = world.pools["web"]
    other = EmbeddingStore(spec=replace(web.spec, name="other"), rows=web.rows(), vectors=web.vectors())
    options = {"pools": {"web": other}} if where == "pool" else {"exclude": [other]}
    with pytest.raises(EncoderMismatchError, match=r"embedded by vectors and .* by other"):
        pick(world, **options)


def test_a_target_that_is_all_excluded_is_refused(world):
    with pytest.raises(UsageError, match="nothing is left to select for"):
        pick(world, exclude=world.target)


def test_exclude_takes_one_thing_or_several(world):
    one, several = pick(world, exclude=world.exclude[0]), pick(world, exclude=list(world.exclude))
    assert one.facts == several.facts
    assert one.facts["excluded"] == [{"name": "test", "n": 5, "digest": world.exclude[0].digest}]


def test_the_order_of_exclusions_does_not_matter(world):
    more = make_store("more", near_modes(3, 9), pixels={"0001": "test c"})
    a, b = (pick(world, exclude=order) for order in ([*world.exclude, more], [more, *world.exclude]))
    assert a.facts == b.facts
    assert a.left_out.equals(b.left_out)
    assert "also in excluded more/0001" in a.left_out["reason"].to_pylist()


def test_what_was_left_out_is_listed_with_its_reason(world):
    left_out = pick(world, exclude=world.exclude).left_out.to_pylist()
    rows = [(row["source"], row["key"], row["reason"]) for row in left_out]
    assert rows == [
        ("far", "0002", "duplicate of far/0001"),
        ("open", "0012", "also in excluded test/0000"),
        ("open", "0031", "duplicate of target/0005"),
        ("open", "0033", "duplicate of target/0006"),
        ("target", "0003", "also in excluded test/0001"),
        ("target", "0004", "also in excluded test/0002"),
        ("web", "0010", "duplicate of open/0030"),
        ("web", "0011", "also in excluded test/0003"),
        ("web", "0020", "duplicate of open/0032"),
    ]


def test_excluded_target_images_are_not_searched_for(world):
    chosen = pick(world, 300, exclude=world.exclude)
    assert chosen.facts["parameters"]["target_images"] == 78
    assert not {"0003", "0004"} & set(chosen.rows()["target_key"].to_pylist())
    assert not any(r.endswith((" 0003", " 0004")) for r in chosen.rows()["reason"].to_pylist())


def test_the_basis_is_fitted_on_the_pools_alone(world):
    facts = pick(world, 9, exclude=world.exclude).facts
    assert facts["candidates"]["target"] == 78
    assert facts["parameters"]["fitted_on"] == 199 + 177 + 217


def test_large_pools_are_looked_at_through_a_sample_that_no_order_changes(world, monkeypatch):
    monkeypatch.setattr(candidates, "SAMPLE_ROWS", 100)
    sampled, again = pick(world, 60), pick(world.shuffled(1), 60)
    assert sampled.facts["parameters"]["fitted_on"] == 100
    assert sampled.rows().equals(again.rows())


def test_facts_tell_the_whole_request_and_its_outcome(world):
    facts = pick(world, 100, method="uniform", seed=3, exclude=world.exclude).facts
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["method"], facts["budget"], facts["seed"], facts["terms"]) == ("uniform", 100, 3, {})
    assert facts["encoder"]["name"] == "vectors"
    for store, found in ((world.target, facts["target"]), (world.pools["web"], facts["pools"]["web"])):
        assert (found["n"], found["digest"]) == (len(store), store.digest)
    assert facts["candidates"] == {"target": 78, "far": 199, "open": 177, "web": 217}
    assert facts["chosen"] == {"target": 25, "far": 25, "open": 25, "web": 25}
    assert {code: n for code, n in facts["dropped"].items() if n} == {"duplicate": 5, "excluded": 4}
    assert facts["stopped"] is None


def test_copies_are_counted_in_the_manifest(world):
    rows = pick(world, 680 - 5, method="random").rows().to_pylist()
    copies = {(row["source"], row["key"]): row["duplicates"] for row in rows}
    assert copies[("open", "0030")] == copies[("target", "0005")] == copies[("far", "0001")] == 2
    assert sum(copies.values()) == 680


def test_the_nearest_target_image_and_its_cosine_are_those_of_a_plain_search(world):
    rows = pick(world, 60, method="random", include_target=False).rows()
    copies = {"far": [2], "web": [10, 20], "open": []}
    unique = [np.delete(np.asarray(p.vectors(), float), copies[name], axis=0) for name, p in world.pools.items()]
    center = np.concatenate(unique).mean(axis=0)
    target = np.asarray(world.target.vectors(), float) - center
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    for row in rows.to_pylist():
        pool = world.pools[row["source"]]
        image = np.asarray(pool.vectors()[pool.column("key").index(row["key"])], float) - center
        cosines = target @ (image / np.linalg.norm(image))
        assert row["target_key"] == world.target.column("key")[int(cosines.argmax())]
        assert row["similarity"] == pytest.approx(cosines.max(), abs=2e-6)


def test_a_selection_is_read_back_instead_of_made_again(world, tmp_path, monkeypatch):
    first = pick(world, out=tmp_path / "a", exclude=world.exclude)
    stamp = (tmp_path / "a" / "selection.json").stat().st_mtime_ns
    monkeypatch.setattr(gather, "gather", None)  # would fail if it were called
    again = pick(world, out=tmp_path / "a", exclude=world.exclude)
    assert again.rows().equals(first.rows())
    assert again.facts == first.facts
    assert (tmp_path / "a" / "selection.json").stat().st_mtime_ns == stamp


def test_a_selection_read_back_knows_where_its_images_are_now(world, tmp_path):
    digest = pick(world, out=tmp_path / "a").digest
    web = world.pools["web"]
    moved = EmbeddingStore(spec=web.spec, rows=web.rows(), vectors=web.vectors(), facts={"source": "/elsewhere"})
    again = pick(world, pools={**world.pools, "web": moved}, out=tmp_path / "a")
    assert again.sources["web"] == Selection.open(tmp_path / "a").sources["web"] == "/elsewhere"
    assert again.digest == digest


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"budget": 21}, "budget is 20 there, 21 here"),
        ({"method": "random"}, "method is 'near-first' there, 'random' here"),
        ({"seed": 1}, "seed is 0 there, 1 here"),
        ({"include_target": False}, r"terms\.target\.cap is None there, 0 here"),
        ({"budget": "20,money=9"}, r"limits\.money is"),
        ({"exclude": ["test"]}, "excluded"),
        ({"pools": ["far"]}, r"pools\.open\.digest is"),
    ],
)
def test_another_selections_folder_is_refused_by_the_field_that_differs(world, tmp_path, options, field):
    pick(world, out=tmp_path / "a")
    if "exclude" in options:
        options = {"exclude": world.exclude}
    if "pools" in options:
        options = {"pools": {"far": world.pools["far"]}}
    with pytest.raises(ForeignFolderError, match=field):
        pick(world, out=tmp_path / "a", **options)
    assert len(Selection.open(tmp_path / "a")) == 20


def test_a_selection_by_other_labels_or_licenses_is_another_one(world, tmp_path):
    pick(world, out=tmp_path / "a")
    with pytest.raises(ForeignFolderError, match=r"holds another selection: [a-z.]+\.told is"):
        pick(world.labeled(), out=tmp_path / "a")
    web = world.pools["web"]
    told = web.rows().set_column(ROWS.get_field_index("meta"), "meta", pa.array(['{"license": "cc0"}'] * len(web)))
    pools = world.pools | {"web": EmbeddingStore(spec=web.spec, rows=told, vectors=web.vectors(), facts=web.facts)}
    with pytest.raises(ForeignFolderError, match=r"holds another selection: pools\.web\.told is"):
        pick(world, out=tmp_path / "a", pools=pools)


def test_a_truncated_selection_is_another_one(world, tmp_path):
    pick(world).truncate(5).save(tmp_path / "a")
    with pytest.raises(ForeignFolderError, match="truncated is 5 there, None here"):
        pick(world, out=tmp_path / "a")


def test_a_selection_cut_at_a_similarity_is_another_one(world, tmp_path):
    pick(world).at_least(-1.0).save(tmp_path / "a")
    with pytest.raises(ForeignFolderError, match=r"least_similarity is -1\.0 there, None here"):
        pick(world, out=tmp_path / "a")


def test_a_folder_of_something_else_is_refused(world, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ForeignFolderError, match=r"holds no selection \(run.json\)"):
        pick(world, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_file_is_no_folder(world, tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ForeignFolderError):
        pick(world, out=tmp_path / "a")


def test_an_unfinished_selection_is_made_again_and_a_report_may_stand_beside_it(world, tmp_path):
    pick(world, out=tmp_path)
    (tmp_path / "selection.json").unlink()
    (tmp_path / "report.html").write_text("")
    assert len(pick(world, out=tmp_path, seed=5)) == 20
    assert Selection.open(tmp_path).facts["seed"] == 5


def test_a_damaged_selection_is_refused_not_overwritten(world, tmp_path):
    pick(world, out=tmp_path)
    (tmp_path / "selection.parquet").write_bytes(b"x")
    with pytest.raises(ForeignFolderError, match="does not read back") as caught:
        pick(world, out=tmp_path)
    assert "delete this folder" in caught.value.hint


@pytest.mark.parametrize("method", ["near-first", "random", "uniform"])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 30), (30, 1), (2, 2)])
def test_a_single_image_is_enough(method, m, n):
    target, pool = make_store("target", near_modes(m, 0)), make_store("pool", near_modes(n, 1))
    for include in (True, False):
        everything = n + m * include
        assert (
            len(select(target, {"p": pool}, budget=everything, method=method, include_target=include, work=None))
            == everything
        )


@pytest.mark.parametrize("method", ["near-first", "random", "uniform"])
def test_vectors_without_variance_do_no_harm(method):
    target, pool = make_store("target", np.ones((5, 4))), make_store("pool", np.ones((50, 4)))
    chosen = select(target, {"pool": pool}, budget=1, method=method, work=None)
    assert chosen.facts["dropped"]["near-duplicate"] == 54
    assert chosen.rows()["similarity"].to_pylist() == [0.0]


def test_arrays_are_taken_whole_and_equal_rows_are_copies():
    pool = np.repeat(near_modes(10, 1), 3, axis=0)
    chosen = select(near_modes(4, 0), {"pool": pool}, budget=14, work=None)
    assert chosen.counts() == {"pool": 10, "target": 4}
    assert chosen.facts["dropped"]["duplicate"] == 20
    with pytest.raises(UsageError, match="there are 1 candidates"):
        select(np.ones((4, 3)), {"pool": np.ones((9, 3))}, budget=2, work=None)


def test_a_pool_that_is_the_target_adds_nothing(world):
    with pytest.raises(UsageError, match=r"there are 80 candidates.*80 duplicate"):
        pick(world, 81, pools={"again": world.target})
    assert pick(world, 80, pools={"again": world.target}).counts() == {"target": 80}


def test_progress_ends_where_it_should(world):
    told = []
    pick(world, 50, progress=lambda stage, done, total, note="": told.append((stage, done, total)))
    last = {stage: (done, total) for stage, done, total in told}
    assert (last["project"], last["select"]) == ((675, 675), (50, 50))
    assert all(done == total for done, total in last.values())


def test_folders_of_images_become_a_selection_of_paths(pictures, image_folder, tmp_path):
    target = image_folder(pictures(8, seed=1), "target")
    pool, same = pictures(10, seed=2), pictures(8, seed=1)
    pool["again.png"] = same["cat/000.png"]
    pool["test.png"] = pictures(1, seed=3)["cat/000.png"]
    test = image_folder(pictures(1, seed=3), "test")
    folder = image_folder(pool, "pool")
    chosen = select(
        target,
        {"pool": folder},
        budget=18,
        exclude=[test],
        encoder="random",
        work=tmp_path / "work",
        out=tmp_path / "out",
    )
    assert chosen.counts() == {"pool": 10, "target": 8}
    assert chosen.left_out.to_pylist() == [
        {"source": "pool", "key": key, "code": code, "reason": f"{words} {other}", "because_of": other}
        for key, code, words, other in (
            ("again.png", "duplicate", "duplicate of", "target/cat/000.png"),
            ("test.png", "excluded", "also in excluded", "test/cat/000.png"),
        )
    ]
    files = {p for root in (target, folder) for p in root.rglob("*.png")}
    assert {str(p) for p in files} - set(chosen.to_paths()) == {str(folder / "again.png"), str(folder / "test.png")}
    assert chosen.facts["encoder"]["name"] == encoder_spec("random").name


def test_no_part_of_an_excluded_image_is_chosen(world, tmp_path):
    """Tiles of a pool, where the images to keep out are given whole, or cut in another way."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
    for folder, numbers in (("pool", range(6)), ("test", range(4, 6)), ("target", range(6, 9))):
        (tmp_path / folder).mkdir()
        for i in numbers:
            Image.fromarray(pixels[i]).save(tmp_path / folder / f"{i}.png")
    options = {"encoder": "color-texture", "work": None, "include_target": False}
    for view in ("", "#tiles:32", "#tiles:16"):
        pool = f"{tmp_path / 'pool'}#tiles:16"
        chosen = select(tmp_path / "target", {"pool": pool}, budget=24, exclude=f"{tmp_path / 'test'}{view}", **options)
        assert {key.partition("#")[0] for key in chosen.rows()["key"].to_pylist()} == {f"{i}.png" for i in range(4)}


def test_a_wish_that_cannot_be_met_says_which_limit_is_short_and_by_how_much(world):
    prices = {"web": Terms(price="2"), "open": Terms(price="3"), "far": Terms(price="5")}
    with pytest.raises(UsageError, match=r"The floors per source need at least 60 money, the budget is 50: 10 short"):
        pick(world, "money=50", method="random", terms={**prices, "web": Terms(price="2", floor=30)})
    with pytest.raises(UsageError, match="budget is 1 in money, but the cheapest candidate needs 2"):
        pick(world, "money=1", method="random", terms=prices, include_target=False)
    with pytest.raises(UnknownNameError, match="Unknown source that terms are given for 'wbe'") as caught:
        pick(world, terms={"wbe": Terms(cap=3)})
    assert "Did you mean web" in caught.value.hint


def test_a_method_that_leaves_out_a_source_with_a_floor_is_refused_in_words(world):
    with pytest.raises(UsageError) as caught:
        pick(world, 600, method="pool-gated", terms={"far": Terms(floor=5)}, report=world.report)
    assert caught.value.message.startswith("pool-gated ended below a floor (source far: 0 of at least 5): ")
    assert "take a method that chooses from every source" in caught.value.hint


def test_caps_that_hold_the_rest_back_are_named_the_first_of_them(world):
    caps = {name: Terms(cap=7) for name in ("target", *world.pools)}
    stopped = pick(world, 100, method="random", terms=caps).facts["stopped"]
    assert stopped["at"] == 28
    assert stopped["reason"] == (
        "caps hold back the other 647 candidates (source target: cap 7; source far: cap 7; source open: cap 7; "
        "source web: cap 7)"
    )
    target, pool = make_store("t", near_modes(5, 0)), labeled(make_store("p", near_modes(200, 1)))
    groups = select(target, {"p": pool}, budget="150,max-per-group=1", method="random", work=None)
    assert groups.facts["stopped"]["reason"].endswith("cap 1; and 35 more)")


def test_a_limit_that_was_reached_is_no_stop(world):
    prices = {name: Terms(price="1") for name in world.pools}
    facts = pick(world, "money=10", method="random", terms=prices, include_target=False).facts
    assert facts["stopped"] is None
    assert facts["spent"] == {"money": {"most": 10.0, "used": 10.0, "binding": True}}
    assert (facts["budget"], facts["limits"]) == (None, {"money": 10.0})


def test_a_budget_in_money_that_outlasts_the_candidates_says_so(world):
    prices = {name: Terms(price="1") for name in world.pools}
    every = {"method": "random", "include_target": False}
    facts = pick(world, "money=5000", terms=prices, **every).facts
    n = facts["stopped"]["at"]
    assert facts["stopped"]["reason"] == f"there are no more than {n} candidates"
    assert pick(world, f"money={n}", terms=prices, **every).facts["stopped"] is None  # spent to the last
    caps = {name: Terms(price="1", cap=3) for name in world.pools}
    assert pick(world, "money=5000", terms=caps, **every).facts["stopped"]["reason"].startswith("caps hold back")


@pytest.mark.parametrize("budget", [3, "money=3", "hours=1,rate=1,epochs=1"])
@pytest.mark.parametrize("method", ["near-first", "random"])
def test_where_nothing_is_left_to_choose_from_that_is_said(budget, method):
    target, pool = make_store("t", near_modes(30, 0)), make_store("p", near_modes(4, 1))
    with pytest.raises(UsageError, match=r"0 candidates|no candidates: of 4 images these were left out: 4 excluded"):
        select(target, {"p": pool}, budget=budget, method=method, exclude=pool, include_target=False, work=None)


def test_of_copies_the_cheapest_stays_and_a_forbidden_license_hides_no_copy():
    a, b = (make_store(name, near_modes(1, i), pixels={"0000": "same"}) for i, name in enumerate("ab"))
    target = make_store("t", near_modes(3, 5))
    dear = {"a": Terms(price="2", license="nc"), "b": Terms(price="3", license="cc0")}

    def chosen(budget, terms):
        return select(target, {"a": a, "b": b}, budget=budget, terms=terms, method="random", work=None).counts()

    assert chosen("4", dear) == {"target": 3, "a": 1}
    assert chosen("4", {**dear, "a": Terms(price="4")}) == {"target": 3, "b": 1}
    assert chosen("4,licenses=cc0", dear) == {"target": 3, "b": 1}
