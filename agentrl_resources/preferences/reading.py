"""Preference data as users keep it: JSON lines, Parquet (either may be gzipped) and `datasets` folders."""

import gzip
import math
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.preferences.pairs import RawRow
from agentrl_resources.strict_json import parse_json

_KINDS = ".jsonl, .jsonl.gz, .parquet, .parquet.gz or a folder written by datasets' save_to_disk"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


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
    elif name.endswith((".jsonl", ".ndjson")):
        rows = _read_json_lines(path)
    else:
        raise AgentRLError(f"{path} is of a type that is not known. Give the preference data as {_KINDS}.")
    first = next(rows, None)
    if first is None:
        raise AgentRLError(f"{path} holds no rows. Give a file with at least one preference pair.")
    return chain([first], rows)


def _read_json_lines(path: Path) -> Iterator[RawRow]:
    number = 0
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1 and line.startswith(_UTF16_MARKS):
                    raise AgentRLError(f"{path} is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path.name}")
                if line.strip():
                    yield _json_row(path.name, number, line.removeprefix(_UTF8_MARK) if number == 1 else line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        if number == 0:
            raise AgentRLError(f"{path} is not a whole gzip file ({error}). Copy or download it again.") from error
        yield RawRow(number + 1, path.name, {}, f"The gzip file breaks off here ({error}).")
    except OSError as error:
        raise AgentRLError(f"{path} cannot be read: {error.strerror}.") from error


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
    if problem:
        return RawRow(number, source, {"line": line.decode(errors="backslashreplace").rstrip("\r\n")}, problem)
    return RawRow(number, source, data)


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(gzip.decompress(path.read_bytes())) if _is_gzip(path) else path)
        structs = (struct for batch in file.iter_batches(1024) for struct in batch.to_struct_array())
        for number, struct in enumerate(structs, start=1):
            try:
                yield RawRow(number, path.name, _without_nulls(struct.as_py()))
            except UnicodeDecodeError as error:
                yield RawRow(number, path.name, {}, f"The row holds text that is not UTF-8 ({error.reason}).")
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
            for number, row in enumerate(dataset, start=1):
                yield RawRow(number, f"{path.name}/{split}", {"split": str(split)} | _without_nulls(row))
    else:
        for number, row in enumerate(loaded, start=1):
            yield RawRow(number, path.name, _without_nulls(row))


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _without_nulls(value: Any) -> Any:
    """Arrow fills every struct with all keys of the column: an empty key was not there. Dates become ISO text."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if not _is_null(item)}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value if isinstance(value, str | int | float) or value is None else str(value)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
