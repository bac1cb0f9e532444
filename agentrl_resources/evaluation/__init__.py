"""Evaluation: how two arms compare on the same tasks, and what the release gates say of it."""

from agentrl_resources.evaluation.comparison import EpisodeFacts, Pair, compare_arms, paired
from agentrl_resources.evaluation.gates import Evidence, Gate, Verdict, judge, parse_gate
from agentrl_resources.evaluation.statistics import (
    auc,
    brier,
    ece,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_bootstrap,
    paired_difference,
    pass_hat_k,
    product_of_sums,
    reliability_bins,
    upper_bound,
    wilson,
)

__all__ = [
    "EpisodeFacts",
    "Evidence",
    "Gate",
    "Pair",
    "Verdict",
    "auc",
    "brier",
    "compare_arms",
    "ece",
    "judge",
    "mcnemar_exact",
    "minimum_detectable_effect",
    "paired",
    "paired_bootstrap",
    "paired_difference",
    "parse_gate",
    "pass_hat_k",
    "product_of_sums",
    "reliability_bins",
    "upper_bound",
    "wilson",
]
