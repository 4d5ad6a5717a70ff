import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from curate.config import load_config
from curate.demo import demo_folder
from curate.experiments import Study, _target_study, cells, prices
from curate.experiments._target_study import TargetStudy
from curate.results import Run, Selection, ShiftReport
from embeddings import files
from embeddings.errors import (
    ConfigError,
    ForeignFolderError,
    TasksFailedError,
    TrainingError,
    UnknownNameError,
    UsageError,
)

SOURCES = """
[target]
uri = "mine"
[pools.web]
uri = "web"
[pools.far]
uri = "far"
[evaluate.kinds]
train = "mine"
"""
GRID = """
[grid]
images = [12, 20]
samples = [80]
seeds = [0, 1]
backbones = ["tiny-resnet"]
[[arms]]
name = "near"
[[arms]]
name = "mixed"
select = "random"
shares = ["web=0.75", "far=0.25"]
"""
TWO_ARMS = """
[grid]
images = [20]
samples = [40]
backbones = ["tiny-resnet"]
[study]
devices = ["cpu"]
[protocol]
primary = ["near", "own"]
[[arms]]
name = "near"
own = false
[[arms]]
name = "own"
select = "random"
pools = []
"""


@pytest.fixture
def study(tmp_path, image_folder, pictures):
    """``study(text)`` -> a study of a target, a near pool and a far one."""
    for name, seed, size in (("mine", 1, (16, 12)), ("web", 1, (18, 14)), ("far", 9, (20, 20))):
        image_folder(pictures(60, seed=seed, size=size), name)

    def read(text, head=SOURCES, **options):
        (tmp_path / "c.toml").write_text(head + text)
        config = load_config(tmp_path / "c.toml")
        return Study(config=config, out=tmp_path / "out", encoder="color-texture", **options)

    return read


def results(out):
    """What a study found, but for how long its runs took."""
    evaluated = files.read_json(out / "evaluate.json")
    for score in evaluated["scores"]:
        score["facts"].pop("seconds", None)
    return evaluated, *((out / name).read_bytes() for name in ("cells.json", "study-results.json", "results.parquet"))


def test_a_file_of_arms_is_planned_as_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(prices, "_measured", lambda *_, **__: 0.01)
    root = demo_folder()
    data = {f.stem: f"{root}/data/{f.name}" for f in sorted((root / "data").glob("*.parquet"))}
    pools = {name: path for name, path in data.items() if not name.startswith("target")}
    arm = {"backbone": "tiny-resnet", "init": "scratch", "method": "simclr", "samples": 12000, "set": []}
    parts = {"categories": "label", "subgroups": "subgroup"}
    plan = Study(config=load_config(root / "curate.toml"), out=tmp_path).plan()
    priced = plan.pop("price")
    assert (priced["runs"], priced["samples"], priced["device_hours"]) == (3, 36_000, pytest.approx(0.1))
    assert json.loads(json.dumps(plan)) == {
        "schema": "curate.run-plan/1",
        "steps": ["score", "select", "pretrain", "evaluate"],
        "encoder": "lite0",
        "seed": 0,
        "target": data["target-train"],
        "pools": pools,
        "evaluate": {
            name: f"{data['target-train']}#label:{label}::{data['target-test']}#label:{label}"
            for name, label in parts.items()
        },
        "budget": 1000,
        "limits": {"images": 1000},
        "terms": {name: {} for name in ("target", *pools)},
        "weights": {},
        "arms": [{"name": name, "select": name, **arm} for name in ("near-first", "pool-gated", "random")],
    }


