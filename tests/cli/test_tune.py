"""The command tune: trials are ordinary runs in a hidden folder, and the best one's command trains it again."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from competition.cli.main import main
from competition.cli.options import TrainOptions
from competition.cli.parser import parse
from competition.cli.tune_options import TuneOptions
from competition.runs.record import read_done, read_log
from competition.runs.studies import Study, read_study, study_folders
from tests.helpers import TINY, Command

SEARCH = ("--search", "lr=1e-4:1e-2,ema=none/0.9,weight_decay")
TUNE = ("tune", *TINY, "--epochs", "2", "--parallel", "1", "--workers", "0", *SEARCH)
TRIALS = 3


@pytest.fixture(scope="session")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Tune the tiny network once; return the folder of folds and runs, and what was printed."""
    root = tmp_path_factory.mktemp("tuned")
    folders = ["--data", str(data), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]
    assert main(["folds", *folders, "--k", "2"]) == 0
    command = [sys.executable, "-m", "competition", *TUNE, *folders, "--trials", str(TRIALS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return root, done.stdout


@pytest.fixture
def root(tuned: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(tuned[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def _study(root: Path, name: str = "3dhg-small") -> Study:
    return read_study(root / "runs/.tune" / name)


def test_every_trial_is_an_ordinary_run(tuned: tuple[Path, str]):
    study = _study(tuned[0])
    assert len(study.trials) == TRIALS
    for trial in study.trials:
        folder = study.folder / trial.run / "fold0"
        names = {path.name for path in folder.iterdir()}
        assert names >= {"config.json", "log.jsonl", "done.json", "last.pt", "best.pt", "valid_epoch01.npz"}
        assert names >= {"test_epoch01.csv.gz", "valid_epoch02.npz", "test_epoch02.csv.gz"}
        log = read_log(folder)
        assert trial.curve == {row.epoch: row.valid_mpjpe for row in log}
        assert trial.mpjpe == min(row.valid_mpjpe or 0 for row in log) == read_done(folder).valid_mpjpe
        settings = json.loads((folder / "config.json").read_text())["settings"]
        assert settings["lr"] == trial.params["lr"]
        assert settings["ema"] == trial.params["ema"]
        assert settings["weight_decay"] == trial.params.get("weight_decay", 0.0)
    assert study.trials[0].own_values
    assert study.trials[0].params == {"lr": 1e-3, "use_weight_decay": False, "ema": None}


def test_the_output_ends_with_the_best_trial_and_a_warning_about_its_error(tuned: tuple[Path, str]):
    root, printed = tuned
    study = _study(root)
    assert study.best is not None
    lines = printed.splitlines()
    assert "optimistic" in lines[-1]
    assert lines[-2].startswith("`make train MODEL=3dhg-small FOLD=0 RUN=3dhg-small-trial-00")
    assert f"best: trial {study.best.number}, {study.best.mpjpe:.2f} mm" in lines[-3]
    assert sum(bool(re.match(r"trial \d: [\d.]+ mm at epoch \d", line)) for line in lines) == TRIALS
    assert (study.folder / "study.png").read_bytes().startswith(b"\x89PNG")


def test_the_printed_command_trains_the_best_trial_again(tuned: tuple[Path, str], root: Path, data: Path):
    words = shlex.split(tuned[1].splitlines()[-2].strip("`"))
    values = dict(word.split("=", 1) for word in words[2:])
    flags = shlex.split(values.pop("ARGS"))
    own = {"DATA": str(data), "FOLDS": str(root / "folds"), "SUBMISSIONS": str(root / "runs")}
    assert set(values) - {"MODEL", "FOLD", "RUN", "EPOCHS"} == set(own)
    for name, value in (values | own).items():
        flags += [f"--{name.lower()}", value]
    assert isinstance(parse(["train", *flags]).options, TrainOptions)
    assert main(["train", *flags]) == 0
    study = _study(root)
    assert study.best is not None
    one, other = (
        read_log(folder / "fold0") for folder in (root / "runs" / values["RUN"], study.folder / study.best.run)
    )
    assert [(row.epoch, row.train_loss, row.valid_mpjpe) for row in one] == [
        (row.epoch, row.train_loss, row.valid_mpjpe) for row in other
    ]
    for name in ("valid_epoch02.npz", "test_epoch02.csv.gz"):
        again = root / "runs" / values["RUN"] / "fold0" / name
        assert again.read_bytes() == (study.folder / study.best.run / "fold0" / name).read_bytes()


def test_trials_are_not_listed_as_runs(root: Path, run: Path, command: Command, capsys: pytest.CaptureFixture[str]):
    (root / "runs/.tune/3dhg-small").rename(root / "runs/.tune/fold0")  # the awkward name of another study
    table = root / "board.json"
    assert command("board", "--json", str(table)) == 0
    assert [row["name"] for row in json.loads(table.read_text())] == ["3dhg-small"]
    assert command("blend", "--epochs", "all", "--method", "mean") == 0
    assert json.loads((root / "runs/blend/blend.json").read_text())["candidates"] == ["3dhg-small:1"]
    assert command("report") == 0
    printed = capsys.readouterr()
    assert "warning:" not in printed.out + printed.err
    assert "trial-00" not in printed.out


def test_folds_of_a_study_are_not_overwritten(root: Path, command: Command, capsys: pytest.CaptureFixture[str]):
    assert command("folds", "--strategy", "sequence", "--k", "2") == 2
    assert ".tune/3dhg-small" in capsys.readouterr().err


def test_a_finished_study_trains_nothing_and_a_larger_one_continues(
    root: Path, command: Command, capsys: pytest.CaptureFixture[str]
):
    before = _study(root).trials
    assert command(*TUNE, "--trials", str(TRIALS)) == 0
    assert f"{TRIALS} trials are finished already" in capsys.readouterr().out
    assert _study(root).trials == before
    assert command(*TUNE, "--trials", str(TRIALS + 1), "--parallel", "2") == 0
    # as many as at the start: they share the threads, on which their bytes depend
    assert f"{TRIALS} of {TRIALS + 1} trials finished, 2 at a time" in capsys.readouterr().out
    assert _study(root).trials[:TRIALS] == before
    assert len(_study(root).trials) == TRIALS + 1


def test_optunas_own_tools_open_the_study(tuned: tuple[Path, str]):
    study = _study(tuned[0])
    path = study.folder / "study.journal"
    opened = optuna.load_study(
        study_name="3dhg-small",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path))),
    )
    assert study.best is not None
    assert opened.best_value == study.best.mpjpe
    assert opened.best_trial.number == study.best.number
    program = [sys.executable, "-c", "from optuna.cli import main; main()"]
    flags = ["--storage", str(path), "--storage-class", "JournalFileBackend", "-f", "json"]
    listed = subprocess.run([*program, "studies", *flags], capture_output=True, text=True, check=True)
    assert json.loads(listed.stdout)[0]["name"] == "3dhg-small"
    found = subprocess.run(
        [*program, "trials", "--study-name", "3dhg-small", *flags], capture_output=True, text=True, check=True
    )
    assert len(json.loads(found.stdout)) == TRIALS


BAD = {
    "unknown setting": (["--search", "lr,shedule"], "did you mean 'schedule'?"),
    "inverted range": (["--search", "lr=1e-2:1e-4"], "the range is inverted"),
    "other search": (["--search", "lr"], "has another configuration (search "),
    "other folds of the trials": (["--fold", "1"], "folds [0] -> [1]"),
    "other settings": (["--channels", "8"], "channels 16 -> 8"),
    "other epochs": (["--epochs", "3"], "epochs 2 -> 3"),
    "other seed": (["--seed", "1"], "seed 0 -> 1"),
    "other model": (
        ["--model", "2dhg-small", "--study", "3dhg-small", "--search", "lr"],
        "model 3dhg-small -> 2dhg-small",
    ),
    "unknown fold": (["--fold", "2"], "fold 2: expected 0 to 1, several separated by commas, or all"),
    "a fold twice": (["--fold", "0,0"], "fold 0,0: expected"),
    "full": (["--fold", "full"], "fold full: expected"),
    "no trials": (["--trials", "0"], "--trials '0': expected a whole number from 1"),
    "a path as name": (["--study", "../x"], "study '../x': expected letters"),
    "a name with a dot": (["--study", "blend.json"], "study 'blend.json': expected letters"),
    "unknown model": (["--model", "3dgh"], "unknown model '3dgh': did you mean '3dhg'?"),
    "unknown flag": (["--serach", "lr"], "unknown flag '--serach': did you mean '--search'?"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_line_and_code_2(
    root: Path, command: Command, name: str, capsys: pytest.CaptureFixture[str]
):
    flags, message = BAD[name]
    arguments = ["tune", "--trials", str(TRIALS), *flags] if name == "other model" else [*TUNE, "--trials", "3", *flags]
    before = sorted((root / "runs").rglob("*"))
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted((root / "runs").rglob("*")) == before


def test_a_study_of_other_folds_is_refused(root: Path, command: Command, capsys: pytest.CaptureFixture[str]):
    assert command("folds", "--strategy", "sequence", "--k", "2", "--force") == 0
    assert command(*TUNE, "--trials", str(TRIALS)) == 2
    assert f"other folds than those in {root / 'folds'}" in capsys.readouterr().err


def test_settings_are_flags_and_help_names_them(capsys: pytest.CaptureFixture[str]):
    options = parse(["tune", "--model", "3dhg-small", "--epochs", "6", "--sigma", "2"]).options
    assert isinstance(options, TuneOptions)
    assert (options.recipe.epochs, options.trials, options.fold, options.search) == (6, 30, "0", None)
    with pytest.raises(SystemExit, match=r"^0$"):
        parse(["tune", "--help"])
    assert "tune --model NAME --help" in " ".join(capsys.readouterr().out.split())


def test_a_diverged_trial_is_recorded_and_the_study_continues(
    folds: None, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--optimizer", "sgd", "--search", "lr=1e-3:1e30", "--parallel", "1", "--workers", "0"]
    assert command("tune", *TINY, "--epochs", "1", "--trials", "3", *flags) == 0
    study = _study(tmp_path)
    diverged = [trial for trial in study.trials if trial.reason]
    assert diverged
    assert all(trial.state == "pruned" and trial.reason.startswith("diverged: ") for trial in diverged)
    assert study.trials[0].state == "complete"
    assert len(study.trials) == 3
    assert "diverged: the loss is no longer finite" in capsys.readouterr().out


def test_missing_images_end_the_study_with_code_2(
    folds: None, own_data: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    next((own_data / "images").iterdir()).unlink()
    assert command(*TUNE, "--trials", "2", data=own_data) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_several_folds_are_judged_together_and_pruned_on_the_first(folds: None, command: Command, tmp_path: Path):
    flags = ["--search", "lr=1e-3:1e-2", "--epochs", "1", "--trials", "1", "--fold", "all", "--study", "both"]
    assert command("tune", *TINY, *flags) == 0
    (trial,) = _study(tmp_path, "both").trials
    logs = [read_log(tmp_path / f"runs/.tune/both/{trial.run}/fold{fold}") for fold in (0, 1)]
    errors_mm = [row.valid_mpjpe or 0 for log in logs for row in log]
    assert trial.mpjpe == pytest.approx((24 * errors_mm[0] + 16 * errors_mm[1]) / 40)  # weighted by rows
    assert trial.curve == {1: errors_mm[0]}


def test_study_folders_are_found(tuned: tuple[Path, str]):
    assert [folder.name for folder in study_folders(tuned[0] / "runs")] == ["3dhg-small"]
    assert study_folders(tuned[0]) == []
