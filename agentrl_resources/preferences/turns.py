"""What a cell says of a conversation, as a list of chat turns: messages, messages written as text, a dialogue, text."""

import re
from typing import Any

from agentrl_resources.preferences.messages import ROLES, role_of
from agentrl_resources.preferences.pairs import Reason, Refused
from agentrl_resources.preferences.values import parsed

Turn = dict[str, Any]
TEXT_KEYS = ("content", "text", "full_text", "response", "completion", "answer", "output", "value")
"""Where an object that is no message holds its text."""

# hh-rlhf writes a dialogue as one text, and so do others with names of their own for the two.
_SPEAKERS = {"human": "user", "user": "user", "assistant": "assistant", "ai": "assistant", "bot": "assistant",
             "system": "system", "instruction": "user", "response": "assistant"}  # fmt: skip
_NAMES = r"(?P<speaker>Human|User|Assistant|AI|Bot|System)"
_HH = re.compile(r"\s*(?:Human|Assistant):")
_NAMED = re.compile(rf"\s*{_NAMES}:")
_ANSWERED = re.compile(r"\n\s*(?:Assistant|AI|Bot):")
_BY_PARAGRAPH = re.compile(rf"(?:\A\s*|\n\n){_NAMES}:")
_BY_LINE = re.compile(rf"(?:\A\s*|\n){_NAMES}:")
_BY_HEADING = re.compile(r"(?:\A\s*|\n+)### ?(?P<speaker>Human|User|Instruction|Assistant|Response|System):?[ \t]*")
_CHATML = re.compile(r"(?:\A\s*|\s*)<\|im_start\|>(?P<speaker>user|assistant|system)\n?")
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*['"](?:role|content|from|value)['"]\s*:""")
_TEMPLATED = re.compile(
    r"\s*(?:<s>|<bos>|\[INST\]|<<SYS>>|<start_of_turn>|<｜|"
    r"<\|(?:im_start|begin_of_text|start_header_id|start|user|system|assistant|endoftext|im_sep)\|>)"
)


def to_turns(value: Any, role: str, name: str) -> list[Any]:
    """The turns that a value holds; text without speakers is one turn of `role`. Raises `Refused`.

    The turns come as they stand; `read_messages` judges them.
    """
    if isinstance(value, str):
        return _of_text(value, role, name)
    if isinstance(value, dict):
        for key in ("messages", "conversations", "conversation"):
            if isinstance(value.get(key), list):
                return list(value[key])
        if role_of(value) is None:  # an answer with what is known of it: {"text": "...", "model": "..."}
            said = next((value[key] for key in TEXT_KEYS if isinstance(value.get(key), str)), None)
            return [{**value, "role": role, "content": said}] if said is not None else [value]
        return [value]
    if isinstance(value, list | tuple):
        return list(value)
    raise Refused(Reason.UNREADABLE, f"{name} must be text or a list of messages, not {type(value).__name__}.")


def is_plain(value: Any) -> bool:
    """Whether a value is text that names no speakers."""
    return isinstance(value, str) and _messages_in(value) is None and _dialogue(value) is None


def _of_text(text: str, role: str, name: str) -> list[Any]:
    if (messages := _messages_in(text)) is not None:
        return messages
    if _MESSAGES.match(text):
        raise Refused(Reason.UNREADABLE, f"{name} looks like messages written as text, but they cannot be read.")
    if (turns := _dialogue(text)) is not None:
        return turns
    if _TEMPLATED.match(text):
        raise Refused(
            Reason.UNREADABLE,
            f"{name} is written in a chat template of some model ({text.strip()[:24]!r}). Give the messages instead.",
        )
    return [{"role": role, "content": text.strip()}]


def _messages_in(text: str) -> list[Any] | None:
    """The messages that a text holds as JSON or as Python writes them."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    found = parsed(text)
    messages = [found] if isinstance(found, dict) else found
    if messages and isinstance(messages, list) and all(role_of(one) in ROLES for one in messages):
        return messages
    return None


def _dialogue(text: str) -> list[Turn] | None:
    start = text[:40].lstrip()
    if start.startswith("<|im_start|>"):
        return _split(_CHATML, text.replace("<|im_end|>", ""))
    if start.startswith("###") and _BY_HEADING.match(text):
        return _split(_BY_HEADING, text)
    if _HH.match(text) or (_NAMED.match(text) and _ANSWERED.search(text)):
        turns = _split(_BY_PARAGRAPH, text)
        return turns if len(turns) > 1 else _split(_BY_LINE, text)
    return None


def _split(turn: re.Pattern[str], text: str) -> list[Turn]:
    _, *parts = turn.split(text)
    return [
        {"role": _SPEAKERS[speaker.lower()], "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
