"""One row for each family of models: its control tokens, its chat template, a network of it that is small.

The vocabulary is bytes and the control tokens, since no vocabulary can be fetched where the tests run; the templates
are those that TRL ships. So what is compared is how conversations are written and read, token by token.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")


@dataclass(frozen=True)
class Sample:
    """`renderer`: the one that is to be recognised. `network`: transformers' name and what its configuration needs."""

    template: str
    control: tuple[str, ...]
    end: str
    renderer: str
    network: str
    options: dict[str, Any] = field(default_factory=dict)
    begin: str | None = None
    kept_apart: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "qwen3": Sample("qwen3.jinja", CHATML + CALLS, "<|im_end|>", "qwen3", "Qwen3"),
    "qwen2.5": Sample("qwen2_5.jinja", CHATML + CALLS, "<|im_end|>", "default", "Qwen2"),
    "llama-3.2": Sample(
        "llama3_2.jinja",
        (
            "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>",
            "<|eom_id|>", "<|python_tag|>",
        ),
        "<|eot_id|>", "llama-3", "Llama", begin="<|begin_of_text|>",
    ),
    "glm-4.5": Sample(
        "glm4moe.jinja",
        (
            "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>",
            "<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>",
            "</arg_value>", "/nothink",
        ),
        "<|endoftext|>", "glm-4.5", "Glm4",
    ),
    "qwen3.5": Sample(
        "qwen3_5_nothink.jinja",
        (*CHATML, *CALLS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        "<|im_end|>", "qwen3.5", "Mistral", kept_apart={"sliding_window": 16},
    ),
}  # fmt: skip


@cache
def tokenizer_of(name: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    sample = FAMILIES[name]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=sample.end,
        pad_token="<|endoftext|>" if "<|endoftext|>" in sample.control else sample.end,
        bos_token=sample.begin,
        chat_template=files("trl").joinpath("chat_templates", sample.template).read_text(encoding="utf-8"),
    )
    tokenizer.add_tokens(list(sample.control), special_tokens=True)
    return tokenizer


def network_of(name: str, tokenizer: Any, seed: int = 0) -> Any:
    """A causal language model with random weights (float32), in evaluation mode."""
    import torch
    import transformers

    sample = FAMILIES[name]
    config = getattr(transformers, f"{sample.network}Config")(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=4096,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **sample.kept_apart,
    )
    torch.manual_seed(seed)
    return getattr(transformers, f"{sample.network}ForCausalLM")(config).eval()
