"""Speed, memory and agreement of the distances against the packages that people use for them.

    OMP_NUM_THREADS=2 python benchmarks/distances.py --out benchmarks/results/distances-cpu.json
    python benchmarks/distances.py --only prdc-768
    OMP_NUM_THREADS=1 python benchmarks/distances.py --only score-250000 score-1000000

The first runs all but the long rows (prdc-50k, score-*), which are run by name; score-1000000 writes 3 GB first.
The peers live in an environment of their own (--peers), made on the first run from peers/requirements.txt. Either side
is one process; they do the same job in turn, and the ratio of their best times is what counts: other work on the
machine slows both. Memory is RssAnon, what a process holds besides mapped files, sampled from outside: the most during
the job, its result included, over what was held before it, inputs loaded. Agreement is the largest relative difference
of the figures they share.

At D = 768 no way was found to be 15 times as fast as SciPy 1.17's square root (0.63 s; 42 ms wanted). In CPU time one
thread needs 43 ms for the eigenvalues alone, 61 by LAPACK's two-stage driver and 68 by MKL's, and 20 for the factor and
the product before them. Two threads took 127 ms in all on idle cores, and up to a hundred times as long on busy ones.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from measured import hardware, versions

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))

from data import two_moments, two_samples, write_store  # noqa: E402

Make = Callable[[Path], Sequence[Path]]
SAMPLE_S = 0.01
ROOT = HERE.parent


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison."""

    job: str
    what: str
    make: Make
    wanted: str
    peer: str | None = None  # None: nothing to compare with; our figures and memory only
    repeats: int = 3
    long: bool = False  # minutes: run by name only


def rows() -> dict[str, Row]:
    """Every comparison by name."""
    found = {}
    for d, times, repeats in ((384, 10, 15), (768, 15, 9), (2048, 3.5, 3)):
        found[f"fd-trace-{d}"] = Row(
            job="frechet_of_moments",
            what=f"Fréchet distance of moments, D = {d}, full rank",
            make=lambda folder, d=d: two_moments(folder, d),
            wanted=f"{times} times as fast, 1e-9",
            peer="pytorch-fid (scipy sqrtm)",
            repeats=repeats,
        )
    few = {"make": lambda folder: two_samples(folder, 500, 2048)}
    found["fd-few"] = Row(
        job="frechet_of_features",
        what="Fréchet distance of 500 + 500 features, D = 2048",
        wanted="100 times as fast",
        peer="pytorch-fid (scipy sqrtm)",
        **few,
    )
    found["fd-self"] = Row(
        job="frechet_to_itself",
        what="Fréchet distance of 500 features to themselves, over their total variance, D = 2048",
        make=lambda folder: two_samples(folder, 500, 2048)[:1],
        wanted="0 within 1e-9",
    )
    found["statistics"] = Row(
        job="statistics",
        what="mean and covariance of 50,000 features, D = 2048",
        make=lambda folder: two_samples(folder, 50_000, 2048)[:1],
        wanted="no slower, 0.1 GB extra",
        peer="numpy.cov",
    )
    found["statistics-folds"] = Row(
        job="statistics_by_fold",
        what="the same of every fold, 168 MB, and of all of them together",
        make=lambda folder: two_samples(folder, 50_000, 2048)[:1],
        wanted="as fast",
        repeats=2,
    )
    found["mmd"] = Row(
        job="kid",
        what="cubic MMD of 10,000 + 10,000 features, D = 2048: ours over all pairs, about the pooled mean",
        make=lambda folder: two_samples(folder, 10_000, 2048),
        wanted="no slower",
        peer="torch-fidelity KID, 100 subsets of 1,000",
        repeats=2,
    )
    found["mmd-exact"] = Row(
        job="cubic_directly",
        what="the same of 2,000 + 2,000, and from all kernel values in float64",
        make=lambda folder: two_samples(folder, 2_000, 2048),
        wanted="equal to 1e-6",
        repeats=1,
    )
    for d in (384, 768, 2048):
        found[f"prdc-{d}"] = Row(
            job="prdc",
            what=f"precision, recall, density, coverage of 10,000 + 10,000 features, D = {d} (ours: with errors)",
            make=lambda folder, d=d: two_samples(folder, 10_000, d),
            wanted="3 times as fast, a quarter of the memory, the same counts",
            peer="prdc",
            repeats=2,
        )
    found["prdc-50k"] = Row(
        job="prdc",
        what="the same of 50,000 + 50,000, D = 384 (prdc would need 34 GB)",
        make=lambda folder: two_samples(folder, 50_000, 384),
        wanted="1.5 GB",
        repeats=1,
        long=True,
    )
    for n in (250_000, 1_000_000):
        found[f"score-{n}"] = Row(
            job="score",
            what=f"default metrics of a pool of {n:,} against 10,000, D = 1280, from stores on disk",
            make=lambda folder, n=n: (store(folder, 10_000, 0), store(folder, n, 1)),
            wanted="2 GB, time linear in the pool",
            repeats=1,
            long=True,
        )
    return found


