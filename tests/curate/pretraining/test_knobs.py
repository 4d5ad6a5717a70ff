"""Knobs by name."""

import pytest

from curate.pretraining.knobs import RUN, flat, read_knobs, types_of, with_knobs
from curate.pretraining.methods import METHODS, default_recipe, load_method
from embeddings.errors import UnknownNameError, UsageError


@pytest.mark.parametrize("method", METHODS)
def test_every_knob_reads_back_and_no_name_means_two_things(method):
    for config in load_method(method).RECIPES.values():
        names = [*RUN, *types_of(config), *types_of(config.training)]
        assert len(names) == len(set(names))
        for name, value in flat(config).items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            found = read_knobs([f"{name}={text}"], method=method, init="scratch")["config"]
            assert flat(found)[name] == value, name
        assert with_knobs(config, flat(config)) == config


def test_values_go_where_they_belong():
    found = read_knobs(
        ["temperature=0.3", "batch = 32", "clip=none", "betas=0.8,0.95", "size=64", "compile=true", "batch=16"],
        method="simclr",
        init="scratch",
    )
    config = found.pop("config")
    assert found == {"size": 64, "compile": True}
    assert (config.temperature, config.training.batch, config.training.clip) == (0.3, 16, None)
    assert config.training.betas == (0.8, 0.95)
    assert config.training.learning_rate == default_recipe("simclr", "scratch").training.learning_rate


def test_a_recipe_to_start_from():
    assert read_knobs([], method="simclr", init="public")["config"] == default_recipe("simclr", "public")
    paper = read_knobs(["recipe=paper", "batch=8"], method="simclr", init="scratch")["config"]
    assert paper == with_knobs(load_method("simclr").RECIPES["paper"], {"batch": 8})


@pytest.mark.parametrize(
    ("pair", "wanted"),
    [
        ("temperature", "NAME=VALUE"),
        ("=1", "NAME=VALUE"),
        ("temperature=hot", "a number"),
        ("batch=1.5", "a whole number"),
        ("compile=yes", "true or false"),
        ("betas=0.9", "2 of a number"),
        ("augmentation=", "one or more of a word"),
        ("clip=x", "a number or none"),
    ],
)
def test_values_that_do_not_fit(pair, wanted):
    with pytest.raises(UsageError) as raised:
        read_knobs([pair], method="simclr", init="scratch")
    assert wanted in raised.value.hint


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="temperature"):
        read_knobs(["temprature=1"], method="simclr", init="scratch")
    with pytest.raises(UnknownNameError, match="paper"):
        read_knobs(["recipe=papr"], method="simclr", init="scratch")
