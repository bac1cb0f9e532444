"""Stage `reward_model`: trained on history and on-policy pairs, judged on tasks that neither has seen."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from agentrl_resources.evaluation import auc, brier, ece, reliability_bins, wilson
from agentrl_resources.families import ChatFormat, Encoded, standing
from agentrl_resources.files import read_jsonl
from agentrl_resources.learning import (
    EncodedPair,
    Ranks,
    RewardModel,
    copied,
    how_far,
    in_parts,
    learned,
    new_scorer,
    recomputed,
    train_reward_model,
    whole,
)
from agentrl_resources.plotting import BASELINE, CANDIDATE, INK, picture
from agentrl_resources.preferences import ON_POLICY, Pair
from agentrl_resources.settings import RewardSettings
from agentrl_resources.stages.pieces import in_ranks
from agentrl_resources.stages.request import StageRequest, load_chat, save_with_format, uses_tools
from agentrl_resources.workflow import EpisodeFactory, Rubric, Workflow

ENOUGH = 30
"""Fewer pairs or samples than this say nothing: the number is reported, but blocks nothing."""
_GATED = {"outcome_differs": "pairs whose outcome differs", "wrong_refusals": "wrong refusals"}


def run(request: StageRequest) -> None:
    settings = request.settings
    report = in_ranks(request, _train, settings.reward.batch_size)
    chat = load_chat(request.output, EpisodeFactory(request.workflow))
    own = request.pairs("on_policy_preference_data", "pairs.jsonl")
    holdout = request.pairs("cleaned_preference_data", "holdout.jsonl") + [p for p in own if p.split == "holdout"]
    samples = list(read_jsonl(request.inputs["on_policy_preference_data"] / "samples.jsonl"))
    reward_model = RewardModel.load(request.output)
    report |= judge_reward_model(reward_model, chat, holdout, samples, request.workflow)
    report["blocks"] = reasons_to_block(report, settings.reward)
    report["not_measured"] = too_few(report)
    _draw(request.output / "calibration.png", report)
    request.report(report)


def _train(request: StageRequest, ranks: Ranks) -> dict[str, Any]:
    """Trains the reward model and writes it to the output folder; what is known of it from training."""
    settings, sft = request.settings, request.inputs["sft_checkpoint"]
    chat = load_chat(sft, EpisodeFactory(request.workflow))
    history = request.pairs("cleaned_preference_data", "train.jsonl")
    Random(settings.seed).shuffle(history)
    own = [pair for pair in request.pairs("on_policy_preference_data", "pairs.jsonl") if pair.split == "train"]
    train = history[: settings.reward.history_pairs] + own
    scorer = in_parts(lambda: recomputed(new_scorer(sft), settings.policy), ranks)
    start = copied(learned(scorer))
    reward_model, loss = train_reward_model(
        scorer,
        chat.tokenizer,
        [encode_pair(chat, pair) for pair in train],
        settings.reward,
        settings.seed,
        request.work,
        request.progress,
        ranks,
    )
    if (trained := whole(reward_model.scorer, ranks)) is not None:
        save_with_format(trained, chat, uses_tools(sft), request.output)
    on_policy = sum(pair.source == ON_POLICY for pair in train)
    return {
        "pairs_train": {"history": len(train) - on_policy, "on_policy": on_policy},
        "loss": loss,
        "moved": how_far(scorer, start),
    }


def encode_pair(chat: ChatFormat, pair: Pair) -> EncodedPair:
    """The two episodes as tokens: as they were sampled where they were sampled here."""
    if pair.source == ON_POLICY:
        return EncodedPair(*(Encoded(**pair.metadata[side]) for side in ("chosen", "rejected")))
    return EncodedPair(
        *(
            standing(chat.rows([*pair.prompt, *side], first_chosen=len(pair.prompt)))
            for side in (pair.chosen, pair.rejected)
        )
    )


def judge_reward_model(
    reward_model: RewardModel,
    chat: ChatFormat,
    holdout: Sequence[Pair],
    samples: Sequence[dict[str, Any]],
    workflow: Workflow,
) -> dict[str, Any]:
    """Everything that is known of the reward model from tasks it was not trained on.

    Accuracy, Brier and ECE are of P(chosen beats rejected) = sigmoid(score difference), each pair counted in both
    orders, so that a model that always says one half is calibrated and useless rather than wrong.
    """
    import numpy as np

    rubric, acting = workflow.rubric, workflow.tool_policy.acting_tools
    encoded = [encode_pair(chat, pair) for pair in holdout]
    chosen = np.array(reward_model.score([pair.chosen for pair in encoded]))
    rejected = np.array(reward_model.score([pair.rejected for pair in encoded]))
    differences = chosen - rejected
    right = differences > 0
    probabilities = 1 / (1 + np.exp(-differences))
    both = [*probabilities.tolist(), *(1 - probabilities).tolist()]
    happened = [True] * len(holdout) + [False] * len(holdout)
    lengths = np.array([len(side.ids) for pair in encoded for side in (pair.chosen, pair.rejected)])
    scores = np.column_stack([chosen, rejected]).ravel()

    def accuracy(rows: list[int]) -> dict[str, Any]:
        hits = int(right[rows].sum())
        return {
            "n": len(rows),
            "accuracy": hits / len(rows) if rows else None,
            "interval": list(wilson(hits, len(rows))) if rows else None,
        }

    sample_scores = reward_model.score([Encoded(sample["ids"], sample["mask"]) for sample in samples])
    good = [score for score, sample in zip(sample_scores, samples, strict=True) if sample["success"]]
    bad = [score for score, sample in zip(sample_scores, samples, strict=True) if not sample["success"]]
    by_source = {"history": [i for i, p in enumerate(holdout) if p.source != ON_POLICY],
                 "on_policy": [i for i, p in enumerate(holdout) if p.source == ON_POLICY]}  # fmt: skip
    scored = [pair.rubric_scores for pair in holdout if pair.rubric_scores is not None]
    return {
        "scored": {
            "by": f"rubric {rubric.version}",
            "outcome_criterion": next(iter(rubric.named("outcome")), None),
            "pairs": len(scored),
            "pairs_with_outcome": sum(rubric.met("outcome", scores["chosen"]) is not None for scores in scored),
        },
        "holdout": accuracy(list(range(len(holdout)))),
        "holdout_by_source": {source: accuracy(rows) for source, rows in by_source.items()},
        "outcome_differs": accuracy([i for i, pair in enumerate(holdout) if outcome_differs(pair, rubric)]),
        "wrong_refusals": accuracy([i for i, pair in enumerate(holdout) if is_wrong_refusal(pair, rubric, acting)]),
        "brier": brier(both, happened),
        "ece": ece(both, happened),
        "bins": [entry._asdict() for entry in reliability_bins(both, happened)],
        "own_samples": {
            "good": len(good),
            "bad": len(bad),
            "auc": auc(good, bad) if good and bad else None,
        },
        "length_slope": float(np.polyfit(lengths / 100, scores, 1)[0] / (scores.std() + 1e-9)),
    }


def outcome_differs(pair: Pair, rubric: Rubric) -> bool:
    """Whether the better episode succeeded and the other did not, as far as anybody scored the rubric's outcome."""
    scores = pair.rubric_scores
    if scores is None:
        return False
    return rubric.met("outcome", scores["chosen"]) is True and rubric.met("outcome", scores["rejected"]) is False


