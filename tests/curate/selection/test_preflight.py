"""Impossible wishes are refused from listings alone; what passes may still be refused later, never the reverse."""

import numpy as np
import pytest

from curate import selection
from curate.selection import _preflight, require_possible
from curate.selection._limits import are_licensed
from curate.terms import Budget, Terms, split_terms
from embeddings.errors import CorruptError, SourceError, UsageError
from embeddings.pipeline import entry
from embeddings.pipeline.shards import CLAIM


@pytest.fixture
def sources(image_folder, image_table, pictures, monkeypatch):
    """A target of 12 in two classes, and a pool of 9 with licenses and prices; embedding is impossible."""

    def never(*args, **kwargs):
        raise AssertionError("something was embedded")

    monkeypatch.setattr(entry, "_job", never)
    licenses = ["CC-BY", "cc0", None] * 3
    prices = [str(i) for i in range(9)]
    table = image_table(pictures(9, seed=2), "web.parquet", license=licenses, cost=prices)
    return {"target": str(image_folder(pictures(12, seed=1), "mine")), "web": str(table)}


def ask(sources, budget, *, terms=None, **options):
    require_possible(sources["target"], {"web": sources["web"]}, budget=Budget.parse(budget), terms=terms, **options)


@pytest.mark.parametrize(
    ("budget", "terms", "options", "said"),
    [
        ("5", {}, {"weights": {"catt": 2}}, "Unknown label or group of the target 'catt'.\nDid you mean cat?"),
        ("5", {}, {"weights": {"cat": 0, "dog": 0}}, "Every target image has weight 0"),
        ("30", {}, {}, "The budget is 30 images, but the sources list 21 that may be chosen."),
        ("15", {"target": Terms(cap=0)}, {}, "the sources list 9 that may be chosen."),
        ("money=3", {}, {}, "no source has a price"),
        ("money=3", {"web": Terms(price="label")}, {}, "9 prices of 'web' are not numbers"),
        ("money=3", {"web": Terms(price="costs")}, {}, "No column 'costs'"),
        ("money=9", {"web": Terms(price="cost", floor=6)}, {}, "need at least 15 money, the budget is 9: 6 short"),
        ("5", {"web": Terms(floor=10)}, {}, "Source web has a floor of 10, but 9 images can be chosen from it"),
        ("5", {"web": Terms(floor=6)}, {}, "need at least 6 images, the budget is 5"),
        ("9,min-per-label=8", {}, {}, "7 short"),
        ("5", {"wbe": Terms(cap=1)}, {}, "Unknown source that terms are given for 'wbe'"),
        ("5,licenses=cc-0", {}, {}, "No image of the pools has the license 'cc-0'.\nDid you mean cc0?"),
        ("5,licenses=cc0+ccby", {}, {}, "has the license 'ccby'.\nDid you mean CC-BY?"),
        ("5,licenses=mit", {}, {}, "Stated are: CC-BY, cc0."),
        ("5", {}, {"exclude": ["absent"]}, "No folder or file at"),
        ("5", {}, {"methods": ["near-frist"]}, "Did you mean near-first"),
    ],
)
def test_refused_before_anything_is_embedded(sources, budget, terms, options, said):
    with pytest.raises(UsageError) as caught:
        ask(sources, budget, terms=terms, **options)
    assert said in str(caught.value)


def test_what_may_be_possible_passes(sources):
    ask(sources, "21", weights={"cat": 3}, methods=["label-aware"])
    ask(sources, "5,licenses=CC-BY+CC BY+cc-0+cc0")  # spelled in every way
    ask(sources, "5,licenses=CC0+cc-by-sa")  # one of them is there; the other may be meant for other pools
    ask(sources, "bytes=1,max-per-label=3", terms={"web": Terms(floor=2)})  # sizes are known only after reading
    ask({**sources, "target": f"{sources['target']}#tiles:8"}, "5000")  # how many tiles is not known


def test_labels_that_a_method_needs_are_asked_for(sources):
    with pytest.raises(UsageError, match="label-aware needs labels of the target"):
        require_possible(np.eye(3), {"web": sources["web"]}, budget=Budget(images=2), methods=["label-aware"])
    with pytest.raises(UsageError, match="No pool to select from"):
        require_possible(sources["target"], {}, budget=Budget(images=2))


def test_an_unfinished_store_and_a_missing_pool_say_what_they_are(sources, tmp_path):
    with pytest.raises(SourceError, match="No folder or file"):
        ask({**sources, "web": str(tmp_path / "absent")}, "5")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / CLAIM).write_text("{}")
    with pytest.raises(CorruptError, match="is an unfinished store"):
        ask({**sources, "web": str(tmp_path / "half")}, "5")


def test_licenses_compare_without_case():
    assert are_licensed(["CC0", "cc-by", "", "mit"], ["cc0", "CC-BY"]).tolist() == [True, True, False, False]


def test_the_listing_refuses_nothing_that_the_selection_allows(image_folder, pictures, tmp_path):
    target = str(image_folder(pictures(24, seed=1), "mine"))
    web, terms = split_terms(f"{image_folder(pictures(24, seed=2), 'web')}#floor:3,cap:6,price:1")
    asked = {"budget": Budget(images=12, money=9, max_per_label=8), "terms": {"web": terms}}
    require_possible(target, {"web": web}, **asked)
    chosen = selection.select(
        target,
        {"web": web},
        method="random",
        encoder="lite0@32",
        work=tmp_path / "work",
        near_duplicates=False,
        **asked,
    )
    assert 3 <= chosen.counts()["web"] <= 6
    assert _preflight._letters("CC BY-4.0") == "ccby40"
