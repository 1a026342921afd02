"""Command lines become typed options; the help of every command and every model."""

import re
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, ClassVar, get_type_hints

import pytest

import models
from competition.cli import main as entry
from competition.cli.flags import Flag, add_options, add_settings
from competition.cli.main import main
from competition.cli.options import BlendOptions, PredictOptions, ScoreOptions, TrainOptions
from competition.cli.parser import COMMANDS, Parser, parse
from competition.common.errors import UserError
from competition.common.workspace import Workspace
from models.recipes import Recipe, Setting, ThreeD

TRAIN: dict[str, tuple[list[str], dict[str, object]]] = {
    "defaults": ([], {}),
    "with an equals sign": (["--lr=1e-3"], {"lr": 1e-3}),
    "switches": (["--flip-test", "--no-augment"], {"flip_test": True, "augment": False}),
    "several numbers": (["--depths", "1,16"], {"depths": (1, 16)}),
    "a number or none": (["--ema", "0.99", "--clip-norm", "none"], {"ema": 0.99, "clip_norm": None}),
    "a word": (["--optimizer", "muon", "--schedule", "cosine"], {"optimizer": "muon", "schedule": "cosine"}),
}


@pytest.mark.parametrize("name", TRAIN)
@pytest.mark.parametrize(
    "model", [["--model", "3dhg-small"], ["--model=3dhg-small"], ["--model", "2dhg", "--model=3dhg-small"]]
)
def test_settings_replace_those_of_the_named_model(name: str, model: list[str]):
    arguments, settings = TRAIN[name]
    options = parse(["train", *arguments, *model, "--fold", "1"]).options
    assert isinstance(options, TrainOptions)
    assert (options.model, options.fold, options.run) == ("3dhg-small", "1", None)
    assert options.recipe == models.recipe("3dhg-small", **settings)


def test_a_value_that_looks_like_a_flag_is_a_value():
    options = parse(["train", "--model", "3dhg", "--run", "a --model b --stacks 2", "--init", "--model 2dhg"]).options
    assert (options.model, options.run, options.init) == ("3dhg", "a --model b --stacks 2", "--model 2dhg")
    assert isinstance(options.recipe, ThreeD)


def test_options_have_the_types_of_their_fields():
    assert parse(["blend", "--files", "a.csv", "b.csv", "--shares", ".6,.4", "--no-stack"]).options == BlendOptions(
        files=(Path("a.csv"), Path("b.csv")), shares=(0.6, 0.4), stack=False
    )
    assert parse(["score"]).options == ScoreOptions(file=None, strict=False, json=None)
    assert parse(["predict", "--run", "none", "--no-flip", "--box", "1,2,30,40"]).options == PredictOptions(
        run="none", flip=False, box=(1.0, 2.0, 30.0, 40.0)
    )
    workspace = parse(["check", "--data", "/data/pose", "--seed", "3"]).workspace
    assert workspace == Workspace(data=Path("/data/pose"), seed=3)


PATHS = {  # flags of paths by command, with what else the command needs
    "check": (["--data", "--folds", "--submissions", "--json"], []),
    "predict": (["--image", "--out"], ["--run", "a"]),
    "blend": (["--files", "--out"], []),
    "score": (["--file", "--json"], []),
    "board": (["--json"], []),
    "report": (["--out"], []),
    "submit": (["--file"], ["--competition", "c", "--message", "m"]),
    "verify": ([""], []),
    "reproduce": (["--json"], []),
    "bench": (["--json"], []),
}


def _path_flags(command: str) -> int:
    hints = get_type_hints(COMMANDS[command].options)
    return sum("Path" in str(hint) for hint in hints.values())


