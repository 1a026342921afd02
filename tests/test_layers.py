"""Packages import only earlier ones, imports are not circular, and heavy libraries are imported only where needed."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPETITION = ROOT / "competition"

# Each package may import itself and packages in lines above; packages of the same line don't import each other.
ORDER = (
    ("common",),
    ("data", "synthetic"),
    ("runs",),
    ("training", "blending", "leaderboard"),
    ("report", "bench"),
    ("cli",),
    ("__main__", "notebook"),
)
NEVER = {("report", "training"), ("report", "blending")}
MODELS_IN = {"training", "bench", "cli", "notebook"}
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages}
MODULES = sorted(path for path in COMPETITION.rglob("*.py") if path.parent != COMPETITION or path.stem in LEVEL)


def _imports(path: Path) -> set[str]:
    """Return the dotted names of all imports in a file, including local ones."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _package(path: Path) -> str:
    return path.relative_to(COMPETITION).parts[0].removesuffix(".py")


def _imported_packages(path: Path) -> set[str]:
    parts = (name.split(".") for name in _imports(path))
    return {name[1] for name in parts if name[0] == "competition" and len(name) > 1} - {_package(path)}


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_package_is_in_the_order():
    assert {_package(path) for path in COMPETITION.rglob("*.py")} - {"__init__"} == set(LEVEL)


def test_package_init_files_contain_only_a_docstring():
    for path in COMPETITION.rglob("__init__.py"):
        (docstring,) = ast.parse(path.read_text()).body
        assert isinstance(docstring, ast.Expr), path


def test_packages_import_only_earlier_packages():
    for path in MODULES:
        package = _package(path)
        for other in _imported_packages(path):
            assert LEVEL[other] < LEVEL[package], f"{path} imports competition.{other}"
            assert (package, other) not in NEVER, f"{path} imports competition.{other}"


def test_only_some_packages_import_models_and_models_import_no_package():
    for path in MODULES:
        if any(name.split(".")[0] == "models" for name in _imports(path)):
            assert _package(path) in MODELS_IN, f"{path} imports models"
    for path in (ROOT / "models").glob("*.py"):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert "competition" not in roots, path
        if path.name == "recipes.py":
            assert not roots & {"torch", "timm"}


def test_imports_are_not_circular():
    graph = {_module_name(path): _imports(path) for path in MODULES}
    graph = {module: {name for name in names if name in graph} - {module} for module, names in graph.items()}
    done: set[str] = set()
    while rest := set(graph) - done:
        free = {module for module in rest if graph[module] <= done}
        assert free, f"circular imports among {sorted(rest)}"
        done |= free


def test_private_names_stay_within_their_package():
    for path in MODULES:
        foreign = {name for name in _imports(path) if name.startswith("competition.")}
        foreign = {name for name in foreign if name.split(".")[1] != _package(path)}
        for name in foreign:
            assert "._" not in name, f"{path} imports {name}"
        modules = {name.rpartition(".")[2] for name in foreign}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr.startswith("_"):
                assert node.value.id not in modules, f"{path}:{node.lineno} uses {node.value.id}.{node.attr}"


def _run_without_torch(*arguments: str) -> None:
    code = "import sys; from competition.cli.main import main\ntry: code = main(sys.argv[1:])\n"
    code += "except SystemExit as error: code = error.code\n"
    code += "assert not code, code\nassert not {'torch', 'timm', 'optuna'} & set(sys.modules)\n"
    if "--help" in arguments:
        code += "assert 'pandas' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_help_board_and_folds_do_not_import_torch(data: Path, finished: Path, tmp_path: Path):
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(finished / "runs")]
    _run_without_torch("--help")
    _run_without_torch("train", "--model", "3dhg", "--help")
    _run_without_torch("folds", *folders, "--k", "2")
    _run_without_torch("board", *folders)


def test_top_level_has_only_the_agreed_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    visible = {name.split("/")[0] for name in listed if not name.startswith(".")}
    agreed = {"README.md", "requirements.txt", "Makefile", "competition", "models", "folds", "submissions", "tests"}
    assert visible <= agreed


def test_only_files_py_renames_and_only_score_py_reads_the_answers():
    for path in COMPETITION.rglob("*.py"):
        text = path.read_text()
        if path != COMPETITION / "common/files.py":
            assert ".rename(" not in text, path
            assert "os.replace(" not in text, path
        if path != COMPETITION / "leaderboard/score.py" and _package(path) != "synthetic":
            assert '"solution"' not in text, path
