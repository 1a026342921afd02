"""Small CSV files with a header: a record of uploads or scores, the joints of a photo."""

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from competition.common.errors import UserError
from competition.common.files import read_text

_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_FIX = "correct the file or move it away"


def read_table(path: Path, columns: Sequence[str], *, what: str, numbers: Collection[str] = ()) -> list[dict[str, str]]:
    """Read a CSV file with exactly these columns; cells of the columns `numbers` hold a finite number or nothing.

    Raise UserError, with the file and the line, if the file is missing or differs from this.
    """
    reader = csv.reader(io.StringIO(read_text(path, what=what)), strict=True)
    rows = []
    try:
        header = next(reader, [])
        if header != list(columns):
            found = ",".join(header)[:100] or "nothing"
            raise UserError(f"{path}:1: columns {found}, expected {','.join(columns)}", fix=_FIX)
        for cells in filter(None, reader):
            where = f"{path}:{reader.line_num}"
            if len(cells) != len(columns):
                raise UserError(f"{where}: {len(cells)} cells, expected {len(columns)}", fix=_FIX)
            row = dict(zip(columns, cells, strict=True))
            for name in numbers:
                if row[name] and not _is_number(row[name]):
                    raise UserError(f"{where}: {name} is {row[name][:40]!r}, expected a number", fix=_FIX)
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not a CSV ({error})", fix=_FIX) from None
    return rows


def table_csv(columns: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    """Format rows as CSV, with LF line ends; with `columns`, below a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if columns is not None:
        writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None and math.isfinite(float(cell))
