import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.terms import ORDERS, Budget, Terms, parse_weights, split_terms
from embeddings.errors import UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5000", Budget(images=5000)),
        ("5_000", Budget(images=5000)),
        (" images = 7 , far = 0.2 ", Budget(images=7, far=0.2)),
        ("images=5000,bytes=2GB,money=200", Budget(images=5000, bytes=2 * 10**9, money=200.0)),
        ("hours=3,rate=450,epochs=100", Budget(hours=3.0, rate=450.0, epochs=100.0)),
        ("9,order=near-last", Budget(images=9, order="near-last")),
        (
            "9,max-per-label=5,min-per-label=2,max_per_group=1",
            Budget(images=9, **dict.fromkeys(["max_per_label"], 5), min_per_label=2, max_per_group=1),
        ),
        ("9,licenses=cc0+cc-by", Budget(images=9, licenses=("cc-by", "cc0"))),
        ("bytes=1.5 mb", Budget(bytes=1_500_000)),
        ("bytes=700", Budget(bytes=700)),
        ("bytes=3KB,images=2,", Budget(bytes=3000, images=2)),
    ],
)
def test_a_budget_reads_as_it_is_written(text, budget):
    assert Budget.parse(text) == Budget.of(text) == Budget.of(budget) == budget


@pytest.mark.parametrize(
    ("text", "found", "hint"),
    [
        ("", "The budget has no limit.", "Give one of images, bytes, money, hours."),
        ("far=0.2", "The budget has no limit.", "Give one of"),
        ("0", "images is 0; wanted a whole number, at least 1.", "images=500"),
        ("-3", "images is -3; wanted", "images=500"),
        ("ten", "images is 'ten'; wanted a whole number.", "images=500"),
        ("5,000", "The budget '5,000' says images twice.", "without commas"),
        ("money=1,money=2", "says money twice", "Keep one."),
        ("money=0", "money is 0.0; wanted a number above 0.", "money=2.5"),
        ("money=nan", "money is nan; wanted", "money=2.5"),
        ("money=inf", "money is inf; wanted", "money=2.5"),
        ("money=much", "money is 'much'; wanted a number.", "money=2.5"),
        ("bytes=2GiB", "bytes is '2GiB'; wanted bytes, KB, MB, GB or TB.", "bytes=2GB"),
        ("bytes=inf", "bytes is 'inf'; wanted", "bytes=2GB"),
        ("bytes=-1GB", "bytes is '-1GB'; wanted", "bytes=2GB"),
        ("bytes=0", "bytes is 0; wanted a whole number, at least 1.", "bytes=500"),
        ("hours=3", "needs to know how many images that is", "hours=3,rate=450,epochs=100"),
        ("hours=0.001,rate=1,epochs=100", "0.001 GPU-hours at 1 images/s do not show one", "Raise hours"),
        ("hours=1e300,rate=1e300,epochs=1", "show inf images 1 times", "Check hours"),
        ("9,max-per-label=1" + "0" * 20, "wanted a whole number, at most 9,007,199,254,740,992.", "max_per_label=500"),
        ("9,far=1", "far is 1.0; wanted a share of the images, 0 to 1.", "far=0.2"),
        ("9,far=nan", "far is nan; wanted a share", "far=0.2"),
        ("9,order=far-first", "Unknown order 'far-first'.", "Did you mean near-first"),
        ("9,max-per-lable=5", "Unknown limit of a budget 'max_per_lable'.", "Did you mean max-per-label"),
        ("9,max-per-label=2,min-per-label=5", "max_per_label is 2, below min_per_label, 5.", "Change one."),
    ],
)  # fmt: skip
def test_a_budget_that_makes_no_sense_is_refused_in_words(text, found, hint):
    with pytest.raises(UsageError) as caught:
        Budget.parse(text)
    assert found in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("images", [True, 2.5, "x", None, 0])
def test_a_number_of_images_is_whole(images):
    with pytest.raises(UsageError):
        Budget.of(images) if images is not None else Budget(images=images)


def test_licenses_are_names_in_any_order():
    assert Budget(images=1, licenses=("b", "a", "b")).licenses == ("a", "b")
    for wrong in ("cc0", (1,), None):
        with pytest.raises(UsageError, match="licenses is"):
            Budget(images=1, licenses=wrong)


@given(hours=st.floats(0.1, 100), rate=st.floats(1, 1e4), epochs=st.floats(0.1, 100), images=st.integers(1, 10**6))
def test_gpu_hours_are_images_that_can_be_shown_so_often(hours, rate, epochs, images):
    budget = Budget(hours=hours, rate=rate, epochs=epochs)
    assert (
        budget.most_images * epochs <= hours * 3600 * rate * (1 + 1e-9) < (budget.most_images + 1) * epochs * (1 + 1e-9)
    )
    both = Budget(hours=hours, rate=rate, epochs=epochs, images=images)
    assert both.most_images == min(images, budget.most_images)


