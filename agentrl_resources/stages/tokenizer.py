"""Stage `tokenizer`: trained on the spot from the cleaned pairs, or taken from the base model; and the format that its
conversations are written in."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentrl_resources.families import BUILT_IN, built_in, recognise
from agentrl_resources.learning import load_tokenizer
from agentrl_resources.preferences import Pair
from agentrl_resources.settings import ModelSettings
from agentrl_resources.stages.request import StageRequest, make_chat, save_with_format
from agentrl_resources.workflow import EpisodeFactory

CONVERSATIONS = 2000
"""So many pairs are enough to find the words of a workflow."""


def run(request: StageRequest) -> None:
    settings = request.settings.model
    pairs = [*request.pairs("cleaned_preference_data", "train.jsonl"), *request.demonstrations("train")]
    uses_tools = any(message.get("tool_calls") for pair in pairs for message in pair.chosen)
    factory = EpisodeFactory(request.workflow)
    if settings.base is not None:
        tokenizer = load_tokenizer(settings.base)
        shown = factory.tools if uses_tools else None
        written = recognise(tokenizer, settings.renderer, settings.renderer_options, shown)
    else:
        written = {"family": BUILT_IN}
        tokenizer = _trained(settings, {**written, "uses_tools": uses_tools}, factory, pairs[:CONVERSATIONS])
    chat = make_chat(tokenizer, {**written, "uses_tools": uses_tools}, factory)
    lengths = [sum(len(row.ids) for row in chat.rows([*pair.prompt, *pair.chosen])) for pair in pairs[:200]]
    save_with_format(None, chat, uses_tools, request.output)
    request.report(
        {
            "vocabulary": len(tokenizer),
            "uses_tools": uses_tools,
            "conversations": dict(written),
            "tokens_per_conversation": sum(lengths) / len(lengths),
            "made_from": settings.base or f"{min(len(pairs), CONVERSATIONS)} cleaned pairs",
        }
    )


def _trained(
    settings: ModelSettings, written: Mapping[str, Any], factory: EpisodeFactory, pairs: Sequence[Pair]
) -> Any:
    """A tokenizer made from the pairs' texts, as their format cuts them."""
    train = built_in().train_tokenizer
    blank: Any = make_chat(train([], [], vocabulary=300), written, factory)
    conversations = ([*pair.prompt, *side] for pair in pairs for side in (pair.chosen, pair.rejected))
    texts = (text for messages in conversations for text in blank.texts(messages))
    return train(texts, blank.constant_texts(), settings.vocabulary)
