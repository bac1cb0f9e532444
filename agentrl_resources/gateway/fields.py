"""Fields of a chat-completions request by what they do: those that change what is asked of a policy, and the rest.

The former must be honoured, or refused by their name. Whoever cannot use one of the rest may pass over it, and the
answer is still the one that was asked for.
"""

from collections.abc import Mapping
from typing import Any

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # OpenAI's own
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "reasoning_effort": ("medium",),
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "web_search_options": (),
    # vLLM's, SGLang's and llama.cpp's: how to sample
    "top_k": (-1, 0),
    "min_p": (0,),
    "typical_p": (1,),
    "repetition_penalty": (1,),
    "repeat_penalty": (1,),
    "length_penalty": (1,),
    "mirostat": (0,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "stop_token_ids": ([],),
    "logits_processors": ([],),
    # what form an answer must have
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "structural_tag": (),
    "grammar": ("",),
    "json_schema": ({},),
    "format": ("",),
    "regex": ("",),
    "ebnf": ("",),
    # what is read, and what of the answer is shown
    "system": ("",),
    "instructions": ("",),
    "documents": ([],),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "echo": (False,),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "prompt_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "search_parameters": (),
    "plugins": ([],),
    # how long an answer may be, and how long it is thought about
    "max_output_tokens": (),
    "max_new_tokens": (),
    "n_predict": (-1,),
    "stop_sequences": ([],),
    "thinking": ({"type": "disabled"},),
    "reasoning": ({},),
    "thinking_budget": (),
    "thinking_token_budget": (),
    "enable_thinking": (),
    "random_seed": (),
}
"""Name -> the values that ask for nothing, besides null. A vendor's names are those that its documentation gives."""

ACCOMPANIES = frozenset({
    "metadata", "store", "user", "safety_identifier", "service_tier", "prediction", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention",
})  # fmt: skip
"""What OpenAI's own requests hold besides: whose they are, where they are kept, and how soon they are wanted."""


def changes(name: str, value: Any) -> bool:
    """Whether a field with this value changes what is asked of a policy."""
    return value is not None and name in NEUTRAL and value not in NEUTRAL[name]
