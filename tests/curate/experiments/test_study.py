import json
from dataclasses import replace
from typing import get_args

import pytest

from curate import cli
from curate.comparison import Comparison
from curate.config import load_config
from curate.experiments import Study, _study, evaluation_parts, prices, steps
from curate.experiments._parts import examination_settings
from embeddings.errors import ConfigError, ForeignFolderError, UnknownNameError, UsageError

ARM = '[[arms]]\nname = "{}"\nselect = "{}"\nbackbone = "tiny-resnet"\nsamples = {}\n'


@pytest.fixture
def file_of_arms(tmp_path, image_folder, pictures):
    """``file_of_arms(*arms)`` -> the config of a small study."""
    image_folder(pictures(60, seed=1), "mine")
    image_folder(pictures(60, seed=1, size=(18, 14)), "web")

    def write(*arms, budget=20):
        text = '[target]\nuri = "mine"\n[pools.web]\nuri = "web"\n[evaluate.kinds]\ntrain = "mine"\n'
        (tmp_path / "c.toml").write_text(
            text + f"[budget]\nimages = {budget}\n" + "".join(ARM.format(*a) for a in arms)
        )
        return load_config(tmp_path / "c.toml")

    return write


def study(config, tmp_path, **options):
    return Study(config=config, out=tmp_path / "out", encoder="color-texture", **options)


def test_a_study_runs_through_and_a_second_time_does_nothing_new(file_of_arms, tmp_path):
    config = file_of_arms(("near", "near-first", 80), ("chance", "random", 80))
    first = study(config, tmp_path).execute(work=tmp_path / "work")
    kept = [p for name in ("runs", "evaluated") for p in (tmp_path / "out" / name).rglob("*")]
    written = {p: p.stat().st_mtime_ns for p in kept}
    assert len(list((tmp_path / "out" / "evaluated").iterdir())) == 4 + 3  # arms; leaks, baseline and curve
    assert first[-1].title.startswith("kinds: accuracy on test images\n")
    assert [row[0] for row in first[-1].rows] == [
        "frozen:color-texture",
        "untrained:random",
        "near",
        "chance",
    ]
    assert study(config, tmp_path).execute(work=tmp_path / "work") == first
    assert {p: p.stat().st_mtime_ns for p in kept} == written
    held_out = json.loads((tmp_path / "out" / "selections" / "random" / "selection.json").read_text())["facts"]
    assert "excluded" in json.dumps(held_out)
    (report,) = (tmp_path / "out").rglob("evaluate.json")  # no run has seen a test image
    scores = json.loads(report.read_text())["scores"]
    assert [s["facts"]["test_images_pretrained_on"] for s in scores if s["kind"] == "run"] == [0, 0]
    for method in ("near-first", "random"):
        found = Comparison.open(tmp_path / "out" / "selections" / method)
        assert {contender.method for contender in found.contenders} in ({method, "random"}, set())
        assert found.reason or {judge.name for judge in found.judges} == {"color-texture", "random"}


def test_a_wish_that_the_sources_cannot_carry_is_refused_before_anything_is_embedded(file_of_arms, tmp_path):
    with pytest.raises(UsageError, match="The budget is 500 images, but the sources list 120"):
        study(file_of_arms(("a", "random", 80), budget=500), tmp_path).execute(work=tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "out").exists()


def test_a_probe_is_relative_to_the_file_and_refused_before_anything_is_embedded(file_of_arms, tmp_path, image_folder):
    def asked(probe):
        config = file_of_arms(("a", "random", 80))
        return study(replace(config, arms=(replace(config.arms[0], set=(f"probe={probe}",)),)), tmp_path)

    wrong = asked("absent")
    for ask in (wrong.plan, lambda: wrong.execute(work=tmp_path / "work")):
        with pytest.raises(ConfigError, match=f"Arm 'a': The probe's source: No folder or file at '{tmp_path}/absent'"):
            ask()
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "out").exists()
    study(wrong.config, tmp_path, until="select").plan()  # no run is watched
    found = asked("mine#label:label")
    found.plan()
    (cell,) = found.cells
    assert found.targets["target"].arguments(cell, ".")["knobs"] == [f"probe={tmp_path}/mine#label:label"]
    (told,) = found.plan()["arms"]
    assert told["set"] == ("probe=mine#label:label",)


def test_steps_are_named_in_one_place_and_nothing_public_is_taken_for_a_test():
    assert cli.studies.Step is _study.Step is steps.Step
    assert _study.STEPS == get_args(steps.Step) == ("score", "select", "pretrain", "evaluate")
    assert not [name for name in (*vars(_study), *dir(cli.studies.Session)) if name.startswith("test")]


