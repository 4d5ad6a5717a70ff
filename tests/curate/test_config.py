from dataclasses import fields

import pytest

from curate.config import SourceConfig, load_config
from curate.terms import Budget, Terms
from embeddings.errors import ConfigError

WHOLE = """
encoder = "lite0"
seed = 3

[target]
uri = "mine"
where = "split=train"
label = "subgroup"

[pools.web]
uri = "web.parquet"
group = "site"

[pools.bucket]
uri = "memory://bucket/images"

[evaluate.kinds]
train = "mine"
test = "held-out#part=b"
label = "kind"

[budget]
images = 100

[[arms]]
name = "near"
samples = 5000

[[arms]]
name = "random"
select = "random"
samples = 5000
init = "public"
"""


@pytest.fixture
def load(tmp_path):
    def read(text):
        (tmp_path / "curate.toml").write_text(text)
        return load_config(tmp_path / "curate.toml")

    return read


def test_a_whole_file_reads_with_paths_relative_to_it(load, tmp_path):
    config = load(WHOLE)
    assert config.target.address(config.root) == f"{tmp_path}/mine#split=train,label:subgroup"
    assert config.pools["web"].address(config.root) == f"{tmp_path}/web.parquet#group:site"
    assert config.pools["bucket"].address(config.root) == "memory://bucket/images"
    expected = f"{tmp_path}/mine#label:kind::{tmp_path}/held-out#part=b,label:kind"
    assert config.evaluate["kinds"].address(config.root) == expected
    assert config.target_address == f"{tmp_path}/mine#split=train,label:subgroup"
    pools = {"web": f"{tmp_path}/web.parquet#group:site", "bucket": "memory://bucket/images"}
    assert config.pool_addresses == pools
    assert config.labeled_addresses == {"kinds": expected}
    assert config.located("kept") == f"{tmp_path}/kept"
    assert (config.seed, config.encoder, config.work, config.budget.images) == (3, "lite0", None, 100)
    assert [(a.name, a.select, a.init, a.samples) for a in config.arms] == [
        ("near", "near-first", None, 5000),
        ("random", "random", "public", 5000),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed = 3", "sead = 3"), "Unknown key 'sead' in the file.\nDid you mean seed?"),
        (("[budget]", "[bugdet]"), "Unknown key 'bugdet' in the file.\nDid you mean budget?"),
        (('where = "split=train"', 'were = "split=train"'), "Unknown key 'were' in target.\nDid you mean where?"),
        (('group = "site"', "group = 1"), "pools.web.group: found 1, wanted str"),
        (("seed = 3", "seed = true"), "seed: found True, wanted int"),
        (("images = 100", "images = 0"), "[budget]: images is 0; wanted a whole number, at least 1."),
        (("images = 100", ""), "[budget]: The budget has no limit.\nGive one of images, bytes, money, hours."),
        (("images = 100", "images = 9.5"), "budget.images: found 9.5, wanted int"),
        (("images = 100", "image = 100"), "Unknown key 'image' in budget.\nDid you mean images?"),
        (("images = 100", 'images = 9\nlicenses = "cc0"'), "budget.licenses: found 'cc0', wanted a list of texts"),
        (('group = "site"', "cap = 2\nfloor = 3"), "[pools.web]: A cap of 2 stands below a floor of 3."),
        (('group = "site"', "cap = -2"), "[pools.web]: cap is -2; wanted a whole number, at least 0."),
        (("[budget]", "[weights]\na = -1\n[budget]"), "[weights]: The weight of 'a' is '-1'; wanted"),
        (("[budget]", '[weights]\na = "x"\n[budget]'), "weights.a: found 'x', wanted float"),
        (('name = "random"', 'name = "near"'), "arms.name: found 'near, near', wanted names that do not repeat"),
        (('name = "random"', 'name = "../up"'), "arms.name: found '../up'"),
        (("[target]", "[pools.target]"), "target: found 'nothing'"),
        (("samples = 5000", "sample = 5000"), "Unknown key 'sample' in arms[0].\nDid you mean samples?"),
        (("samples = 5000", "samples = -1"), "samples of arm 'near': found -1, wanted a positive number"),
        (("[budget]", "[grid]\nseed = [1]\n[budget]"), "Unknown key 'seed' in grid.\nDid you mean seeds?"),
        (("[budget]", "[grid]\nseeds = 1\n[budget]"), "grid.seeds: found 1, wanted a list of whole numbers"),
        (("[budget]", "[grid]\nseeds = [1, true]\n[budget]"), "grid.seeds: found [1, True], wanted a list of whole"),
        (("[budget]", "[grid]\nseeds = [1, 1]\n[budget]"), "grid.seeds: found [1, 1], wanted values that do not"),
        (("[budget]", "[grid]\nimages = [0]\n[budget]"), "grid.images: found [0], wanted numbers of 1 or more"),
        (("[budget]", "[grid]\ntargets = ['mine']\n[budget]"), "Unknown target 'mine' in grid.targets."),
        (("[budget]", "[study]\nalos = ['labels']\n[budget]"), "Unknown key 'alos' in study.\nDid you mean also?"),
        (("[budget]", "[targets.'a/b']\nuri='x'\n[budget]"), "targets.NAME: found 'a/b', wanted letters"),
        (("[budget]", "[targets.runs]\nuri='x'\n[budget]"), "found 'runs', wanted another name than target, runs"),
        (("seed = 3", "seed = 3\nprotocol = 3"), "protocol: found 3, wanted a table"),
        (('label = "kind"', 'target = "tagret"'), "Unknown target 'tagret' in evaluate.kinds.\nDid you mean target?"),
        (('select = "random"', "pools = ['wbe']"), "Unknown pool 'wbe' in arm 'random'.\nDid you mean web?"),
        (('select = "random"', "shares = ['wbe=1']"), "Unknown source 'wbe' in arm 'random'.\nDid you mean web?"),
        (('select = "random"', "shares = ['web=0.7']"), "[arms[1]]: The shares web=0.7 add up to 0.7, wanted 1."),
        (('select = "random"', "shares = ['web=a']"), "[arms[1]]: The share 'web=a' is no number of 0 or more."),
        (('select = "random"', "shares = ['web=1', 'web=0']"), "The share 'web=0' names no source, or one twice."),
        (('select = "random"', "pools = ['web']\nshares = ['web=1']"), "wanted either pools or shares"),
        (('select = "random"', "own = false\nshares = ['target=1']"), "wanted no target, as own = false"),
        (('select = "random"', "own = false\npools = []"), "found [], wanted a pool, as own = false"),
        (('select = "random"', "far = 1.0"), "far of arm 'random': found 1.0, wanted a share"),
        (("[budget]", "[budget"), "is not valid TOML"),
        (("[[arms]]", "[arms]"), "not valid TOML"),
        (
            ('[pools.web]\nuri = "web.parquet"', "[pools]\nweb = 1\n[pools.x]\nuri='a'"),
            "pools.web: found 1, wanted a table",
        ),
    ],
)
def test_what_does_not_hold_up_is_refused_in_words(load, change, message):
    assert change[0] in WHOLE
    with pytest.raises(ConfigError) as caught:
        load(WHOLE.replace(*change))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No config file"):
        load_config(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("uri", "whole"),
    [
        ("photos", "{root}/photos"),
        ("photos#tiles:64,roi:masks/m.png", "{root}/photos#tiles:64,roi:{root}/masks/m.png"),
        ("shards/*.tar", "{root}/shards/*.tar"),
        ("hf:owner/name@config", "hf:owner/name@config"),
        ("torchvision:MNIST@data", "torchvision:MNIST@{root}/data"),
        ("s3://bucket/photos", "s3://bucket/photos"),
    ],
)
def test_every_kind_of_address_is_made_whole(tmp_path, uri, whole):
    assert SourceConfig(uri=uri).address(tmp_path) == whole.format(root=tmp_path)


