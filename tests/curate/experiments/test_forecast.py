"""What a study will tell, against studies that were simulated, written or listed; closed forms; words."""

from __future__ import annotations

import numpy as np
import pytest
from study_examples import cell, drawn, write_study

from curate.experiments import forecast as module
from curate.experiments.analysis import analyze
from curate.experiments.forecast import (
    ASSUMED,
    Forecast,
    Noise,
    TargetUnits,
    earlier_noise,
    forecast,
    noise_of,
    typical,
)
from curate.experiments.protocol import Protocol
from curate.experiments.statistics import Draws, detectable, effect, outlook, spread
from embeddings import files

PROTOCOL = Protocol(primary=("near", "far"))


def units_of(n, name="u"):
    return TargetUnits(units=np.array([f"{name}{i}" for i in range(n)]), weights=np.full(n, 1 / n))


def finished(rng, noise, *, seeds, n, name="u"):
    """Differences of two arms that are worth the same: -1, 0 or 1 by seed and image, and luck of the seed."""
    lasting = rng.choice([-1, 0, 1], n, p=[0.5, 0, 0.5]) * (rng.random(n) < noise.discordant * noise.lasting)
    own = noise.discordant * (1 - noise.lasting)
    table = lasting + rng.choice([-1.0, 0.0, 1.0], (seeds, n), p=[own / 2, 1 - own, own / 2])
    luck = np.sqrt(noise.of_seeds) * rng.standard_normal((seeds, 1))
    values = table.mean(axis=1)
    influence = (table - values[:, None]) / np.sqrt(n * (n - 1))
    units = np.array([f"{name}{i}" for i in range(n)])
    return Draws(values=values + luck[:, 0], influence=influence, weights=np.full(n, 1 / n), units=units)


@pytest.mark.parametrize(
    ("noise", "seeds"),
    [
        (Noise(discordant=0.1, lasting=0.3, of_seeds=0.02**2), 3),
        (Noise(discordant=0.2, lasting=0.0, of_seeds=0.0), 2),
        (Noise(discordant=0.05, lasting=0.1, of_seeds=0.005**2), 5),
    ],
)
def test_it_is_what_the_typical_study_finds(noise, seeds):
    rng = np.random.default_rng(0)
    sizes = {"a": 300, "b": 900}
    forecast = outlook(
        typical([units_of(n, name) for name, n in sizes.items()], [noise, noise], seeds=seeds), matters=0.01
    )
    found = []
    for _ in range(60):
        study = spread([finished(rng, noise, seeds=seeds, n=n, name=name) for name, n in sizes.items()])
        found.append(detectable(study.se, study.df()))
    assert forecast["detectable"] == pytest.approx(np.median(found), rel=0.15)


def test_without_noise_of_seeds_the_parts_are_known():
    """Many seeds: V is D (1 - lasting) / (S n) + D lasting / n, and the unit more."""
    noise = Noise(discordant=0.2, lasting=0.25, of_seeds=0.0)
    found = typical([units_of(400)], [noise], seeds=50)
    assert found.together == pytest.approx(0.2 * 0.75 / 50 / 400)
    assert found.from_seeds == pytest.approx(found.together)
    assert found.from_images == pytest.approx(0.2 * 0.25 / 400 + 1 / 400**2)
    assert found.discordant == pytest.approx(0.2 + 1 / 400)


def test_units_that_targets_share_are_one():
    apart, shared = (
        typical([units_of(100, "a"), units_of(100, name)], [ASSUMED, ASSUMED], seeds=3) for name in ("b", "a")
    )
    assert (apart.units, shared.units) == (200, 100)
    assert shared.from_images > apart.from_images


