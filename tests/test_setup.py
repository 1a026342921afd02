"""`make setup` replaces an environment that can't be used, and prints which Python it needs; nothing is downloaded."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import without_make

ROOT = Path(__file__).parents[1]
PIP, VENV = "-m pip install -r requirements.txt", "-m venv .venv"
FAKE = """#!/bin/sh
[ "$1" = --version ] && echo "Python {version}" && exit
[ "$1" = -c ] && exit {code}
[ "$*" = "-m pip --version" ] && exit {pip}
echo "$*" >> "{log}"
[ "$*" = "{venv}" ] && mkdir -p .venv/bin && cp "$0" .venv/bin/python
[ "$*" != "{install}" ] || exit {installs}
"""
UV = """#!/bin/sh
echo "uv $*" >> "{log}"
[ "$1" != venv ] || {{ mkdir -p .venv/bin && cp "{python}" .venv/bin/python; }}
"""
MISSING = ["expected one of 3.11 3.12 3.13", "uv"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a folder with a space in its name, requirements.txt, and the only programs on the path in `bin`."""
    folder = tmp_path / "my project"
    (folder / "bin").mkdir(parents=True)
    for name in ("sh", "make", "sed", "rm", "mkdir", "cp", "touch"):
        program = shutil.which(name)
        assert program is not None
        (folder / "bin" / name).symlink_to(program)
    (folder / "requirements.txt").write_text("torch")
    return folder


def _fake(path: Path, version: str = "3.11.7", *, code: int = 0, pip: int = 0, installs: int = 0) -> None:
    """Write a Python that creates environments with a copy of itself, and logs what it would install."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.parents[2 if path.parent.parent.name == ".venv" else 1] / "log"
    path.unlink(missing_ok=True)
    path.write_text(
        FAKE.format(version=version, code=code, pip=pip, installs=installs, log=log, venv=VENV, install=PIP)
    )
    path.chmod(0o755)


def _setup(project: Path) -> tuple[list[str], str]:
    """Run `make setup`; return the log of the calls and the line of standard error, if there is one."""
    (project / "log").unlink(missing_ok=True)
    command = ["make", "-s", "-C", str(project), "-f", str(ROOT / "Makefile"), "setup"]
    done = subprocess.run(command, env=without_make() | {"PATH": str(project / "bin")}, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert (done.returncode == 0) == (not errors)
    assert len(errors) <= 1
    log = project / "log"
    return log.read_text().splitlines() if log.exists() else [], "".join(errors)


@pytest.mark.parametrize("version", ["3.9.18", "3.10.0", "3.15.1", "2.7.18", "3.1.1"])
def test_another_python_is_refused_before_anything_is_made(project: Path, version: str):
    _fake(project / "bin/python3", version)
    calls, error = _setup(project)
    assert error.startswith(f"error: python3 is {version.rpartition('.')[0]}, ")
    assert all(part in error for part in MISSING)
    assert calls == []
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("version", ["3.11.7", "3.12.1", "3.13.0"])
def test_supported_versions_are_installed_once(project: Path, version: str):
    _fake(project / "bin/python3", version)
    assert _setup(project) == ([VENV, PIP], "")
    assert _setup(project) == ([], "")
    os.utime(project / "requirements.txt")
    assert _setup(project) == ([PIP], "")


NO_PIP = "no pip, as creating it was interrupted"
UNUSABLE = {
    "another Python": {"version": "3.9.18"},
    "a Python that doesn't start": {"code": 1, "pip": 1},
    NO_PIP: {"pip": 1},
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("installed", [False, True])
def test_an_unusable_environment_is_replaced(project: Path, name: str, installed: bool):
    _fake(project / "bin/python3")
    _fake(project / ".venv/bin/python", **UNUSABLE[name])  # type: ignore[arg-type]
    (project / ".venv/old").touch()
    if installed and name != NO_PIP:
        (project / ".venv/.installed").touch()
    assert _setup(project) == ([VENV, PIP], "")
    assert not (project / ".venv/old").exists()


@pytest.mark.parametrize("state", ["an empty folder", "a link to a Python that was removed"])
def test_a_half_built_environment_is_replaced(project: Path, state: str):
    _fake(project / "bin/python3")
    (project / ".venv/bin").mkdir(parents=True)
    if "link" in state:
        (project / ".venv/bin/python").symlink_to("/nowhere/python3")
        (project / ".venv/.installed").touch()
    assert _setup(project) == ([VENV, PIP], "")


def test_an_interrupted_installation_is_completed(project: Path):
    _fake(project / "bin/python3", installs=1)
    calls, error = _setup(project)
    assert calls == [VENV, PIP]
    assert error == "error: the installation is incomplete: run make setup again"
    _fake(project / ".venv/bin/python")
    assert _setup(project) == ([PIP], "")


def test_an_unusable_environment_stays_without_a_python_to_replace_it(project: Path):
    _fake(project / "bin/python3", "3.9.18")
    _fake(project / ".venv/bin/python", "3.9.18")
    assert all(part in _setup(project)[1] for part in MISSING)
    assert (project / ".venv/bin/python").exists()
    _fake(project / ".venv/bin/python")  # made with python3.11 -m venv .venv
    assert _setup(project) == ([PIP], "")


def test_uv_needs_no_python(project: Path, tmp_path: Path):
    _fake(project / "bin/python3", "3.9.18")
    _fake(tmp_path / "other/bin/python")
    (project / "bin/uv").write_text(UV.format(log=project / "log", python=tmp_path / "other/bin/python"))
    (project / "bin/uv").chmod(0o755)
    calls, error = _setup(project)
    assert error == ""
    assert calls[0] == "uv venv --quiet --python 3.11 .venv"
    assert calls[1].startswith("uv pip install ")


def test_a_missing_python_is_named(project: Path):
    assert _setup(project)[1].startswith("error: python3 is missing, ")


def test_another_folder_than_the_makefiles_is_named(project: Path):
    (project / "requirements.txt").unlink()
    assert "make -C FOLDER" in _setup(project)[1]
