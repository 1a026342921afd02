"""Invalid flag values are rejected before slow imports; commands in messages use the user's folders; help texts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import models
from competition.blending.options import GRANULARITIES, check_blend
from competition.blending.weights import TIED
from competition.cli.flags import COMMANDS
from competition.cli.hints import complete_commands
from competition.cli.main import main
from competition.common.choices import check_epochs
from competition.common.errors import UserError
from competition.common.workspace import Workspace

WRONG = {
    "method": (["blend", "--method", "exakt"], "did you mean 'exact'"),
    "granularity": (["blend", "--granularity", "joints"], "did you mean 'joint'"),
    "epochs": (["blend", "--epochs", "3;4"], "expected best, last, all, or numbers such as 3,4"),
    "sampler": (["blend", "--sampler", "cma"], "did you mean 'cmaes'"),
    "greedy by joint": (
        ["blend", "--method", "greedy", "--granularity", "joint"],
        "greedy supports only",
    ),
    "mean by joint": (["blend", "--method", "mean", "--granularity", "joint"], "expected granularity auto"),
    "precision": (["train", "--model", "3dhg", "--precision", "fp8"], "did you mean"),
    "run": (["train", "--model", "3dhg", "--run", "../up"], "run '../up'"),
    "origin": (["train", "--model", "3dhg", "--init", "nobody"], "no run at submissions/nobody"),
    "optimizer": (["train", "--model", "3dhg", "--optimizer", "adamm"], "optimizer must be one of adabelief"),
    "depths": (["train", "--model", "3dhg", "--depths", "1,x"], "depths '1,x': expected whole numbers separated by"),
    "shares": (["blend", "--files", "a.csv", "--shares", ".6;.4"], "shares '.6;.4': expected numbers separated by"),
    "shares not finite": (["blend", "--files", "a.csv", "--shares", "nan,1"], "shares 'nan,1': expected numbers"),
    "decoder": (["predict", "--run", "a", "--decoder", "drak"], "did you mean 'dark'"),
    "run to predict with": (["predict", "--run", "nobody"], "no run at submissions/nobody"),
}


def test_invalid_values_are_rejected_before_slow_imports(tmp_path: Path):
    code = "import sys; from competition.cli.main import main\n"
    code += f"for arguments in {[arguments for arguments, _ in WRONG.values()]!r}: assert main(arguments) == 2\n"
    code += "assert not {'torch', 'timm', 'pandas', 'optuna', 'h5py'} & set(sys.modules), sys.modules.keys()"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(WRONG)
    for line, (_, message) in zip(lines, WRONG.values(), strict=True):
        assert line.startswith("error: ")
        assert message in line


def test_granularities_match_those_of_the_weights():
    assert ("auto", *TIED) == GRANULARITIES


def test_granularities_are_checked_by_method():
    for granularity in GRANULARITIES:
        check_blend("optuna", granularity)
        check_blend("exact", granularity)
    check_blend("greedy", "coordinate")
    with pytest.raises(UserError, match="expected granularity auto or coordinate"):
        check_blend("greedy", "global")


@pytest.mark.parametrize("text", ["best", "last", "all", "3", "3,4", " 3, 4"])
def test_valid_epochs_are_accepted(text: str):
    assert check_epochs(text) == text


def test_commands_in_messages_name_the_users_folders():
    own = Workspace(data=Path("/data/pose"), submissions=Path("my runs"))
    assert complete_commands("next: `make board`, or `make data`", own) == (
        "next: `make board DATA=/data/pose SUBMISSIONS='my runs'`, or `make data`"
    )
    assert complete_commands("`make folds DATA=other`", own) == "`make folds DATA=other SUBMISSIONS='my runs'`"
    assert complete_commands("make it, `make it`", own) == "make it, `make it`"
    assert complete_commands("`make board`", Workspace()) == "`make board`"


def test_commands_in_errors_name_the_users_folders(data: Path, tmp_path: Path, capsys):
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    assert main(["train", "--model", "3dhg-small", *folders]) == 2
    assert f"`make folds DATA={data} FOLDS={tmp_path}/folds SUBMISSIONS={tmp_path}/runs`" in capsys.readouterr().err


def test_help_lists_the_accepted_values(capsys):
    for arguments, text in (
        (["blend", "--help"], "optuna|exact|greedy|mean|median"),
        (["train", "--model", "3dhg", "--help"], "constant, halve, cosine"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert text in " ".join(capsys.readouterr().out.split())


def test_every_flag_has_a_help_text(capsys):
    for arguments in (*([name] for name in COMMANDS), *(["train", "--model", name] for name in models.names())):
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
        entries = re.split(r"\n  (?=-)", capsys.readouterr().out)[1:]
        for flag, text in (re.split(r"\s{2,}", entry.strip(), maxsplit=1) for entry in entries):
            assert len(text.split()) > 2, (arguments, flag, text)
            assert not text.startswith(("(default", "of ")), (arguments, flag, text)


def test_defaults_of_settings_are_written_as_flags(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--model", "3dhg", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 1,2,4,64)" in text
    assert "(default: none)" in text
    assert "None" not in text