def test_the_noise_of_a_finished_contrast_is_found_again():
    rng, noise = np.random.default_rng(1), Noise(discordant=0.12, lasting=0.25, of_seeds=0.03**2)
    found = noise_of([finished(rng, noise, seeds=4, n=2_000) for _ in range(60)])
    assert found.discordant == pytest.approx(0.12, rel=0.05)
    assert found.lasting == pytest.approx(0.25, abs=0.03)
    assert np.sqrt(found.of_seeds) == pytest.approx(0.03, rel=0.2)


def cells(seeds=(0, 1, 2), targets=("mine",), **facts):
    return [cell(arm, seed=s, target=t, **facts) for t in targets for arm in ("near", "far") for s in seeds]


@pytest.fixture
def labeled(pictures, image_table):
    """``labeled(n, name)`` -> a table of n images in two classes."""

    def _labeled(n, name="kinds", **columns):
        found = pictures(n, classes=("cat", "dog"), size=(4, 4))
        labels = [key.split("/")[0] for key in found]
        return str(image_table(found, f"{name}.parquet", label=labels, **columns))

    return _labeled


def test_test_units_are_counted_as_the_evaluation_will_find_them(labeled):
    whole, part = labeled(40), labeled(25, "part")
    found = {
        "split": forecast(PROTOCOL, cells(), {"mine": {"kinds": whole}}),
        "given": forecast(PROTOCOL, cells(), {"mine": {"kinds": f"{whole}::{part}"}}),
        "folds": forecast(PROTOCOL, cells(), {"mine": {"kinds": whole}}, folds=5),
        "twice": forecast(PROTOCOL, cells(), {"mine": {"kinds": f"{whole}::{part}", "sorts": f"{whole}::{part}"}}),
    }
    assert {name: told.units for name, told in found.items()} == {"split": 12, "given": 25, "folds": 40, "twice": 25}
    assert found["given"].detectable == found["twice"].detectable
    grouped = labeled(40, "grouped", group=[f"lot{i // 2}" for i in range(40)])
    assert forecast(PROTOCOL, cells(), {"mine": {"kinds": f"{whole}::{grouped}"}}).units == 20


def test_what_to_raise_is_told_where_it_will_not_tell_what_matters(labeled):
    table = labeled(40)
    sets = {"mine": {"kinds": f"{table}::{table}"}}
    (line,) = forecast(PROTOCOL, cells(), sets).lines()
    assert line.startswith("Primary contrast, near against far: 3 seeds, 1 target and 40 test units tell a difference")
    assert "One of 1.0 points, which matters, would stay undecided 9" in line
    assert line.endswith(
        "to tell it takes more seeds and more test units. Assumed: two runs of one seed disagree on 10% of the test "
        "units."
    )
    cut = forecast(PROTOCOL, cells(), {"mine": {"kinds": table}})
    assert '[study] set = ["folds=5"] would test every labeled image.' in cut.lines()[0]
    assert "folds" not in line
    assert "folds" not in forecast(PROTOCOL, cells(), {"mine": {"kinds": table}}, folds=5).lines()[0]
    some = forecast(Protocol(primary=("near", "far"), matters=0.1), cells(), sets)
    assert 3 < some.seeds_needed < 40 < some.units_needed
    assert f"; about {some.seeds_needed} seeds an arm or {some.units_needed // 10}" in some.lines()[0]
    more = forecast(Protocol(primary=("near", "far"), matters=0.5), cells(), sets)
    assert more.power > 0.8
    assert "80 times of 100, enough for the 50.0 points that matter. Assumed:" in more.lines()[0]


def test_more_seeds_and_test_units_tell_smaller_differences():
    three = Protocol(primary=("near", "far"), matters=0.03)
    sizes = [(s, n) for s in (2, 3, 6) for n in (200, 2_000)]
    found = {(s, n): outlook(typical([units_of(n)], [ASSUMED], seeds=s), matters=0.01)["detectable"] for s, n in sizes}
    assert found[2, 200] > found[3, 200] > found[6, 200] > found[6, 2_000]
    assert found[3, 200] > found[3, 2_000]
    needed = module._needed([units_of(500)], [ASSUMED], typical([units_of(500)], [ASSUMED], seeds=3), three)
    for seeds, n in ((needed["seeds_needed"], 500), (3, needed["units_needed"])):
        enough, less = (typical([units_of(m)], [ASSUMED], seeds=s) for s, m in ((seeds, n), (seeds - 1, n - 100)))
        assert outlook(enough, matters=three.matters)["power"] > 0.79
        assert outlook(less, matters=three.matters)["power"] < 0.79