def test_a_dry_run_lists_and_prices_every_cell_and_does_nothing(study, tmp_path, monkeypatch):
    monkeypatch.setattr(prices, "_measured", lambda *_, **__: 0.01)
    text = GRID.replace("seeds = [0, 1]", "seeds = [0, 1, 2]").replace("[80]", "[80, 160]")
    found = study(text)
    plan = found.plan()
    assert (plan["runs"], plan["selections"], plan["samples"]) == (24, 12, 12 * (80 + 160))
    assert [cell["name"] for cell in plan["cells"][:3]] == ["near~N12~C80~s0", "near~N12~C80~s1", "near~N12~C80~s2"]
    assert plan["cells"][0]["selection"] == "near-first~N12~s0"
    assert (plan["price"]["runs"], plan["price"]["samples"]) == (24, plan["samples"])
    lines = found.plan_lines()
    assert lines[1] == "1 target, 12 selections, 24 runs, 2,880 samples in all."
    assert "  near~N12~C80~s0: near-first, simclr from scratch, C = 80, 1 s of training" in lines
    assert any("24 runs, 2,880 samples:" in line for line in lines)
    assert lines[-2].startswith("No primary contrast is written down")
    assert "forecast" not in plan
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_the_primary_contrast_can_tell(study, monkeypatch):
    monkeypatch.setattr(prices, "_measured", lambda *_, **__: 0.01)
    assert "one seed of an arm decides nothing" in study(TWO_ARMS).plan_lines()[-2]
    found = study(TWO_ARMS.replace("samples = [40]", "samples = [40]\nseeds = [0, 1, 2]"))
    told = found.plan()["forecast"]
    assert (told["contrast"], told["seeds"], told["targets"], told["units"]) == (["near", "own"], 3, 1, 18)
    (line,) = [line for line in found.plan_lines() if "80 times of 100" in line]
    assert line.startswith("Primary contrast, near against own: 3 seeds, 1 target and 18 test units tell")
    assert "forecast" not in study(TWO_ARMS, until="pretrain").plan()


def test_selections_of_a_grid_have_the_size_shares_and_seed_that_were_asked_for(study, tmp_path):
    found = study(GRID, until="select")
    tables = found.execute(work=tmp_path / "work")
    assert [len(table.rows) for table in tables] == [2, 8]
    places = tmp_path / "out" / "selections"
    chosen = {path.name: Selection.open(path) for path in places.iterdir()}
    assert {name: len(s) for name, s in chosen.items()} == {
        draw.name: draw.images for study in found.targets.values() for draw in study.draws
    }
    mixed = {n: chosen[f"random~far=0.25+web=0.75~N{n}~s0"] for n in (12, 20)}
    assert {n: s.counts() for n, s in mixed.items()} == {12: {"web": 9, "far": 3}, 20: {"web": 15, "far": 5}}
    other = chosen["random~far=0.25+web=0.75~N12~s1"]
    assert set(mixed[12].to_paths()) <= set(mixed[20].to_paths()) != set(other.to_paths())
    document = files.read_json(tmp_path / "out" / "cells.json")
    assert {(c["name"], c["asked"], c["realized"], c["seed"]) for c in document["cells"]} >= {
        ("near~N12~s0", 12, 12, 0),
        ("mixed~N20~s1", 20, 20, 1),
    }
    nested = {(n["of"], n["in"]): n["share"] for n in document["nested"]}
    assert nested["near-first~N12~s1", "near-first~N20~s1"] == 1.0
    assert len(nested) == 4


def test_what_cannot_be_selected_costs_its_cells_alone(study, tmp_path):
    text = GRID.replace('shares = ["web=0.75", "far=0.25"]', 'pools = ["far"]\nown = false')
    text = text.replace('select = "random"', 'select = "pool-gated"')
    study(text, until="select").execute(work=tmp_path / "work")
    cells = {c["name"]: c for c in files.read_json(tmp_path / "out" / "cells.json")["cells"]}
    assert [cells[name]["realized"] for name in ("near~N12~s0", "mixed~N12~s0")] == [12, None]
    assert cells["near~N12~s0"]["reason"] == ""
    assert "Nothing to select" in cells["mixed~N12~s0"]["reason"]


