"""The spool: a folder of append-only segments in which a server leaves what it did, one JSON object a line.

    {"kind": "run", "record": {the fields of a RunRecord}}
    {"kind": "label", "run_id": ..., "labelled_at": ..., "human_override": true, ...}    one label or more
    {"kind": "event", "event": "failback", "at": ..., anything else}               optionally with an `event_id`

A process writes to a segment of its own, `<UTC of its start>-<pid>-<random>.jsonl`, and holds a lock on it while it may
still write; the system lets go of that lock when the process ends, however it ends. A segment without a lock is closed
and never written again. `Warehouse.ingest_spool` reads what is there.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_json, full_disk_is_told
from agentrl_resources.redaction import redact
from agentrl_resources.strict_json import parse_json
from agentrl_resources.telemetry.importer import LINE_ERRORS, RejectedLine, reason_of
from agentrl_resources.telemetry.run_records import LABELS, RunRecord, utc_iso
from agentrl_resources.telemetry.values import past_time


@dataclass(eq=False)
class _Segment:
    path: Path
    descriptor: int
    size: int = 0


class Spool:
    """Appends to the spool in a folder. Any thread of the process may call it.

    When `append` returns, the line is with the operating system, handed over in one write: a process that is killed
    then, however it is killed, loses nothing. A background thread makes lines reach the disk (fsync) every
    `sync_seconds`, so `append` never waits for an fsync: a power cut costs at most the lines of the last
    `sync_seconds` and of the time one fsync takes. `flush` and `close` wait until everything is on the disk.

    A segment that has reached `max_bytes` is closed, and the next line begins another.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 16 * 2**20, sync_seconds: float = 0.2) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._sync_seconds = sync_seconds
        self._segment: _Segment | None = None
        self._unsynced: set[_Segment] = set()
        self._failure: AgentRLError | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._writing = threading.Lock()
        self._syncing = threading.Lock()

    def append_run(self, record: RunRecord) -> None:
        """Append a run, with personal data taken out of its trace before anything is written."""
        self.append("run", {"record": record.redacted()[0]})

    def append(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append one line. Personal data is taken out of an event; a label holds none; a run goes to `append_run`.

        Raises `AgentRLError` when the disk is full (no part of the line stays behind, nothing written before is lost),
        when the payload cannot be JSON, when the spool is closed, and once after the disk has refused lines appended
        earlier.
        """
        line = _encoded({"kind": kind, **(redact(dict(payload))[0] if kind == "event" else payload)})
        with self._writing:
            self._raise_failure()
            if self._closed.is_set():
                raise AgentRLError(f"{self.folder}: this spool was closed; nothing can be appended to it any more.")
            with full_disk_is_told(self.folder):
                segment = self._segment_with_room()
                _write(segment, line)
            self._unsynced.add(segment)

    def flush(self) -> None:
        """Return when every line appended so far is on the disk. AgentRLError when the disk has refused any."""
        self._sync()
        with self._writing:
            self._raise_failure()

    def close(self) -> None:
        """`flush`, and close the segment for good."""
        self._closed.set()
        with self._writing:
            self._retire()
        self.flush()

    def _segment_with_room(self) -> _Segment:
        if self._segment is None or self._segment.size >= self._max_bytes:
            self._retire()
            self._segment = _new_segment(self.folder)
        if self._thread is None:
            self._thread = threading.Thread(target=self._sync_regularly, name="spool", daemon=True)
            self._thread.start()
        return self._segment

    def _retire(self) -> None:
        """The next sync closes the segment."""
        if self._segment is not None:
            self._unsynced.add(self._segment)
            self._segment = None

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _sync_regularly(self) -> None:
        while not self._closed.wait(self._sync_seconds):
            self._sync()

    def _sync(self) -> None:
        with self._syncing:
            with self._writing:
                waiting, retired = list(self._unsynced), self._unsynced - {self._segment}
                self._unsynced.clear()
            try:
                for segment in waiting:
                    os.fsync(segment.descriptor)
                if waiting:
                    _sync_folder(self.folder)
            except OSError as error:
                # What an fsync has refused once, the next one may report as written: the segment is given up.
                with self._writing:
                    self._retire()
                    self._failure = AgentRLError(
                        f"{self.folder}: the disk refused run records ({error.strerror}); those of the last "
                        f"{self._sync_seconds:g} s may be lost if the machine stops. Look after the disk."
                    )
            for segment in retired:
                os.close(segment.descriptor)


def _new_segment(folder: Path) -> _Segment:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
    descriptor = os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return _Segment(folder / name, descriptor)


def _write(segment: _Segment, line: bytes) -> None:
    written = 0
    try:
        while written < len(line):  # once, unless the disk has room for a part only
            written += os.write(segment.descriptor, line[written:])
    except OSError:
        os.ftruncate(segment.descriptor, segment.size)
        raise
    segment.size += len(line)


def _encoded(value: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise AgentRLError(f"This cannot be a line of the spool ({error}): {str(value)[:200]}") from error
    return text.encode(errors="replace") + b"\n"  # half of a surrogate pair becomes a question mark


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass
class SpoolLines:
    """What was read: each line is in exactly one of the first four. `offsets` holds bytes read by segment."""

    runs: list[RunRecord] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[RejectedLine] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    torn: int = 0
    """Half lines whose writer is gone; they are among the rejected."""


def segment_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each segment by name, in the order in which they were begun."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*.jsonl"))}


def read_new(folder: Path, offsets: Mapping[str, int], max_bytes: int = 8 * 2**20) -> SpoolLines:
    """What lies behind `offsets`: about `max_bytes` of it, so call it again until the offsets stay as they are.

    A line that is not whole yet waits for its rest, unless its writer is gone. Nothing that stands there is an error:
    what cannot be understood is rejected with its segment, its line (from 1) and a reason.
    """
    found = SpoolLines(offsets=dict(offsets))
    room = max_bytes
    for name, size in segment_sizes(folder).items():
        start = offsets.get(name, 0)
        if size > start and room > 0:
            data, torn = _read_lines(folder / name, start, room)
            room -= len(data)
            _parse_lines(folder / name, start, data, found)
            if data:
                found.offsets[name] = start + len(data)
            found.torn += torn
    return found


def missing_runs(folder: Path, sizes: Mapping[str, int], stored: Container[str]) -> set[str]:
    """Ids of runs that can be read in the first bytes of segments and are not among the `stored`.

    A segment that was pruned holds none.
    """
    found = SpoolLines()
    for path, size in ((folder / name, size) for name, size in sizes.items() if (folder / name).exists()):
        with path.open("rb") as file:
            lines = file.read(size).split(b"\n")
        _parse_lines(path, 0, b"\n".join(line for line in lines if _run_id(line) not in stored), found)
    return {record.run_id for record in found.runs}


def prune(folder: Path, offsets: Mapping[str, int], older_than: timedelta) -> list[str]:
    """Delete segments that are closed, read to their end and last written before `older_than`; returns their names."""
    before = (datetime.now(UTC) - older_than).timestamp()
    deleted = []
    for name in segment_sizes(folder):
        with (folder / name).open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mtime < before and _is_closed(file.fileno()) and offsets.get(name, 0) >= status.st_size:
                (folder / name).unlink()
                deleted.append(name)
    return deleted


def _is_closed(descriptor: int) -> bool:
    """Whether no process may write any more. If so none can begin to until this descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_lines(path: Path, start: int, room: int) -> tuple[bytes, bool]:
    """Whole lines from `start` on; the last may be half a line (True) when nobody will write its rest."""
    with path.open("rb") as file:
        closed = _is_closed(file.fileno())
        file.seek(start)
        data = file.read(room) + file.readline()
    whole = data.rfind(b"\n") + 1
    return (data, len(data) > whole) if closed else (data[:whole], False)


def _parse_lines(path: Path, start: int, data: bytes, found: SpoolLines) -> None:
    *lines, half = data.split(b"\n")
    for position, line in enumerate([*lines, half] if half else lines):
        try:
            if position == len(lines):
                raise AgentRLError("half a line: whoever wrote it was cut off")
            _parse_line(line, found)
        except LINE_ERRORS as error:
            number = _lines_before(path, start) + position + 1
            content = line.decode(errors="backslashreplace")
            found.rejected.append(RejectedLine(path.name, number, reason_of(error), content))


def _lines_before(path: Path, start: int) -> int:
    with path.open("rb") as file:
        return file.read(start).count(b"\n")


def _parse_line(data: bytes, found: SpoolLines) -> None:
    try:
        line = parse_json(data.decode())
    except ValueError as error:
        raise AgentRLError(f"not a JSON line: {error}") from error
    match line:
        case {"kind": "run", "record": dict(record)}:
            found.runs.append(_run(record))
        case {"kind": "label", "run_id": str(run_id), "labelled_at": str(labelled_at)}:
            found.labels += _labels(line, run_id, past_time("labelled_at", labelled_at))
        case {"kind": "event", "event": str(event), "at": str(at)}:
            document = redact(line)[0]
            event_id = str(line.get("event_id") or digest_json(line))
            found.events.append({"event_id": event_id, "kind": event, "at": utc_iso(at), "document": document})
        case _:
            raise AgentRLError("neither a run, nor a label of a run, nor an event with its name and time")


def _run_id(data: bytes) -> str:
    """The id in a line of a run; none in any other line. Much quicker than to read all of it."""
    try:
        return str(json.loads(data)["record"]["run_id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def _run(record: dict[str, Any]) -> RunRecord:
    try:
        return RunRecord(**record)
    except TypeError as error:
        raise AgentRLError(f"not a run record: {error}") from error


def _labels(line: dict[str, Any], run_id: str, labelled_at: str) -> list[dict[str, Any]]:
    said = {name: line[name] for name in LABELS if line.get(name) is not None}
    if not said or not all(isinstance(value, bool) for value in said.values()):
        raise AgentRLError(f"a label says {' or '.join(LABELS)}, true or false")
    label = {"run_id": run_id, "labelled_at": labelled_at}
    return [{**label, "field": name, "value": value} for name, value in said.items()]
