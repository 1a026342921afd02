"""Words that flags accept are refused before anything is loaded; hints lead to the folders that the user named."""

import subprocess
import sys
from pathlib import Path

import pytest

from competition.blending.options import GRANULARITIES, check_blend
from competition.blending.weights import TIED
from competition.cli.hints import with_knobs
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
    "mean by joint": (["blend", "--method", "mean", "--granularity", "joint"], "mean has no weights"),
    "precision": (["train", "--model", "3dhg", "--precision", "fp8"], "did you mean"),
    "run": (["train", "--model", "3dhg", "--run", "../up"], "run '../up'"),
    "origin": (["train", "--model", "3dhg", "--init", "nobody"], "no run at submissions/nobody"),
    "optimizer": (["train", "--model", "3dhg", "--optimizer", "adamm"], "optimizer must be one of adabelief"),
    "depths": (["train", "--model", "3dhg", "--depths", "1,x"], "depths '1,x': expected whole numbers separated by"),
    "shares": (["blend", "--files", "a.csv", "--shares", ".6;.4"], "shares '.6;.4': expected numbers separated by"),
    "shares of none": (["blend", "--files", "a.csv", "--shares", "nan,1"], "shares 'nan,1': expected numbers"),
    "decoder": (["predict", "--run", "a", "--decoder", "drak"], "did you mean 'dark'"),
    "run to predict with": (["predict", "--run", "nobody"], "no run at submissions/nobody"),
}


def test_unknown_words_are_refused_before_anything_heavy_is_loaded(tmp_path: Path):
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


def test_granularities_are_those_of_the_weights():
    assert ("auto", *TIED) == GRANULARITIES


def test_what_heeds_a_granularity_may_have_any():
    for granularity in GRANULARITIES:
        check_blend("optuna", granularity)
        check_blend("exact", granularity)
    check_blend("greedy", "coordinate")
    with pytest.raises(UserError, match="expected granularity auto or coordinate"):
        check_blend("greedy", "global")


@pytest.mark.parametrize("text", ["best", "last", "all", "3", "3,4", " 3, 4"])
def test_epochs_are_words_or_numbers(text: str):
    assert check_epochs(text) == text


def test_hints_name_the_folders_that_were_given():
    own = Workspace(data=Path("/data/pose"), submissions=Path("my runs"))
    assert with_knobs("next: `make board`, or `make data`", own) == (
        "next: `make board DATA=/data/pose SUBMISSIONS='my runs'`, or `make data`"
    )
    assert with_knobs("`make folds DATA=other`", own) == "`make folds DATA=other SUBMISSIONS='my runs'`"
    assert with_knobs("make room, `make it`", own) == "make room, `make it`"
    assert with_knobs("`make board`", Workspace()) == "`make board`"


def test_errors_name_the_folders_too(data: Path, tmp_path: Path, capsys):
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    assert main(["train", "--model", "3dhg-small", *folders]) == 2
    assert f"run `make folds DATA={data} FOLDS={tmp_path}/folds SUBMISSIONS={tmp_path}/runs`" in capsys.readouterr().err


def test_help_lists_the_words(capsys):
    for arguments, words in (
        (["blend", "--help"], "optuna|exact|greedy|mean|median"),
        (["train", "--model", "3dhg", "--help"], "constant, halve, cosine"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in " ".join(capsys.readouterr().out.split())
