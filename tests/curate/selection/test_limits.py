import json

import numpy as np
import pyarrow as pa
import pytest
from selection_data import labeled, make_store, near_modes

from curate.selection._gather import gather
from curate.selection._inputs import Inputs
from curate.selection._limits import NO_LABEL, licenses_of, open_ledger, prices_of, weights_of
from curate.terms import Budget, Terms
from embeddings.errors import SourceError, UnknownNameError, UsageError
from embeddings.store import EmbeddingStore


def with_columns(store, **columns):
    """The store, with roles (label, group, bytes) replaced or other columns kept beside."""
    rows, meta = store.rows(), {}
    for name, values in columns.items():
        if name in rows.column_names:
            kind = rows.schema.field(name)
            rows = rows.set_column(rows.schema.get_field_index(name), kind, pa.array(values, kind.type))
        else:
            meta[name] = values
    if meta:
        lines = [json.dumps(dict(zip(meta, row, strict=True))) for row in zip(*meta.values(), strict=True)]
        rows = rows.set_column(rows.schema.get_field_index("meta"), "meta", pa.array(lines))
    return EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors(), facts=store.facts)


@pytest.fixture
def web():
    return with_columns(
        make_store("web", near_modes(6, 1)),
        label=["a", "a", "a", "b", "b", None],
        group=["x", "x", "x", "y", None, None],
        cost=["1", 2, 0.5, "4", "0", 3],
        license=["cc0", "cc-by", None, "cc0", "", "nc"],
    )


def candidates_of(web, terms=None):
    inputs = Inputs(stores={"target": make_store("target", near_modes(2, 0)), "web": web}, excluded=[])
    return gather(inputs, terms={"target": Terms(cap=0), **(terms or {})}).candidates


def refusal(candidates, budget, terms=None):
    with pytest.raises(UsageError) as caught:
        open_ledger(candidates, Budget.parse(budget), terms or {})
    assert caught.value.hint
    return caught.value


def test_prices_are_one_for_all_or_a_column(web):
    assert prices_of(web, "web", Terms()).tolist() == [0] * 6
    assert prices_of(web, "web", Terms(price="0.02")).tolist() == [0.02] * 6
    assert prices_of(web, "web", Terms(price="cost")).tolist() == [1, 2, 0.5, 4, 0, 3]


@pytest.mark.parametrize("bad", ["much", None, -1, "nan", "inf"])
def test_a_price_that_is_none_is_refused_in_words(web, bad):
    broken = with_columns(web, cost=["1", bad, "2", bad, "3", "4"])
    with pytest.raises(UsageError) as caught:
        prices_of(broken, "web", Terms(price="cost"))
    expected = f"2 prices of 'web' are not numbers of 0 or more; the first is {bad!r}."
    assert caught.value.message == expected
    assert "price:0.02" in caught.value.hint
    with pytest.raises(UsageError, match="6 prices of 'web'"):
        prices_of(web, "web", Terms(price="-1"))
    with pytest.raises(SourceError, match="No column 'kost'"):
        prices_of(web, "web", Terms(price="kost"))


def test_licenses_are_a_class_or_a_column(web):
    assert licenses_of(web, Terms()) == ["cc0", "cc-by", "", "cc0", "", "nc"]
    assert licenses_of(web, Terms(license="cost"))[:2] == ["1", "2"]
    assert licenses_of(web, Terms(license="mit")) == ["mit"] * 6
    assert licenses_of(make_store("bare", near_modes(2, 1)), Terms()) == ["", ""]


def test_weights_go_by_label_group_or_column_and_multiply(web):
    rows = np.array([0, 1, 3, 4, 5])
    assert weights_of(web, rows, {}) is None
    assert weights_of(web, rows, {"a": 10}).tolist() == [10, 10, 1, 1, 1]
    assert weights_of(web, rows, {"a": 10, "x": 0.5, "license:cc0": 3}).tolist() == [15, 5, 3, 1, 1]
    with pytest.raises(UnknownNameError, match="label or group of the target 'c'"):
        weights_of(web, rows, {"c": 2})
    with pytest.raises(UnknownNameError, match="license:gpl"):
        weights_of(web, rows, {"license:gpl": 2})
    with pytest.raises(UsageError, match="Every target image has weight 0"):
        weights_of(web, rows[:2], {"a": 0})
    with pytest.raises(UnknownNameError, match="has none"):
        weights_of(make_store("bare", near_modes(2, 1)), np.arange(2), {"a": 2})


