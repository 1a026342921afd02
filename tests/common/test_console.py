"""Progress bars keep the last text beside them, and become plain lines without a terminal."""

import io

import pytest
from rich.console import Console as RichConsole

from competition.common import console as module
from competition.common.console import Console, duration, printable


def _shown(width: int) -> str:
    """Return the output of a progress bar on a terminal of the given width."""
    console = Console()
    console.rich = RichConsole(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with console.bar("epoch 2/3 train", 30, after=", best 254.1 mm") as advance:
        for _ in range(6):
            advance(1, "59 images/s, loss 0.45")
        advance(1, "")
    assert isinstance(console.rich.file, io.StringIO)
    return console.rich.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_shows_all_texts_on_a_narrow_terminal_too(width: int):
    shown = _shown(width)
    for part in ("epoch 2/3 train", " 7/30 ", "59 images/s, loss 0.45, best 254.1 mm"):
        assert part in shown, part


def test_without_a_terminal_progress_is_printed_as_lines_at_intervals(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    with Console(plain=True).bar("train", 30, after=", best 254.1 mm") as advance:
        advance(2, "")
        advance(3, "59 images/s")
        advance(1, "")
    lines = ["train: 2 of 30 best 254.1 mm", "train: 5 of 30 59 images/s, best 254.1 mm"]
    assert capsys.readouterr().out.splitlines() == [*lines, "train: 6 of 30 59 images/s, best 254.1 mm"]
    with Console(plain=True, name="mine fold 1").bar("train", 30) as advance:
        advance(2, "")
    assert capsys.readouterr().out == "mine fold 1 train: 2 of 30\n"
    monkeypatch.setattr(module, "PLAIN_SECONDS", 60.0)
    with Console(plain=True).bar("train", 30) as advance:
        advance(2, "59 images/s")
    assert capsys.readouterr().out == ""


def test_durations_are_formatted_in_suitable_units():
    assert [duration(seconds) for seconds in (5.4, 89, 91, 5340, 5400)] == [
        "5 s",
        "89 s",
        "2 min",
        "89 min",
        "1 h 30 min",
    ]


def test_control_characters_are_replaced():
    assert printable("a\x1b[31mb\u2028c\nd") == "a?[31mb?c\nd"
