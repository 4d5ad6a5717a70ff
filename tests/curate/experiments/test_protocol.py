import pytest

from curate.experiments.protocol import (
    ALL_PAIRS,
    RESERVED,
    Contrast,
    Protocol,
    open_protocol,
    read_protocol,
    require_runs,
    require_same_study,
    write_protocol,
)
from embeddings import files
from embeddings.errors import ConfigError, CorruptError, ForeignFolderError

ARMS = ("near-first", "pool-gated", "random")
TABLE = {
    "primary": ["near-first", "pool-gated"],
    "metric": "linear_balanced",
    "labeled": ["kinds"],
    "matters": 0.02,
    "level": 0.9,
    "where": {"init": "public", "images": [500, 1000]},
    "secondary": [["near-first", "random"]],
    "contrasts": [{"name": "order", "first": {"arm": "near-first"}, "second": {"arm": "random", "images": 500}}],
}


def test_a_whole_table():
    found = read_protocol(TABLE, arms=ARMS, labeled=["kinds", "colors"])
    assert found == Protocol(
        primary=("near-first", "pool-gated"),
        metric="linear_balanced",
        labeled=("kinds",),
        matters=0.02,
        level=0.9,
        where={"init": ("public",), "images": (500, 1000)},
        secondary=(("near-first", "random"),),
        contrasts=(
            Contrast(name="order", first={"arm": ("near-first",)}, second={"arm": ("random",), "images": (500,)}),
        ),
    )
    assert Protocol.from_json(found.to_json()) == found
    assert not found.is_exploratory


def test_without_a_table_everything_is_exploratory():
    found = read_protocol(None, arms=ARMS)
    assert found == Protocol()
    assert found.is_exploratory
    assert (found.matters, found.level, found.secondary) == (0.01, 0.95, None)
    assert found.to_json()["secondary"] == ALL_PAIRS
    assert read_protocol({}) == found
    assert read_protocol({"secondary": "all pairs"}) == found


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"primry": []}, "Unknown key 'primry' in protocol", "primary"),
        ({"primary": ["near-first", "pool-gatd"]}, "Unknown arm 'pool-gatd' in protocol.primary", "pool-gated"),
        ({"primary": ["near-first"]}, "wanted two arms", ""),
        ({"primary": ["random", "random"]}, "wanted two arms", ""),
        ({"primary": "near-first"}, "protocol.primary", ""),
        ({"metric": "liner"}, "Unknown metric 'liner'", "linear"),
        ({"labeled": ["kind"]}, "Unknown labeled set 'kind'", "kinds"),
        ({"matters": 0}, "protocol.matters: found 0", ""),
        ({"matters": True}, "protocol.matters: found True", ""),
        ({"level": 95}, "protocol.level: found 95", ""),
        ({"where": {"int": "public"}}, "Unknown key 'int' in protocol.where", "init"),
        ({"where": {"init": []}}, "protocol.where.init", ""),
        ({"where": {"arm": "random"}}, "Unknown key 'arm'", ""),
        ({"secondary": "some"}, "protocol.secondary: found 'some'", ""),
        ({"secondary": [["near-first", "x"]]}, "Unknown arm 'x' in protocol.secondary[0]", ""),
        ({"contrasts": [{"name": "a", "first": {}}]}, "protocol.contrasts[0].second: found 'nothing'", ""),
        ({"contrasts": [{"name": "a", "first": {"arm": "y"}, "second": {}}]}, "Unknown arm 'y'", ""),
        ({"contrasts": [{"name": "a", "first": {}, "second": {}}]}, "two sides that are the same", ""),
        ({"contrasts": [{"name": "a", "first": {"target": "x"}, "second": {}}]}, "Unknown key 'target'", ""),
        ([], "protocol: found []", ""),
    ],
)
def test_what_does_not_hold_up_is_refused_with_the_key(table, message, hint):
    with pytest.raises(ConfigError) as caught:
        read_protocol(table, arms=ARMS, labeled=["kinds"])
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", [*RESERVED, "", " "])
def test_a_contrast_has_a_family_of_its_own(name):
    table = {"contrasts": [{"name": name, "first": {"arm": "near-first"}, "second": {"arm": "random"}}]}
    with pytest.raises(ConfigError, match=r"protocol\.contrasts\[0\]\.name"):
        read_protocol(table)


def test_the_primary_contrast_is_no_secondary_one_either_way_round():
    pairs = [["random", "near-first"], ["near-first", "random"], ["random", "pool-gated"]]
    found = read_protocol({"primary": ["near-first", "random"], "secondary": pairs})
    assert found.secondary == (("random", "pool-gated"),)
    assert len(read_protocol({"secondary": pairs}).secondary) == 3


CELLS = [
    {"arm": "near-first", "init": "public", "images": 500, "own": True, "encoder": "lite0"},
    {"arm": "pool-gated", "init": "public", "images": 500, "own": False, "encoder": "lite0"},
    {"arm": "random", "init": "scratch", "images": 1000, "own": False, "encoder": "lite0"},
]