@pytest.mark.parametrize(("command", "flag"), [(name, flag) for name, (flags, _) in PATHS.items() for flag in flags])
def test_a_tilde_in_any_path_is_the_home_folder(command: str, flag: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [command, *PATHS[command][1], *([flag] if flag else [])]
    parsed = parse([*words, "~/a b"])
    assert f"{tmp_path}/a b" in f"{parsed.options} {parsed.workspace}"
    for text, message in (("", "an empty path"), ("~nobody_here/a", "no such user")):
        with pytest.raises(UserError, match=f"{flag or 'folder'}: .*{message}"):
            parse([*words, text])


def test_all_flags_of_paths_are_tested():
    tested = {name: len(flags) for name, (flags, _) in PATHS.items()} | {"check": 1}
    assert {name: count for name in COMMANDS if (count := _path_flags(name))} == tested


def test_flags_are_built_from_annotated_fields():
    @dataclass(frozen=True, kw_only=True)
    class Options:
        name: Annotated[str, Flag("a required name")]
        share: Annotated[float | None, Flag("share, 50% when unset", metavar="S")] = None
        colour: Annotated[str, Flag("a colour", choices=("red", "blue"))] = "red"
        quietly: Annotated[bool, Flag("print nothing")] = False
        mirror: Annotated[bool | None, Flag("mirror or not")] = None
        files: Annotated[tuple[Path, ...], Flag("some files")] = ()
        other: int = 3  # not a flag

    parser = Parser(prog="test")
    add_options(parser, Options)
    found = vars(parser.parse_args(["--name", "x", "--share", ".25", "--no-mirror", "--files", "a", "b"]))
    assert found == {
        "name": "x", "share": 0.25, "colour": "red", "quietly": False, "mirror": False, "files": [Path("a"), Path("b")],
    }  # fmt: skip
    for arguments, message in (
        ([], "required: --name"),
        (["--name", "x", "--share", "a"], "--share 'a': expected a number"),
        (["--name", "x", "--colour", "rad"], "unknown colour 'rad': did you mean 'red'"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            parser.parse_args(arguments)
    text = " ".join(parser.format_help().split())
    assert "share, 50% when unset" in text
    assert "--colour red|blue a colour (default: red)" in text


def test_a_setting_needs_only_a_type():
    @dataclass(frozen=True, kw_only=True)
    class Mean(Recipe):
        network: ClassVar[str] = "models.mean:MeanPose"
        lr: float = 1e-2  # inherits the help text
        input_size: int = 64  # pixels, square
        edge: Annotated[float | None, Setting(help="edge of the cube", unit="mm")] = 2000.0

    parser = Parser(prog="test")
    add_settings(parser, "mean", Mean())
    found = parser.parse_args(["--input-size", "32", "--edge", "none"])
    assert (found.input_size, found.edge, found.lr) == (32, None, 1e-2)
    text = " ".join(parser.format_help().split())
    assert "--input-size X input size (default: 64)" in text
    assert "edge of the cube (default: 2000.0 mm)" in text
    assert "learning rate after the warm-up (default: 0.01)" in text


@pytest.mark.parametrize("taken", ["compile", "workers", "seed", "debug"])
def test_a_setting_named_like_a_flag_is_refused(taken: str, monkeypatch: pytest.MonkeyPatch, capsys):
    recipe = make_dataclass("Own", [(taken, int, 1)], bases=(ThreeD,), frozen=True, kw_only=True)
    monkeypatch.setitem(models.MODELS, "own", recipe())
    assert main(["train", "--model", "own"]) == 2
    error = capsys.readouterr().err
    assert error == f"error: setting {taken} of own: there is a flag --{taken} already: rename it\n"


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_signal_while_parsing_ends_with_one_line(stop: BaseException, code: int, monkeypatch, capsys):
    def interrupted(_arguments: object) -> None:
        raise stop

    monkeypatch.setattr(entry, "parse", interrupted)
    assert main(["submit"]) == code
    error = capsys.readouterr().err
    assert error.startswith("interrupted: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("debug", [False, True])
def test_debug_prints_the_traceback_of_an_invalid_command_line(debug: bool, capsys):
    assert main(["score", "--fiel", "a.csv", *["--debug"] * debug]) == 2
    error = capsys.readouterr().err
    assert ("Traceback" in error) == debug
    assert error.splitlines()[-1].startswith("error: score: unknown flag '--fiel'")


HELP = [[name] for name in COMMANDS] + [["train", "--model", name] for name in models.names()]


def _help_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*arguments, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_every_flag_has_a_help_text(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    entries = re.split(r"\n  (?=-)", _help_of(arguments, capsys))[1:]
    for flag, text in (re.split(r"\s{2,}", part.strip(), maxsplit=1) for part in entries):
        assert len(text.split()) > 2, (flag, text)
        assert not text.startswith(("(default", "of ")), (flag, text)


@pytest.mark.parametrize("model", models.names())
def test_every_setting_of_a_model_is_listed(model: str, capsys: pytest.CaptureFixture[str]):
    text = _help_of(["train", "--model", model], capsys)
    for name in vars(models.recipe(model)):
        assert re.search(rf"^  --{name.replace('_', '-')}[ ,]", text, re.MULTILINE), name


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "python -m competition SUBCOMMAND --help"),
        (["train"], "python -m competition train --model NAME --help"),
        (["blend"], "optuna|exact|greedy|mean|median"),
        (["train", "--model", "3dhg"], "constant, halve, cosine"),
        (["train", "--model", "3dhg"], "(default: 1,2,4,64)"),
        (["train", "--model", "3dhg"], "(default: none)"),
        (["train", "--model", "3dhg"], "(default: 2.0 heatmap pixels)"),
        (["train", "--model=3dhg-plus"], "(default: on)"),
    ],
)
def test_help_lists_accepted_values_and_defaults(arguments: list[str], expected: str, capsys):
    text = " ".join(_help_of(arguments, capsys).split())
    assert expected in text
    assert "None" not in text