def test_gpu_hours_are_exact_where_they_should_be():
    assert Budget(hours=3, rate=450, epochs=100).most_images == 48_600
    assert Budget(hours=0.1, rate=10, epochs=1.2).most_images == 3000
    assert Budget(money=5).most_images is None


@given(
    st.builds(
        Budget,
        images=st.integers(1, 10**9),
        money=st.none() | st.floats(0.01, 1e6),
        far=st.floats(0, 0.99),
        order=st.sampled_from(ORDERS),
        min_per_label=st.none() | st.integers(1, 5),
        max_per_label=st.none() | st.integers(5, 9),
        licenses=st.lists(st.sampled_from(["cc0", "cc-by", "mit"])).map(tuple),
    )
)
def test_a_budget_survives_its_json(budget):
    document = budget.to_json()
    assert Budget(**document) == budget
    assert all(value is not None for value in document.values())


@pytest.mark.parametrize(
    ("address", "path", "terms"),
    [
        ("web/", "web/", Terms()),
        ("web/#half=B,label:kind", "web/#half=B,label:kind", Terms()),
        ("web/#price:0.02", "web/", Terms(price="0.02")),
        (
            "web/#half=B,price:cost,license:cc-by,label:kind,cap:500,floor:50,of:1_000",
            "web/#half=B,label:kind",
            Terms(price="cost", license="cc-by", cap=500, floor=50, of=1000),
        ),
        ("a.parquet#cap:0", "a.parquet", Terms(cap=0)),
        ("web/#cap=3", "web/#cap=3", Terms()),  # a column of that name
        ("odd#name/#price:1", "odd#name/", Terms(price="1")),
    ],
)
def test_terms_are_parted_from_the_address(address, path, terms):
    assert split_terms(address) == (path, terms)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("a#cap:x", "cap is 'x'; wanted a whole number."),
        ("a#cap:-1", "cap is -1; wanted a whole number, at least 0."),
        ("a#cap:1" + "0" * 20, f"cap is 1{'0' * 20}; wanted a whole number, at most 9,007,199,254,740,992."),
        ("a#of:0", "of is 0; wanted a whole number, at least 1."),
        ("a#cap:1,cap:2", "'a#cap:1,cap:2' says cap twice."),
        ("a#price:", "'a#price:' says no price."),
        ("a#cap:2,floor:3", "A cap of 2 stands below a floor of 3."),
        ("a#half=B,prise:0.02", "Unknown term or selector 'prise'."),
    ],
)
def test_terms_that_make_no_sense_are_refused_in_words(address, found):
    with pytest.raises(UsageError) as caught:
        split_terms(address)
    assert caught.value.message == found
    assert caught.value.hint


def test_a_misspelt_term_is_suggested_and_selectors_are_left_to_the_source(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        split_terms("a#licence:cc0")
    assert caught.value.hint == "Did you mean license?"
    assert split_terms("a#lable:x") == ("a#lable:x", Terms())  # near no term
    assert split_terms("a#prise=2,label:cop") == ("a#prise=2,label:cop", Terms())
    (tmp_path / "a#cat:1").mkdir()
    assert split_terms(str(tmp_path / "a#cat:1")) == (str(tmp_path / "a#cat:1"), Terms())


def test_terms_say_only_what_was_said_and_complete_each_other():
    assert Terms().to_json() == {}
    assert Terms(cap=0, floor=0, price="1").to_json() == {"cap": 0, "price": "1"}
    assert Terms(cap=0).over(Terms(cap=9, price="2")) == Terms(cap=0, price="2")
    assert Terms().over(Terms(floor=3)) == Terms(floor=3)


def test_weights_read_as_they_are_written():
    assert parse_weights(["defect=10", "kind:scratch=0.5", "a=b=2", "none=0"]) == {
        "defect": 10.0,
        "kind:scratch": 0.5,
        "a=b": 2.0,
        "none": 0.0,
    }
    assert parse_weights({"defect": 10}) == {"defect": 10.0}


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["defect"], "The weight 'defect' names nothing; wanted VALUE=FACTOR."),
        (["=3"], "names nothing"),
        (["a=1", "a=2"], "'a' is given a weight twice."),
        (["a=much"], "The weight of 'a' is 'much'; wanted a number, 0 or more."),
        (["a=-1"], "The weight of 'a' is '-1'; wanted"),
        (["a=nan"], "The weight of 'a' is 'nan'; wanted"),
        ({"a": math.inf}, "The weight of 'a' is 'inf'; wanted"),
        ({"a": True}, "The weight of 'a' is 'True'; wanted"),
        ({"": 1.0}, "names nothing"),
    ],
)
def test_weights_that_make_no_sense_are_refused_in_words(flags, found):
    with pytest.raises(UsageError) as caught:
        parse_weights(flags)
    assert found in caught.value.message
    assert caught.value.hint


def test_a_wrong_order_is_an_unknown_name():
    with pytest.raises(UnknownNameError):
        Budget(images=1, order="far")
