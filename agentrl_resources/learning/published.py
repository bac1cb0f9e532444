"""A policy that an engine of somebody else's answers with: published before it plays, and probed before it is believed.

What peers lost months to is a sampler that quietly answers with something else than what is trained: an adapter that
was never applied, keys and values of the weights before, log-probabilities before temperature, another template or
precision. So after each publication the engine writes a little, and each of its log-probabilities is compared with the
trainer's own.
"""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentrl_resources.engines import Engine, How, Publication, Server
from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import ChatFormat, Encoded
from agentrl_resources.learning.adapters import has_adapter, learned, merged
from agentrl_resources.learning.batching import chosen_logprobs
from agentrl_resources.learning.model import save_network, whole
from agentrl_resources.learning.ranks import ALONE, Ranks
from agentrl_resources.learning.sharding import full
from agentrl_resources.workflow import Message

PROBE_TEMPERATURE = 0.7
"""Log-probabilities before and after temperature are the same at 1."""
PROBE_TURNS, PROBE_TOKENS = 4, 24
MAX_MEAN, MAX_DIFFERENCE = {"float32": 1e-4, "bfloat16": 0.15}, {"float32": 2e-3, "bfloat16": 1.5}
"""Bounds in nats, by the trainer's precision. With vLLM on a processor float32 on both sides parts by 6e-6 on average
and 3e-5 at most, bfloat16 on both by 0.05 and 0.7 (docs/models.md)."""


@dataclass(frozen=True)
class Probe:
    """How far an engine's log-probabilities of what it sampled are from the trainer's, in nats."""

    tokens: int
    mean: float
    largest: float


def probe(
    engine: Callable[[], Engine],
    network: Any,
    prompt: Sequence[int],
    turns: int = PROBE_TURNS,
    tokens: int = PROBE_TOKENS,
    ranks: Ranks = ALONE,
) -> Probe:
    """Lets an engine write from `prompt`, always the same one, and compares. The first of the ranks has an engine.

    Raises:
        AgentRLError: it is not the network, as far as rounding explains.
    """

    async def written() -> tuple[list[Encoded], list[float]]:
        asked = engine()
        sessions = [asked.open(seed, tokens) for seed in range(turns)]
        try:
            answers = await asyncio.gather(
                *(asked.turn(session, prompt, PROBE_TEMPERATURE, tokens) for session in sessions)
            )
        finally:
            await asked.leave()
        rows = [Encoded([*prompt, *one.ids], [0] * len(prompt) + [1] * len(one.ids)) for one in answers]
        return rows, [logprob for answer in answers for logprob in answer.logprobs]

    rows, said = ranks.by_first(lambda: asyncio.run(written()))
    own = [logprob for row in chosen_logprobs(network, rows, PROBE_TEMPERATURE) for logprob in row]
    apart = [abs(one - other) for one, other in zip(said, own, strict=True)]
    if not apart:
        raise AgentRLError("the engine wrote nothing when it was probed")
    found = Probe(len(apart), sum(apart) / len(apart), max(apart))
    precision = "float32" if str(network.dtype) in ("torch.float32", "torch.float64") else "bfloat16"
    if not (found.mean <= MAX_MEAN[precision] and found.largest <= MAX_DIFFERENCE[precision]):
        raise AgentRLError(
            f"the engine does not answer with the policy that was published: its log-probabilities part from the "
            f"trainer's by {found.mean:.2g} nats on average and {found.largest:.2g} at most, rounding of {precision} "
            f"explains {MAX_MEAN[precision]:g} and {MAX_DIFFERENCE[precision]:g}. Look for an adapter or weights that "
            "did not arrive, log-probabilities before temperature (vLLM needs --logprobs-mode processed_logprobs), or "
            "another precision (--dtype). Nothing was learned from it"
        )
    return found


