import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from curate.experiments import lock, queue, workers
from curate.experiments import task as task_module
from curate.experiments.named import named
from curate.experiments.queue import run_all
from curate.experiments.task import Task, attempt
from embeddings import files
from embeddings.errors import CurateError, ForeignFolderError, UsageError
from embeddings.progress import silent

HERE = Path(__file__).parent
ONE, TWO = ["cpu"], ["cpu", "cpu"]


def task(i, function="note", **arguments):
    name = f"t{i}"
    return Task(
        name=name, folder=Path("cells") / name, function=f"queued_tasks:{function}", arguments={"value": i, **arguments}
    )


def effects(folder):
    """Task -> the values it left, one for each time its effect happened."""
    return {p.parent.name: [int(line.split()[0]) for line in lines(p)] for p in sorted(folder.glob("cells/*/effect"))}


def lines(path):
    return path.read_text().splitlines()


def once(n):
    return {f"t{i}": [i] for i in sorted(range(n), key=lambda i: f"t{i}")}


def in_the_background(folder, tasks, devices):
    """The same call in a process of its own."""
    listed = [{**vars(t), "folder": str(t.folder)} for t in tasks]
    code = (
        "import sys, json, signal; from pathlib import Path; from curate.experiments.queue import run_all\n"
        "from curate.experiments.task import Task\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs of a shell ignore it
        "tasks = [Task(**{**t, 'folder': Path(t['folder'])}) for t in json.loads(sys.argv[1])]\n"
        "run_all(tasks, devices=json.loads(sys.argv[2]), folder=Path(sys.argv[3]))"
    )
    given = [json.dumps(listed), json.dumps(devices), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code, *given], env=environment, stderr=subprocess.PIPE)


def wait_until(holds):
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it never came")


@pytest.mark.parametrize("devices", [ONE, TWO])
def test_every_task_is_done_once_and_a_second_call_does_nothing(tmp_path, devices):
    tasks = [task(i) for i in range(5)]
    run_all(tasks, devices=devices, folder=tmp_path)
    run_all(tasks, devices=devices, folder=tmp_path)
    assert effects(tmp_path) == once(5)
    assert sorted(p.name for p in (tmp_path / "cells/t0").iterdir()) == ["done.json", "effect", "task.json"]


def test_one_device_runs_here_and_several_run_in_as_many_other_processes(tmp_path):
    run_all([task(i, seconds=0.2) for i in range(4)], devices=TWO, folder=tmp_path / "two")
    run_all([task(0)], devices=ONE, folder=tmp_path / "one")
    pids = {line.split()[1] for p in tmp_path.glob("two/cells/*/effect") for line in lines(p)}
    assert len(pids) == 2
    assert str(os.getpid()) not in pids
    assert (tmp_path / "one/cells/t0/effect").read_text() == f"0 {os.getpid()}\n"


def test_the_order_of_the_tasks_changes_no_result(tmp_path):
    tasks = [task(i) for i in range(6)]
    shuffled = random.Random(0).sample(tasks, 6)
    run_all(tasks, devices=ONE, folder=tmp_path / "a")
    run_all(shuffled, devices=ONE, folder=tmp_path / "b")
    documents = [
        {p.parent.name: json.loads(p.read_text())["digest"] for p in (tmp_path / side).glob("cells/*/done.json")}
        for side in "ab"
    ]
    assert shuffled != tasks
    assert documents[0] == documents[1]
    assert effects(tmp_path / "a") == effects(tmp_path / "b")


def test_the_digest_tells_functions_and_arguments_apart():
    digests = {files.digest(t.document()) for t in (task(1), task(1, seconds=1.0), task(1, "fail_once"), task(2))}
    assert len(digests) == 4


@pytest.mark.parametrize(("how", "said"), [("refuse", "The loss is not finite."), ("crash", "1/0")])
@pytest.mark.parametrize("devices", [ONE, TWO])
def test_a_task_that_fails_leaves_the_others_alone_and_is_tried_again(tmp_path, devices, how, said):
    tasks = [task(0, "fail_once", how=how), *(task(i) for i in range(1, 4)), task(4, "fail_once", how=how)]
    with pytest.raises(CurateError, match=r"2 of 5 tasks failed: t[04]: .*; t[04]: ") as refused:
        run_all(tasks, devices=devices, folder=tmp_path)
    assert (refused.value.exit_code, said in refused.value.message) == (1, True)
    assert list(effects(tmp_path)) == ["t1", "t2", "t3"]
    kept = json.loads((tmp_path / "cells/t0/error.json").read_text())
    assert (kept["message"], kept["hint"], kept["type"]) == (
        (said, "Lower the rate.", "TrainingError") if how == "refuse" else (said, None, "ZeroDivisionError")
    )
    run_all(tasks, devices=devices, folder=tmp_path)
    assert effects(tmp_path) == once(5)
    assert not (tmp_path / "cells/t0/error.json").exists()


