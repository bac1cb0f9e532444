"""How far what sampled the tokens is from what trains on them, and what is done about it.

The two are one network computed in two ways: other kernels, other precision, other batches. What is learned from is
what was sampled; where the trainer gives it another probability, the importance ratio of PPO starts from a wrong place.
"""

import math
from collections.abc import Sequence

from agentrl_resources.settings import PpoSettings


def mismatch(sampled: Sequence[float], trained: Sequence[float]) -> dict[str, float]:
    """What a person watches, of the log-probabilities (nats) that sampler and trainer give the same tokens.

    `sampler_mismatch` is their KL a token by the estimator k3 (Schulman 2020), never negative; `mismatch_mean` and
    `mismatch_largest` are of the difference of the probabilities; `effective_sample` is the share of the tokens that
    would be as good, weighted by the ratio (Kish 1965): 1 when both agree.
    """
    ratios = [math.exp(new - old) for old, new in zip(sampled, trained, strict=True)]
    apart = [abs(math.exp(new) - math.exp(old)) for old, new in zip(sampled, trained, strict=True)]
    count = len(ratios)
    return {
        "sampler_mismatch": sum(math.expm1(new - old) - (new - old) for old, new in zip(sampled, trained, strict=True))
        / count,
        "mismatch_mean": sum(apart) / count,
        "mismatch_largest": max(apart),
        "effective_sample": sum(ratios) ** 2 / (count * sum(ratio**2 for ratio in ratios)),
    }


def weights(sampled: Sequence[float], trained: Sequence[float], settings: PpoSettings) -> list[float]:
    """What each token of an episode counts in the policy's loss.

    `sequence_mask`: nothing, in an episode that the trainer finds more than `mismatch_cap` times as likely as the
    sampler did, and else 1 (Liu et al. 2025; TRL's default). `token`: the ratio itself, up to the cap (truncated
    importance sampling, Yao et al. 2025).
    """
    if settings.mismatch_correction == "token":
        most = math.log(settings.mismatch_cap)
        return [math.exp(min(new - old, most)) for old, new in zip(sampled, trained, strict=True)]
    counts = 1.0
    if settings.mismatch_correction == "sequence_mask":
        counts = float(sum(trained) - sum(sampled) <= math.log(settings.mismatch_cap))
    return [counts] * len(trained)
