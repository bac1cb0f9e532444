"""What a person sees while a run goes on: what each stage is for, how far it is, and what came of it."""

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import dagster as dg

from agentrl_assets.reporting import IN_SHORT, SAMPLE

_EVERY = 0.5
_EVERY_WITHOUT_TERMINAL = 15.0
"""Seconds between lines where a line cannot be rewritten."""

_SHOWN = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
}


class ProgressReport:
    """Follows Dagster's event log and the stages' progress file, and writes to a terminal until it is closed.

    On a terminal the line of the running stage is rewritten; elsewhere it appears now and then.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        progress_file: Path,
        out: TextIO,
        purposes: Mapping[str, str],
    ) -> None:
        """`purposes`: what each stage that takes long is for, by asset; the others only tell that they are done."""
        self._instance = instance
        self._purposes = purposes
        self._run_id = run_id
        self._file = progress_file
        self._offset = progress_file.stat().st_size if progress_file.exists() else 0
        self._out = out
        self._cursor: str | None = None
        self._line = ""
        self._last_line_at = 0.0
        self._started: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "ProgressReport":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        self._clear()

    def _follow(self) -> None:
        while not self._stop.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        for line in self._new_progress():
            self._show_stage(line)
        records = self._instance.get_records_for_run(self._run_id, self._cursor, of_type=_SHOWN)
        self._cursor = records.cursor
        for record in records.records:
            if record.event_log_entry.dagster_event is not None:
                self._show_event(record.event_log_entry.dagster_event, record.timestamp)

    def _new_progress(self) -> list[dict[str, Any]]:
        """Whole lines that were appended since the last look."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [json.loads(line) for line in whole.splitlines()]

    def _show_stage(self, line: dict[str, Any]) -> None:
        left = line.get("eta_seconds")
        eta = "" if left is None else f", {_duration(left)} left"
        done = f"{line['step']}/{line['of']}{eta}  " if line["of"] else ""
        self._line = f"  {line['stage']}: {done}{line['message']}"
        if self._out.isatty():
            self._out.write(f"\r\x1b[2K{self._line[:118]}")
            self._out.flush()
        elif time.monotonic() - self._last_line_at > _EVERY_WITHOUT_TERMINAL:
            self._last_line_at = time.monotonic()
            self._say(self._line)

    def _show_event(self, event: dg.DagsterEvent, at: float) -> None:
        step = str(event.step_key)
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._started[step] = at
            if step in self._purposes:
                self._say(f"{step}: {self._purposes[step]}")
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
            took = at - self._started.get(step, at)
            shown = event.step_materialization_data.materialization.metadata
            in_short = f": {shown[IN_SHORT].value}" if IN_SHORT in shown else ""
            self._say(f"  built {event.asset_key.to_user_string()} in {_duration(took)}{in_short}")
            if SAMPLE in shown:
                self._say("    how the agent works by now, on a task that it has not seen:")
                self._say("\n".join(f"      {line}" for line in str(shown[SAMPLE].value).splitlines()))
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                asset = check.asset_key.to_user_string()
                word = "FAILED" if check.severity == dg.AssetCheckSeverity.ERROR else "warning"
                word = "gate" if asset == "gate_evidence" else f"{word} {asset}:"
                self._say(f"  {word} {check.check_name}: {check.description}")

    def _say(self, text: str) -> None:
        self._clear()
        self._out.write(f"{text}\n")
        self._out.flush()

    def _clear(self) -> None:
        if self._line and self._out.isatty():
            self._out.write("\r\x1b[2K")
            self._out.flush()
        self._line = ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