def test_other_images_are_refused_and_no_result_is_overwritten(study, tmp_path):
    found = study(GRID, until="select")
    found.execute(work=tmp_path / "work")
    told = {name: (tmp_path / "out" / name).read_bytes() for name in ("cells.json", "score.json")}
    (tmp_path / "far" / "more.png").write_bytes(next((tmp_path / "web").rglob("*.png")).read_bytes())
    with pytest.raises(ForeignFolderError, match="far is "):
        found.execute(work=tmp_path / "work")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in told} == told
    (tmp_path / "out" / "score.json").unlink()
    with pytest.raises(ForeignFolderError, match="holds another selection"):
        found.execute(work=tmp_path / "work")
    assert (tmp_path / "out" / "cells.json").read_bytes() == told["cells.json"]


@pytest.fixture
def trained(monkeypatch):
    """Runs that are only written down; ``trained[arm]`` is what run.json says beyond."""
    beyond = {}

    def pretrain(chosen, *, out, samples, **_):
        if not (out / "run.json").exists():
            sizes = {"unique_images": len(chosen), "samples_seen": samples, "diversity": 0.1, "device": "other"}
            health = {"health": {"verdict": "ok"}, "loss_first": 1.0, "loss_last": 0.5, "stopped": None}
            files.write_json(out / "config.json", {"selection": chosen.digest})
            files.write_json(
                out / "run.json", {"schema": "curate.run/1", **sizes, **health, **beyond.get(out.name[:3], {})}
            )
        return Run.open(out)

    monkeypatch.setattr(cells.pretraining, "pretrain", pretrain, raising=False)
    monkeypatch.setattr(prices, "_measured", lambda *_, **__: 0.01)
    return beyond


def test_a_run_that_fails_leaves_the_others_to_be_evaluated(study, tmp_path, trained, monkeypatch):
    evaluated, pretrain = [], cells.pretraining.pretrain

    def broken(chosen, *, out, **settings):
        if out.name == "own":
            raise TrainingError("The loss is not finite.")
        return pretrain(chosen, out=out, **settings)

    monkeypatch.setattr(cells.pretraining, "pretrain", broken)
    monkeypatch.setattr(TargetStudy, "evaluate", lambda self, runs, _: evaluated.append(sorted(runs)))
    monkeypatch.setattr("curate.experiments._study.analyze", lambda _: None)
    found = study(TWO_ARMS)
    with pytest.raises(TasksFailedError, match="own: The loss is not finite"):
        found.execute(work=tmp_path / "work")
    assert evaluated == [["near"]]
    assert failures(tmp_path) == {"near": "", "own": "The loss is not finite."}
    monkeypatch.setattr(cells.pretraining, "pretrain", pretrain)
    found.execute(work=tmp_path / "work")
    assert evaluated == [["near"], ["near", "own"]]
    assert failures(tmp_path) == {"near": "", "own": ""}


def test_a_study_whose_runs_all_fail_evaluates_nothing(study, tmp_path, trained, monkeypatch):
    def broken(*_, **__):
        raise TrainingError("The loss is not finite.")

    monkeypatch.setattr(cells.pretraining, "pretrain", broken)
    monkeypatch.setattr(TargetStudy, "evaluate", lambda *_: pytest.fail("nothing to evaluate"))
    with pytest.raises(TasksFailedError, match="2 of 2 tasks failed"):
        study(TWO_ARMS).execute(work=tmp_path / "work")


def failures(folder):
    return {cell["name"]: cell["failed"] for cell in files.read_json(folder / "out" / "cells.json")["cells"]}


def test_a_run_whose_folder_was_deleted_is_priced_and_done_again(study, tmp_path, trained):
    found = study(TWO_ARMS, until="pretrain")
    found.execute(work=tmp_path / "work")
    run = tmp_path / "out" / "runs" / "near"
    shutil.rmtree(run)
    price = study(TWO_ARMS, until="pretrain").plan()["price"]
    assert (price["runs"], price["done"]) == (1, 1)
    found.execute(work=tmp_path / "work")
    assert (run / "run.json").exists()


