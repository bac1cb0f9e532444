"""What a materialisation or a check shows to people: tables, pictures, numbers with their intervals."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from agentrl_resources.files import Artifact

PICTURE_BYTES = 300_000
"""Pictures are kept in Dagster's event log, which is no place for large ones."""


IN_SHORT, SAMPLE = "in_short", "sample_conversation"
"""Metadata that a person sees on the terminal as soon as an asset is built: the figure that matters, and an episode."""


def materialized(artifact: Artifact, **metadata: Any) -> dg.MaterializeResult:
    """A stored artifact as Dagster's result: its digest is the data version, its pictures are shown."""
    pictures = {path.stem: picture(path) for path in sorted(artifact.path.glob("*.png"))}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(artifact.digest),
        metadata={"artifact": dg.MetadataValue.path(artifact.path), **metadata, **pictures},
    )


def picture(path: Path) -> dg.MetadataValue:
    """A PNG as it is shown in the UI."""
    data = path.read_bytes()
    if len(data) > PICTURE_BYTES:
        return dg.MetadataValue.path(path)
    return dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{base64.b64encode(data).decode()})")


def table(rows: Iterable[Mapping[str, Any]]) -> dg.MetadataValue:
    """Rows as a table with a column for every name that any row has; what is not a plain value becomes text."""
    rows = list(rows)
    if not rows:
        return dg.MetadataValue.text("no rows")
    names = dict.fromkeys(name for row in rows for name in row)
    records = [dg.TableRecord({name: _plain(row.get(name)) for name in names}) for row in rows]
    columns = [dg.TableColumn(name, _type(row.get(name) for row in rows)) for name in names]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def counts(numbers: Mapping[str, int], of: str) -> dg.MetadataValue:
    """Counts by name as a table with the columns `of` and `rows`."""
    return table({of: name, "rows": count} for name, count in numbers.items())


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a report: what has a value of its own in the metadata."""
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def conversation(messages: Iterable[Mapping[str, Any]], width: int = 104) -> dg.MetadataValue:
    """An episode as people read it, a line a turn, long ones cut."""
    lines: list[tuple[str, Any]] = []
    for message in messages:
        if message["role"] == "user":
            lines.append(("customer", message["content"]))
        elif message["role"] == "tool":
            lines.append((f"  {message.get('name', 'tool')} says", message["content"]))
        elif message["role"] == "assistant":
            calls = [call["function"] for call in message.get("tool_calls") or ()]
            lines += [("  agent notes", message["thinking"])] if message.get("thinking") else []
            lines += [(f"  agent calls {call['name']}", call["arguments"]) for call in calls]
            lines += [("agent", message["content"])] if message.get("content") else []
    flat = (f"{who}: {' '.join(_as_text(said).split())}" for who, said in lines)
    return dg.MetadataValue.text("\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in flat))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def with_interval(share: float | None, interval: Iterable[float] | None) -> str:
    """A share and its 95 % interval, as `81.2 % (78.0 to 84.1)`."""
    if share is None or interval is None:
        return percent(share)
    low, high = interval
    return f"{percent(share)} ({100 * low:.1f} to {100 * high:.1f})"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _type(values: Iterable[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int}:
        return "int"
    return "float" if kinds <= {int, float} else "bool" if kinds == {bool} else "string"
