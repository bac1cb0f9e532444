"""What Dagster's event log says of assets and checks: what was built from what, and whether that still holds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

DATA_VERSION = "dagster/data_version"
CODE_VERSION = "dagster/code_version"
"""Tags of a materialisation."""
_INPUT_VERSION = "dagster/input_data_version/"
_BROKEN_OFF = 50
"""Runs that planned a check and broke off before it, which Dagster keeps among its evaluations; few in practice."""


@dataclass(frozen=True)
class Built:
    """One materialisation. `inputs` has the data version of each input by asset; `at` is Unix seconds."""

    asset: str
    data_version: str
    code_version: str | None
    inputs: Mapping[str, str]
    metadata: Mapping[str, Any]
    event: int
    run: str
    at: float


CheckAnswer = Literal["passed", "failed", "outdated", "missing"]


@dataclass(frozen=True)
class Checked:
    """What a check says now. `said` is its sentence.

    `outdated`: it judged an earlier materialisation. `failed` also covers a warning, which blocks nothing.
    """

    asset: str
    check: str
    answer: CheckAnswer
    said: str = ""


def latest_build(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> Built | None:
    """The latest materialisation of an asset, or of one of its partitions; None when there is none."""
    partitions = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=partitions)
    records = instance.fetch_materializations(wanted, limit=1).records
    if not records or (event := records[0].asset_materialization) is None:
        return None
    tags = event.tags or {}
    return Built(
        asset=asset,
        data_version=tags[DATA_VERSION],
        code_version=tags.get(CODE_VERSION),
        inputs={tag.removeprefix(_INPUT_VERSION): tags[tag] for tag in tags if tag.startswith(_INPUT_VERSION)},
        metadata={name: value.value for name, value in event.metadata.items()},
        event=records[0].storage_id,
        run=records[0].run_id,
        at=records[0].timestamp,
    )


def check_answer(instance: dg.DagsterInstance, asset: str, check: str) -> Checked:
    """What a check says of the latest materialisation of its asset."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=_BROKEN_OFF)
    found = (record.evaluation for record in records)
    evaluation = next((one for one in found if isinstance(one, dg.AssetCheckEvaluation)), None)
    if evaluation is None:
        return Checked(asset, check, "missing")
    built, judged = latest_build(instance, asset), evaluation.target_materialization_data
    current = built is not None and judged is not None and judged.storage_id == built.event
    answer: CheckAnswer = ("passed" if evaluation.passed else "failed") if current else "outdated"
    return Checked(asset, check, answer, evaluation.description or "")


def out_of_date(instance: dg.DagsterInstance, asset: str) -> Iterator[str]:
    """One sentence for each asset, from this one upwards, that is not made from the latest of its inputs."""
    waiting, seen = [asset], {asset}
    while waiting:
        name = waiting.pop()
        built = latest_build(instance, name)
        if built is None:
            yield f"{name} was never built"
            continue
        for source, version in sorted(built.inputs.items()):
            latest = latest_build(instance, source)
            if latest is not None and latest.data_version != version:
                yield f"{name} was made from an earlier {source}"
            if source not in seen:
                seen.add(source)
                waiting.append(source)
