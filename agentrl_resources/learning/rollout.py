"""Rollouts: many episodes at once, token in, token out.

A small model plays them in lock step. Every row of the batch consumes one token per forward pass: a token that the
agent samples, or the next token of a prompt or tool result that waits in the row's queue. So no row is ever padded,
nothing is tokenised twice, a tool result costs no second prefill, and rows that end are dropped from the batch. Each
episode draws from its own random stream: what it samples does not depend on the episodes around it. A larger model
plays on the serving engine (`continuous.py`).
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.engines import KINDS, Engine, LocalEngine, is_small, masks_for, upcast
from agentrl_resources.families import ChatFormat
from agentrl_resources.learning.ahead import meanwhile
from agentrl_resources.learning.continuous import Policy, play_at_own_pace
from agentrl_resources.learning.player import Player, SampledEpisode
from agentrl_resources.learning.published import Published
from agentrl_resources.workflow import EpisodeFactory, Task, ToolThread

COMPACT_BELOW = 0.8
"""Finished rows are dropped once fewer than this share of the batch is still running."""


@dataclass
class _Row:
    player: Player
    pending: deque[int]
    uniforms: Any
    turn: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    waits: bool = False
    """Whether its history was written anew, so that it waits to begin once more."""

    @property
    def running(self) -> bool:
        return not (self.player.done or self.waits)


class Sampler:
    """Plays episodes of one workflow with one policy.

    Args:
        model: a causal language model, already on its device.
        chat: writes and reads the conversations; holds the tokenizer.
        factory: starts the episodes.
        published: where the model is served, if an engine elsewhere samples its tokens.
    """

    def __init__(
        self, model: Any, chat: ChatFormat, factory: EpisodeFactory, published: Published | None = None
    ) -> None:
        self.model = model
        self.chat = chat
        self.factory = factory
        self.published = published
        self.tool_thread = ToolThread()

    @property
    def in_lock_step(self) -> bool:
        return self.published is None and is_small(self.model)

    def publish(self) -> None:
        """Brings the engine up to date that samples the model's tokens. Here it always is."""
        if self.published is not None:
            self.published.publish()

    @property
    def facts(self) -> dict[str, float]:
        """What was found of the engine when it was brought up to date last."""
        return {} if self.published is None else self.published.facts

    def engine(self, rows: int) -> Engine:
        if self.published is not None:
            return self.published.engine()
        return LocalEngine(self.model, self.chat.turn_ends, rows)

    def start(self, task: Task, seed: int) -> Player:
        """Begins an episode."""
        episode = self.factory.start(task, self.tool_thread)
        return Player(task, seed, episode, self.chat, self.factory.workflow.tool_policy.max_tokens)

    def play(
        self,
        tasks: Sequence[Task],
        seeds: Sequence[int],
        temperature: float,
        concurrency: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[SampledEpisode]:
        """Samples one episode per (task, seed), in that order.

        Args:
            tasks: what to work on.
            seeds: one per task; task and seed decide everything that is sampled.
            temperature: 0 decodes greedily.
            concurrency: episodes in one batch.
            progress: called with (episodes done, episodes in all) after each batch.
        """
        episodes: list[SampledEpisode] = []
        for start in range(0, len(tasks), concurrency):
            batch = slice(start, start + concurrency)
            episodes += play_in_turns([self], tasks[batch], seeds[batch], temperature)[0]
            if progress is not None:
                progress(len(episodes), len(tasks))
        return episodes

    def begin(
        self, tasks: Sequence[Task], seeds: Sequence[int], temperature: float
    ) -> Callable[[], list[SampledEpisode]]:
        """Has the policy as it is now play one episode per (task, seed); the returned function waits for them.

        A policy that is published plays meanwhile, whatever becomes of the network here. One of this process has played
        when this returns.
        """
        if self.published is None:
            episodes = self.play(tasks, seeds, temperature, concurrency=max(1, len(tasks)))
            return lambda: episodes
        with _judging([self]):
            self.publish()
        if not self.published.speaks:
            return list
        policies = [Policy(self.engine, self.start)]
        return meanwhile(lambda: play_at_own_pace(policies, tasks, seeds, temperature)[0])


@contextmanager
def _judging(samplers: Sequence[Sampler]) -> Iterator[None]:
    """Networks in evaluation mode."""
    were_training = [sampler.model.training for sampler in samplers]
    try:
        for sampler in samplers:
            sampler.model.eval()
        yield
    finally:
        for sampler, was_training in zip(samplers, were_training, strict=True):
            sampler.model.train(was_training)


def play_in_turns(
    samplers: Sequence[Sampler], tasks: Sequence[Task], seeds: Sequence[int], temperature: float
) -> list[list[SampledEpisode]]:
    """One episode per (task, seed) by each of several policies, all in one batch.

    The policies take turns pass by pass: whatever else the machine does meanwhile befalls all of them alike, and their
    durations compare. Batch by batch, a slow moment of some seconds made a policy that wrote less look 22 % slower.
    """
    if not all(sampler.in_lock_step for sampler in samplers):
        return _on_engines(samplers, tasks, seeds, temperature)
    batches = [_Batch(sampler, tasks, seeds, temperature) for sampler in samplers]
    running = batches
    while running:
        running = [batch for batch in running if batch.advance()]
    return [batch.episodes for batch in batches]


def _on_engines(
    samplers: Sequence[Sampler], tasks: Sequence[Task], seeds: Sequence[int], temperature: float
) -> list[list[SampledEpisode]]:
    """All policies at once, but for those of which a server holds one at a time."""
    if len(samplers) > 1 and any(sampler.published and sampler.published.alone for sampler in samplers):
        return [played for sampler in samplers for played in _on_engines([sampler], tasks, seeds, temperature)]
    with _judging(samplers):
        for sampler in samplers:
            sampler.publish()
        policies = [Policy(sampler.engine, sampler.start) for sampler in samplers]
        return play_at_own_pace(policies, tasks, seeds, temperature)


class _Batch:
    """Episodes of one policy in lock step. `advance` does a pass until it says that none is running any more."""

    def __init__(self, sampler: Sampler, tasks: Sequence[Task], seeds: Sequence[int], temperature: float) -> None:
        self._model, self._chat = sampler.model, sampler.chat
        self._temperature = temperature
        self._no_mask = masks_for(self._model.config, dict.fromkeys(KINDS))
        self._on_processor = self._model.device.type == "cpu"
        self._resumed = self._now()
        self._spent = 0.0
        """Seconds of the turns before this one."""
        rows = [self._open(sampler.start(task, seed)) for task, seed in zip(tasks, seeds, strict=True)]
        self.episodes = [row.player.sampled for row in rows]
        self._forked: list[_Row] = []
        self._begin(rows)
        self._spent = self._seconds

    def _begin(self, rows: list[_Row]) -> None:
        """From here on these rows, all from their beginning."""
        from agentrl_resources.engines import buffered_cache

        self._rows = rows
        self._cache = buffered_cache(self._model.config)
        shortest = min(len(row.pending) for row in rows)
        self._step = [[row.pending.popleft() for _ in range(shortest)] for row in rows]

    def advance(self) -> bool:
        """One pass for every row that is running; whether there is another to do."""
        import torch

        self._resumed = self._now()
        was_training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor(self._step).to(self._model.device),
                # a single new token sees all that the cache shows it, so no mask needs to be made
                attention_mask=self._no_mask if len(self._step[0]) == 1 else None,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
            tokens = self._next_tokens(upcast(output.logits[:, -1]))
            running = [position for position, row in enumerate(self._rows) if row.running]
            if running and len(running) < COMPACT_BELOW * len(self._rows):
                self._rows = [self._rows[position] for position in running]
                tokens = [tokens[position] for position in running]
                self._cache.batch_select_indices(torch.tensor(running, device=self._model.device))
        self._model.train(was_training)
        self._step = [[token] for token in tokens]
        if not running and self._forked:
            rows, self._forked = self._forked, []
            for row in rows:
                row.waits = False
            self._begin(rows)
        self._spent = self._seconds
        return any(row.running for row in self._rows)

    def _now(self) -> float:
        """Seconds: of this process's own time on a processor, which waits for nobody, and elsewhere by the clock."""
        return time.process_time() if self._on_processor else time.perf_counter()

    @property
    def _seconds(self) -> float:
        return self._spent + self._now() - self._resumed

    def _open(self, player: Player) -> _Row:
        import numpy as np

        uniforms = np.random.default_rng(player.sampled.seed).random(player.left + 1, dtype=np.float32)
        return _Row(player, deque(player.begin()), uniforms)

    def _next_tokens(self, logits: Any) -> list[int]:
        """The next token of every row: waiting context, or a sample from `logits` (rows, vocabulary)."""
        import torch

        rows, temperature = self._rows, self._temperature
        tokens = [0] * len(rows)
        sampling = []
        for position, row in enumerate(rows):
            if row.running and row.pending:
                tokens[position] = row.pending.popleft()
            elif row.running:
                sampling.append(position)
        if not sampling:
            return tokens
        logprobs = torch.log_softmax(logits[sampling] / (temperature or 1.0), dim=-1)
        if temperature == 0:
            chosen = logprobs.argmax(-1)
        else:
            drawn = [float(rows[p].uniforms[rows[p].player.chosen + len(rows[p].turn)]) for p in sampling]
            cumulative = logprobs.exp().cumsum(-1)
            uniforms = logits.new_tensor(drawn)[:, None] * cumulative[:, -1:]
            chosen = torch.searchsorted(cumulative, uniforms, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        picked = logprobs.gather(-1, chosen[:, None])[:, 0]
        for position, token, logprob in zip(sampling, chosen.tolist(), picked.tolist(), strict=True):
            tokens[position] = token
            self._write(rows[position], token, logprob)
        return tokens

    def _write(self, row: _Row, token: int, logprob: float) -> None:
        """Records a sampled token; at the end of a turn hands it to the episode."""
        row.turn.append(token)
        row.logprobs.append(logprob)
        player = row.player
        if token not in self._chat.turn_ends and len(row.turn) < player.left:
            return
        row.pending.extend(player.take(row.turn, row.logprobs))
        row.turn, row.logprobs = [], []
        if player.done:
            sampled = player.sampled
            tools_ms = sum(call.ms for call in sampled.episode.transcript.tool_calls) if self._on_processor else 0.0
            sampled.duration_ms = self._seconds * 1000 + tools_ms
        elif player.anew:
            row.waits = True
            self._forked.append(row)
