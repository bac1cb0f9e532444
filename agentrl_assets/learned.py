"""Whether what was trained learned anything at all."""

import dagster as dg

from agentrl_resources.dagster_resources import Workspace


def weights_moved(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name="weights_moved", blocking=True, metadata={"owner": "team:ml"})
    def check(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
        """Training changed the weights that were to learn: what never moves looks like a policy that is only stale."""
        moved = workspace.latest(context, asset).report["moved"]
        said = f"The weights changed by {100 * moved:.3g} % of their norm." if moved else "No weight has changed."
        return dg.AssetCheckResult(passed=moved > 0, description=said, metadata={"moved": moved})

    return check


sft_moved, reward_moved, policy_moved = (
    weights_moved(asset) for asset in ("sft_checkpoint", "reward_model", "ppo_policy")
)
