"""Rows to listings: order, repeated keys, selectors, roles and the JSON of other columns."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import SourceError
from embeddings.sources import LISTING, REJECTED, Address
from embeddings.sources.rows import REPEATED, Rows, json_objects, key_order, listing_of, reject_repeats

texts = st.text(max_size=6)


def make(keys: list[str], *, reasons: list[str | None] | None = None, **columns: list[str | None]) -> Rows:
    n = len(keys)
    rows = Rows(
        key=pa.array(keys, pa.string()),
        uri=pa.array([f"#{key}" for key in keys], pa.string()),
        size=pa.array(range(n), pa.int64()),
        stamp=pa.array(["1"] * n, pa.string()),
        reason=pa.array(reasons or [None] * n, pa.string()),
        columns={name: pa.array(values, pa.string()) for name, values in columns.items()},
    )
    return reject_repeats(rows.take(key_order(rows.key)))


def address(**parts: object) -> Address:
    return Address(path="x", **parts)


@given(keys=st.lists(texts))
def test_keys_sort_as_python_sorts_them(keys: list[str]) -> None:
    order = key_order(pa.array(keys, pa.string()))
    assert [keys[i] for i in order] == sorted(keys)


@given(columns=st.dictionaries(texts, st.lists(st.none() | texts, min_size=3, max_size=3)))
def test_meta_is_the_json_of_the_row(columns: dict[str, list[str | None]]) -> None:
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    found = json_objects(arrays, 3).to_pylist()
    if not columns:
        assert found == [None] * 3
        return
    for i, text in enumerate(found):
        assert json.loads(text) == {name: values[i] for name, values in columns.items()}


def test_meta_is_spelled_alike_whatever_the_other_rows_hold() -> None:
    plain = json_objects({"b": pa.array(["é"]), "a": pa.array(["1"])}, 1)[0].as_py()
    assert plain == '{"a": "1", "b": "é"}'
    assert json_objects({"b": pa.array(["é", '"']), "a": pa.array(["1", None])}, 2)[0].as_py() == plain


def test_a_listing_is_sorted_typed_and_loses_nothing() -> None:
    rows = make(["b", "a", "c", "a"], reasons=[None, None, "broken", None], label=["1", "2", "3", "4"])
    listing = listing_of(rows, address(), ignored={".txt": 2})
    assert listing.images.schema == LISTING
    assert listing.rejected.schema == REJECTED
    assert listing.images["key"].to_pylist() == ["a", "b"]
    assert listing.images["label"].to_pylist() == ["2", "1"]
    assert listing.rejected.to_pylist() == [
        {"key": "a", "uri": "#a", "reason": REPEATED},
        {"key": "c", "uri": "#c", "reason": "broken"},
    ]
    assert listing.ignored == {".txt": 2}


def test_an_unusable_row_does_not_take_the_key_of_a_usable_one() -> None:
    listing = listing_of(make(["a", "a"], reasons=["broken", None], label=["0", "1"]), address())
    assert listing.images["label"].to_pylist() == ["1"]
    assert listing.rejected["reason"].to_pylist() == ["broken"]


@given(
    entries=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.none() | st.sampled_from("12"))),
    seed=st.integers(0, 9),
)
def test_the_order_of_rows_tells_nothing(entries: list[tuple[str, str, str | None]], seed: int) -> None:
    if not entries:
        return

    def listed(order: np.ndarray) -> tuple[list[dict], list[dict]]:
        keys, labels, lots = zip(*(entries[i] for i in order), strict=True)
        found = listing_of(make(list(keys), label=list(labels), lot=list(lots)), address())
        return found.images.drop_columns("size").to_pylist(), found.rejected.to_pylist()

    order = np.arange(len(entries))
    assert listed(order) == listed(np.random.default_rng(seed).permutation(order))


COLUMNS = {
    "label": ["cat", "cat", "dog", None],
    "half": ["A", "B", "A", "B"],
    "lot": ["1", "2", "", "1"],
}


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ((("half", ("A",)),), "ac"),
        ((("half", ("A", "B")),), "abcd"),
        ((("half", ("A", "C")),), "ac"),
        ((("half", ("A",)), ("label", ("dog",))), "c"),
        ((("lot", ("",)),), "c"),
        ((("label", ("",)),), "d"),  # empty and missing are one
        ((("label", ("", "dog")),), "cd"),
    ],
)
def test_where(where: tuple[tuple[str, tuple[str, ...]], ...], kept: str) -> None:
    listing = listing_of(make(list("abcd"), **COLUMNS), address(where=where))
    assert "".join(listing.images["key"].to_pylist()) == kept


def test_where_counts_refused_rows_too() -> None:
    rows = make(list("abcd"), reasons=[None, "broken", "broken", None], **COLUMNS)
    listing = listing_of(rows, address(where=(("half", ("A",)),)))
    assert listing.images["key"].to_pylist() == ["a"]
    assert listing.rejected["key"].to_pylist() == ["c"]


def test_roles_move_and_nothing_is_lost() -> None:
    rows = make(list("abcd"), **COLUMNS)
    plain = listing_of(rows, address()).images.to_pylist()[0]
    assert (plain["label"], plain["group"], json.loads(plain["meta"])) == ("cat", None, {"half": "A", "lot": "1"})
    moved = listing_of(rows, address(label="half", group="lot")).images.to_pylist()[0]
    assert (moved["label"], moved["group"]) == ("A", "1")
    assert json.loads(moved["meta"]) == {"half": "A", "label": "cat", "lot": "1"}


def test_where_sees_the_columns_as_they_stand() -> None:
    listing = listing_of(make(list("abcd"), **COLUMNS), address(label="half", where=(("label", ("dog",)),)))
    assert listing.images.select(["key", "label"]).to_pylist() == [{"key": "c", "label": "A"}]


def test_an_empty_label_or_group_is_none() -> None:
    rows = make(list("abc"), label=["x", "", None], group=["", "g", None])
    listing = listing_of(rows, address())
    assert listing.images["label"].to_pylist() == ["x", None, None]
    assert listing.images["group"].to_pylist() == [None, "g", None]
    kept = listing_of(rows, address(where=(("label", ("",)),)))
    assert kept.images["key"].to_pylist() == ["b", "c"]


@pytest.mark.parametrize("parts", [{"label": "halve"}, {"group": "halve"}, {"where": (("halve", ("A",)),)}])
def test_an_unknown_column_names_the_known_ones(parts: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="No column 'halve' in x; columns: half, label, lot") as caught:
        listing_of(make(list("abcd"), **COLUMNS), address(**parts))
    assert caught.value.hint == "Did you mean half?"


def test_nothing_left_names_the_values_there_are() -> None:
    with pytest.raises(SourceError, match="Nothing in x#half=C,half=D has half=C or D") as caught:
        listing_of(make(list("abcd"), **COLUMNS), address(where=(("half", ("C", "D")),)))
    assert caught.value.hint == "Values of 'half' here: 'A' (2), 'B' (2)."


def test_two_conditions_that_never_meet() -> None:
    with pytest.raises(SourceError, match="has label=dog") as caught:
        listing_of(make(list("abcd"), **COLUMNS), address(where=(("half", ("B",)), ("label", ("dog",)))))
    assert "'cat' (1)" in (caught.value.hint or "")


def test_nothing_usable_counts_the_reasons() -> None:
    rows = make(list("abc"), reasons=["no such file", "no image", "no such file"])
    with pytest.raises(SourceError, match=r"None of the 3 rows of x .*: no such file \(2\), no image \(1\)") as caught:
        listing_of(rows, address())
    assert "relative to the folder" in (caught.value.hint or "")
