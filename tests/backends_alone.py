"""A server's backend without a gateway before it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from agentrl_resources.gateway import BackendError, Sampling, Turn
from agentrl_resources.gateway.remote import RemoteBackend
from agentrl_resources.workflow import Task

PLAIN = Sampling(seed=5, temperature=0.3, max_tokens=9)
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}, "strict": True}}
]
HI = [{"role": "user", "content": "hi"}]
TASK = Task("task-1", "any", "train", {})


def asked(
    url: str,
    *requests: Sequence[dict[str, Any]],
    sampling: Sampling = PLAIN,
    tools: Sequence[dict[str, Any]] = TOOLS,
    key: str | None = None,
    streams: bool = False,
) -> list[Turn | BackendError]:
    """What one backend answers, one conversation after the other."""

    async def work() -> list[Turn | BackendError]:
        backend = RemoteBackend(url, "m", key, [])
        answers: list[Turn | BackendError] = []
        try:
            for messages in requests:
                body = {"messages": list(messages), **({"tools": list(tools)} if tools else {})}
                try:
                    answers.append(await backend.complete(body, sampling, (lambda text: None) if streams else None))
                except BackendError as error:
                    answers.append(error)
        finally:
            await backend.close()
        return answers

    return asyncio.run(work())


def texts(answers: Sequence[Turn | BackendError]) -> list[Any]:
    return [turn.message["content"] if isinstance(turn, Turn) and turn.message else turn for turn in answers]