def test_budget_terms_and_weights_are_those_of_the_flags(load):
    tables = """
[pools.open]
uri = "open"
price = 0.02
license = "cc-by"
cap = 500
floor = 50
of = 1000000

[weights]
defect = 10
"kind:scratch" = 0.5
"""
    limits = 'images = 100\nmoney = 20\nmax_per_label = 5\nfar = 0.2\norder = "mixed"\nlicenses = ["cc0", "cc-by"]'
    config = load(WHOLE.replace("images = 100", limits) + tables)
    assert config.budget == Budget.parse("100,money=20,max-per-label=5,far=0.2,order=mixed,licenses=cc-by+cc0")
    assert config.terms == {
        "target": Terms(),
        "web": Terms(),
        "bucket": Terms(),
        "open": Terms(price="0.02", license="cc-by", cap=500, floor=50, of=1_000_000),
    }
    assert config.weights == {"defect": 10.0, "kind:scratch": 0.5}


def test_the_target_may_be_kept_out_by_a_cap(load):
    assert load(WHOLE.replace('label = "subgroup"', "cap = 0")).terms["target"] == Terms(cap=0)


def test_terms_in_a_uri_are_refused_with_the_keys_they_are_said_by(load):
    with pytest.raises(ConfigError) as caught:
        load('[target]\nuri = "mine"\n[pools.web]\nuri = "web#half=B,price:0.02,license:cc-by,cap:9,floor:2,of:50"\n')
    assert caught.value.message.startswith("[pools.web]: The uri 'web#half=B,price:0.02,")
    told = 'price = 0.02, license = "cc-by", cap = 9, floor = 2, of = 50'
    assert caught.value.hint == f"In a file they are keys of their own beside uri: {told}."
    keys = told.replace(", ", "\n")
    config = load(f'[target]\nuri = "mine"\n[pools.web]\nuri = "web#half=B"\n{keys}\n')
    assert config.pools["web"].terms == Terms(price="0.02", license="cc-by", cap=9, floor=2, of=50)


