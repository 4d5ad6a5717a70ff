import shutil
from pathlib import Path

import pytest

from curate.experiments import prices
from curate.experiments.prices import price
from curate.experiments.task import DONE, TASK, Task
from curate.pretraining.measure import Cost
from embeddings import files
from embeddings.errors import ForeignFolderError, UsageError


def task(name, *, samples=1_800, method="simclr", init="scratch", backbone=None, knobs=()):
    arguments = {"method": method, "init": init, "backbone": backbone, "samples": samples, "knobs": list(knobs)}
    return Task(
        name=name, folder=Path("tasks") / name, function="m:f", arguments={**arguments, "run": f"../../runs/{name}"}
    )


@pytest.fixture
def rates(monkeypatch):
    """Seconds per sample by method, and what was measured, in place of a measurement."""
    told, asked = {"simclr": 1.0, "byol": 2.0}, []

    def measured(arguments, *, device, threads):
        asked.append((arguments["method"], device, threads))
        return told[arguments["method"]]

    monkeypatch.setattr(prices, "_measured", measured)
    monkeypatch.setattr(prices, "core_count", lambda: 4)
    return asked


def finish(folder, done, *, seconds, device="cpu"):
    """The folders of a finished task and its run."""
    settings = prices._settings(done.arguments)
    files.write_json(folder / done.folder / TASK, done.document())
    files.write_json(folder / done.folder / DONE, {})
    facts = {"samples_seen": done.arguments["samples"], "seconds": seconds, "device": device}
    files.write_json(folder / "runs" / done.name / "run.json", {**facts, "config": settings.document()})


def test_hours_money_and_the_longest_run_add_up(tmp_path, rates):
    tasks = [task("a"), task("b"), task("c", samples=3_600, method="byol")]
    found = price(tasks, devices=["cpu"], folder=tmp_path, hour_price=2.5)
    assert (found.runs, found.done, found.samples) == (3, 0, 7_200)
    assert (found.device_hours, found.hours) == (0.5 + 0.5 + 2.0, 3.0)
    assert (found.longest, found.longest_hours) == ("c", 2.0)
    assert found.run_hours == {"a": 0.5, "b": 0.5, "c": 2.0}
    assert [found.of_run(name) for name in "ac"] == ["30 min of training", "2.0 h of training"]
    assert found.money == 7.5
    assert found.to_json()["money"] == 7.5
    assert [(rate.method, rate.runs, rate.finished) for rate in found.rates] == [("simclr", 2, 0), ("byol", 1, 0)]
    assert not any(tmp_path.iterdir())


def test_a_run_that_goes_on_from_one_that_is_not_there_yet_is_priced_as_that_one(tmp_path, rates):
    first = task("first", backbone="resnet18-small")
    later = task("later", init=f"run:{tmp_path / 'runs' / 'first'}", samples=3_600)
    found = price([first, later], devices=["cpu"], folder=tmp_path)
    assert found.run_hours == {"first": 0.5, "later": 1.0}
    assert [(rate.backbone.partition("@")[0], rate.runs) for rate in found.rates] == [("resnet18-small", 2)]
    with pytest.raises(UsageError):
        price([task("lost", init="run:nowhere")], devices=["cpu"], folder=tmp_path)


def test_side_by_side_takes_a_share_each_but_never_less_than_the_longest(tmp_path, rates):
    even = price([task(n) for n in "abcd"], devices=["cpu", "cpu"], folder=tmp_path)
    assert (even.device_hours, even.hours, even.devices) == (2.0, 1.0, 2)
    uneven = price([task("a"), task("b", samples=7_200)], devices=["cpu", "cpu"], folder=tmp_path)
    assert (uneven.device_hours, uneven.hours) == (2.5, 2.0)
    assert even.money is None
    assert {threads for *_, threads in rates} == {2}  # of four cores


def test_a_setting_is_measured_once_whatever_its_seed_and_samples(tmp_path, rates):
    same = [task("a"), task("b", samples=100), task("c", knobs=["temperature=0.1"]), task("d", backbone="tiny-resnet")]
    others = [task("e", knobs=["order=mixed"]), task("f", knobs=["chunks=2"])]
    found = price([*same, *others], devices=["cpu"], folder=tmp_path)
    assert [rate.runs for rate in found.rates] == [4, 1, 1]  # a knob of the method, and one of the computation
    assert len(rates) == 3


