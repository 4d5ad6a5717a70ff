"""Methods side by side on the half of the target that none of them saw."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from encoder_weights import Weights
from PIL import Image
from selection_data import MODES, make_store, make_world, near_modes

import curate.selection._comparison as comparison_module
import curate.selection._judges as judges_module
from curate.comparison import Comparison, Contender, Judge, Reading
from curate.results import LEFT_OUT, Estimate
from curate.selection import METHODS
from curate.selection._candidates import Choice, drawn
from curate.selection._comparison import audited, compare
from curate.selection._select import open_selector
from curate.selection._trial import Trial, _judging_half
from curate.selection._yardstick import Yardstick, _fold_shares, index_difference, readings
from curate.terms import Terms
from embeddings import embed
from embeddings.errors import CorruptError, UnknownNameError, UsageError
from embeddings.store import EmbeddingStore


@pytest.fixture(scope="module")
def world():
    return make_world()


def selector_of(world, budget=60, **options):
    pools = options.pop("pools", world.pools)
    return open_selector(world.target, pools, budget=budget, **{"work": None, "exclude": world.exclude, **options})


def add_method(monkeypatch, name, choose):
    """A method for one test, among the real ones."""
    monkeypatch.setitem(METHODS, name, SimpleNamespace(report_from=lambda _: None, load=lambda: choose))


def only_far(candidates, ledger, *, seed):
    return drawn(candidates, ledger, candidates.rows_of("far"), seed=seed, reason="far")


@pytest.fixture(scope="module")
def compared(world):
    return compare(selector_of(world), ["near-first", "pool-gated"])


def test_near_first_is_nearer_than_random(world):
    compared = compare(selector_of(world, include_target=False), ["near-first"])
    reading = compared["near-first"].readings["vectors"]
    assert reading.verdict == "nearer"
    assert reading.against_random.high < 0
    assert compared.contenders[-1].method == "random"
    assert compared["random"].readings["vectors"].against_random is None
    assert "near-first is nearer than random (index " in compared.words[0]
    assert ", settled)" in compared.words[0]


def test_a_method_that_takes_far_images_is_farther(world, monkeypatch):
    add_method(monkeypatch, "only-far", only_far)
    found = compare(selector_of(world), ["only-far"])
    assert found["only-far"].readings["vectors"].verdict == "farther"
    assert found["only-far"].shares == {"far": 1.0}
    assert found.best("vectors") == "random"
    assert "only-far is farther than random" in found.words[0]


def test_what_cannot_be_told_apart_is_not_called_best(compared):
    tied = compared["near-first"].readings["vectors"].tied_with
    assert (compared.best("vectors") is None) == bool(tied)
    assert "near-first" in compared["pool-gated"].readings["vectors"].tied_with or not tied


def test_counts_shares_and_diversity(compared):
    for contender in compared.contenders:
        assert sum(contender.counts.values()) == contender.n == 60
        assert sum(contender.shares.values()) == pytest.approx(1)
        assert 1 < contender.diversity.value < 12
    assert compared.seen + compared.judging == 78
    assert compared["near-first"].diversity.n == compared["random"].diversity.n


def test_the_judging_half_is_neither_searched_for_nor_chosen(world, monkeypatch):
    seen = []

    def spy(candidates, ledger, *, seed):
        seen.append(candidates)
        return drawn(candidates, ledger, np.arange(len(candidates)), seed=seed, reason="all")

    add_method(monkeypatch, "spy", spy)
    selector = selector_of(world, budget=660)
    found = compare(selector, ["spy"])
    (candidates,) = seen
    judging = set(Trial.of(selector).judging.tolist())
    assert len(judging) == found.judging >= 20
    assert not judging & set(candidates.queries.tolist())
    assert not judging & set(candidates.place[candidates.own].tolist())
    assert len(candidates.queries) == found.seen
    assert found["spy"].n == len(candidates) < 660


def test_groups_copies_and_near_duplicates_stay_on_one_side(world):
    target = make_store("target", near_modes(200, 5), pixels={"0007": "same", "0008": "same"})
    groups = [f"g{i // 4}" for i in range(200)]
    column = target.rows().schema.get_field_index("group")
    grouped = EmbeddingStore(
        spec=target.spec,
        rows=target.rows().set_column(column, "group", [groups]),
        vectors=target.vectors(),
        facts=target.facts,
    )
    judging = set(Trial.of(selector_of(replace(world, target=grouped))).judging.tolist())
    sides = {}
    for row, group in enumerate(groups):
        if row != 8:  # a copy of 7: not searched for twice
            sides.setdefault(group, set()).add(row in judging)
    assert all(len(side) == 1 for side in sides.values())


def test_near_duplicates_that_were_left_out_stay_with_what_stayed(world):
    target = make_store("target", near_modes(60, 5))
    alone = _judging_half(target, LEFT_OUT.empty_table())
    apart = next((i, j) for i in range(60) for j in range(60) if alone[i] != alone[j])
    keys = [target.column("key")[i] for i in apart]
    row = {
        "source": "target",
        "key": keys[0],
        "code": "near-duplicate",
        "reason": "",
        "because_of": f"target/{keys[1]}",
    }
    together = _judging_half(target, pa.Table.from_pylist([row], schema=LEFT_OUT))
    assert together[apart[0]] == together[apart[1]]


def test_a_judging_image_that_lies_in_a_pool_is_not_chosen_there(world):
    """Even where the target's own images are no candidates, so that the pool's copy stands for the picture."""
    pixels = dict(zip(world.target.column("key"), world.target.column("pixels"), strict=True))
    copies = make_store("copies", np.asarray(world.target.vectors()), pixels=pixels)
    selector = selector_of(world, pools={"copies": copies, **world.pools}, include_target=False, exclude=())
    trial = Trial.of(selector)
    inside = trial.candidates.place[trial.candidates.rows_of("copies")]
    assert len(inside)
    assert not set(inside.tolist()) & set(trial.judging.tolist())


@pytest.mark.parametrize("change", ["methods", "rows", "shards"])
def test_no_order_and_no_shards_change_it(world, compared, change):
    methods = ["pool-gated", "near-first", "random"] if change == "methods" else ["near-first", "pool-gated"]
    other = world.shuffled(3) if change == "rows" else world.sharded(7) if change == "shards" else world
    assert compare(selector_of(other), methods).to_json() == compared.to_json()


def test_weights_reach_the_seen_half_alone(world, monkeypatch):
    seen = []

    def spy(candidates, ledger, *, seed):
        seen.append(candidates)
        return drawn(candidates, ledger, np.arange(len(candidates)), seed=seed, reason="all")

    add_method(monkeypatch, "spy", spy)
    labels = ["rare" if i % 4 == 0 else "common" for i in range(80)]
    column = world.target.rows().schema.get_field_index("label")
    rows = world.target.rows().set_column(column, "label", [labels])
    target = EmbeddingStore(spec=world.target.spec, rows=rows, vectors=world.target.vectors(), facts=world.target.facts)
    found = compare(selector_of(replace(world, target=target), weights={"rare": 10}), ["spy"])
    weights = seen[0].target_weights
    assert len(weights) == found.seen
    assert [w == 10 for w in weights] == [labels[row] == "rare" for row in seen[0].queries]
    assert any("count alike" in note for note in found.notes)


def test_money_is_told(world):
    terms = {"web": Terms(price="0.5"), "open": Terms(price="2")}
    found = compare(selector_of(world, terms=terms), ["near-first"])
    for contender in found.contenders:
        counts = contender.counts
        assert contender.cost == pytest.approx(0.5 * counts.get("web", 0) + 2 * counts.get("open", 0))


def test_a_small_target_cannot_judge_and_says_so(world):
    small = replace(world, target=make_store("target", near_modes(30, 5)))
    found = compare(selector_of(small, budget=20), ["near-first"])
    assert found.contenders == ()
    assert "both need 20" in found.reason
    assert found.words == (f"The methods could not be compared: {found.reason}",)


def test_a_half_without_weight_cannot_be_selected_for(world):
    judging = Trial.of(selector_of(world)).judging
    labels = ["only" if row == judging[0] else "other" for row in range(80)]
    column = world.target.rows().schema.get_field_index("label")
    rows = world.target.rows().set_column(column, "label", [labels])
    target = EmbeddingStore(spec=world.target.spec, rows=rows, vectors=world.target.vectors(), facts=world.target.facts)
    found = compare(selector_of(replace(world, target=target), weights={"other": 0}), ["near-first"])
    assert "has a weight above 0" in found.reason


def test_a_method_that_half_the_target_cannot_carry_has_its_reason(world, monkeypatch):
    def refuse(candidates, ledger, *, seed):
        raise UsageError("no labels here.")

    def nothing(candidates, ledger, *, seed):
        return Choice(rows=np.empty(0, np.int64), scores=np.empty(0), reasons=[], stopped="nothing is near")

    add_method(monkeypatch, "refuse", refuse)
    add_method(monkeypatch, "nothing", nothing)
    found = compare(selector_of(world), ["refuse", "nothing", "near-first"])
    assert [c.method for c in found.contenders] == ["near-first", "random", "nothing", "refuse"]
    assert found["refuse"].reason == "no labels here."
    assert "nothing is near" in found["nothing"].reason
    assert any("refuse chose nothing on half the target" in sentence for sentence in found.words)


def test_too_few_chosen_images_are_not_measured(world):
    found = compare(selector_of(world, budget=10, include_target=False), ["near-first"])
    assert found["near-first"].n == 10
    assert "needs at least 20" in found["near-first"].readings["vectors"].index.reason
    assert "near-first is not measured against random (The pool has 10 images" in found.words[0]
    assert found.best("vectors") is None
    assert Comparison.from_json(found.to_json()) == found


def test_unknown_methods_and_judges_are_refused(world, photos):
    with pytest.raises(UnknownNameError, match="selection method"):
        compare(selector_of(world), ["nearfirst"])
    with pytest.raises(UnknownNameError, match="encoder"):
        compare(selector_of(photos, encoder=None), ["near-first"], judges=["color-texture@9"])


# the yardstick


def drawn_pool(n, seed):
    rng = np.random.default_rng(seed)
    modes = np.where(rng.random(n) < 0.3, 4, rng.integers(0, 4, n))
    return (MODES[modes] + rng.normal(size=(n, 12)) * 0.6).astype(np.float32)


def measured(judging, pool, rows, tag=""):
    return judging.measure(make_store("pool", pool[np.sort(rows)], [f"{tag}{row}" for row in np.sort(rows)]))


def test_two_draws_of_the_same_pool_are_seldom_called_different():
    settled = 0
    for draw in range(30):
        judging = Yardstick.of(make_store("t", near_modes(60, 1000 + draw), [f"t{draw}-{i}" for i in range(60)]))
        pool, rng = drawn_pool(800, 5000 + draw), np.random.default_rng(draw)
        pair = [measured(judging, pool, rng.permutation(800)[:100], f"{draw}-") for _ in range(2)]
        gap = index_difference(*pair)
        settled += not gap.low <= 0 <= gap.high
    assert settled <= 4


def test_a_difference_turns_its_sign_with_its_sides_and_is_nothing_against_itself():
    judging = Yardstick.of(make_store("t", near_modes(60, 0)))
    pool, rng = drawn_pool(800, 1), np.random.default_rng(0)
    a, b = (measured(judging, pool, rng.permutation(800)[:200]) for _ in range(2))
    there, back, same = index_difference(a, b), index_difference(b, a), index_difference(a, a)
    assert (there.value, there.low) == pytest.approx((-back.value, -back.high))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert there.value == pytest.approx(a.reading.index.value - b.reading.index.value)
    assert readings({"random": a, "x": a}).methods["x"].verdict == "not settled"


def test_shared_images_make_a_difference_surer():
    judging = Yardstick.of(make_store("t", near_modes(60, 0)))
    pool = drawn_pool(800, 1)
    whole = measured(judging, pool, np.arange(400))
    nearly, apart = (measured(judging, pool, rows) for rows in (np.arange(20, 400), np.arange(400, 780)))
    assert index_difference(whole, nearly).se < 0.5 * index_difference(whole, apart).se


def test_fold_shares_make_up_the_jackknife_variance():
    judging = Yardstick.of(make_store("t", near_modes(60, 0)))
    found = measured(judging, drawn_pool(150, 2), np.arange(150))
    assert (_fold_shares(found) ** 2).sum() == pytest.approx(found.refits.pool_part.variance)


# judges


def paint(folder, colors, n, seed):
    """n noisy pictures in some colors."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(n):
        noise = rng.integers(-50, 50, (12, 12, 3))
        pixels = np.clip(np.array(colors[i % len(colors)]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{folder.name}{i:03d}.png")
    return folder


def as_another(folder):
    """The images as some other encoder sees them, whose vectors cost nothing here."""
    store = embed(folder, encoder="color-texture", out=None)
    spec = replace(store.spec, name="another")
    return EmbeddingStore(spec=spec, rows=store.rows(), vectors=store.vectors(), facts=store.facts)


@pytest.fixture
def photos(tmp_path):
    warm, cold = [(220, 60, 60), (230, 160, 40), (200, 90, 120)], [(40, 60, 220), (30, 180, 200)]
    target = as_another(paint(tmp_path / "target", warm, 90, 0))
    pools = {"warm": as_another(paint(tmp_path / "warm", warm, 60, 1))}
    pools["cold"] = as_another(paint(tmp_path / "cold", cold, 120, 2))
    return SimpleNamespace(target=target, pools=pools, exclude=(), folder=tmp_path)


def judged(photos, budget=40, **options):
    selector = selector_of(photos, budget, encoder=None, **options)
    return compare(selector, ["near-first"], judges=["color-texture"])


def test_a_judge_looks_at_the_pictures_itself(photos):
    found = judged(photos, include_target=False)
    assert found.encoders == ("another", "color-texture")
    (judge,) = found.judges
    assert "not meaning" in judge.limits
    reading = found["near-first"].readings
    assert reading["color-texture"].verdict == reading["another"].verdict == "nearer"
    assert "under judge color-texture: nearer than random" in found.words[0]
    # The other encoder is the judge by another name, so both read the same pictures alike but for float16.
    assert reading["color-texture"].index.value == pytest.approx(reading["another"].index.value, abs=0.2)


def test_the_selecting_encoder_does_not_judge_itself(photos):
    found = compare(selector_of(photos, budget=40, encoder=None), ["near-first"], judges=["another"])
    assert found.judges == (Judge(name="another", reason="it selected these images"),)
    assert found.encoders == ("another",)


def test_arrays_cannot_be_judged_and_say_so(compared):
    assert [judge.name for judge in compared.judges] == ["color-texture", "random"]
    assert all("without a source of pictures" in judge.reason for judge in compared.judges)
    assert compared.encoders == ("vectors",)


@pytest.mark.parametrize("what", ["gone", "changed", "vectors"])
def test_pictures_that_cannot_be_read_again_stop_the_judge_alone(photos, what):
    pools = photos.pools
    if what == "gone":
        for path in (photos.folder / "warm").iterdir():
            path.unlink()
    elif what == "changed":
        for path in (photos.folder / "warm").iterdir():
            Image.new("RGB", (12, 12)).save(path)
    else:
        warm = pools["warm"]
        pools = {**pools, "warm": EmbeddingStore(spec=warm.spec, rows=warm.rows(), vectors=warm.vectors())}
    found = judged(photos, 90, pools=pools)
    assert found["near-first"].readings["another"].verdict == "nearer"
    (judge,) = found.judges
    wanted = {"gone": "cannot be read again", "changed": "cannot be read again", "vectors": "without a source"}
    assert wanted[what] in judge.reason


def test_a_few_missing_pictures_do_not_stop_the_judge(photos):
    next((photos.folder / "cold").iterdir()).unlink()
    assert not judged(photos).judges[0].reason


def test_judged_figures_are_kept(photos, tmp_path, monkeypatch):
    first = judged(photos, work=tmp_path / "work")

    def fail(*args, **kwargs):
        raise AssertionError("looked again")

    monkeypatch.setattr(judges_module, "read_picture", fail)
    assert judged(photos, work=tmp_path / "work").to_json() == first.to_json()


def test_a_large_selection_is_judged_by_a_sample(photos, monkeypatch):
    monkeypatch.setattr(judges_module, "MOST", 30)
    found = judged(photos)["near-first"].readings
    assert found["color-texture"].distance.n == (30, 30)
    assert found["another"].distance.n[0] == 40


# in a folder


def test_a_comparison_is_kept_until_another_judge_is_meant(photos, monkeypatch, tmp_path):
    weights, made = Weights(tmp_path / "weights", monkeypatch), []

    def counting(*args, **kwargs):
        made.append(kwargs["judges"])
        return compare(*args, **kwargs)

    monkeypatch.setattr(comparison_module, "compare", counting)
    judge, selector = weights.run(seed=1), selector_of(photos, 40, encoder=None)

    def again(*judges):
        return audited(selector, "random", tmp_path / "out", judges=judges)[1].to_json()

    first = again(judge)
    assert (again(judge), len(made)) == (first, 1)
    weights.run(seed=2)  # other weights under the same name
    assert again(judge)["contenders"] != first["contenders"]
    again("color-texture")
    assert len(made) == 3


def test_that_a_target_is_too_small_is_kept_too(photos, monkeypatch, tmp_path):
    small = SimpleNamespace(target=photos.target.take(np.arange(30)), pools=photos.pools, exclude=())
    asked = (selector_of(small, 20, encoder=None), "random", tmp_path / "out")
    first = audited(*asked, judges=["color-texture"])[1]
    assert "both need 20" in first.reason
    monkeypatch.setattr(comparison_module, "compare", None)
    assert audited(*asked, judges=["color-texture"])[1] == first


def test_a_judge_that_never_can_judge_is_not_asked_again(photos, monkeypatch, tmp_path):
    asked = (selector_of(photos, 40, encoder=None), "random", tmp_path / "out")
    first = audited(*asked, judges=["another"])[1]
    assert first.judges[0].reason == "it selected these images"
    monkeypatch.setattr(comparison_module, "compare", None)
    assert audited(*asked, judges=["another"])[1] == first


# the type


def test_it_reads_back_from_its_folder(compared, tmp_path):
    compared.save(tmp_path)
    assert Comparison.open(tmp_path) == compared
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["schema"] == "curate.comparison/2"
    assert document["words"] == list(compared.words)
    (tmp_path / "comparison.json").write_text('{"schema": "curate.comparison/9"}')
    with pytest.raises(CorruptError, match=r"curate\.comparison/9"):
        Comparison.open(tmp_path)


@pytest.mark.parametrize(
    "text", ["[]", '{"schema": "curate.comparison/2"}', '{"schema": "curate.comparison/2", "contenders": 3}']
)
def test_a_damaged_one_is_refused_in_words(text, tmp_path):
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(CorruptError, match=r"comparison\.json"):
        Comparison.open(tmp_path)


def reading_of(value, gain=None):
    figure = Estimate(value=value, low=value - 1, high=value + 1, se=0.5)
    return Reading(index=figure, distance=figure, mmd=figure, coverage=figure, against_random=gain)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "words"),
    [
        (-15.0, -9.0, "nearer", "near-first is nearer than random (index 8.1 against 20.3, settled)."),
        (3.0, 9.0, "farther", "near-first is farther than random (index 8.1 against 20.3, settled)."),
        (
            -3.0,
            9.0,
            "not settled",
            "near-first is not settled against random (index 8.1 against 20.3; the difference is \N{MINUS SIGN}3.0 to "
            "+9.0).",
        ),
    ],
)
def test_words(low, high, verdict, words):
    gain = Estimate(value=(low + high) / 2, low=low, high=high)
    ours = Contender(method="near-first", n=9, readings={"lite0": reading_of(8.1, gain)})
    blind = Contender(method="random", n=9, readings={"lite0": reading_of(20.3)})
    found = Comparison(encoder="lite0", seen=20, judging=20, contenders=(ours, blind))
    assert found["near-first"].readings["lite0"].verdict == verdict
    assert found.words == (words,)
