"""Imports go down or stay level, never in a circle; nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

LAYERS = [
    {"errors", "choices", "skeleton", "seeds", "files", "config", "console", "workers", "stop", "poster", "client"},
    {"faults", "geometry", "metrics", "table", "weights", "virtual", "gate", "simulator", "device", "graph", "world"},
    {"dataset", "augment", "loader", "folds", "check", "synthetic"},
    {"checkpoint", "record", "runs", "predict", "jobs"},
    {
        "trainer",
        "step",
        "train",
        "cost",
        "parallel",
        "join",
        "search",
        "methods",
        "pictures",
        "photo",
        "leaderboard",
        "bench",
        "submit",
        "verify",
        "page",
        "blend",
        "score",
        "report",
    },
    {"reproduce", "blending", "notebook", "commands", "cli", "__main__", "__init__"},
]
MODELS_FROM = 3  # the layer from which on models/ may be imported
LAYER = {module: number for number, modules in enumerate(LAYERS) for module in modules}


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


def _noun(path: Path) -> str:
    return path.relative_to(ROOT / "competition").parts[0].removesuffix(".py")


def _own(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "competition" and len(parts) > 1 and parts[1] in LAYER else None


def test_every_module_has_a_layer():
    assert {_noun(path) for path in (ROOT / "competition").rglob("*.py")} == set(LAYER)


def test_imports_go_down_or_stay_level():
    for path in (ROOT / "competition").rglob("*.py"):
        for name in _imports(path):
            if (own := _own(name)) is not None:
                assert LAYER[own] <= LAYER[_noun(path)], f"{path} imports {name} from a higher layer"
            if name.split(".")[0] == "models":
                assert LAYER[_noun(path)] >= MODELS_FROM, f"{path} imports {name}"


def test_imports_are_not_circular():
    graph: dict[str, set[str]] = {}
    for path in (ROOT / "competition").rglob("*.py"):
        own = {name for name in map(_own, _imports(path)) if name is not None} - {_noun(path)}
        graph.setdefault(_noun(path), set()).update(own)
    done: set[str] = set()
    while rest := set(graph) - done:
        free = {module for module in rest if graph[module] <= done}
        assert free, f"a circle among {sorted(rest)}"
        done |= free


def test_models_know_nothing_of_the_machinery_and_recipes_nothing_of_torch():
    for path in (ROOT / "models").glob("*.py"):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert "competition" not in roots, path
        if path.name == "recipes.py":
            assert not roots & {"torch", "timm"}


def test_help_loads_neither_torch_nor_timm():
    code = "import sys; from competition.cli import parse\ntry: parse(['train', '--model', '3dhg', '--help'])\n"
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
        if _noun(path) != "files":
            assert ".rename(" not in text, path
            assert "os.replace(" not in text, path
        if _noun(path) not in ("score", "synthetic"):
            assert '"solution"' not in text, path