def test_a_function_that_does_not_exist_is_a_failed_task(tmp_path):
    with pytest.raises(CurateError, match=r"1 of 2 tasks failed: t0: .*no_such"):
        run_all([task(0, "no_such"), task(1)], devices=ONE, folder=tmp_path)
    assert list(effects(tmp_path)) == ["t1"]


def test_why_a_task_failed_is_told_though_another_call_has_taken_it_up_since(tmp_path, monkeypatch):
    perform = task_module._perform

    def performed(one, *rest):
        found = perform(one, *rest)
        (one.folder / "error.json").unlink()  # as the other call's attempt begins
        return found

    monkeypatch.setattr(task_module, "_perform", performed)
    with pytest.raises(CurateError, match="1 of 1 tasks failed: t0: 1/0"):
        run_all([task(0, "fail_once", how="crash")], devices=ONE, folder=tmp_path)


def test_a_task_whose_product_is_gone_is_done_again_also_by_a_worker(tmp_path):
    tasks = [Task(**{**vars(task(i)), "product": f"../t{i}/effect"}) for i in range(2)]
    run_all(tasks, devices=ONE, folder=tmp_path)
    (tmp_path / "cells/t0/effect").unlink()
    run_all(tasks, devices=TWO, folder=tmp_path)
    assert effects(tmp_path) == once(2)
    run_all([task(0), task(1)], devices=ONE, folder=tmp_path)  # it is no part of what the task is


def test_a_killed_worker_costs_one_task_and_the_same_call_finishes_it(tmp_path):
    tasks = [task(0, "fail_once", how="kill"), *(task(i) for i in range(1, 5))]
    with pytest.raises(CurateError, match="1 of 5 tasks failed: t0: Its process ended with signal SIGKILL"):
        run_all(tasks, devices=TWO, folder=tmp_path)
    assert list(effects(tmp_path)) == ["t1", "t2", "t3", "t4"]
    assert "Memory" in json.loads((tmp_path / "cells/t0/error.json").read_text())["hint"]
    run_all(tasks, devices=TWO, folder=tmp_path)
    assert effects(tmp_path) == once(5)


def test_when_every_task_kills_its_worker_the_call_still_ends(tmp_path):
    tasks = [task(i, "fail_once", how="kill") for i in range(3)]
    with pytest.raises(CurateError, match="3 of 3 tasks failed"):
        run_all(tasks, devices=TWO, folder=tmp_path)
    run_all(tasks, devices=ONE, folder=tmp_path)
    assert effects(tmp_path) == once(3)


@pytest.mark.parametrize("devices", [ONE, TWO])
def test_a_call_that_was_killed_is_continued_by_the_next(tmp_path, devices):
    tasks = [task(0, "wait_for_stop"), task(1, "wait_for_stop"), task(2)]
    first = in_the_background(tmp_path, tasks, devices)
    begun = [tmp_path / "cells" / t.name / "begun" for t in tasks[: len(devices)]]
    wait_until(lambda: all(path.exists() for path in begun))
    pids = {json.loads(p.read_text())["pid"] for p in tmp_path.glob("cells/*/lock.1")}
    for pid in pids | {first.pid}:
        os.kill(pid, signal.SIGKILL)
    first.communicate()
    run_all([task(2)], devices=ONE, folder=tmp_path)
    for path in begun:
        (path.parent / "kept").touch()  # the second time it does not wait
    run_all(tasks[: len(devices)], devices=devices, folder=tmp_path)
    assert all(values == [int(name[1:])] for name, values in effects(tmp_path).items())
    assert len(effects(tmp_path)) == len(devices) + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("devices", [ONE, TWO])
def test_a_signal_reaches_the_tasks_which_keep_what_they_have(tmp_path, devices, number):
    tasks = [task(i, "wait_for_stop") for i in range(len(devices))]
    first = in_the_background(tmp_path, tasks, devices)
    wait_until(lambda: len(list(tmp_path.glob("cells/*/begun"))) == len(devices))
    first.send_signal(number)
    _, said = first.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert [p.parent.name for p in sorted(tmp_path.glob("cells/*/kept"))] == [t.name for t in tasks]
    assert all(json.loads(p.read_text()) == lock.FREE for p in tmp_path.glob("cells/*/lock.1"))
    run_all(tasks, devices=devices, folder=tmp_path)
    assert effects(tmp_path) == once(len(devices))