def test_the_parts_evaluated_on_are_those_given_and_those_held_out(file_of_arms, tmp_path):
    text = (tmp_path / "c.toml").read_text() if file_of_arms(("a", "random", 80)) else ""
    (tmp_path / "c.toml").write_text(text + '[evaluate.given]\ntrain = "mine"\ntest = "web"\n')
    parts = evaluation_parts(load_config(tmp_path / "c.toml"), encoder="color-texture", work=tmp_path / "work")
    assert parts[1] == str(tmp_path / "web")
    assert 0 < len(parts[0]) < 30


def test_of_a_cross_fitted_evaluation_all_labeled_images_are_test_images(file_of_arms, tmp_path):
    file_of_arms(("a", "random", 80))
    text = (tmp_path / "c.toml").read_text()
    (tmp_path / "c.toml").write_text(text + '[study]\nset = ["folds=5"]\n')
    (part,) = evaluation_parts(load_config(tmp_path / "c.toml"), encoder="color-texture", work=tmp_path / "work")
    assert len(part) == 60
    for more, said in (("also = ['references']\n", "do not go together"), ("", "kinds has a test part of its own")):
        tested = text if more else text.replace('train = "mine"', 'train = "mine"\ntest = "web"')
        (tmp_path / "c.toml").write_text(f'{tested}[study]\nset = ["folds=5"]\n{more}')
        with pytest.raises(UsageError, match=said):
            study(load_config(tmp_path / "c.toml"), tmp_path)


def test_paths_of_examinations_are_relative_to_the_file_and_shift_sets_are_never_selected_from(file_of_arms, tmp_path):
    file_of_arms(("a", "random", 80))
    text = (tmp_path / "c.toml").read_text()
    table = '[study]\nalso = ["{}"]\nset = ["shift.winter=web#label:kind", "shift.far=hf:a/b", "costs=costs.csv"]\n'
    for also in ("robustness", "labels", "all"):
        (tmp_path / "c.toml").write_text(text + table.format(also))
        config = load_config(tmp_path / "c.toml")
        found = examination_settings(config)
        assert found.costs == f"{tmp_path}/costs.csv"
        assert found.shifts == {"winter": f"{tmp_path}/web#label:kind", "far": "hf:a/b"}
        parts = evaluation_parts(config, encoder="color-texture", work=tmp_path / "work")
        assert parts[1:] == ([] if also == "labels" else list(found.shifts.values()))


def test_a_dry_run_tells_what_every_arm_takes_and_what_is_done(file_of_arms, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(prices, "_measured", lambda arguments, **where: measured.append(where["device"]) or 45.0)
    config = file_of_arms(("near", "near-first", 80), ("chance", "random", 80))
    lines = study(config, tmp_path, device="cpu").plan_lines()
    assert lines[1:] == [
        "  near: near-first, simclr from scratch, C = 80, 60 min of training",
        "  chance: random, simclr from scratch, C = 80, 60 min of training",
        "2 runs, 160 samples: 2.0 h of training. The longest run is near, 60 min.",
        "  simclr, tiny-resnet@32 from scratch: 2 runs, 45 s a sample (measured on noise)",
        "Nothing was done (--dry-run).",
    ]
    assert measured == ["cpu"]
    selected = study(config, tmp_path, until="select")
    assert "price" not in selected.plan()
    assert selected.plan_lines()[1] == "  near: near-first, simclr from scratch, C = 80"
    study(config, tmp_path).execute(work=tmp_path / "work")
    again = study(config, tmp_path)
    assert (again.plan()["price"]["runs"], again.plan()["price"]["done"]) == (0, 2)
    assert "All runs are done (2)." in again.plan_lines()
    with pytest.raises(ForeignFolderError, match="budget is 20 there, 21 here"):
        study(file_of_arms(("near", "near-first", 80), ("chance", "random", 80), budget=21), tmp_path).plan()


def test_it_stops_where_it_is_told(file_of_arms, tmp_path):
    tables = study(file_of_arms(("a", "random", 80)), tmp_path, until="score").execute(work=tmp_path / "work")
    assert len(tables) == 1
    assert not (tmp_path / "out" / "selections").exists()


def test_another_configuration_in_the_same_folder_is_refused_with_the_field(file_of_arms, tmp_path):
    config = file_of_arms(("a", "random", 80))
    study(config, tmp_path, until="score").execute(work=tmp_path / "work")
    with pytest.raises(ForeignFolderError, match="budget is 20 there, 21 here"):
        study(file_of_arms(("a", "random", 80), budget=21), tmp_path, until="score").execute(work=tmp_path / "work")


@pytest.mark.parametrize(
    ("arms", "error", "said"),
    [
        ([("a", "near-frist", 80)], UnknownNameError, "near-first"),
        ([("a", "random", 80), ("b", "random", 81)], ConfigError, "unequal numbers of samples: 80, 81"),
        ([], ConfigError, "no [[arms]] tables"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(file_of_arms, tmp_path, arms, error, said):
    with pytest.raises(error) as caught:
        study(file_of_arms(*arms), tmp_path)
    assert said in str(caught.value)
