"""Invalid flag values are rejected before slow imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from competition.blending.options import GRANULARITIES, check_blend
from competition.blending.weights import TIED
from competition.common.choices import check_epochs
from competition.common.errors import UserError

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
    "learning rate": (["train", "--model", "3dhg", "--lr", "abc"], "--lr 'abc': expected a number"),
    "clip norm": (["train", "--model", "3dhg", "--clip-norm", "abc"], "--clip-norm 'abc': expected a number, or none"),
    "micro batch": (
        ["train", "--model", "3dhg", "--micro-batch", "1.5"],
        "--micro-batch '1.5': expected a whole number",
    ),
    "seed": (["folds", "--seed", "x"], "--seed 'x': expected a whole number"),
    "model": (["train", "--model", "3dgh"], "did you mean '3dhg'"),
    "no model": (["train"], "required: --model"),
    "abbreviated flag": (["train", "--mod", "3dhg"], "required: --model"),
    "abbreviated setting": (["train", "--model", "3dhg", "--chan", "8"], "did you mean '--channels'"),
    "setting of another model": (["train", "--model", "3dhg", "--stacks", "2"], "unknown flag '--stacks'"),
    "model within a value": (["train", "--model", "3dhg", "--run", "a --model b"], "run 'a --model b'"),
    "model as a value": (["train", "--model", "3dhg", "--run", "--model b"], "run '--model b'"),
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