def test_a_weight_misspelled_names_the_nearest_label_however_many_groups_there_are():
    names = [f"g{i:03d}" for i in range(200)]
    crowd = with_columns(make_store("crowd", near_modes(200, 1)), label=["defect", *["good"] * 199], group=names)
    with pytest.raises(UnknownNameError) as caught:
        weights_of(crowd, np.arange(200), {"defekt": 2})
    assert caught.value.hint == "Did you mean defect?"
    with pytest.raises(UnknownNameError) as caught:
        weights_of(crowd, np.arange(200), {"x": 2})
    assert caught.value.hint == "Known: defect, good."


def test_a_ledger_holds_what_budget_and_terms_say(web):
    web, terms = with_columns(web, bytes=[10, 20, 30, 40, 50, 60]), {"web": Terms(price="cost", cap=5)}
    ledger = open_ledger(candidates_of(web, terms), Budget.parse("6,bytes=1KB,money=9,max-per-label=2"), terms)
    assert {name: amount["most"] for name, amount in ledger.spent().items()} == {"images": 6, "bytes": 1000, "money": 9}
    assert ledger.walk(np.arange(6)).tolist() == [0, 1, 3, 4]  # the third a is one too many, the last too dear
    used = {name: amount["used"] for name, amount in ledger.spent().items()}
    assert used == {"images": 4, "bytes": 120, "money": 7}
    assert ledger.full() == ["label a: cap 2"]


def test_images_without_a_label_are_a_class_those_without_a_group_one_each(web):
    by_label = open_ledger(candidates_of(web), Budget.parse("6,max-per-label=1"), {})
    assert by_label.walk(np.arange(6)).tolist() == [0, 3, 5]
    by_group = open_ledger(candidates_of(web), Budget.parse("6,max-per-group=1"), {})
    assert by_group.walk(np.arange(6)).tolist() == [0, 3, 4, 5]
    several = open_ledger(
        candidates_of(with_columns(web, label=[None] * 3 + ["b"] * 3)), Budget.parse("6,max-per-label=1"), {}
    )
    several.walk(np.arange(6))
    assert several.full() == [f"label {NO_LABEL}: cap 1", "label b: cap 1"]


def test_equal_groups_of_two_sources_are_two():
    stores = {name: labeled(make_store(name, near_modes(42, i))) for i, name in enumerate(["target", "web"])}
    candidates = gather(Inputs(stores=stores, excluded=[]), terms={}).candidates
    ledger = open_ledger(candidates, Budget.parse("84,max-per-group=1"), {})
    assert len(ledger.walk(np.arange(84))) == 2 * 41  # image 41 is of the group of image 1
    assert "group target/group 1: cap 1" in ledger.full()


@pytest.mark.parametrize(
    ("budget", "terms", "found", "hint"),
    [
        ("6", {"floor": 9}, "Source web has a floor of 9, but 6 images can be chosen from it: 3 short.", "at most 6"),
        (
            "6,max-per-group=1",
            {"floor": 5},
            "Source web has a floor of 5, but 4 images can be chosen from it under the caps per group: 1 short.",
            "raise the caps",
        ),
        (
            "6,max-per-label=1",
            {"floor": 4},
            "Source web has a floor of 4, but 3 images can be chosen from it under the caps per label: 1 short.",
            "at most 3",
        ),
        (
            "6,min-per-label=3",
            {},
            "Label b has a floor of 3, but 2 images can be chosen from it: 1 short.",
            "at most 2",
        ),
        (
            "3",
            {"floor": 4},
            "The floors per source need at least 4 images, the budget is 3: 1 short.",
            "Lower the floors",
        ),
        (
            "money=1",
            {"floor": 3, "price": "cost"},
            "The floors per source need at least 1.5 money, the budget is 1: 0.5 short.",
            "raise the budget",
        ),
        (
            "bytes=2GB",
            {},
            "A budget in bytes was given, but the sizes of the images of web are not known.",
            "in images",
        ),
        ("money=2", {}, "A budget in money was given, but no source has a price.", "#price:0.02"),
        (
            "money=2",
            {"price": "3"},
            "The budget is 2 in money, but the cheapest candidate needs 3.",
            "Raise the budget",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_short(web, budget, terms, found, hint):
    said = {"web": Terms(**terms)}
    error = refusal(candidates_of(web, said), budget, said)
    assert error.message == found
    assert hint in error.hint


def test_a_limit_per_label_needs_labels():
    error = refusal(candidates_of(make_store("web", near_modes(6, 1))), "6,max-per-label=1")
    assert error.message == "A limit per label was given, but no candidate has a label."
    assert "SOURCE#label:COLUMN" in error.hint
