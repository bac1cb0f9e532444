"""Run records, the DuckDB warehouse that holds them, outside traces, SQL models, and the weekly reliability score."""

from agentrl_resources.telemetry.importer import ImportResult, RejectedLine, import_traces
from agentrl_resources.telemetry.run_records import COLUMNS, METRICS, RunRecord, utc_iso
from agentrl_resources.telemetry.score import Score, weekly_score
from agentrl_resources.telemetry.sql_models import (
    ColumnSource,
    ModelCheck,
    SqlModel,
    build_model,
    build_models,
    check_model,
    load_models,
)
from agentrl_resources.telemetry.warehouse import RAW_TABLES, IngestReport, Warehouse

__all__ = [
    "COLUMNS",
    "METRICS",
    "RAW_TABLES",
    "ColumnSource",
    "ImportResult",
    "IngestReport",
    "ModelCheck",
    "RejectedLine",
    "RunRecord",
    "Score",
    "SqlModel",
    "Warehouse",
    "build_model",
    "build_models",
    "check_model",
    "import_traces",
    "load_models",
    "utc_iso",
    "weekly_score",
]
