from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config import load_config
from curate.experiments._grid import Draw, expand, in_shares, written
from curate.terms import Budget, Terms
from embeddings.errors import ConfigError

FILE = """
[target]
uri = "mine"
[pools.web]
uri = "web"
[pools.open]
uri = "open"
[budget]
images = 100
money = 5
"""
POOLS = {"target": Terms(), "web": Terms(price="2", cap=60), "open": Terms(floor=3)}


@pytest.fixture
def config(tmp_path):
    """``config(text)`` -> the config of a file with one target and two pools."""

    def read(text, head=FILE):
        (tmp_path / "c.toml").write_text(head + text)
        return load_config(tmp_path / "c.toml")

    return read


def test_a_grid_gives_every_arm_every_combination_but_of_what_it_fixes(config):
    cells = expand(
        config(
            """
[grid]
images = [50, 100]
samples = [200]
seeds = [0, 1]
methods = ["simclr", "mae"]
[[arms]]
name = "near"
method = "simclr"
[[arms]]
name = "chance"
select = "random"
images = 100
seed = 7
"""
        )
    )
    assert [(c.name, c.draw.name, c.method, c.samples, c.seed) for c in cells] == [
        ("near~N50~s0", "near-first~N50~s0", "simclr", 200, 0),
        ("near~N50~s1", "near-first~N50~s1", "simclr", 200, 1),
        ("near~N100~s0", "near-first~N100~s0", "simclr", 200, 0),
        ("near~N100~s1", "near-first~N100~s1", "simclr", 200, 1),
        ("chance~simclr", "random~N100~s7", "simclr", 200, 7),
        ("chance~mae", "random~N100~s7", "mae", 200, 7),
    ]
    assert {c.target for c in cells} == {"target"}
    assert len({c.draw for c in cells}) == 5


def test_without_a_grid_cells_are_arms_and_draws_are_methods(config):
    cells = expand(config('[[arms]]\nname = "a"\nsamples = 9\n[[arms]]\nname = "b"\nsamples = 9\ninit = "public"\n'))
    assert [(c.name, c.arm, c.draw.name, c.init, c.seed) for c in cells] == [
        ("a", "a", "near-first", "scratch", None),
        ("b", "b", "near-first", "public", None),
    ]
    assert cells[0].draw == cells[1].draw


def test_arms_are_written_as_before_and_with_what_they_say_beyond(config):
    plain, more = config(
        '[[arms]]\nname = "a"\nsamples = 9\n[[arms]]\nname = "b"\nsamples = 9\nown = false\npools = ["web"]\nseed = 0\n'
    ).arms
    old = {"select": "near-first", "method": "simclr", "samples": 9, "backbone": None, "init": "scratch", "set": ()}
    assert written(plain) == {"name": "a", **old}
    assert written(more) == {"name": "b", **old, "own": False, "pools": ("web",), "seed": 0}


def test_an_arm_without_samples_anywhere_is_refused(config):
    with pytest.raises(ConfigError, match="Arm 'a' has no samples"):
        expand(config('[[arms]]\nname = "a"\n'))


def test_targets_are_those_of_the_arm_else_of_the_grid_else_all(config):
    head = "".join(f'[targets.{name}]\nuri = "{name}"\n' for name in "xyz") + '[pools.x]\nuri = "x"\n'
    arms = '[[arms]]\nname = "a"\nsamples = 9\n[[arms]]\nname = "b"\nsamples = 9\ntarget = "z"\n'
    named = [(c.target, c.name) for c in expand(config('[grid]\ntargets = ["y"]\n' + arms, head))]
    assert named == [("y", "a"), ("z", "b")]
    assert [(c.target, c.name) for c in expand(config(arms, head))] == [("x", "a"), ("y", "a"), ("z", "a"), ("z", "b")]
    with pytest.raises(ConfigError, match="The pools of arm 'a', x, are the target 'x' itself"):
        expand(config(arms.replace("samples = 9", 'samples = 9\npools = ["x"]', 1), head))


