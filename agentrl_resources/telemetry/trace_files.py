"""Rows out of a file of traces: JSON lines, one JSON array, CSV or Parquet; all but Parquet also gzipped.

What a file holds is seen by its first bytes, not by its name (only CSV is told by its name). A row that cannot be read
comes with its problem, and the rows around it as they are.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.strict_json import parse_json
from agentrl_resources.telemetry.values import shown

KINDS = "one JSON object a line (.jsonl), a JSON array of objects, CSV with a header (.csv), each also .gz, or .parquet"

_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)
_UTF8_MARK = b"\xef\xbb\xbf"
_OTHERS = {
    b"\xff\xfe": "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
    b"PK\x03\x04": "a ZIP archive or an Excel file; unpack it, or save the sheet as CSV",
    b"BZh": "compressed with bzip2; unpack it",
    b"\xfd7zXZ": "compressed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; unpack it",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3": "an SQLite database; export the table",
}


@dataclass(frozen=True)
class TraceRow:
    """A row as it stands in the file, and either its `data` or what is wrong with it.

    `number`: the line, from 1; in an array or a Parquet file the position of the row.
    """

    number: int
    content: str
    data: dict[str, Any] | None
    problem: str = ""


def source_name(path: Path) -> str:
    """The file's name as text, whatever bytes it has."""
    return os.fsencode(path.name).decode(errors="backslashreplace")


def read_rows(path: Path) -> Iterator[TraceRow]:
    """Every row of a file that is not blank.

    Raises `AgentRLError` for a file that cannot be opened, or is of another kind.
    """
    with _opened(path) as file:
        start = file.peek(64)
        for mark, what in _OTHERS.items():
            if start.startswith(mark):
                raise AgentRLError(f"{path} is {what}. Traces are read as {KINDS}.")
        if start.startswith(b"PAR1"):
            rows = _parquet(path)
        elif path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
            rows = _csv(file, "\t" if ".tsv" in path.name.lower() else ",")
        else:
            rows = _json(file)
        yield from _until_it_breaks_off(rows)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    try:
        with path.open("rb") as plain:
            if plain.read(2) != b"\x1f\x8b":
                plain.seek(0)
                yield plain
                return
            plain.seek(0)
            with gzip.open(plain) as unpacked:
                yield unpacked
    except _BROKEN as error:
        raise AgentRLError(f"{path} is not a whole gzip file ({error}). Copy or download it again.") from error
    except OSError as error:
        raise AgentRLError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error


def _until_it_breaks_off(rows: Iterator[TraceRow]) -> Iterator[TraceRow]:
    """A file that ends in the middle keeps what came before."""
    number = 0
    try:
        for row in rows:
            number = row.number
            yield row
    except _BROKEN:
        yield TraceRow(number + 1, "", None, "from here on the file is not valid gzip; copy it again and import again")


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(file: Iterable[bytes]) -> Iterator[TraceRow]:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return
    if first[1].startswith(b"["):
        rest = list(_what_can_be_read(lines))
        if not rest or not _is_whole(first[1]):
            yield from _json_array(b"\n".join([first[1], *(line for _, line in rest)]))
            return
        lines = iter(rest)
    yield from (_json_row(number, line) for number, line in chain([first], lines))


def _lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Those that are not blank, with their numbers."""
    for number, line in enumerate(file, start=1):
        if text := line.removeprefix(_UTF8_MARK).strip():
            yield number, text


def _what_can_be_read(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    try:
        yield from lines
    except _BROKEN:  # an array without its end says so itself
        return


def _json_row(number: int, line: bytes) -> TraceRow:
    content = line.decode(errors="backslashreplace")
    try:
        data = parse_json(line.decode(), unique_keys=True)
    except UnicodeDecodeError as error:
        return TraceRow(number, content, None, f"not UTF-8 at byte {error.start}")
    except UnicodeEncodeError:
        return TraceRow(number, content, None, "holds half of a character (a lone surrogate)")
    except json.JSONDecodeError as error:
        return TraceRow(number, content, None, f"not valid JSON, perhaps half a line: {error}")
    except ValueError as error:
        return TraceRow(number, content, None, str(error))
    if not isinstance(data, dict):
        return TraceRow(number, content, None, f"a JSON {type(data).__name__} where an object is needed")
    return TraceRow(number, content, data)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _json_array(data: bytes) -> Iterator[TraceRow]:
    """The items of an array, each read by itself, so that a bad one costs only itself."""
    text = data.decode(errors="surrogateescape")
    number, start, level = 0, 1, 0
    for token in _MARKS.finditer(text, start):
        mark = token[0]
        if mark in ("[", "{"):
            level += 1
        elif level and mark in ("]", "}"):
            level -= 1
        elif level == 0 and mark in (",", "]", "}"):
            item = text[start : token.start()].strip()
            start = token.end()
            if item or mark == ",":
                number += 1
                yield _json_row(number, item.encode(errors="surrogateescape"))
            if mark != ",":
                break
    else:
        start = min(start, len(text))
        yield TraceRow(number + 1, _legible(text[start:]), None, "the array breaks off here; write or copy it again")
        return
    if text[start:].strip():
        yield TraceRow(number + 1, _legible(text[start:]), None, "stands behind the end of the array")


_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)


def _legible(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


# --- tables -----------------------------------------------------------------------------------------------------------


def _csv(file: Iterable[bytes], delimiter: str) -> Iterator[TraceRow]:
    """Cells that hold JSON (messages, usage) become what they hold."""
    csv.field_size_limit(2**31 - 1)
    texts = (line.removeprefix(_UTF8_MARK).decode(errors="surrogateescape") for line in file)
    reader = csv.reader(texts, delimiter=delimiter)
    header: list[str] = []
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield TraceRow(reader.line_num, "", None, f"not valid CSV: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [name.strip() for name in cells]
            if len(set(header)) < len(header):
                raise AgentRLError(f"The header names a column twice: {', '.join(header)}. Rename one of them.")
            continue
        text = delimiter.join(cells)
        content, problem = _legible(text), ""
        if not _is_utf8(text):
            problem = "not UTF-8"
        elif len(cells) != len(header):
            problem = f"{len(cells)} cells where the header names {len(header)} columns"
        data = None if problem else {name: _cell(cell) for name, cell in zip(header, cells, strict=True)}
        yield TraceRow(reader.line_num, content, data, problem)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cell(cell: str) -> Any:
    if cell.lstrip()[:1] not in ("{", "["):
        return cell
    try:
        return parse_json(cell)
    except ValueError:
        return cell


def _parquet(path: Path) -> Iterator[TraceRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        structs = (struct for batch in pq.ParquetFile(path).iter_batches(256) for struct in batch.to_struct_array())
        for number, struct in enumerate(structs, start=1):
            try:
                data = {
                    name: _cell(item) if isinstance(item, str) else item
                    for name, item in _plain(struct.as_py()).items()
                }
                yield TraceRow(number, json.dumps(data, ensure_ascii=False, default=str), data)
            except (ValueError, TypeError, ArithmeticError, RecursionError, pa.ArrowException) as error:
                yield TraceRow(number, shown(struct), None, f"the row cannot be read: {error}")
    except (pa.ArrowException, OSError) as error:
        raise AgentRLError(f"{path} is not a whole Parquet file ({error}). Write or copy it again.") from error


def _plain(value: Any) -> Any:
    """Arrow's values as JSON has them. It fills a struct with all keys of the column: an empty one was not there."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None and item == item}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.decode() if isinstance(value, bytes) else value
