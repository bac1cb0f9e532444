"""Single replies to dialogues without tools, for data that come without an environment."""

from collections.abc import Sequence
from typing import Any

from agentrl_resources.learning.harmony import Harmony
from agentrl_resources.workflow import Message

BATCH = 32


def sample_replies(
    model: Any,
    harmony: Harmony,
    prompts: Sequence[Sequence[Message]],
    temperature: float,
    max_tokens: int,
    seed: int,
) -> list[str]:
    """One sampled reply per prompt; a reply that is no well-formed final message comes as its raw text."""
    import torch

    torch.manual_seed(seed)
    replies: list[str] = []
    for start in range(0, len(prompts), BATCH):
        ids = [harmony.prompt(prompt) for prompt in prompts[start : start + BATCH]]
        longest = max(len(row) for row in ids)
        padded = torch.tensor([[harmony.tokenizer.pad_token_id] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        sampled = model.generate(
            input_ids=padded.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            max_new_tokens=max_tokens,
            eos_token_id=list(harmony.turn_ends),
            pad_token_id=harmony.tokenizer.pad_token_id,
        )[:, longest:]
        for row in sampled.tolist():
            end = next((i + 1 for i, token in enumerate(row) if token in harmony.turn_ends), len(row))
            message = harmony.parse(row[:end])
            replies.append(harmony.tokenizer.decode(row[:end]) if message is None else message.get("content", ""))
    return replies