def test_finished_runs_are_not_priced_and_give_their_rate(tmp_path, rates):
    tasks = [task(n) for n in "abcd"]
    for name, seconds in zip("abc", (180.0, 360.0, 3_600.0), strict=True):
        finish(tmp_path, task(name), seconds=seconds)
    found = price(tasks, devices=["cpu"], folder=tmp_path)
    assert (found.runs, found.done, found.device_hours) == (1, 3, 0.1)  # the median of three rates
    assert found.rates[0].finished == 3
    assert rates == []


def test_a_run_that_was_finished_without_a_queue_is_done(tmp_path, rates):
    finish(tmp_path, task("a"), seconds=180.0)
    shutil.rmtree(tmp_path / "tasks")
    found = price([task("a"), task("b")], devices=["cpu"], folder=tmp_path)
    assert (found.runs, found.done, found.run_hours, found.of_run("a")) == (1, 1, {"b": 0.05}, "done")
    assert found.lines()[0].startswith("1 run (1 more done), 1,800 samples: 3 min of training.")


def test_runs_of_another_setting_or_kind_of_device_give_no_rate(tmp_path, rates):
    finish(tmp_path, task("a", method="byol"), seconds=1.0)
    finish(tmp_path, task("b"), seconds=1.0, device="cuda")
    tasks = [task("a", method="byol"), task("b"), task("c")]
    assert price(tasks, devices=["cpu"], folder=tmp_path).device_hours == 0.5
    assert price(tasks, devices=["cuda:0"], folder=tmp_path).device_hours == pytest.approx(1 / 3_600)


def test_when_all_is_done_it_costs_nothing(tmp_path, rates):
    finish(tmp_path, task("a"), seconds=1.0)
    found = price([task("a")], devices=["cpu"], folder=tmp_path, hour_price=1.0)
    assert (found.runs, found.hours, found.longest, found.money) == (0, 0.0, "", 0.0)
    assert found.lines() == ["All runs are done (1)."]


def test_it_says_so_in_words(tmp_path, rates):
    head, *rest = price(
        [task("a"), task("b", samples=36_000)], devices=["cuda:0", "cuda:1"], folder=tmp_path, hour_price=2
    ).lines()
    assert "2 runs, 37,800 samples: 10.5 h of training, 10.0 h on 2 devices, 21.00 at 2 per hour." in head
    assert "The longest run is b, 10.0 h." in head
    assert rest == ["  simclr, tiny-resnet@32 from scratch: 2 runs, 1.0 samples a second (measured on noise)"]


@pytest.mark.parametrize(("hours", "said"), [(3.25, "3.2 h"), (1.5, "90 min"), (0.01, "36 s"), (0.0, "0 s")])
def test_times_are_said_in_the_unit_that_fits(hours, said):
    assert prices.words(hours) == said


def test_a_price_below_nothing_is_refused(tmp_path):
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="cannot cost"):
            price([], devices=["cpu"], folder=tmp_path, hour_price=wrong)


def test_another_study_in_the_folder_is_refused(tmp_path, rates):
    finish(tmp_path, task("a", samples=5_000), seconds=1.0)
    with pytest.raises(ForeignFolderError, match=r"arguments\.samples"):
        price([task("a")], devices=["cpu"], folder=tmp_path)


def test_a_real_measurement_is_of_the_setting_and_writes_nothing(tmp_path, monkeypatch):
    seen = {}

    def cost(trainer, *, batch):
        seen.update(method=trainer.settings.method, batch=batch, size=trainer.settings.backbone.size)
        return Cost(0.25, 1.0)

    monkeypatch.setattr(prices, "measure_cost", cost)
    priced = task("a", samples=14_400, knobs=["batch=16", "size=48", "order=reversed", "cache=0"])
    found = price([priced], devices=["cpu"], folder=tmp_path)
    assert found.device_hours == 1.0
    assert seen == {"method": "simclr", "batch": 16, "size": 48}
    assert not any(tmp_path.iterdir())
