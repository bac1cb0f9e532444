"""What runs when: jobs, the weekly score, and retraining when the rubric changes."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from agentrl_assets.reliability import iso_week
from agentrl_resources.canary import due
from agentrl_resources.dagster_history import latest_build
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.files import digest_json
from agentrl_resources.gateway import is_served
from agentrl_resources.telemetry import segment_sizes

_TRAINING = dg.AssetSelection.groups("training")
_EVALUATION = dg.AssetSelection.groups("evaluation", "release")
_DATA = dg.AssetSelection.groups("preference_data")

data = dg.define_asset_job("data", _DATA, description="Rubric and preference data, cleaned.")
training = dg.define_asset_job("training", _TRAINING, description="Tokenizer, SFT, reward model and PPO.")
evaluation = dg.define_asset_job(
    "evaluation", _EVALUATION, description="Both arms on the held-out tasks, gates, bundle, canary, brief."
)
retraining = dg.define_asset_job(
    "retraining", _DATA | _TRAINING | _EVALUATION, description="From the rubric to the release on its canary."
)
canary = dg.define_asset_job(
    "canary", dg.AssetSelection.assets("canary_rollout"), description="One look at the canary's traffic."
)
reliability = dg.define_asset_job(
    "reliability",
    dg.AssetSelection.groups("telemetry", "reliability"),
    description="Runs into the warehouse, the marts, and the score of a week and of those that have changed.",
)


@dg.schedule(
    job=reliability,
    cron_schedule="0 6 * * MON",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def weekly_reliability_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """On Monday at 06:00 UTC, the score of the week that has just ended, and of others that have changed since."""
    now = context.scheduled_execution_time.astimezone(UTC).date()
    monday = now - timedelta(days=now.weekday() + 7)
    return dg.RunRequest(
        run_key=monday.isoformat(), partition_key=monday.isoformat(), tags={"week": iso_week(monday.isoformat())}
    )


@dg.sensor(job=canary, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def canary_sensor(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.RunRequest | dg.SkipReason:
    """Looks at a canary while a gateway serves: when there is new traffic, and every hour, since a canary expires.

    Also when the gateway has ended one, so that its end is judged, and when a candidate waits for its turn.
    """
    if due(workspace.registry) is None:
        return dg.SkipReason("There is no canary, and no candidate that waits for its turn.")
    if not is_served(workspace.root):
        return dg.SkipReason("No gateway serves this project.")
    traffic = digest_json([segment_sizes(workspace.spool), f"{datetime.now(UTC):%Y-%m-%dT%H}"])
    return dg.RunRequest(run_key=f"{workspace.registry.pointers().revision}-{traffic}")


@dg.sensor(job=retraining, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def rubric_sensor(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Asks for retraining whenever the rubric is another one than before, also when it changes back.

    Dagster remembers a run key for ever, so the key has the number of the change beside the rubric's digest.
    """
    rubric = workspace.workflow.rubric
    seen = json.loads(context.cursor) if context.cursor else None
    if seen is None:
        built = latest_build(context.instance, "rubric")
        seen = {"digest": str(built.metadata["source_digest"]) if built else rubric.digest, "changes": 0}
    if seen["digest"] == rubric.digest:
        reason = f"The rubric is still version {rubric.version} ({rubric.digest[:12]})."
        return dg.SensorResult(skip_reason=reason, cursor=json.dumps(seen))
    changes = seen["changes"] + 1
    reason = f"The rubric changed from {seen['digest'][:12]} to {rubric.digest[:12]} (version {rubric.version})."
    context.log.info(f"{reason} This is change {changes}; asking for retraining.")
    request = dg.RunRequest(run_key=f"{rubric.digest}-{changes}", tags={"agentrl/reason": reason})
    return dg.SensorResult([request], cursor=json.dumps({"digest": rubric.digest, "changes": changes}))
