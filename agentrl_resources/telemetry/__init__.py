"""Run records, their spool, the DuckDB warehouse that holds them, outside traces, SQL models, the reliability score."""

from agentrl_resources.telemetry.importer import HAND_OVER_TOOLS, ImportResult, RejectedLine, import_traces
from agentrl_resources.telemetry.reports import Conflict
from agentrl_resources.telemetry.run_records import COLUMNS, LABELS, METRICS, RunRecord, utc_iso, version_name
from agentrl_resources.telemetry.score import Score, weekly_score
from agentrl_resources.telemetry.spool import Spool, missing_runs, prune, read_new, segment_sizes
from agentrl_resources.telemetry.sql_models import (
    ColumnSource,
    ModelCheck,
    SqlModel,
    build_model,
    build_models,
    check_model,
    load_models,
)
from agentrl_resources.telemetry.values import EARLIEST, past_time
from agentrl_resources.telemetry.warehouse import RAW_TABLES, IngestReport, SpoolReport, Warehouse

__all__ = [
    "COLUMNS",
    "EARLIEST",
    "HAND_OVER_TOOLS",
    "LABELS",
    "METRICS",
    "RAW_TABLES",
    "ColumnSource",
    "Conflict",
    "ImportResult",
    "IngestReport",
    "ModelCheck",
    "RejectedLine",
    "RunRecord",
    "Score",
    "Spool",
    "SpoolReport",
    "SqlModel",
    "Warehouse",
    "build_model",
    "build_models",
    "check_model",
    "import_traces",
    "load_models",
    "missing_runs",
    "past_time",
    "prune",
    "read_new",
    "segment_sizes",
    "utc_iso",
    "version_name",
    "weekly_score",
]
