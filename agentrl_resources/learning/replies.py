"""Single replies to dialogues without tools, for data that come without an environment."""

from collections.abc import Sequence
from typing import Any

from agentrl_resources.families import ChatFormat
from agentrl_resources.workflow import Message

BATCH = 32


def sample_replies(
    model: Any,
    chat: ChatFormat,
    prompts: Sequence[Sequence[Message]],
    temperature: float,
    max_tokens: int,
    seed: int,
) -> list[str]:
    """One sampled reply per prompt; a reply that is no well-formed final message comes as its raw text."""
    import torch

    torch.manual_seed(seed)
    replies: list[str] = []
    padding = chat.tokenizer.pad_token_id if chat.tokenizer.pad_token_id is not None else chat.turn_ends[0]
    for start in range(0, len(prompts), BATCH):
        ids = [chat.prompt(prompt) for prompt in prompts[start : start + BATCH]]
        longest = max(len(row) for row in ids)
        padded = torch.tensor([[padding] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        sampled = model.generate(
            input_ids=padded.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            max_new_tokens=max_tokens,
            eos_token_id=list(chat.turn_ends),
            pad_token_id=padding,
        )[:, longest:]
        for prompt, row in zip(ids, sampled.tolist(), strict=True):
            end = next((i + 1 for i, token in enumerate(row) if token in chat.turn_ends), len(row))
            message = chat.read(prompt, row[:end])
            replies.append(chat.tokenizer.decode(row[:end]) if message is None else message.get("content", ""))
    return replies
