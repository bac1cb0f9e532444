"""Who samples for a stage: this process, or the server that the settings name, or one that is started for the stage."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from agentrl_resources.engines import Server, VllmServer, launched
from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import ChatFormat
from agentrl_resources.learning import ALONE, Published, Ranks, Sampler, base_of, is_adapter, precision_of
from agentrl_resources.stages.request import StageRequest
from agentrl_resources.workflow import EpisodeFactory

SamplerOf = Callable[[Any, ChatFormat, EpisodeFactory], Sampler]
"""A sampler that plays a model."""


@contextmanager
def sampling(request: StageRequest, checkpoint: Path, ranks: Ranks = ALONE) -> Iterator[SamplerOf]:
    """Samplers of a stage, for as long as it needs them.

    Args:
        request: the stage's.
        checkpoint: folder of a policy: its base, or else it itself, is what a server is started with.
        ranks: who trains what is sampled; the first of them speaks to a server.

    Raises:
        AgentRLError: the engine cannot be used; it says why.
    """
    options = request.settings.engine
    if options.kind == "local":
        yield Sampler
        return
    adapter = options.publish == "adapter" if options.publish else is_adapter(checkpoint)

    with _server(request, checkpoint, adapter) if ranks.number == 0 else nullcontext() as server:

        def published(model: Any, chat: ChatFormat, factory: EpisodeFactory) -> Sampler:
            task = request.workflow.tasks("train", 1, request.settings.seed)[0]
            opening = (factory.start(task).transcript.messages, factory.tools)
            folder = request.work / "published"
            return Sampler(model, chat, factory, Published(server, model, chat, opening, folder, adapter, ranks))

        yield published


@contextmanager
def _server(request: StageRequest, checkpoint: Path, adapter: bool) -> Iterator[Server]:
    options = request.settings.engine
    if options.url is not None:
        key = None
        if options.key_variable and not (key := os.environ.get(options.key_variable)):
            raise AgentRLError(f"engine.key_variable: {options.key_variable} is not set")
        server = VllmServer(options.url, key, options.patience_seconds)
        try:
            yield server
        finally:
            server.leave()
        return
    base = base_of(checkpoint) if is_adapter(checkpoint) else None
    log = request.work / "vllm.log"
    request.progress(0, 1, f"starting vLLM ({log})")
    with launched(
        options.python,
        base.place if base else str(checkpoint),
        ["--dtype", precision_of(checkpoint), *options.arguments],
        log,
        adapter,
        request.settings.policy.rank,
        options.patience_seconds,
    ) as own:
        yield own