class Published:
    """A network on a server, as it was when `publish` was called last.

    Args:
        server: where it goes.
        network: the policy, which may learn meanwhile.
        chat: how its conversations are written.
        opening: a conversation to probe with, and the tools in it.
        folder: what is published stands here, for the server to read.
        adapter: publish the adapter alone, which the server has to have the base for; else all weights in one.
        ranks: who trains the network. All of them publish; the first alone speaks to the server, which others have not.
    """

    def __init__(
        self,
        server: Server | None,
        network: Any,
        chat: ChatFormat,
        opening: tuple[Sequence[Message], Sequence[Mapping[str, Any]]],
        folder: Path,
        adapter: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        if adapter and not has_adapter(network):
            raise AgentRLError("engine.publish is `adapter`, but policy.adapter is `full`: there is none to publish")
        self.alone = not adapter
        """Whether the server has no other policy beside this one."""
        self._server = server
        self._network = network
        self._chat = chat
        self._opening = opening
        self._folder = folder
        self._ranks = ranks
        self._now: Publication | None = None
        self._model = ""
        self.facts: dict[str, float] = {}
        """How far the last probe found the server from the trainer, in nats."""

    @property
    def version(self) -> str:
        """What the server answers with: the digest of the weights that learn."""
        return self._now.name if self._now else ""

    def publish(self) -> None:
        """Brings the server up to date, if it is not, and probes it.

        Raises:
            AgentRLError: the server cannot be reached or used, or does not answer with this policy.
        """
        how: How = "weights" if self.alone else "adapter"
        name = f"policy-{_digest(self._network)}"
        wanted = Publication(name, self._folder / f"{name}-{how}", how)
        if wanted == self._now and self._ranks.by_first(lambda: self._there.holds(wanted)):
            if not self.alone:
                return
            with suppress(AgentRLError):  # weights have no name there: a server that was started again has others
                self._probe()
                return
        if not self._ranks.by_first(wanted.folder.exists):
            self._write(wanted.folder)
        before, self._now = self._now, None  # until it is seen to answer
        self._model = self._ranks.by_first(lambda: self._there.publish(wanted))
        if self.speaks and before is not None and before != wanted:
            shutil.rmtree(before.folder, ignore_errors=True)
        self._probe()
        self._now = wanted

    def _probe(self) -> None:
        prompt = self._chat.prompt(self._opening[0])
        self._ranks.by_first(lambda: self._same_template(prompt))
        found = probe(self.engine, self._network, prompt, ranks=self._ranks)
        self.facts = {"probe_mean": found.mean, "probe_largest": found.largest}

    @property
    def speaks(self) -> bool:
        """Whether it is this process that speaks to the server."""
        return self._server is not None

    @property
    def _there(self) -> Server:
        assert self._server is not None
        return self._server

    def engine(self) -> Engine:
        return self._there.engine(self._model, self._chat.turn_ends)

    def _write(self, folder: Path) -> None:
        network = whole(self._network, self._ranks)
        if network is None:
            return
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if self.alone:
            merged(network).save_pretrained(partial)
            self._chat.tokenizer.save_pretrained(partial)
        else:
            save_network(network, partial)
        partial.rename(folder)

    def _same_template(self, prompt: Sequence[int]) -> None:
        """Token ids go to the server, so its own template is none of training's. But who asks it for chat gets that
        template, and where it is another one the policy meets conversations that it was not trained on."""
        messages, tools = self._opening
        theirs = self._there.tokens_of(messages, tools)
        if theirs is None or theirs == list(prompt):
            return
        place = next(
            (at for at, (one, other) in enumerate(zip(theirs, prompt, strict=False)) if one != other),
            min(len(theirs), len(prompt)),
        )
        decode = self._chat.tokenizer.decode
        raise AgentRLError(
            "the engine's chat template is not the policy's: from token "
            f"{place} on it writes {decode(theirs[place : place + 8])!r}, training wrote "
            f"{decode(list(prompt[place : place + 8]))!r}. Give the server the policy's own folder, or --chat-template"
        )


def _digest(network: Any) -> str:
    """SHA-256 of the weights that learn; 16 digits do for a name."""
    import torch

    found = sha256()
    for name, weights in sorted(learned(network).items()):
        found.update(name.encode())
        found.update(full(weights.detach()).contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
