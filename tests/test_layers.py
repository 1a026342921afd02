"""Models know nothing of the machinery; nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_models_know_nothing_of_the_machinery_and_recipes_nothing_of_torch():
    for path in (ROOT / "models").glob("*.py"):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert "competition" not in roots, path
        if path.name == "recipes.py":
            assert not roots & {"torch", "timm"}


def test_help_loads_neither_torch_nor_timm():
    code = "import sys; from competition.cli.flags import parse\ntry: parse(['train', '--model', '3dhg', '--help'])\n"
    code += "except SystemExit: pass\nassert not {'torch', 'timm', 'pandas', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_the_top_level_is_what_was_agreed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    visible = {name.split("/")[0] for name in listed if not name.startswith(".")}
    agreed = {"README.md", "requirements.txt", "Makefile", "competition", "models", "folds", "submissions", "tests"}
    assert visible <= agreed


def test_only_files_renames_and_only_score_opens_the_answers():
    for path in (ROOT / "competition").rglob("*.py"):
        text = path.read_text()
        if path.name != "files.py":
            assert ".rename(" not in text, path
            assert "os.replace(" not in text, path
        if path.name != "score.py" and path.parent.name != "synthetic":
            assert '"solution"' not in text, path
