"""Families of models: how each writes conversations, and how its networks are computed.

What belongs to one family is in a module of this package, named like its `model_type`, and nowhere else. A family
without one is computed as transformers does it, and its conversations are written by `rendered`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentrl_resources.families import gpt_oss
from agentrl_resources.families.base import ChatFormat, Encoded, read_next, standing
from agentrl_resources.families.gpt_oss import Harmony, train_tokenizer
from agentrl_resources.families.talk import Talk
from agentrl_resources.files import digest_bytes, digest_json, read_json
from agentrl_resources.settings import ModelSettings

__all__ = [
    "BUILT_IN",
    "FORMAT_FILE",
    "ChatFormat",
    "Encoded",
    "Harmony",
    "Talk",
    "built_in",
    "digest_of_template",
    "format_of",
    "load_format",
    "network_of",
    "new_network",
    "read_next",
    "recognise",
    "standing",
    "train_tokenizer",
]

BUILT_IN = "gpt_oss"
"""The family of the model that is built when the workflow file names no base."""
FORMAT_FILE = "conversations.json"
"""Stands in every tokenizer and model folder that is made here."""


def built_in() -> Any:
    """The module of the built-in model's tokenizer and format."""
    return gpt_oss


def new_network(settings: ModelSettings, tokenizer: Any) -> Any:
    """The built-in network with random weights, of the size that the settings say."""
    from agentrl_resources.families.gpt_oss import network

    return network.new_network(settings, tokenizer)


def network_of(model_type: str) -> Any | None:
    """The module that says how this family's networks are computed (see `base.Network`); None for transformers' way."""
    from agentrl_resources.families.gpt_oss import network

    return {BUILT_IN: network}.get(model_type)


def format_of(folder: Path) -> dict[str, Any]:
    """The description of the conversations that the model of a folder reads and writes."""
    # before there was such a file there was only the built-in format
    return read_json(folder / FORMAT_FILE) if (folder / FORMAT_FILE).exists() else {"family": BUILT_IN}


def digest_of_template(folder: Path) -> str | None:
    """SHA-256 of the chat template that a tokenizer's folder carries; None where it has none."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return digest_bytes(own.read_bytes())
    config = folder / "tokenizer_config.json"
    template = read_json(config).get("chat_template") if config.exists() else None
    return None if template is None else digest_json(template)


def load_format(
    tokenizer: Any,
    description: Mapping[str, Any],
    tools: Sequence[dict[str, Any]] | None,
    instructions: str | None,
    implied: str | None = None,
) -> ChatFormat:
    """A conversation format from what `ChatFormat.describe` said of it.

    Args:
        tokenizer: of the model.
        description: `family`, and what that family's module wants to know.
        tools: schemas of the tools that are shown to the agent.
        instructions: open every conversation that has no system message of its own.
        implied: a system message that says this is not written.
    """
    if description["family"] == BUILT_IN:
        return Harmony(tokenizer, tools, instructions, implied)
    from agentrl_resources.families.rendered import Rendered

    return Rendered(tokenizer, description["renderer"], tools, instructions, implied)


def recognise(
    tokenizer: Any, renderer: str | None, options: Mapping[str, Any], tools: Sequence[dict[str, Any]] | None
) -> dict[str, Any]:
    """The description of the format that a tokenizer's model was trained on.

    Args:
        tokenizer: of a base model.
        renderer: its name, where the workflow file gives it: a family's module here, or a renderer of the `renderers`
            library.
        options: of that renderer.
        tools: what has to be shown to the agent.

    Raises:
        AgentRLError: it is not known, or cannot show tools to the agent and read its calls.
    """
    if renderer == BUILT_IN or (renderer is None and built_in().speaks(tokenizer)):
        return {"family": BUILT_IN}
    from agentrl_resources.families import rendered

    return rendered.described(tokenizer, renderer, options, tools)
