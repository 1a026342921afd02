"""Small CSV files: exact columns, and errors that name the line."""

from pathlib import Path

import pytest

from competition.common.errors import UserError
from competition.common.table_csv import read_table, table_csv

COLUMNS = ("name", "score")


def test_a_written_table_is_read_again(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text(table_csv(COLUMNS, [('a "b", c', "1.5"), ("two\nlines", "")]))
    assert path.read_text().splitlines()[0] == "name,score"
    rows = read_table(path, COLUMNS, what="table", numbers=("score",))
    assert rows == [{"name": 'a "b", c', "score": "1.5"}, {"name": "two\nlines", "score": ""}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: columns nothing, expected name,score"),
        ("score,name\n", ":1: columns score,name, expected name,score"),
        ("name,score\na,1\n\nb\n", ":4: 1 cells, expected 2"),
        ("name,score\na,1\nb,1,2\n", ":3: 3 cells, expected 2"),
        ('name,score\n"a\nb",1_0\n', ":3: score is '1_0', expected a number"),
        ("name,score\na,inf\n", ":2: score is 'inf', expected a number"),
        ('name,score\n"a"b,1\n', ":2: not a CSV"),
        (f"name,score\n{'a' * 200_000},1\n", ":2: not a CSV"),
    ],
)
def test_another_table_is_rejected_with_its_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_table(path, COLUMNS, what="table", numbers=("score",))
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "none.csv", COLUMNS, what="table")