plain = st.text("ab~/.-+=:é", max_size=70)
draws = st.builds(
    Draw,
    select=st.sampled_from(["random", "near-first"]),
    images=st.none() | st.integers(1, 300),
    encoder=st.none() | st.sampled_from(["lite0", "lite0@224", "run:a/b", "run:a-b"]),
    seed=st.none() | st.integers(0, 30),
    pools=st.none() | st.lists(plain, max_size=3, unique=True).map(tuple),
    own=st.booleans(),
    far=st.none() | st.sampled_from([0.0, 0.3, 0.30000000000000004]),
)


@given(st.lists(draws, max_size=30, unique=True))
def test_different_draws_have_different_names_that_can_stand_for_folders(draws):
    names = [draw.name for draw in draws]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzN0123456789~-_.+=L") for name in names)
    assert all(name[0].isalpha() and len(name) < 250 for name in names)


@given(
    st.lists(st.sampled_from(["tiny-resnet", "timm:a/b", "timm:a-b", "timm:a@b"]), min_size=1, unique=True),
    st.lists(st.sampled_from(["scratch", "public", "run:x", "run-x"]), min_size=1, unique=True),
    st.lists(st.integers(1, 9), min_size=1, unique=True),
)
def test_cells_have_names_of_their_own(tmp_path_factory, backbones, inits, seeds):
    file = tmp_path_factory.mktemp("grid") / "c.toml"
    grid = f"[grid]\nbackbones = {backbones}\ninits = {inits}\nseeds = {seeds}\nsamples = [9]\n"
    file.write_text(FILE + grid + '[[arms]]\nname = "a"\n[[arms]]\nname = "a-1"\nseed = 1\n')
    names = [cell.name for cell in expand(load_config(file))]
    assert len(set(names)) == len(names) == len(backbones) * len(inits) * (len(seeds) + 1)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789~-_.") for name in names)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), st.integers(0, 5000))
def test_shares_are_whole_numbers_with_the_sum_and_less_than_one_off(weights, n):
    shares = {str(i): Fraction(weight, sum(weights)) for i, weight in enumerate(weights)}
    counts = in_shares(shares, n)
    assert sum(counts.values()) == n
    assert all(abs(counts[name] - share * n) < 1 for name, share in shares.items())


def test_of_equal_remainders_the_first_goes_up():
    thirds = dict.fromkeys("abc", Fraction(1, 3))
    assert in_shares(thirds, 10) == {"a": 4, "b": 3, "c": 3}
    assert in_shares(thirds, 11) == {"a": 4, "b": 4, "c": 3}


def test_a_draw_shuts_what_gives_nothing_and_keeps_other_terms():
    budget = Budget(images=10)
    shut = Draw(select="random", pools=("web",), own=False).terms(POOLS, budget)
    assert shut == {"target": Terms(cap=0), "web": POOLS["web"], "open": Terms(cap=0)}
    assert Draw(select="random", pools=()).terms(POOLS, budget)["target"] == Terms()
    assert Draw(select="random").terms(POOLS, budget) == POOLS


def test_shares_are_floor_and_cap(config):
    mixed = Draw(select="random", shares=("open=0.25", "web=3/4"))
    assert mixed.terms(POOLS, Budget(images=10)) == {
        "target": Terms(cap=0),
        "web": Terms(price="2", cap=7, floor=7),
        "open": Terms(cap=3, floor=3),
    }
    with pytest.raises(ConfigError, match="The share of web is 75 images, its cap 60"):
        mixed.terms(POOLS, Budget(images=100))
    with pytest.raises(ConfigError, match="Shares need a budget in images"):
        mixed.terms(POOLS, Budget(money=3))


def test_a_draw_has_the_budget_of_the_file_but_for_its_own_images():
    of_file = Budget(images=100, money=5.0, far=0.1)
    assert Draw(select="random").budget(of_file) == of_file
    assert Draw(select="random", images=7, far=0.3).budget(of_file) == Budget(images=7, money=5.0, far=0.3)
    assert Draw(select="random", images=7).budget(None) == Budget(images=7)
    with pytest.raises(ConfigError, match="no \\[budget\\]"):
        Draw(select="random").budget(None)