def is_wrong_refusal(pair: Pair, rubric: Rubric, acting: frozenset[str]) -> bool:
    """Whether the worse episode failed because it did nothing where something was to be done: it called none of the
    `acting` tools, and nobody scored it unsafe or dishonest. The blind spot that is hacked first."""
    if not outcome_differs(pair, rubric) or pair.rubric_scores is None or not _called(pair.chosen) & acting:
        return False
    scores = pair.rubric_scores["rejected"]
    blamed = any(rubric.met(role, scores) is False for role in ("safety", "honesty"))
    return not blamed and not _called(pair.rejected) & acting


def _called(messages: Sequence[dict[str, Any]]) -> set[str]:
    return {call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()}


def reasons_to_block(report: dict[str, Any], settings: RewardSettings) -> list[str]:
    """Why no policy may learn from this reward model; empty when it may."""
    reasons = []
    holdout, own, scored = report["holdout"], report["own_samples"], report["scored"]
    if scored["outcome_criterion"] is None:
        reasons.append(
            f"not measured where the outcome differs: no criterion of {scored['by']} has `role: outcome`. "
            "Give it to the one that says whether the request was solved"
        )
    elif scored["pairs"] >= ENOUGH and not scored["pairs_with_outcome"]:
        reasons.append(
            f"not measured where the outcome differs: of {scored['pairs']} scored hold-out pairs none has a score from "
            f"0 to 1 for `{scored['outcome_criterion']}`, the outcome of {scored['by']}. Score it, or give `role: "
            "outcome` to the criterion that the data score"
        )
    if holdout["interval"] is None or holdout["interval"][0] <= 0.5:
        reasons.append(f"no better than chance: hold-out accuracy interval {holdout['interval']} reaches 0.5")
    if report["ece"] > settings.max_ece:
        reasons.append(f"badly calibrated: ECE {report['ece']:.3f} is above {settings.max_ece}")
    for name, what in _GATED.items():
        pairs = report[name]
        if pairs["n"] >= ENOUGH and pairs["accuracy"] < settings.min_accuracy:
            reasons.append(f"{what}: accuracy {pairs['accuracy']:.3f} < {settings.min_accuracy}")
    if min(own["good"], own["bad"]) >= ENOUGH and own["auc"] < settings.min_auc:
        reasons.append(f"good and bad among the checkpoint's own samples: AUC {own['auc']:.3f} < {settings.min_auc}")
    return reasons


def too_few(report: dict[str, Any]) -> list[str]:
    """What was judged on fewer pairs or samples than say anything, and so blocks nothing."""
    counts = {what: report[name]["n"] for name, what in _GATED.items()}
    counts["good and bad among the checkpoint's own samples"] = min(
        report["own_samples"]["good"], report["own_samples"]["bad"]
    )
    return [f"{what}: {n}" for what, n in counts.items() if n < ENOUGH]


def _draw(path: Path, report: dict[str, Any]) -> None:
    bins = report["bins"]
    with picture(path, columns=2) as axes:
        axes[0].plot([0, 1], [0, 1], color=INK, linestyle=":", label="perfect")
        axes[0].plot([b["mean_probability"] for b in bins], [b["observed_rate"] for b in bins], "o-", color=CANDIDATE)
        axes[0].set(
            title=f"Calibration on hold-out tasks: ECE {report['ece']:.3f}, Brier {report['brier']:.3f}",
            xlabel="predicted chance that one answer is preferred",
            ylabel="how often it was",
        )
        axes[1].plot(*zip(*report["loss"], strict=True), color=BASELINE)
        axes[1].set(title="Reward model loss", xlabel="step", ylabel="nats per pair")