def test_a_run_on_another_selection_is_refused_and_can_be_made_anew(study, tmp_path, trained):
    found = study(TWO_ARMS, until="pretrain")
    found.execute(work=tmp_path / "work")
    shutil.rmtree(tmp_path / "out" / "selections")
    (tmp_path / "web" / "more.png").write_bytes(next((tmp_path / "far").rglob("*.png")).read_bytes())
    for arm in ("near", "own"):
        with pytest.raises(ForeignFolderError, match=f"{arm} was begun on another selection"):
            found.execute(work=tmp_path / "work")
        shutil.rmtree(tmp_path / "out" / "runs" / arm)
    found.execute(work=tmp_path / "work")
    for cell in found.cells:
        drawn = Selection.open(tmp_path / "out" / "selections" / cell.draw.name)
        assert files.read_json(tmp_path / "out" / "runs" / cell.name / "config.json")["selection"] == drawn.digest


def test_a_run_that_was_stopped_early_is_done_told_and_evaluated_as_it_is(study, tmp_path, trained, monkeypatch):
    trained["nea"] = {"stopped": {"reason": "collapsed.", "at": 40, "saved": 0.5}, "samples_seen": 40}
    found = study(TWO_ARMS, until="pretrain")
    for _ in range(2):
        tables = found.execute(work=tmp_path / "work")
        told = {c["name"]: c["stopped"] for c in files.read_json(tmp_path / "out" / "cells.json")["cells"]}
        assert told == {"near": trained["nea"]["stopped"], "own": None}
        assert [row[-1] for row in tables[-1].rows] == ["ok; stopped early: collapsed.", "ok"]
    assert found.plan()["price"]["runs"] == 0
    mine = found.targets["target"]
    runs = {cell.name: Run.open(mine.run_folder(cell)) for cell in found.cells}
    given = {}
    monkeypatch.setattr(
        _target_study.evaluation,
        "evaluate",
        lambda runs, *_, **options: given.update(runs=runs, **options) or ShiftReport,
        raising=False,
    )
    monkeypatch.setattr(ShiftReport, "save", lambda folder: None)
    mine.evaluate(runs, {})
    assert (list(given["runs"]), given["allow_unequal"]) == (["near", "own"], True)
    runs["own"].facts["samples_seen"] = 79  # and nothing stopped it
    with pytest.raises(UsageError, match="did not see all their samples: own") as caught:
        mine.evaluate(runs, {})
    assert "Delete" in caught.value.hint