def store(folder: Path, n: int, seed: int) -> Path:
    """A store of that many rows, made once, without what an earlier run left in it."""
    path = folder / f"store-{n}"
    if not path.exists():
        write_store(path, n, 1280, seed=seed)
    (path / "moments.npz").unlink(missing_ok=True)
    return path


class Side:
    """A process that does the jobs of one side."""

    def __init__(self, python: Path, script: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)} if script == "ours.py" else None
        self._process = subprocess.Popen(
            [python, HERE / "peers" / script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def do(self, job: str, inputs: Sequence[Path]) -> dict[str, Any]:
        """Seconds, figures, and the memory it took."""
        assert self._process.stdin is not None
        print(json.dumps({"job": job, "inputs": [str(p) for p in inputs]}), file=self._process.stdin, flush=True)
        self._answer()
        before = peak = self._anonymous_mb()
        while not select.select([self._process.stdout], [], [], SAMPLE_S)[0]:
            peak = max(peak, self._anonymous_mb())
        return {**json.loads(self._answer()), "extra_mb": peak - before, "rss_anon_mb": peak}

    def close(self) -> None:
        """Lets the process end."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended; its message is above.")
        return line

    def _anonymous_mb(self) -> float:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def compare(row: Row, folder: Path, peers: Path) -> dict[str, Any]:
    """Both sides in turn, in fresh processes."""
    inputs = row.make(folder)
    sides = {"ours": Side(Path(sys.executable), "ours.py")}
    if row.peer:
        sides["peer"] = Side(peers, "theirs.py")
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(row.repeats):
        for name, side in sides.items():
            answers[name].append(side.do(row.job, inputs))
    for side in sides.values():
        side.close()
    return {"what": row.what, "against": row.peer, "wanted": row.wanted, "repeats": row.repeats, **summary(answers)}


def summary(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Best and median seconds, most memory and figures of either side, and the ratios peer / ours."""
    found: dict[str, Any] = {}
    for name, runs in answers.items():
        seconds = [run["seconds"] for run in runs]
        found[name] = {
            "seconds": round(min(seconds), 3),
            "median_seconds": round(median(seconds), 3),
            "cpu_seconds": round(min(run["cpu_seconds"] for run in runs), 3),
            "extra_mb": round(max(run["extra_mb"] for run in runs)),
            "rss_anon_mb": round(max(run["rss_anon_mb"] for run in runs)),
            "figures": runs[0]["figures"],
        }
    if "peer" in found:
        ours, peer = found["ours"], found["peer"]
        for kind in ("seconds", "median_seconds", "extra_mb"):
            found[f"ratio_{kind}"] = round(peer[kind] / max(ours[kind], 1e-3), 2)
        shared = ours["figures"].keys() & peer["figures"].keys()
        gaps = [abs(ours["figures"][k] - peer["figures"][k]) / abs(peer["figures"][k]) for k in shared]
        found["agreement"] = float(f"{max(gaps):.2g}")
    return found


def peers_python(folder: Path) -> Path:
    """The interpreter of the peers' environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"Setting up the peers in {folder}: some minutes ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        needed = ["-c", ROOT / "constraints.txt", "-r", HERE / "peers" / "requirements.txt"]
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *needed], check=True)
    return python


def peer_versions() -> dict[str, str]:
    """Of what the other side runs."""
    pins = (HERE / "peers" / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in pins if "==" in line)


def line(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    ours, peer = found["ours"], found.get("peer")
    cells = [f"{name:16}", f"{ours['seconds']:9.3f} s", f"{ours['extra_mb']:7,} MB"]
    if peer:
        cells += [f"{peer['seconds']:9.3f} s", f"{peer['extra_mb']:7,} MB", f"x{found['ratio_seconds']:<7}"]
        cells += [f"median x{found['ratio_median_seconds']:<7}", f"apart {found['agreement']:.1e}"]
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="ROW", nargs="+", choices=list(rows()), help="; ".join(rows()))
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers", help="environment of the peers")
    parser.add_argument("--scratch", type=Path, help="keep the inputs here (up to 4 GB)")
    parser.add_argument("--out", type=Path, help="write the result here; rows not measured now are kept")
    arguments = parser.parse_args()
    python = peers_python(arguments.peers)
    results = json.loads(arguments.out.read_text())["results"] if arguments.out and arguments.out.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.scratch or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        for name in arguments.only or [name for name, row in rows().items() if not row.long]:
            results[name] = {**compare(rows()[name], scratch, python), "threads": os.environ.get("OMP_NUM_THREADS")}
            print(line(name, results[name]), flush=True)
            if arguments.out:
                write(arguments.out, results)


def write(path: Path, results: dict[str, Any]) -> None:
    """The document, after every row: a long run that is stopped has measured something."""
    document = {
        "schema": "curate.benchmark/1",
        "what": "distances against their peers",
        "hardware": hardware(),
        "versions": {**versions("faiss-cpu", "numpy", "scipy", "torch"), **peer_versions()},
        "results": results,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
