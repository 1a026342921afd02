"""The functions for notebooks: docstrings, type hints, import without torch, and the README's example."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from competition import notebook
from competition.data.labels import read_labels
from tests.helpers import N_TEST

README = Path(__file__).parents[1] / "README.md"


def test_every_function_has_a_docstring_and_type_hints():
    for name in notebook.__all__:
        function = getattr(notebook, name)
        if inspect.isfunction(function):
            assert inspect.getdoc(function), name
            signature = inspect.signature(function)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter}"


def test_the_notebook_module_does_not_import_torch():
    code = "import sys, competition.notebook; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=README.parent, check=True)


def test_the_readmes_notebook_example_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (example,) = re.findall(r"```python\n(from pathlib.*?)```", README.read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 18
    (tmp_path / "data").mkdir()
    (tmp_path / "data/synthetic").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.split()
    labels = read_labels(data)
    assert [int(fold) for fold in printed[0:4:2]] == [0, 1]
    expected = np.linalg.norm(labels.pose_mm - labels.pose_mm.mean(axis=0), axis=2).mean()
    assert float(printed[-1]) == pytest.approx(expected, rel=0.3)
    assert (tmp_path / "submissions/blend/submission.csv.gz").exists()
    written = notebook.read_submission(tmp_path / "submissions/blend/submission.csv.gz", range(1, N_TEST + 1))
    assert np.ptp(written.pose_mm, axis=0).max() == 0
