"""The notebooks: what they printed is not kept, they use public names, and every cell runs (``make notebooks``).

They run one after the other in one scratch folder, on the interpreter that runs the tests, whatever kernels and
settings of Jupyter this machine has. What they embed is kept there, so the later ones find it.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TIME_LIMIT_S = 300  # of a cell
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_some():
    assert [path.stem for path in NOTEBOOKS] == ["01-score", "02-select", "03-pretrain-and-evaluate"]


@each_notebook
def test_is_valid_and_keeps_nothing_of_a_run(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    kept = [cell["id"] for cell in code_cells(notebook) if cell["outputs"] or cell["execution_count"] is not None]
    assert not kept, f"{path.name}: clear the outputs of {kept} (Edit, Clear Outputs of All Cells) and save it"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}, "what an editor adds says nothing to others"
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


@each_notebook
def test_uses_public_names_only(path):
    code = "\n".join("".join(cell["source"]) for cell in code_cells(json.loads(path.read_text(encoding="utf-8"))))
    assert not private_names(code)


def test_private_names_are_noticed():
    assert private_names("from curate.selection._path import Selector\nimport a._b\nx._y\nfrom a import _c") == {
        *("curate.selection._path", "a._b", "_y", "_c")
    }
    assert not private_names("from a.b import c\nx.y.z\n_ = c\nx.__name__")


@pytest.mark.notebooks
@each_notebook
def test_runs(path, workplace, monkeypatch):
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            return KernelSpec(argv=make_ipkernel_cmd(), display_name=kernel_name, language="python")

    for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(workplace / "home"))
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:__main__")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(path, as_version=4)
    manager = AsyncKernelManager(kernel_spec_manager=ThisPython())
    place = {"metadata": {"path": str(workplace)}}
    NotebookClient(notebook, km=manager, timeout=TIME_LIMIT_S, resources=place).execute(cleanup_kc=True)
    said = [output["text"] for cell in code_cells(notebook) for output in cell["outputs"] if "text" in output]
    assert not [text for text in said if "Warning:" in text]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "home").mkdir()
    return folder


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def private_names(code: str) -> set[str]:
    """Names of modules, imports and attributes of which a part begins with one underscore."""
    used: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            used |= {alias.name for alias in node.names} | (
                {node.module} if isinstance(node, ast.ImportFrom) else set()
            )
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
    return {name for name in used if any(p.startswith("_") and not p.startswith("__") for p in name.split("."))}
