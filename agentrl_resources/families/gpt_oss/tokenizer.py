"""The built-in model's tokenizer: byte-level BPE trained on the spot, with Harmony's special tokens.

Two choices keep a small model quick. Digits stand alone, so that numbers can be copied. And the two long texts that
open every conversation without ever changing (system message and tool definitions) are one token each: a model of a
million parameters cannot read them anyway, and it learns what they stand for.
"""

from collections.abc import Iterable, Sequence
from typing import Any

SPECIAL_TOKENS = (
    "<|pad|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>",
)  # fmt: skip
PINNED_DATE = "2026-01-01"
_PIECES = r'assistant| to=[\w.]+|commentary json|functions\.\w+|"?[{,] ?"[a-z_]+": ?"?|\d|[A-Za-z_]+ ?|[^A-Za-z_\d]+'
"""Harmony's headers in whole words, an object's keys with what is around them, digits alone, other words with the space
behind them, runs of anything else."""


def train_tokenizer(texts: Iterable[str], constant_texts: Sequence[str], vocabulary: int) -> Any:
    """Trains a tokenizer and returns it as a `PreTrainedTokenizerFast` that carries TRL's GPT-OSS chat template.

    Args:
        texts: what to learn from, special tokens already taken out.
        constant_texts: texts that become one token each.
        vocabulary: the largest number of tokens; fewer are made when the texts have no more to merge.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in constant_texts])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|return|>",
        chat_template=harmony_template(),
    )


def harmony_template() -> str:
    """TRL's training template for GPT-OSS with its date pinned: printed as today's, it would change every token id's
    meaning at midnight."""
    from importlib.resources import files

    template = files("trl").joinpath("chat_templates", "gptoss_training.jinja").read_text(encoding="utf-8")
    return template.replace('strftime_now("%Y-%m-%d")', f'"{PINNED_DATE}"')
