"""The functions for notebooks: docstrings, type hints, import without torch, and the README's example."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import competition.notebook as nb
from competition.data.labels import read_labels
from tests.helpers import N_TEST

README = Path(__file__).parents[1] / "README.md"


def test_every_function_has_a_docstring_and_type_hints():
    for name in nb.__all__:
        function = getattr(nb, name)
        if inspect.isfunction(function):
            assert inspect.getdoc(function), name
            signature = inspect.signature(function)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter}"


def test_the_notebook_module_does_not_import_torch():
    code = "import sys, competition.notebook; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=README.parent, check=True)


def test_functions_accept_paths_as_strings(data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Relative to the working folder, absolute, and from ~; all give the same as a Path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    made = {}
    for kind, root in {"path": tmp_path, "text": str(tmp_path), "home": "~", "relative": "."}.items():

        def place(name: str, root: Path | str = root) -> Path | str:
            return root / name if isinstance(root, Path) else f"{root}/{name}"

        labels, test = nb.read_labels(place("data")), nb.read_test(place("data"))
        dataset = nb.Dataset(place("data"))
        nb.write_valid(place(f"{kind}/valid.npz"), labels.id, labels.pose_mm)
        nb.write_submission(place(f"{kind}/a.csv.gz"), test.id, np.tile(labels.pose_mm[:1], (len(test.id), 1, 1)))
        table = nb.make_folds(labels.images, k=2)
        nb.write_folds(place(f"{kind}/folds"), table, strategy="subject", seed=0, users=(), force=False)
        folds, _ = nb.read_folds(place(f"{kind}/folds"), labels.images_sha256)
        found = nb.candidates(place("runs"))
        out, submissions = place(f"{kind}/blend"), place("runs")
        blended = nb.blend_dataset(found, dataset, out, method="mean", submissions=submissions)
        again = nb.blend(found, dataset.true, test.id, place(f"{kind}/b"), method="mean", submissions=submissions)
        files = nb.blend_files([place(f"{kind}/a.csv.gz")], test.id, place(f"{kind}/c"), submissions=submissions)
        assert files.read_bytes() == (tmp_path / kind / "a.csv.gz").read_bytes()
        made[kind] = [
            nb.read_valid(place(f"{kind}/valid.npz")).pose_mm.tolist(),
            nb.read_submission(place(f"{kind}/a.csv.gz")).pose_mm.tolist(),
            nb.score(dataset, place(f"{kind}/blend/submission.csv.gz")).all,
            folds.tolist(),
            [candidate.name for candidate in found],
            blended.submission.read_bytes(),
            again.submission.read_bytes(),
        ]
    assert not (tmp_path / "~").exists()
    assert all(results == made["path"] for results in made.values())


def test_every_function_that_takes_a_path_is_tested_with_strings():
    tested = inspect.getsource(test_functions_accept_paths_as_strings)
    for name in nb.__all__:
        takes_path = re.search(r"\bPath\b|AnyPath|PathLike", str(getattr(getattr(nb, name), "__annotations__", "")))
        if inspect.isfunction(getattr(nb, name)) and takes_path:
            assert f"nb.{name}(" in tested, name


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
    written = nb.read_submission(tmp_path / "submissions/blend/submission.csv.gz", range(1, N_TEST + 1))
    assert np.ptp(written.pose_mm, axis=0).max() == 0
