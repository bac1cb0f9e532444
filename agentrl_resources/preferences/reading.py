"""Preference data as users keep it: JSON lines, a JSON array, Parquet (any may be gzipped) and `datasets` folders."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.preferences.pairs import RawRow
from agentrl_resources.preferences.values import plain, storable
from agentrl_resources.strict_json import parse_json

_KINDS = (
    ".jsonl, .json (one array, or one object a line), .parquet, each also .gz, or a folder by datasets' save_to_disk"
)
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".feather", ".arrow", ".pkl")
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def read_pairs(path: str | Path) -> Iterator[RawRow]:
    """Every row of a file or folder, in order; a row that cannot be read comes with its `problem`.

    Raises `AgentRLError` when there is nothing to read: a missing, empty or damaged file, or an unknown type.
    """
    path = Path(path)
    if not path.exists():
        raise AgentRLError(f"{path} does not exist. Give the preference data as {_KINDS}.")
    name = path.name.lower().removesuffix(".gz")
    if path.is_dir():
        rows = _read_datasets_folder(path)
    elif name.endswith(".parquet"):
        rows = _read_parquet(path)
    elif name.endswith((".jsonl", ".ndjson", ".json")):
        rows = _read_json(path)
    else:
        convert = " Convert a table: pandas' to_parquet, or to_json(orient='records', lines=True)."
        hint = convert if name.endswith(_TABLES) else ""
        raise AgentRLError(f"{path} is of a type that is not known. Give the preference data as {_KINDS}.{hint}")
    first = next(rows, None)
    if first is None:
        raise AgentRLError(f"{path} holds no rows. Give a file with at least one preference pair.")
    return chain([first], rows)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> Iterator[RawRow]:
    start = b""
    number = 0
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            while not start.strip(b"\xef\xbb\xbf\t\r\n ") and (block := file.read(64)):
                start += block
        if start.startswith(_UTF16_MARKS):
            raise AgentRLError(f"{path} is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path.name}")
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            if re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*(?:[\]{]|\Z)", start):
                yield from _elements(path, file.read())
                return
            if _kind(path) == ".json" and re.match(rb"(?:\xef\xbb\xbf)?\s*\{\s*[\r\n]", start):
                raise AgentRLError(f"{path} is one JSON object over many lines. Give {_KINDS}.")
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _json_row(path.name, number, line.removeprefix(_UTF8_MARK) if number == 1 else line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        if number == 0:
            raise AgentRLError(f"{path} is not a whole gzip file ({error}). Copy or download it again.") from error
        yield RawRow(number + 1, path.name, {}, f"The gzip file breaks off here ({error}).")
    except OSError as error:
        raise AgentRLError(f"{path} cannot be read: {error.strerror}.") from error


def _elements(path: Path, content: bytes) -> Iterator[RawRow]:
    """The elements of a JSON array as rows. They are cut apart first: one that is no JSON costs no other."""
    text = content.removeprefix(_UTF8_MARK).decode(errors="surrogateescape")
    start, depth, number = text.index("[") + 1, 0, 0
    for found in _STRUCTURE.finditer(text):
        mark = found.group()
        if mark[0] in "[{":
            depth += 1
        elif mark[0] in "]}":
            depth -= 1
        if (mark == "," and depth == 1) or (mark[0] in "]}" and depth == 0):
            element = text[start : found.start()].strip()
            if element:
                number += 1
                yield _json_row(path.name, number, element.encode(errors="surrogateescape"))
            start = found.end()
            if depth == 0:
                break
    if rest := text[start:].strip():
        problem = "The array goes on with something else here." if depth == 0 else "The array breaks off here."
        line = rest.encode(errors="surrogateescape").decode(errors="backslashreplace")
        yield RawRow(number + 1, path.name, {"line": line[:100_000]}, problem)


def _json_row(source: str, number: int, line: bytes) -> RawRow:
    try:
        data = parse_json(line.decode())
        problem = None if isinstance(data, dict) else f"The line holds a {type(data).__name__}, not a JSON object."
    except UnicodeDecodeError as error:
        problem = f"The line is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}."
    except UnicodeEncodeError:
        problem = "The line holds half of a surrogate pair, which is no character."
    except ValueError as error:
        problem = f"The line is not JSON: {error}."
    except Exception as error:  # whatever a line holds, it is this line that cannot be read
        problem = f"The line cannot be read ({type(error).__name__})."
    if problem:
        return RawRow(number, source, {"line": line.decode(errors="backslashreplace").rstrip("\r\n")}, problem)
    return RawRow(number, source, data)


# --- tables -----------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(gzip.decompress(path.read_bytes())) if _is_gzip(path) else path)
        structs = (struct for batch in file.iter_batches(1024) for struct in batch.to_struct_array())
        for number, struct in enumerate(structs, start=1):
            yield _table_row(path.name, number, struct)
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        raise AgentRLError(f"{path} is not a whole Parquet file ({error}). Write or copy it again.") from error


def _read_datasets_folder(path: Path) -> Iterator[RawRow]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise AgentRLError(f"{path} is not a folder of datasets' save_to_disk. Give {_KINDS}.") from error
    if isinstance(loaded, DatasetDict):
        for split, dataset in loaded.items():
            yield from _dataset_rows(f"{path.name}/{split}", dataset, {"split": str(split)})
    else:
        yield from _dataset_rows(path.name, loaded, {})


def _dataset_rows(source: str, dataset: Any, more: dict[str, Any]) -> Iterator[RawRow]:
    rows: Iterable[Any] = dataset.with_format(None)  # a folder remembers that it was to give NumPy or torch
    for number, row in enumerate(rows, start=1):
        yield _table_row(source, number, row, more)


def _table_row(source: str, number: int, row: Any, more: dict[str, Any] | None = None) -> RawRow:
    """One row of a table; `row` is an Arrow struct or a dict."""
    try:
        found = row if isinstance(row, dict) else row.as_py()
        data = plain(found)
        parse_json(json.dumps(data))  # as strict as with a line of JSON: depth, numbers, characters
        return RawRow(number, source, {**(more or {}), **data})
    except UnicodeDecodeError as error:
        problem = f"The row holds text that is not UTF-8 ({error.reason})."
    except Exception as error:  # whatever a row holds, it is this row that cannot be read
        problem = f"The row cannot be read ({type(error).__name__}: {str(error)[:200]})."
    return RawRow(number, source, storable({"line": repr(row)[:100_000]}) if isinstance(row, dict) else {}, problem)


def _kind(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"