def test_a_grid_killed_in_a_run_continues_to_the_same_table(study, tmp_path):
    found = study(TWO_ARMS)
    found.execute(work=tmp_path / "work")
    told = results(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from curate.config import load_config\n"
        "from curate.experiments import Study\n"
        "def progress(stage, done, total, note=''):\n"
        "    if stage == 'tasks' and done == 1 and 'pretrain' in note:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "root = Path(sys.argv[1])\n"
        "study = Study(config=load_config(root / 'c.toml'), out=root / 'out', encoder='color-texture')\n"
        "study.execute(work=root / 'work', progress=progress)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    runs = tmp_path / "out" / "runs"
    first = runs / "near" / "run.json"
    assert sorted(p.parent.name for p in runs.glob("*/run.json")) == ["near"]
    assert (runs / "own").exists()  # it was under way
    written = first.stat().st_mtime_ns
    tables = found.execute(work=tmp_path / "work")
    assert first.stat().st_mtime_ns == written
    assert results(tmp_path / "out") == told
    assert [row[0] for row in tables[-1].rows] == ["near", "own"]  # the runs; how they compare is told by the command
    own = Selection.open(tmp_path / "out" / "selections" / "random~of-no-pool~N20")
    assert set(own.counts()) == {"target"}
    protocol = files.read_json(tmp_path / "out" / "protocol.json")["protocol"]
    assert protocol["primary"] == ["near", "own"]
    with pytest.raises(ForeignFolderError):
        study(TWO_ARMS.replace('["near", "own"]', '["own", "near"]')).execute(work=tmp_path / "work")
    study(TWO_ARMS.replace('["cpu"]', '["cpu", "cpu"]'))._claim()  # where it is computed changes nothing


def test_several_targets_have_a_folder_each_and_are_no_pools_of_their_own(study, tmp_path):
    head = (
        '[targets.mine]\nuri = "mine"\n[targets.web]\nuri = "web"\n[pools.web]\nuri = "web"\n[pools.far]\nuri = "far"\n'
        '[evaluate.mine]\ntrain = "mine"\ntarget = "mine"\n[evaluate.web]\ntrain = "web"\ntarget = "web"\n'
        "[budget]\nimages = 20\n"
    )
    found = study('[[arms]]\nname = "chance"\nselect = "random"\nsamples = 80\n', head, until="select")
    tables = found.execute(work=tmp_path / "work")
    assert [table.title.partition(".")[0] for table in tables] == ["mine", "mine", "web", "web"]
    assert found.folders == [tmp_path / "out" / "mine", tmp_path / "out" / "web"]
    facts = {f.name: Selection.open(f / "selections" / "random").facts for f in found.folders}
    assert {name: set(known["pools"]) for name, known in facts.items()} == {"mine": {"web", "far"}, "web": {"far"}}
    assert all(len(known["excluded"]) == 1 for known in facts.values())
    assert found.plan()["targets"] == {"mine": f"{tmp_path}/mine", "web": f"{tmp_path}/web"}


def test_which_labeled_set_is_whose_is_a_part_of_a_study_of_several_targets(study, tmp_path):
    head = (
        '[targets.mine]\nuri = "mine"\n[targets.web]\nuri = "web"\n[pools.far]\nuri = "far"\n[budget]\nimages = 20\n'
        '[evaluate.a]\ntrain = "mine"\ntarget = "mine"\n[evaluate.b]\ntrain = "web"\ntarget = "web"\n'
    )
    arm = '[[arms]]\nname = "chance"\nselect = "random"\nsamples = 80\n'
    found = study(arm, head, until="select")
    assert found.plan()["labeled"] == {"mine": {"a": f"{tmp_path}/mine"}, "web": {"b": f"{tmp_path}/web"}}
    found._claim()
    swapped = head.replace('target = "mine"', 'target = "?"').replace('target = "web"', 'target = "mine"')
    with pytest.raises(ForeignFolderError, match=r"labeled\.mine"):
        study(arm, swapped.replace('target = "?"', 'target = "web"'), until="select")._claim()
    known = files.read_json(tmp_path / "out" / "study.json")
    del known["labeled"]  # as earlier versions wrote it
    shutil.rmtree(tmp_path / "out")
    files.write_json(tmp_path / "out" / "study.json", known)
    found._claim()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (("[80]", "[80, 160]\nmethods = ['simclrr']"), UnknownNameError, "pretraining method 'simclrr'"),
        (('name = "near"', 'name = "near"\nsamples = 81'), ConfigError, "unequal numbers of samples: 80, 81"),
        (('name = "near"', 'name = "near"\nencoder = "lite1"'), UnknownNameError, "lite1"),
        (("images = [12, 20]", ""), ConfigError, "no [budget]"),
        (("[grid]", "[study]\nalso = ['lables']\n[grid]"), UnknownNameError, "examination 'lables'"),
        (("[grid]", "[study]\nset = ['rejct=1']\n[grid]"), UnknownNameError, "rejct"),
        (("[grid]", "[protocol]\nprimary = ['near', 'mixde']\n[grid]"), ConfigError, "mixde"),
        (("[grid]", "[protocol]\nwhere = { init = 'pubic' }\n[grid]"), ConfigError, "'pubic', wanted what some run"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(study, change, error, said):
    assert change[0] in GRID
    with pytest.raises(error) as caught:
        study(GRID.replace(*change, 1))
    assert said in str(caught.value)


def test_arms_may_differ_in_samples_only_as_the_grid_does(study):
    text = GRID.replace("[80]", "[80, 160]").replace('name = "near"', 'name = "near"\nsamples = 160')
    assert {cell.samples for cell in study(text).cells if cell.arm == "near"} == {160}
