"""Records are written and read as JSON, and a file that doesn't fit is rejected with the place of the fault."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import pytest

from competition.common.errors import UserError
from competition.common.records import read_record, to_json, write_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    mm: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    FORMAT: ClassVar[int] = 3

    fold: int | str
    parts: tuple[Part, ...] = ()
    by_joint: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False


WHOLE = Whole(fold="full", parts=(Part(name="a", mm=2.5), Part(name="b")), by_joint={"Hip": 1.0}, finished=True)


def test_a_record_is_read_as_it_was_written(tmp_path: Path):
    write_record(tmp_path / "whole.json", WHOLE)
    assert read_record(Whole, tmp_path / "whole.json", what="whole") == WHOLE
    assert list(to_json(WHOLE)) == ["format", "fold", "parts", "by_joint", "seconds", "finished"]


def test_defaults_replace_missing_keys_and_unknown_keys_are_ignored(tmp_path: Path):
    (tmp_path / "whole.json").write_text('{"fold": 1, "seconds": 3, "colour": "red"}')
    found = read_record(Whole, tmp_path / "whole.json", what="whole")
    assert found == Whole(fold=1, seconds=3.0)
    assert isinstance(found.seconds, float)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 4}, "has format 4, expected 3"),
        ({"fold": None}, "'fold' is NoneType, expected int | str"),
        ({"fold": 1.5}, "'fold' is float"),
        ({"seconds": "12"}, "'seconds' is str, expected float"),
        ({"seconds": True}, "'seconds' is bool, expected float"),
        ({"seconds": 10**400}, "'seconds' is int, expected float"),
        ({"by_joint": {"Hip": -(10**400)}}, "'by_joint'['Hip'] is int, expected float"),
        ({"finished": 1}, "'finished' is int, expected bool"),
        ({"parts": {}}, "'parts' is dict"),
        ({"parts": [{"mm": 1}]}, "'parts'[0] lacks 'name'"),
        ({"parts": [7]}, "'parts'[0] holds int, expected a JSON object"),
        ({"by_joint": {"Hip": "1"}}, "'by_joint'['Hip'] is str, expected float"),
    ],
)
def test_a_file_that_does_not_fit_is_rejected_with_the_place(tmp_path: Path, changed: dict[str, object], message: str):
    (tmp_path / "whole.json").write_text(json.dumps(to_json(WHOLE) | changed))
    with pytest.raises(UserError) as error:
        read_record(Whole, tmp_path / "whole.json", what="whole")
    assert message in str(error.value)
    assert str(tmp_path / "whole.json") in str(error.value)


def test_a_missing_key_without_a_default_is_named(tmp_path: Path):
    (tmp_path / "whole.json").write_text("{}")
    with pytest.raises(UserError, match="lacks 'fold'"):
        read_record(Whole, tmp_path / "whole.json", what="whole")
