"""A published table as it stands in its file: named columns, rows as dictionaries, errors that name the cell.

CSV and TSV (also .gz) stay text until a column is asked for as numbers; Parquet keeps its types. Rows are
counted from 1 below the header.
"""

import csv
import difflib
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHERS = {";": "semicolons", "\t": "tabs"}
EMPTY = ("", "NA", "N/A", "#N/A", "n/a", "NULL", "null")  # where a number may stand: what R, SQL and spreadsheets write
COMMA = ": write decimals with a point, and thousands without a comma"
ADDRESS = re.compile(r"[a-z][a-z0-9]+:/")


@dataclass(frozen=True)
class Sheet:
    """The rows of one file below its header."""

    path: Path
    names: tuple[str, ...]
    rows: list[dict[str, Any]]

    def need(self, *names: str) -> None:
        """Nothing, if all these columns are there.

        Raises:
            ValueError: a column is missing, or stands twice; names it and the nearest one.
        """
        for name in names:
            if name not in self.names:
                raise ValueError(f"{self.path}: the column {name!r} is missing; {nearest(name, self.names)}")
        _once(self.path, [name for name in self.names if name in names])

    def text(self, row: int, name: str) -> str:
        """A cell as stripped text, "" where empty."""
        value = self.rows[row][name]
        return "" if value is None or value != value else str(value).strip()

    def number(self, row: int, name: str) -> float:
        """A cell as a float, NaN where empty.

        Raises:
            ValueError: the cell is not a number; names file, row and column.
        """
        try:
            return as_number(self.rows[row][name])
        except ValueError as error:
            raise ValueError(f"{self.path}: row {row + 1}, column {name!r}: {error}") from None

    def filled(self, words: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The rows as they stand, None where a cell is empty; NA is empty but in the columns of `words`."""
        return [
            {name: self.text(i, name) or None if name in words else None if is_empty(value) else value
             for name, value in row.items()}
            for i, row in enumerate(self.rows)
        ]  # fmt: skip

    def whole(self, row: int, name: str) -> int:
        """A cell as a whole number, 0 where empty; 2^53 + 1 too, which no float is.

        Raises:
            ValueError: the cell is no whole number.
        """
        number, text = self.number(row, name), self.text(row, name)
        if text.lstrip("+-").isdecimal():
            return int(text)
        if math.isnan(number):
            return 0
        if not number.is_integer():
            raise ValueError(f"{self.path}: row {row + 1}, column {name!r}: {text!r} is not a whole number")
        return int(number)

    def is_numeric(self, name: str) -> bool:
        """Whether at least one cell is a number and not only empty or text."""
        return any(is_number(row[name]) for row in self.rows)


def read_sheet(path: str | Path, once: bool = True, rowless: bool = False) -> Sheet:
    """The table in a .csv, .tsv (also .gz) or .parquet file, without columns that have neither a name nor a cell.

    What has no ending, as /dev/stdin, is CSV. Where not all columns have to stand there `once`, those that are needed
    do (`Sheet.need`). A header alone will do where the table may be `rowless`.

    Raises:
        ValueError: no such file, an unknown ending, no rows, a duplicate column, a row of another length.
    """
    path = existing(path)
    if path.suffix and not is_table(path):
        raise ValueError(f"{path}: a table is a .csv, .tsv, .csv.gz, .tsv.gz or .parquet file")
    names, rows = _parquet(path) if path.suffix == ".parquet" else _delimited(path)
    if once:
        _once(path, names)
    if not rows and not (rowless and names):
        raise ValueError(f"{path}: the file has no rows")
    return Sheet(path, tuple(names), rows)


def _once(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} stands twice; keep one")


def absent(path: Path, what: str = "file") -> str:
    """Of a file that is not there; of an address, which lost a slash as a path, that it is none of a file here."""
    said = f"there is no such {what}"
    return f"{said}: tables and laws are read from a disk" if ADDRESS.match(str(path)) else said


def existing(path: str | Path, folder: bool = False) -> Path:
    """The path as a `Path` to a file, or with `folder` to a file or a folder.

    Raises:
        ValueError: nothing is there, or a folder where a file is needed.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: {absent(path, 'file or folder' if folder else 'file')}")
    if path.is_dir() and not folder:
        raise ValueError(f"{path}: this is a folder; name a file in it")
    return path


def is_table(path: Path) -> bool:
    """Whether the ending is that of a table."""
    return ending(path) in DELIMITERS or path.suffix == ".parquet"


def ending(path: Path) -> str:
    """The last ending that is not .gz, in lower case."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_text(path: Path) -> str:
    """The text of a file that may be gzipped, without a byte order mark.

    Raises:
        ValueError: the file is empty or not text.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as text ({error})") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    return text


def as_number(value: Any) -> float:
    """A float; NaN for an empty cell.

    Raises:
        ValueError: not a number.
    """
    if is_empty(value):
        return float("nan")
    if not is_number(value):
        comma = isinstance(value, str) and is_number(value.replace(",", ""))
        raise ValueError(f"{value!r} is not a number{COMMA if comma else ''}")
    return float(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or the first twelve of them; "" where there are none."""
    names = list(known)
    if not names:
        return ""
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are: {listed(names)}"


def listed(names: Sequence[Any], most: int = 12) -> str:
    """Names with commas, shortened to `most`."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown + (f", ... ({len(names)})" if len(names) > most else "")


def is_empty(value: Any) -> bool:
    """Whether nothing stands in a cell."""
    return value is None or (isinstance(value, str) and value.strip() in EMPTY)


def is_number(value: Any) -> bool:
    """Whether a cell is a number, as text or not; true and false are none."""
    if isinstance(value, bool) or value is None or (isinstance(value, str) and "_" in value):
        return False  # Python reads 1_000; no publisher means that
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        table = pyarrow.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    return list(table.column_names), table.to_pylist()


def _delimited(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=DELIMITERS.get(ending(path), ","))
    try:
        filled = [cells for cells in lines if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise ValueError(f"{path}: line {lines.line_num}: {error}") from None
    names = [name.strip() for name in filled[0]]
    for sign, kind in OTHERS.items():
        if len(names) == 1 and sign in names[0]:
            hint = f"the file seems to be separated by {kind}: save it with commas"
            raise ValueError(f"{path}: the header is one column; {hint}")
    for number, cells in enumerate(filled[1:], start=1):
        if len(cells) != len(names):
            raise ValueError(f"{path}: row {number} has {len(cells)} cells, the header has {len(names)} columns")
    kept = [i for i, name in enumerate(names) if name or any(cells[i].strip() for cells in filled[1:])]
    return [names[i] for i in kept], [{names[i]: cells[i] for i in kept} for cells in filled[1:]]
