"""The functions for notebooks: documented, typed, light to load; the README's example runs."""

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


def test_every_function_is_documented_and_typed():
    for name in notebook.__all__:
        offered = getattr(notebook, name)
        if inspect.isfunction(offered):
            assert inspect.getdoc(offered), name
            signature = inspect.signature(offered)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter}"


def test_loading_them_loads_no_torch():
    code = "import sys, competition.notebook; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=README.parent, check=True)


def test_the_example_of_the_readme_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (example,) = re.findall(r"```python\n(from pathlib.*?)```", README.read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 18
    (tmp_path / "data").mkdir()
    (tmp_path / "data/synthetic").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.split()
    labels = read_labels(data)
    assert [int(fold) for fold in printed[0:4:2]] == [0, 1]
    worst = np.linalg.norm(labels.pose_mm - labels.pose_mm.mean(axis=0), axis=2).mean()
    assert float(printed[-1]) == pytest.approx(worst, rel=0.3)
    assert (tmp_path / "submissions/blend/submission.csv.gz").exists()
    written = notebook.read_submission(tmp_path / "submissions/blend/submission.csv.gz", range(1, N_TEST + 1))
    assert np.ptp(written.pose_mm, axis=0).max() == 0
