"""GPT-OSS, the family of the built-in model: its Harmony format here, its networks in `network`."""

from typing import Any

from agentrl_resources.families.gpt_oss.harmony import Harmony
from agentrl_resources.families.gpt_oss.tokenizer import train_tokenizer

__all__ = ["Harmony", "speaks", "train_tokenizer"]

_CONTROL = ("<|channel|>", "<|call|>", "<|return|>")


def speaks(tokenizer: Any) -> bool:
    """Whether a tokenizer has Harmony's control tokens."""
    known = tokenizer.get_added_vocab()
    return all(token in known for token in _CONTROL)