def test_what_cannot_be_told_says_why(labeled, tmp_path):
    sets = {"mine": {"kinds": labeled(40)}}
    assert forecast(Protocol(), cells(), sets) is None
    assert "one seed of an arm decides nothing" in forecast(PROTOCOL, cells(seeds=(0,)), sets).lines()[0]
    other = [*cells(seeds=(0, 1))[:2], cell("far", seed=2)]  # no seed in common
    assert "one seed" in forecast(PROTOCOL, other, sets).reason
    gone = forecast(PROTOCOL, cells(), {"mine": {"kinds": str(tmp_path / "gone")}})
    assert gone.reason.startswith("its test images cannot be counted (")
    few = labeled(4, "few")
    told = forecast(PROTOCOL, cells(), {"mine": {"kinds": f"{few}::{few}"}})
    assert told.reason == "it takes 5 test units or more, and there are 4."


def test_where_limits_the_runs_that_count():
    where = Protocol(primary=("near", "far"), where={"init": ("public",)})
    both = [*cells(seeds=(0, 1)), *cells(seeds=(0, 1, 2, 3), init="scratch")]
    assert module._seeds(where, both) == {"mine": 2}
    assert module._seeds(PROTOCOL, both) == {"mine": 4}


def test_a_finished_study_beside_it_on_the_same_target_says_how_runs_differ(tmp_path, labeled):
    runs = cells(seeds=(0, 1, 2))
    folder = write_study(tmp_path / "before", runs, drawn(runs, lambda _: 0.7, m=400))
    files.write_json(folder / "study.json", {"targets": {"theirs": "/data/a", "mine": "/data/b"}})
    out, none = tmp_path / "next", ({}, "")
    assert earlier_noise(out, {"ours": "/data/b"}, PROTOCOL, runs) == none  # not finished
    analyze(folder)
    found, source = earlier_noise(out, {"ours": "/data/b"}, PROTOCOL, runs)
    assert (list(found), source) == (["ours"], str(folder))
    assert 0.01 < found["ours"].discordant < 0.06
    assert earlier_noise(out, {"ours": "/data/c"}, PROTOCOL, runs) == none
    assert earlier_noise(out, {"ours": "/data/b"}, PROTOCOL, cells(init="scratch")) == none
    table = labeled(40)
    sets = {"ours": {"kinds": f"{table}::{table}"}}
    told = forecast(PROTOCOL, cells(targets=("ours",)), sets, earlier=found, source=source)
    assert told.noise == found["ours"]
    assert told.lines()[0].endswith(f"as in {folder}.")
    (folder / "evaluate.json").write_text("{}")
    assert earlier_noise(out, {"ours": "/data/b"}, PROTOCOL, runs) == none  # does not read back


def test_an_effect_of_shares_has_no_end_beyond_what_a_difference_can_be():
    values = np.array([0.4, 0.9])
    study = Draws(
        values=values, influence=np.zeros((2, 50)), weights=np.full(50, 0.02), units=np.arange(50).astype(str)
    )
    found = effect([study])
    assert (found.low, found.high) == (-1.0, 1.0)


def test_it_goes_into_the_plan_as_plain_json():
    told = Forecast(contrast=("a", "b"), matters=0.01, detectable=0.02, power=0.3, seeds=3)
    assert told.to_json()["contrast"] == ["a", "b"]
    assert told.to_json()["noise"] == {"discordant": 0.1, "lasting": 0.03, "of_seeds": 0.005**2}
