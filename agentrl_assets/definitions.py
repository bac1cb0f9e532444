"""The Dagster code location: every asset, check, job, schedule and sensor."""

import dagster as dg

from agentrl_assets import (
    alternatives,
    automation,
    brief,
    canary,
    evaluation,
    gates,
    learned,
    ppo,
    preference_data,
    release,
    reliability,
    reward,
    sft,
    telemetry,
)
from agentrl_assets.project import TRAINING, WORKSPACE

_STAGES = [
    *(preference_data, sft, reward, ppo, learned),
    *(evaluation, alternatives, gates, release, canary, telemetry, reliability, brief),
]

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(_STAGES),
    asset_checks=dg.load_asset_checks_from_modules(_STAGES),
    jobs=[
        automation.data,
        automation.training,
        automation.evaluation,
        automation.retraining,
        automation.canary,
        automation.reliability,
    ],
    schedules=[automation.weekly_reliability_schedule],
    sensors=[automation.rubric_sensor, automation.canary_sensor],
    resources={"workspace": WORKSPACE, "training": TRAINING},
    # What takes long has a process of its own already, and a process for each of the other steps would only import.
    executor=dg.in_process_executor,
)
