"""Learning: models, SFT, reward model, rollouts, PPO."""

from agentrl_resources.families import Encoded, Harmony, train_tokenizer
from agentrl_resources.learning.adapters import base_of, copied, has_adapter, how_far, indistinct, is_adapter, learned
from agentrl_resources.learning.batching import chosen_logprobs
from agentrl_resources.learning.export import export_policy
from agentrl_resources.learning.memory import free_memory, refuse_what_does_not_fit
from agentrl_resources.learning.model import (
    in_parts,
    load_policy,
    load_scorer,
    load_tokenizer,
    new_model,
    new_scorer,
    precision_of,
    recomputed,
    repeatable,
    save_network,
    whole,
)
from agentrl_resources.learning.player import SampledEpisode
from agentrl_resources.learning.ppo import PpoTrainer, TrainingState, adapted_kl_coefficient, gae, hash_seed
from agentrl_resources.learning.published import Published
from agentrl_resources.learning.ranks import ALONE, Ranks, meeting
from agentrl_resources.learning.replies import sample_replies
from agentrl_resources.learning.reward import (
    EncodedPair,
    Reward,
    RewardModel,
    WeightedReward,
    train_reward_model,
)
from agentrl_resources.learning.rollout import Sampler, play_in_turns
from agentrl_resources.learning.sft import train_sft

__all__ = [
    "ALONE",
    "Encoded",
    "EncodedPair",
    "Harmony",
    "PpoTrainer",
    "Published",
    "Ranks",
    "Reward",
    "RewardModel",
    "SampledEpisode",
    "Sampler",
    "TrainingState",
    "WeightedReward",
    "adapted_kl_coefficient",
    "base_of",
    "chosen_logprobs",
    "copied",
    "export_policy",
    "free_memory",
    "gae",
    "has_adapter",
    "hash_seed",
    "how_far",
    "in_parts",
    "indistinct",
    "is_adapter",
    "learned",
    "load_policy",
    "load_scorer",
    "load_tokenizer",
    "meeting",
    "new_model",
    "new_scorer",
    "play_in_turns",
    "precision_of",
    "recomputed",
    "refuse_what_does_not_fit",
    "repeatable",
    "sample_replies",
    "save_network",
    "train_reward_model",
    "train_sft",
    "train_tokenizer",
    "whole",
]