def side(**values):
    return {name: (value,) for name, value in values.items()}


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (
            {"where": {"init": ("public", "pubic")}},
            "protocol.where.init: found 'pubic', wanted what some run has: public",
        ),
        ({"where": side(images="500")}, "protocol.where.images: found '500'"),
        ({"where": side(init="public", images=1000)}, "protocol.where: found"),
        ({"primary": ("near-first", "random"), "where": side(init="public")}, "protocol.primary.second"),
        ({"secondary": (("random", "near-first"),), "where": side(images=500)}, "protocol.secondary[0].first"),
        ({"contrasts": (Contrast(name="a", first=side(own=True), second=side(own="no")),)}, "contrasts[0].second.own"),
        ({"contrasts": (Contrast(name="a", first=side(arm="x"), second={}),)}, "protocol.contrasts[0].first.arm"),
    ],
)
def test_a_protocol_of_runs_that_there_are_none_of_is_refused(protocol, said):
    with pytest.raises(ConfigError) as caught:
        require_runs(Protocol(**protocol), CELLS)
    assert said in caught.value.message


def test_a_side_is_limited_in_what_neither_names():
    contrast = Contrast(name="a", first=side(init="scratch"), second=side(init="public"))
    require_runs(Protocol(contrasts=(contrast,), where={"init": ("public",), "encoder": ("lite0",)}), CELLS)
    require_runs(Protocol(primary=("near-first", "pool-gated"), where=side(init="public")), CELLS)
    require_runs(Protocol(), CELLS)


def test_it_is_written_once_and_its_digest_is_of_protocol_and_configuration(tmp_path):
    protocol = read_protocol(TABLE)
    first = write_protocol(protocol, "abc", tmp_path)
    before = (tmp_path / "protocol.json").stat().st_mtime_ns
    assert write_protocol(protocol, "abc", tmp_path) == first
    assert (tmp_path / "protocol.json").stat().st_mtime_ns == before
    assert open_protocol(tmp_path) == (protocol, first)
    assert write_protocol(protocol, "abd", tmp_path / "other") != first
    assert write_protocol(Protocol(), "abc", tmp_path / "third") != first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid": {"seeds": [0, 1, 2]}, "cells": [1, 2, 3]}, "grid.seeds is [0, 1] there, [0, 1, 2] here"),
        ({"arms": [{"name": "near"}, {"name": "far"}, {"name": "own"}]}, "it has no arm 'far', 'own'."),
        ({"arms": [{"name": "far"}]}, "it has no arm 'far', and this file has no arm 'near'."),
        ({"arms": [{"name": "near", "own": True}]}, "arms.0.own is None there, True here"),
        ({"cells": [1, 3]}, "cells is [1, 2] there, [1, 3] here"),
    ],
)
def test_a_study_that_has_begun_takes_no_more_seeds_or_arms_and_says_why_and_what_to_do(tmp_path, change, said):
    begun = {"arms": [{"name": "near"}], "grid": {"seeds": [0, 1]}, "cells": [1, 2]}
    require_same_study(tmp_path, begun, dict(begun))
    with pytest.raises(ForeignFolderError) as before:
        require_same_study(tmp_path, begun, begun | change)
    assert said in before.value.message
    assert before.value.hint.startswith("No run has begun: delete")
    files.write_json(tmp_path / "mine" / "runs" / "near~s0" / "config.json", {})
    with pytest.raises(ForeignFolderError) as after:
        require_same_study(tmp_path, begun, begun | change)
    assert after.value.message == before.value.message
    assert all(words in after.value.hint for words in ("before the first run", "new folder for --out", "trained anew"))


def test_another_protocol_is_refused_with_the_field(tmp_path):
    write_protocol(read_protocol(TABLE), "abc", tmp_path)
    with pytest.raises(ForeignFolderError, match=r"protocol.matters is 0.02 there, 0.01 here"):
        write_protocol(read_protocol({**TABLE, "matters": 0.01}), "abc", tmp_path)
    with pytest.raises(ForeignFolderError, match="config is 'abc' there"):
        write_protocol(read_protocol(TABLE), "x", tmp_path)


def test_it_is_not_written_after_the_runs(tmp_path):
    files.write_json(tmp_path / "mine" / "runs" / "a" / "run.json", {})
    with pytest.raises(ForeignFolderError, match="not written down before"):
        write_protocol(read_protocol(TABLE), "abc", tmp_path)
    assert write_protocol(Protocol(), "abc", tmp_path)  # it claims nothing beforehand


def test_a_changed_file_is_noticed(tmp_path):
    write_protocol(read_protocol(TABLE), "abc", tmp_path)
    document = files.read_json(tmp_path / "protocol.json")
    document["protocol"]["matters"] = 0.001
    files.write_json(tmp_path / "protocol.json", document)
    for read in (lambda: open_protocol(tmp_path), lambda: write_protocol(read_protocol(TABLE), "abc", tmp_path)):
        with pytest.raises(CorruptError, match="changed after it was written"):
            read()


def test_a_folder_without_one_explores(tmp_path):
    assert open_protocol(tmp_path) == (Protocol(), "")
