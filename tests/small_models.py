"""A model and tokenizer small enough to train within a test, for the built-in workflow."""

from dataclasses import replace
from types import MethodType

from agentrl_resources.families.gpt_oss import Harmony, train_tokenizer
from agentrl_resources.learning import new_model
from agentrl_resources.settings import ModelSettings
from agentrl_resources.workflow import EpisodeFactory, load_workflow

SMALL = ModelSettings(
    width=32, layers=2, heads=2, kv_heads=1, head_dim=16, expert_width=16, sliding_window=16, initial_spread=0.3
)

ROUNDING = 1e-9
"""How far two ways to compute one thing may part in float64, as a share of what they compute. Rounding alone leaves
some 1e-13 on every processor; what is computed differently leaves far more."""


def small_factory(max_tokens: int = 24) -> EpisodeFactory:
    """An untrained model talks until its budget is spent, so the budget is small."""
    workflow = load_workflow("order_desk")
    workflow.tool_policy = replace(workflow.tool_policy, max_tokens=max_tokens)
    return EpisodeFactory(workflow)


def expert_episodes(factory: EpisodeFactory, count: int = 30):
    tasks = factory.workflow.tasks("train", count, 5)
    return [factory.play(task, factory.workflow.scripted_agents(task)["expert"]) for task in tasks]


def small_harmony(factory: EpisodeFactory) -> Harmony:
    blank = Harmony(train_tokenizer([], [], 300), factory.tools, factory.workflow.instructions)
    texts = [text for episode in expert_episodes(factory) for text in blank.texts(episode.transcript.messages)]
    tokenizer = train_tokenizer(texts, blank.constant_texts(), 1000)
    return Harmony(tokenizer, factory.tools, factory.workflow.instructions)


def small_model(harmony: Harmony, seed: int = 0):
    import torch

    torch.manual_seed(seed)
    return new_model(SMALL, harmony.tokenizer).eval()


def small_critic(harmony: Harmony):
    import torch
    from transformers import GptOssForTokenClassification

    config = small_model(harmony).config
    config.num_labels = 1
    torch.manual_seed(1)
    critic = GptOssForTokenClassification(config).eval()
    torch.nn.init.zeros_(critic.score.weight)
    return critic


def in_double(model):
    """The network itself, in float64 from end to end.

    Two ways to compute one thing then agree to some 1e-13 on every processor, and draw the same tokens. `double()`
    alone does not do: transformers' norm and rotary embedding round to float32 whatever they are given.
    """
    import torch

    def norm(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)

    def rotary(self, _, position_ids):
        angles = position_ids[..., None].double() * self.inv_freq
        if not type(self).__name__.startswith("GptOss"):  # which turns halves of a head by the same angles
            angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    for module in model.double().modules():
        for kind, forward in (("RMSNorm", norm), ("RotaryEmbedding", rotary)):
            if kind in {one.__name__[-len(kind) :] for one in type(module).__mro__}:
                module.forward = MethodType(forward, module)
    return model
