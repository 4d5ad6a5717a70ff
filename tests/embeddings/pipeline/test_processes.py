"""Worker processes: answers, errors, crashes, hangs, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from embeddings.errors import CurateError, SourceError
from embeddings.pipeline.processes import Worker, WorkerDied

MODULE = """
import os, signal, sys, time

class Echo:
    def __init__(self, greeting): self.greeting = greeting
    def __call__(self, what, *rest):
        if what == "pid": return os.getpid()
        if what == "print": print("noise"); sys.stdout.flush(); os.write(1, b"more noise")
        if what == "raise": raise ValueError(*rest)
        if what == "ours":
            from embeddings.errors import SourceError
            raise SourceError("no such thing", hint="look again")
        if what == "odd":
            class Local(Exception): pass
            raise Local("cannot travel")
        if what == "segv": os.kill(os.getpid(), signal.SIGSEGV)
        if what == "exit": os._exit(7)
        if what == "hang": time.sleep(60)
        if what == "big": return bytes(5_000_000)
        return self.greeting + what

def refuse(): raise SourceError_("x")
def dies(): os._exit(3)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "echo_worker.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    worker = Worker("echo_worker:Echo", "hello ")
    yield worker
    worker.stop()


def test_it_answers_from_another_process(worker):
    assert worker("you", patience_s=20) == "hello you"
    assert worker("pid", patience_s=20) != os.getpid()
    assert len(worker("big", patience_s=20)) == 5_000_000
    assert worker("print", patience_s=20) == "hello print"  # prints do not get between the answers


def test_errors_come_back_and_the_worker_lives_on(worker):
    with pytest.raises(ValueError, match="bad value"):
        worker("raise", "bad value", patience_s=20)
    with pytest.raises(SourceError, match="no such thing") as error:
        worker("ours", patience_s=20)
    assert error.value.hint == "look again"
    with pytest.raises(CurateError, match="Local: cannot travel"):
        worker("odd", patience_s=20)
    assert worker("still here", patience_s=20) == "hello still here"


@pytest.mark.parametrize(
    ("call", "ending"), [("segv", "was ended by SIGSEGV"), ("exit", "ended with code 7"), ("hang", "gave no answer")]
)
def test_a_worker_that_ends_or_hangs_says_how(worker, call, ending):
    with pytest.raises(WorkerDied, match=ending):
        worker(call, patience_s=1.0 if call == "hang" else 20)
    with pytest.raises(WorkerDied):
        worker("anything", patience_s=20)


def test_a_worker_that_cannot_start_is_an_error(worker):
    with pytest.raises(NameError):
        Worker("echo_worker:refuse")
    with pytest.raises(CurateError, match="cannot be started: it ended with code 3"):
        Worker("echo_worker:dies")
    with pytest.raises(ModuleNotFoundError):
        Worker("no_such_module:thing")


def test_ctrl_c_does_not_reach_it(worker):
    os.kill(worker("pid", patience_s=20), signal.SIGINT)
    assert worker("you", patience_s=20) == "hello you"


def test_it_ends_with_its_caller(worker, tmp_path):
    """Also when the caller is killed and can clean up nothing."""
    script = tmp_path / "caller.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal
        from embeddings.pipeline.processes import Worker
        worker = Worker("echo_worker:Echo", "")
        print(worker("pid", patience_s=20), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    for _ in range(100):
        if not _runs(pid):
            break
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