def test_two_calls_at_once_share_the_tasks_out(tmp_path):
    tasks = [task(i, seconds=0.05) for i in range(12)]
    calls = [in_the_background(tmp_path, tasks, devices) for devices in (ONE, TWO)]
    said = [call.communicate(timeout=120)[1] for call in calls]
    assert [(call.returncode, text) for call, text in zip(calls, said, strict=True)] == [(0, b"")] * 2
    assert effects(tmp_path) == once(12)


def test_a_changed_task_is_refused_before_anything_runs(tmp_path):
    run_all([task(0, seconds=0.0)], devices=ONE, folder=tmp_path)
    with pytest.raises(ForeignFolderError, match=r"arguments\.seconds is 0\.0 there, 1\.0 here"):
        run_all([task(1), task(0, seconds=1.0)], devices=ONE, folder=tmp_path)
    assert effects(tmp_path) == once(1)


def test_a_task_that_changed_while_it_was_unfinished_is_refused_too(tmp_path):
    with pytest.raises(CurateError):
        run_all([task(0, "fail_once", how="crash")], devices=ONE, folder=tmp_path)
    with pytest.raises(ForeignFolderError, match=r"arguments\.how is 'crash' there"):
        run_all([task(0)], devices=ONE, folder=tmp_path)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "cells/t0").mkdir(parents=True)
    (tmp_path / "cells/t0/thesis.txt").write_text("mine")
    with pytest.raises(ForeignFolderError):
        run_all([task(0)], devices=ONE, folder=tmp_path)
    assert [p.name for p in (tmp_path / "cells/t0").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("second", [task(0, seconds=1.0), Task(name="b", folder=Path("cells/t0"), function="m:f")])
def test_tasks_that_share_a_name_or_folder_are_refused(tmp_path, second):
    with pytest.raises(UsageError, match="Several tasks have the"):
        run_all([task(0), second], devices=ONE, folder=tmp_path)


@pytest.mark.parametrize("devices", [ONE, TWO])
def test_progress_counts_tasks_and_says_what_is_under_way(tmp_path, devices):
    told = []
    run_all([task(i) for i in range(3)], devices=devices, folder=tmp_path, progress=lambda *step: told.append(step))
    counts = [(done, total) for stage, done, total, _ in told if stage == "tasks"]
    assert counts == sorted(counts)
    assert counts[-1] == (3, 3)
    assert {f"t{i}: announced {i}" for i in range(3)} <= {note for _, _, total, note in told if not total}
    assert any("t0: working 50%" in note for *_, note in told)


@pytest.mark.parametrize("devices", [ONE, TWO])
def test_warnings_say_of_which_task_they_are_and_reach_the_caller_from_its_worker(tmp_path, devices, caplog):
    run_all([task(i, "warn", share=0.5) for i in range(2)], devices=devices, folder=tmp_path)
    assert {r.getMessage() for r in caplog.records} == {f"t{i}: The batch is {i}, 50% of it." for i in range(2)}
    assert {r.levelname for r in caplog.records} == {"WARNING"}
    assert logging.getLogRecordFactory() is logging.LogRecord


def test_a_name_that_looks_like_a_format_stays_as_it_is(caplog):
    with named("a%s"), caplog.at_level(logging.WARNING):
        logging.getLogger("x").warning("%d images", 3)
        logging.getLogger("x").warning("100% of them")
    assert caplog.messages == ["a%s: 3 images", "a%s: 100% of them"]


def test_each_worker_has_its_share_of_the_cores_and_may_print(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "core_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    places = [Task(name=n, folder=Path("cells") / n, function="queued_tasks:threads") for n in "ab"]
    run_all(places, devices=TWO, folder=tmp_path)
    assert {p.read_text() for p in tmp_path.glob("cells/*/place")} == {"cpu 3"}


def test_a_worker_sees_only_its_own_gpu_of_those_this_process_may_see(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    name, environment = workers._placed("cuda:1", 2)
    assert (name, environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == ("cuda", "1", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert workers._placed("cuda:1", 2)[1]["CUDA_VISIBLE_DEVICES"] == "7"
    assert workers._placed("auto", 2)[0] == "auto"
    with pytest.raises(UsageError, match="cuda:2"):
        workers._placed("cuda:2", 2)


def test_a_worker_that_does_not_even_start_ends_the_call(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(CurateError, match=r"does not start \(exit code 1\)"):
        run_all([task(0), task(1)], devices=TWO, folder=tmp_path)


# locks


def held_by(folder, *, host=None, pid=None, age=0.0):
    """A lock file of somebody, last touched ``age`` seconds ago."""
    path = folder / "lock.1"
    us = lock._owner()
    path.write_text(json.dumps({"host": host or us["host"], "pid": pid or us["pid"]}))
    then = lock._now(folder) - age
    os.utime(path, (then, then))
    return path


def dead_pid():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_live_lock_is_respected(tmp_path):
    held_by(tmp_path)
    assert lock.acquire(tmp_path) is None
    held_by(tmp_path, host="elsewhere", pid=dead_pid())  # another machine's numbers say nothing here
    assert lock.acquire(tmp_path) is None


def test_a_task_that_somebody_is_at_is_left_to_them(tmp_path):
    files.write_json(tmp_path / "cells/t0/task.json", task(0).document())
    held_by(tmp_path / "cells/t0")
    mine = Task(**{**vars(task(0)), "folder": tmp_path / "cells/t0"})
    assert attempt(mine, device="cpu", progress=silent) == ("busy", "")
    assert effects(tmp_path) == {}


def test_a_call_waits_for_what_others_are_at(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "POLL_S", 0.01)
    files.write_json(tmp_path / "cells/t0/task.json", task(0).document())
    path = held_by(tmp_path / "cells/t0")
    free = threading.Timer(0.2, lambda: path.write_text(json.dumps(lock.FREE)))
    free.start()
    run_all([task(0), task(1)], devices=ONE, folder=tmp_path)
    free.join()
    assert effects(tmp_path) == once(2)


@pytest.mark.parametrize("gone", ["dead", "old", "free", "unwritten"])
def test_a_stale_lock_is_taken_over(tmp_path, gone):
    path = held_by(tmp_path, host="elsewhere", age=lock.STALE_S + 60)
    if gone == "dead":
        path = held_by(tmp_path, pid=dead_pid())
    elif gone == "free":
        path.write_text(json.dumps(lock.FREE))
    elif gone == "unwritten":
        path.write_text("")
        os.utime(path, (1, 1))
    taken = lock.acquire(tmp_path)
    assert taken is not None
    assert taken.path.name == "lock.2"
    assert lock.acquire(tmp_path) is None


def test_a_lock_just_created_is_not_stale(tmp_path):
    (tmp_path / "lock.1").touch()
    assert lock.acquire(tmp_path) is None


def test_of_many_that_find_a_lock_stale_one_takes_it(tmp_path):
    for i in range(20):
        folder = tmp_path / str(i)
        folder.mkdir()
        held_by(folder, pid=dead_pid() if not i else 2**22 + 1)
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _, folder=folder: lock.acquire(folder), range(8)))
        assert sum(held is not None for held in taken) == 1


def test_a_held_lock_is_kept_fresh_and_freed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    held = lock.acquire(tmp_path)
    with held:
        os.utime(held.path, (1, 1))
        wait_until(lambda: held.path.stat().st_mtime > 1)
        assert lock.acquire(tmp_path) is None
    assert lock.acquire(tmp_path).path.name == "lock.2"


@pytest.mark.parametrize("other", ["at it", "finished"])
def test_who_was_taken_for_dead_stops_and_leaves_the_task_to_the_other(tmp_path, monkeypatch, other):
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    mine = Task(**{**vars(task(0, "wait_for_stop")), "folder": tmp_path / "cells/t0"})
    mine.folder.mkdir(parents=True)
    act = (mine.folder / "lock.2").touch if other == "at it" else (lambda: lock.clear(mine.folder))
    taken = threading.Timer(0.3, act)
    taken.start()
    with queue.sigterm_interrupts():
        assert attempt(mine, device="cpu", progress=silent) == ("busy", "")
    taken.join()
    assert not (mine.folder / "done.json").exists()
    kept = {path.name: path.read_text() for path in mine.folder.glob("lock.*")}
    assert set(kept) == ({"lock.1", "lock.2"} if other == "at it" else set())
    assert json.loads(kept.get("lock.1", '{"pid": 1}'))["pid"] != lock.FREE["pid"]  # not freed: it is not ours to free


def test_a_lock_lost_just_before_the_end_is_not_freed_and_a_stop_stays_a_stop(tmp_path):
    for error in (None, KeyboardInterrupt):
        held = lock.acquire(tmp_path)
        with pytest.raises(KeyboardInterrupt) if error else nullcontext(), held:
            lock.clear(tmp_path)
            if error:
                raise error
        assert held.lost == (error is None)
        assert not list(tmp_path.iterdir())
