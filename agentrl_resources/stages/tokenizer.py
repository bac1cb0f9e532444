"""Stage `tokenizer`: trained on the spot from the cleaned pairs, or taken from the base model."""

from agentrl_resources.learning import load_tokenizer, train_tokenizer
from agentrl_resources.stages.request import StageRequest, make_harmony, save_with_format
from agentrl_resources.workflow import EpisodeFactory

CONVERSATIONS = 2000
"""So many pairs are enough to find the words of a workflow."""


def run(request: StageRequest) -> None:
    pairs = request.pairs("cleaned_preference_data", "train.jsonl")
    uses_tools = any(message.get("tool_calls") for pair in pairs for message in pair.chosen)
    factory = EpisodeFactory(request.workflow)
    base = request.settings.model.base
    if base is not None:
        tokenizer = load_tokenizer(base)
    else:
        blank = make_harmony(train_tokenizer([], [], vocabulary=300), factory, uses_tools)
        sides = [side for pair in pairs[:CONVERSATIONS] for side in (pair.chosen, pair.rejected)]
        prompts = [pair.prompt for pair in pairs[:CONVERSATIONS] for _ in range(2)]
        texts = (text for prompt, side in zip(prompts, sides, strict=True) for text in blank.texts([*prompt, *side]))
        tokenizer = train_tokenizer(texts, blank.constant_texts(), request.settings.model.vocabulary)
    harmony = make_harmony(tokenizer, factory, uses_tools)
    lengths = [len(harmony.encode([*pair.prompt, *pair.chosen]).ids) for pair in pairs[:200]]
    save_with_format(None, harmony, uses_tools, request.output)
    request.report(
        {
            "vocabulary": len(tokenizer),
            "uses_tools": uses_tools,
            "tokens_per_conversation": sum(lengths) / len(lengths),
            "made_from": base or f"{min(len(pairs), CONVERSATIONS)} cleaned pairs",
        }
    )
