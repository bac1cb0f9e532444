"""Rollouts: many episodes in lock step, token in, token out.

Every row of the batch consumes one token per forward pass: a token that the agent samples, or the next token of a
prompt or tool result that waits in the row's queue. So no row is ever padded, nothing is tokenised twice, a tool result
costs no second prefill, and rows that end are dropped from the batch. Each episode draws from its own random stream:
what it samples does not depend on the episodes around it.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.learning.batching import upcast
from agentrl_resources.learning.harmony import Harmony
from agentrl_resources.workflow import Episode, EpisodeFactory, Message, Task, ToolThread

_MASKS = ("full_attention", "sliding_attention")
COMPACT_BELOW = 0.8
"""Finished rows are dropped once fewer than this share of the batch is still running."""


@dataclass
class SampledEpisode:
    """One episode as it was sampled. The four lists are aligned, one entry per token.

    `mask` is 1 where the agent chose the token; `logprobs` (nats, at the sampling temperature) is 0.0 elsewhere.
    """

    task: Task
    seed: int
    episode: Episode
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    duration_ms: float = 0.0
    """From the start of its batch to its last token: what was computed, and its tools. A processor's own time is taken,
    where the policy runs on one, so that whatever else the machine does speaks neither for nor against a policy."""

    @property
    def tokens_out(self) -> int:
        return sum(self.mask)

    @property
    def tokens_in(self) -> int:
        return len(self.ids) - self.tokens_out


@dataclass
class _Row:
    sampled: SampledEpisode
    pending: deque[int]
    uniforms: Any
    turn_start: int = -1

    @property
    def done(self) -> bool:
        return self.sampled.episode.done


class Sampler:
    """Plays episodes of one workflow with one policy.

    Args:
        model: a causal language model, already on its device.
        harmony: renders and reads the conversations; holds the tokenizer.
        factory: starts the episodes.
    """

    def __init__(self, model: Any, harmony: Harmony, factory: EpisodeFactory) -> None:
        self.model = model
        self.harmony = harmony
        self.factory = factory
        self._tool_thread = ToolThread()

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
            episodes += self._play_batch(tasks[batch], seeds[batch], temperature)
            if progress is not None:
                progress(len(episodes), len(tasks))
        return episodes

    @property
    def _on_processor(self) -> bool:
        return bool(self.model.device.type == "cpu")

    def _now(self) -> float:
        """Seconds: of this process's own time on a processor, which waits for nobody, and elsewhere by the clock."""
        return time.process_time() if self._on_processor else time.perf_counter()

    def _play_batch(self, tasks: Sequence[Task], seeds: Sequence[int], temperature: float) -> list[SampledEpisode]:
        import torch

        from agentrl_resources.learning.cache import buffered_cache

        was_training = self.model.training
        self.model.eval()
        started = self._now()
        rows = [self._open(task, seed) for task, seed in zip(tasks, seeds, strict=True)]
        episodes = [row.sampled for row in rows]
        with torch.inference_mode():
            cache = buffered_cache(self.model.config)
            shortest = min(len(row.pending) for row in rows)
            step = torch.tensor([[self._read(row) for _ in range(shortest)] for row in rows])
            while True:
                output = self.model(
                    input_ids=step.to(self.model.device),
                    # a single new token sees all that the cache shows it, so no mask needs to be made
                    attention_mask=dict.fromkeys(_MASKS) if step.shape[1] == 1 else None,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                tokens = self._next_tokens(rows, upcast(output.logits[:, -1]), temperature, started)
                running = [position for position, row in enumerate(rows) if not row.done]
                if not running:
                    break
                if len(running) < COMPACT_BELOW * len(rows):
                    rows = [rows[position] for position in running]
                    tokens = [tokens[position] for position in running]
                    cache.batch_select_indices(torch.tensor(running, device=self.model.device))
                step = torch.tensor(tokens)[:, None]
        self.model.train(was_training)
        return episodes

    def _open(self, task: Task, seed: int) -> _Row:
        import numpy as np

        episode = self.factory.start(task, self._tool_thread)
        uniforms = np.random.default_rng(seed).random(self._budget + 1, dtype=np.float32)
        prompt = self.harmony.prompt(episode.transcript.messages)
        return _Row(SampledEpisode(task, seed, episode), deque(prompt), uniforms)

    @property
    def _budget(self) -> int:
        return self.factory.workflow.tool_policy.max_tokens

    def _read(self, row: _Row) -> int:
        """Takes the next waiting context token of a row."""
        token = row.pending.popleft()
        row.sampled.ids.append(token)
        row.sampled.mask.append(0)
        row.sampled.logprobs.append(0.0)
        return token

    def _next_tokens(self, rows: Sequence[_Row], logits: Any, temperature: float, started: float) -> list[int]:
        """The next token of every row: waiting context, or a sample from `logits` (rows, vocabulary)."""
        import torch

        tokens = [0] * len(rows)
        sampling = []
        for position, row in enumerate(rows):
            if row.pending:
                tokens[position] = self._read(row)
            elif not row.done:
                sampling.append(position)
        if not sampling:
            return tokens
        logprobs = torch.log_softmax(logits[sampling] / (temperature or 1.0), dim=-1)
        if temperature == 0:
            chosen = logprobs.argmax(-1)
        else:
            drawn = [float(rows[p].uniforms[rows[p].sampled.tokens_out]) for p in sampling]
            cumulative = logprobs.exp().cumsum(-1)
            uniforms = logits.new_tensor(drawn)[:, None] * cumulative[:, -1:]
            chosen = torch.searchsorted(cumulative, uniforms, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        picked = logprobs.gather(-1, chosen[:, None])[:, 0]
        for position, token, logprob in zip(sampling, chosen.tolist(), picked.tolist(), strict=True):
            tokens[position] = token
            self._write(rows[position], token, logprob, started)
        return tokens

    def _write(self, row: _Row, token: int, logprob: float, started: float) -> None:
        """Records a sampled token; at the end of a turn hands it to the episode."""
        sampled = row.sampled
        if row.turn_start < 0:
            row.turn_start = len(sampled.ids)
        sampled.ids.append(token)
        sampled.mask.append(1)
        sampled.logprobs.append(logprob)
        if token in self.harmony.turn_ends:
            self._end_turn(row)
        elif sampled.tokens_out >= self._budget:
            sampled.episode.stop()
        if row.done:
            tools_ms = sum(call.ms for call in sampled.episode.transcript.tool_calls) if self._on_processor else 0.0
            sampled.duration_ms = (self._now() - started) * 1000 + tools_ms

    def _end_turn(self, row: _Row) -> None:
        turn = row.sampled.ids[row.turn_start :]
        row.turn_start = -1
        message: Message | None = self.harmony.parse(turn)
        episode = row.sampled.episode
        if message is None:
            observations = [episode.malformed(self.harmony.tokenizer.decode(turn))]
        else:
            observations = episode.step(message)
        if row.sampled.tokens_out >= self._budget:
            episode.stop()
        if observations and not row.done:
            row.pending.extend(self.harmony.observation(*observations))
