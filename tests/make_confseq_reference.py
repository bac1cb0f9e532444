"""What confseq 0.0.11, the package of the paper's authors, makes of three samples: `confseq_reference.json`.

Only its Python part is used, from its unpacked source distribution, since its C++ part does not build everywhere:

    curl -O https://files.pythonhosted.org/packages/68/3d/b0ccdd8cd7b3e4ae10f028f6233509cd5fd7d446091cc7785e9ac250d78f/confseq-0.0.11.tar.gz
    tar xzf confseq-0.0.11.tar.gz
    PYTHONPATH=confseq-0.0.11/src python tests/make_confseq_reference.py > tests/confseq_reference.json
"""

import json

import numpy as np

np.float_ = np.float64  # confseq 0.0.11 was written for NumPy 1

from confseq.betting import betting_cs, betting_mart  # noqa: E402

from agentrl_resources.evaluation.sequential import STAKES, WEIGHTS  # noqa: E402

NULL_MEANS = [0.1, 0.3, 0.5, 0.75]


def main() -> None:
    rng = np.random.default_rng(20240216)
    samples = {
        "bernoulli": (rng.random(200) < 0.3).astype(float),
        "uniform": rng.random(200).round(6),
        "beta": rng.beta(20, 5, 200).round(6),
    }
    print(json.dumps({"made_by": "make_confseq_reference.py", **{n: reference(x) for n, x in samples.items()}}))


def reference(values: np.ndarray) -> dict:
    """The capital of gamblers with our constant stakes, and where the package's own 95 % confidence sequence ends."""
    low, high = betting_cs(values, alpha=0.05, breaks=10_000, running_intersection=False)
    return {
        "values": values.tolist(),
        "null_means": NULL_MEANS,
        "capital_above": [capital(values, mean, 1 / mean, 1) for mean in NULL_MEANS],
        "capital_below": [capital(values, mean, 1 / (1 - mean), 0) for mean in NULL_MEANS],
        "interval": [float(low[-1]), float(high[-1])],
    }


def capital(values: np.ndarray, mean: float, unit: float, above: int) -> float:
    """The last capital of all stakes together; `unit` is the paper's bet that stakes everything."""
    total = 0.0
    for stake, weight in zip(STAKES, WEIGHTS, strict=True):
        bets = np.full(len(values), stake * unit)
        process = betting_mart(
            values,
            mean,
            lambdas_fn_positive=lambda x, m, bets=bets: bets,
            lambdas_fn_negative=lambda x, m, bets=bets: bets,
            theta=above,
            trunc_scale=1,
            convex_comb=True,
        )
        total += weight * float(process[-1])
    return total


if __name__ == "__main__":
    main()
