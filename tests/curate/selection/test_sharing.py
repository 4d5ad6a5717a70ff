"""Several wishes of the same inputs: the same selections as one by one, and what they share is found once."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from selection_data import make_world

import curate.selection._gather as gather
import curate.selection._small_pictures as small_pictures
from curate.selection._directions import Whitening
from curate.selection._path import Wish
from curate.selection._select import open_selector
from curate.selection._trial import Trial
from curate.terms import Budget, Terms
from embeddings import embed
from embeddings.errors import UnknownNameError

SHUT = Terms(cap=0)
WISHES = {
    "plain": {"budget": 30},
    "another seed": {"budget": 30, "seed": 1},
    "fewer": {"budget": 12},
    "no own": {"budget": 30, "include_target": False},
    "one pool": {"budget": 20, "terms": {"far": SHUT}},
    "a cap": {"budget": 30, "terms": {"web": Terms(cap=9)}},
    "past the knee": {"budget": 30, "past_knee": True},
    "a far part": {"budget": Budget(images=30, far=0.3), "past_knee": True},
    "near copies stay": {"budget": 30, "near_duplicates": False},
    "prices": {"budget": 30, "terms": {"web": Terms(price="2")}},
    "plain again": {"budget": 30},
}
METHODS = ("near-first", "random", "simcore")


@pytest.fixture(scope="module")
def world():
    return make_world()


def opened(world, **wish):
    options = {"exclude": world.exclude, "report": world.report, "work": None}
    return open_selector(world.target, world.pools, **options, **wish)


def told(selection):
    return selection.table.to_pydict(), selection.left_out.to_pydict(), selection.facts, selection.digest


def test_every_wish_gets_what_it_gets_alone(world):
    shared = opened(world, budget=1)
    for name, wish in WISHES.items():
        selector, alone = shared.asking(Wish.of(**wish)), opened(world, **wish)
        for method in METHODS:
            assert told(selector.select(method)) == told(alone.select(method)), (name, method)


def test_wishes_that_offer_the_same_images_share_their_candidates(world, monkeypatch):
    calls, plain = Counter(), gather.gather
    monkeypatch.setattr(gather, "gather", lambda *args, **kwargs: calls.update(made=1) or plain(*args, **kwargs))
    shared = opened(world, budget=1)

    def candidates(name):
        return shared.asking(Wish.of(**WISHES[name])).gathered.candidates

    first = candidates("plain")
    for name in ("another seed", "fewer", "a cap", "past the knee"):
        assert candidates(name).source is first.source, name
    assert calls["made"] == 1
    for count, name in enumerate(["no own", "one pool", "near copies stay", "prices", "plain"], 2):
        assert candidates(name).source is not first.source
        assert calls["made"] == count  # the last alone is kept
    with pytest.raises(UnknownNameError, match="nowhere"):
        _ = shared.asking(Wish.of(budget=30, terms={"nowhere": Terms(cap=9)})).gathered


def test_what_the_images_alone_decide_is_found_once_whatever_is_wished(world, monkeypatch):
    fits, plain = Counter(), Whitening.fit.__func__
    monkeypatch.setattr(Whitening, "fit", classmethod(lambda cls, x: fits.update(made=1) or plain(cls, x)))
    shared = opened(world, budget=30)
    for seed in range(3):
        shared.asking(Wish.of(budget=30, seed=seed)).select("near-first")
    assert fits["made"] == 1
    candidates = shared.gathered.candidates
    assert candidates.asked(far=0.5).pool_sample is candidates.pool_sample
    np.testing.assert_array_equal(candidates.pool_center, candidates.pool_sample.mean(axis=0, dtype=np.float64))


def test_other_images_share_nothing(world):
    candidates = opened(world, budget=30).gathered.candidates
    fewer = replace(candidates, source=candidates.source[:-50], place=candidates.place[:-50])
    assert len(candidates.pool_sample) - len(fewer.pool_sample) == 50
    assert len(candidates.asked(far=0.5).pool_sample) == len(candidates.pool_sample)
    trial = Trial.of(opened(world, budget=30, include_target=False))
    np.testing.assert_array_equal(trial.candidates.pool_sample, replace(trial.candidates).pool_sample)


def test_pictures_are_read_once_for_all_wishes(encode, image_folder, monkeypatch):
    shots = np.random.default_rng(0).integers(20, 200, (12, 32, 32, 3)).astype(np.uint8)
    lighter = {f"{i}-lighter.png": encode(shot + 2) for i, shot in enumerate(shots)}
    pool = image_folder({f"{i}.png": encode(shot) for i, shot in enumerate(shots)} | lighter, "pool")
    target = image_folder({f"{i}.png": encode(shot + 1) for i, shot in enumerate(shots[:4])}, "target")
    stores = [embed(folder, encoder="random", out=None) for folder in (target, pool)]
    reads, plain = Counter(), small_pictures.load_image

    def counted(source, uri, **options):
        reads[id(source), uri] += 1
        return plain(source, uri, **options)

    monkeypatch.setattr(small_pictures, "load_image", counted)

    def selector(**wish):
        return open_selector(stores[0], {"pool": stores[1]}, budget=5, encoder="random", work=None, **wish)

    shared = selector()
    both = [one.gathered.facts for one in (shared, shared.asking(Wish.of(budget=5, include_target=False)))]
    assert set(reads.values()) == {1}
    assert both == [selector(include_target=own).gathered.facts for own in (True, False)]
    assert [facts["pictures_read"] for facts in both] == [28, 24]
