"""One side of a comparison, in a process of its own: reads a job a line, answers with seconds and figures.

It says when the inputs are loaded, so that whoever asks can watch the memory of the job alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Job = Callable[..., dict[str, float]]


def serve(jobs: Mapping[str, Job]) -> None:
    """Answers until the input ends; a job gets arrays for paths of .npy files, and other paths as they are."""
    # What a peer prints must not be taken for an answer.
    answers, sys.stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w"), sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        inputs = [np.load(p) if p.endswith(".npy") else Path(p) for p in request["inputs"]]
        print("loaded", file=answers, flush=True)
        wall, cpu = time.perf_counter(), time.process_time()
        figures = jobs[request["job"]](*inputs)
        seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps({**seconds, "figures": figures}), file=answers, flush=True)