def test_every_term_of_an_address_is_a_key_of_a_file():
    assert {field.name for field in fields(Terms)} <= {field.name for field in fields(SourceConfig)}


def test_a_file_of_several_targets_is_one_file_for_each(load, tmp_path):
    several = """
[targets.google]
uri = "google#half=A"
label = "kind"

[targets.twitter]
uri = "twitter"

[pools.twin]
uri = "google#half=A"
label = "subgroup"

[pools.rest]
uri = "google#half=B"

[evaluate.both]
train = "labeled"

[evaluate.own]
train = "labeled"
target = "google"
"""
    config = load(several)
    assert list(config.all_targets) == ["google", "twitter"]
    with pytest.raises(ConfigError, match="The file has several targets: google, twitter"):
        _ = config.target_address
    assert set(config.terms) == {"twin", "rest"}
    google, twitter = config.for_target("google"), config.for_target("twitter")
    assert google.target_address == f"{tmp_path}/google#half=A,label:kind"
    assert (set(google.pools), set(twitter.pools)) == ({"rest"}, {"twin", "rest"})
    assert (set(google.evaluate), set(twitter.evaluate)) == ({"both", "own"}, {"both"})
    assert set(twitter.terms) == {"target", "twin", "rest"}
    beside = load('[target]\nuri = "mine"\n' + several)
    assert list(beside.all_targets) == ["target", "google", "twitter"]
    assert beside.target_address == f"{tmp_path}/mine"


def test_lists_keep_their_order_and_knobs_are_sorted(load):
    config = load(WHOLE.replace("[budget]", "[grid]\nmethods = ['simclr', 'mae']\n[budget]") + "set = ['b=1', 'a=2']\n")
    assert config.grid.methods == ("simclr", "mae")
    assert config.arms[1].set == ("a=2", "b=1")
    assert config.protocol is None is config.study
