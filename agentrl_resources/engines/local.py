"""The engine of this process: conversations that come and go share one model, each at its own place in its own text.

As in a rollout every conversation consumes one token per forward pass, sampled or waiting, so a new one joins between
two passes and one that ends leaves its row to another. Where much is waiting, prompts and what tools said, a pass of
its own reads it ahead. Unlike in a rollout the rows have different lengths, which a mask hides. Token ids stay in the
cache from turn to turn: nothing is tokenised or read twice.

It is made for models that fit this machine; large ones are served by a server of their own (`vllm.py`).
"""

import asyncio
import itertools
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.engines.layers import FULL, SLIDING, is_small, masks_for, upcast
from agentrl_resources.engines.protocol import Written
from agentrl_resources.errors import AgentRLError

_COMPUTING = threading.Lock()
"""Engines of one process take turns pass by pass. Threads share one interpreter: two that compute at once hand it over
at every operation, and together are slower than one after the other (docs/performance.md)."""
READ_AHEAD = 2
"""A pass reads ahead when so many tokens are waiting for each conversation that is served. A pass takes about as long
for one token as for some tens, and one that reads ahead saves each waiting token its place in another pass."""
READ_AT_ONCE = 2048
"""Most tokens, padding included, of a pass that reads ahead: what it takes is time in which nobody hears anything."""


SHARED_FROM = 64
"""Tokens that a beginning must have in common with another conversation's to be copied from it, not read."""


@dataclass(eq=False)
class Conversation:
    """One conversation with the model; made by `LocalEngine.open`.

    The same seed draws the same uniform numbers, one for each sampled token, whatever else the engine does meanwhile.
    """

    seed: int
    budget: int
    position: int = -1
    """Its row; -1 as long as there is none for it."""
    held: list[int] = field(default_factory=list)
    """The tokens that the cache holds of it."""
    pending: deque[int] = field(default_factory=deque)
    sampled: int = 0
    closed: bool = False
    uniforms: Any = None
    turn: "_Turn | None" = None

    @property
    def length(self) -> int:
        return len(self.held)


@dataclass
class _Turn:
    temperature: float
    limit: int
    finish: Callable[[Written | Exception], None]
    on_token: Callable[[int], object] | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class LocalEngine:
    """A model in a thread of its own; see `Engine`.

    Args:
        model: a causal language model in evaluation mode, on its device.
        turn_ends: the tokens that end a turn.
        rows: conversations that advance at the same time; further ones wait in line.
    """

    def __init__(self, model: Any, turn_ends: Collection[int], rows: int = 64) -> None:
        from agentrl_resources.engines.cache import row_cache

        self.model = model
        self._turn_ends = frozenset(turn_ends)
        self._rows = rows
        self._commands: queue.SimpleQueue[tuple[Conversation, Sequence[int], _Turn | None] | None] = queue.SimpleQueue()
        self._placed: list[Conversation] = []
        self._line: deque[Conversation] = deque()
        self._cache = row_cache(model.config)
        self._failure: Exception | None = None
        self._small = is_small(model)
        self.context: int = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
        self.seconds = 0.0
        """Computed so far: of this process's own time on a processor, which waits for nobody, else by the clock."""
        self._now = time.process_time if model.device.type == "cpu" else time.perf_counter
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def open(self, seed: int, budget: int, sampled: int = 0) -> Conversation:
        return Conversation(seed, budget, sampled=sampled)

    async def turn(
        self,
        conversation: Conversation,
        ids: Sequence[int],
        temperature: float,
        limit: int,
        on_token: Callable[[int], None] | None = None,
    ) -> Written:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Written] = loop.create_future()

        def resolve(result: Written | Exception) -> None:
            if future.done():
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        def finish(result: Written | Exception) -> None:
            loop.call_soon_threadsafe(resolve, result)

        limit = min(limit, conversation.budget - conversation.sampled)
        if limit < 1:
            return Written([], [])
        told = None if on_token is None else lambda token: loop.call_soon_threadsafe(on_token, token)
        self._commands.put((conversation, ids, _Turn(temperature, limit, finish, told)))
        return await future

    def close(self, conversation: Conversation) -> None:
        """Gives the conversation's row back."""
        self._commands.put((conversation, (), None))

    def spent(self, conversation: Conversation) -> float:
        return self.seconds

    async def leave(self) -> None:
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Ends the thread; turns that are under way fail."""
        self._commands.put(None)
        self._thread.join()

    def _run(self) -> None:
        import torch

        if self._small:
            torch.set_num_threads(1)  # of this thread
        with torch.inference_mode():
            while True:
                busy = any(conversation.turn for conversation in self._placed)
                try:
                    # what came meanwhile; without work, whatever comes next
                    for _ in range(max(self._commands.qsize(), 0 if busy else 1)):
                        if not self._take(self._commands.get()):
                            self._fail(AgentRLError("the model is being stopped"))
                            return
                    self._place()
                    if any(conversation.turn for conversation in self._placed):
                        with _COMPUTING:
                            started = self._now()
                            self._step()
                            self.seconds += self._now() - started
                except Exception as failure:  # whatever a model can raise: every caller is told
                    self._fail(failure)

    def _take(self, command: tuple[Conversation, Sequence[int], _Turn | None] | None) -> bool:
        if command is None:
            return False
        conversation, ids, turn = command
        if turn is None:
            self._drop(conversation)
        elif self._failure is not None:
            turn.finish(self._failure)
        elif conversation.closed:
            turn.finish(AgentRLError("this conversation is closed"))
        else:
            conversation.pending.extend(ids)
            conversation.turn = turn
            if conversation.position < 0:
                self._line.append(conversation)
        return True

    def _place(self) -> None:
        import numpy as np

        while self._line and len(self._placed) < self._rows:
            conversation = self._line.popleft()
            if not conversation.closed:
                conversation.position = len(self._placed)
                conversation.uniforms = np.random.default_rng(conversation.seed).random(
                    conversation.budget + 1, dtype=np.float32
                )
                self._placed.append(conversation)

    def _drop(self, conversation: Conversation) -> None:
        if conversation.closed:
            return
        conversation.closed = True
        if conversation.turn is not None:
            conversation.turn.finish(AgentRLError("this conversation is closed"))
        if conversation.position >= 0:
            last = self._placed.pop()
            if last is not conversation:  # the last row moves into the gap, so that the rows stay dense
                self._cache.move(last.position, conversation.position, last.length)
                last.position = conversation.position
                self._placed[last.position] = last

    def _fail(self, failure: Exception) -> None:
        """Nothing is known of the cache any more, so the engine ends with the first failure."""
        self._failure = AgentRLError(f"the model failed: {failure}")
        for conversation in itertools.chain(self._placed, self._line):
            conversation.closed = True
            if conversation.turn is not None:
                conversation.turn.finish(self._failure)
                conversation.turn = None
        self._placed.clear()
        self._line.clear()

    def _step(self) -> None:
        """One token for every conversation that has a turn. The others' rows read a token that nobody will ever see."""
        rows = self._placed
        self._read_ahead()
        fed = [[row.pending.popleft() if row.turn else 0] for row in rows]
        logits = self._pass(range(len(rows)), fed)
        sampling = []
        for position, row in enumerate(rows):
            if row.turn:
                row.held += fed[position]
                if not row.pending:
                    sampling.append(position)
        if sampling:
            self._sample(sampling, upcast(logits[sampling, -1]))

    def _read_ahead(self) -> None:
        """Reads what is waiting, but for each conversation's last token, if that is much."""
        waiting = {row.position: len(row.pending) - 1 for row in self._placed if row.turn and len(row.pending) > 1}
        if any(count >= SHARED_FROM for count in waiting.values()):
            waiting = self._shared(waiting)
        if not waiting or sum(waiting.values()) < READ_AHEAD * sum(row.turn is not None for row in self._placed):
            return
        count = min(READ_AT_ONCE, max(waiting.values()))
        positions = list(waiting)[: READ_AT_ONCE // count]  # the others' turn comes before the next token
        rows = [self._placed[position] for position in positions]
        fed = [[row.pending.popleft() for _ in range(min(waiting[row.position], count))] for row in rows]
        # what pads lies beyond the row's end, where it is overwritten before anything may look at it
        self._pass(positions, [ids + [0] * (count - len(ids)) for ids in fed])
        for row, ids in zip(rows, fed, strict=True):
            row.held += ids

    def _shared(self, waiting: dict[int, int]) -> dict[int, int]:
        """Copies what a conversation is about to read from another that has read the same; of several that are about to
        read the same, one goes first. Returns what is left to read now."""
        left: dict[int, int] = {}
        for position, count in waiting.items():
            row = self._placed[position]
            text = [*row.held, *row.pending][: row.length + count]
            others = [other for other in self._placed if other is not row and other.length > row.length]
            donor = max(others, key=lambda other: in_common(other.held, text), default=None)
            have = 0 if donor is None else in_common(donor.held, text)
            if donor is not None and have - row.length >= SHARED_FROM:
                self._cache.move(donor.position, position, have)
                for _ in range(have - row.length):
                    row.held.append(row.pending.popleft())
            first = next(iter(left), None)
            if first is not None:
                leader = self._placed[first]
                if in_common([*leader.held, *leader.pending], text) - row.length >= SHARED_FROM:
                    continue
            if len(row.pending) > 1:
                left[position] = len(row.pending) - 1
        return left

    def _pass(self, positions: Sequence[int], fed: Sequence[Sequence[int]]) -> Any:
        """Feeds equally many tokens to some rows, in ascending order: logits after the last, (rows, 1, vocabulary)."""
        import torch

        device = self.model.device
        lengths = torch.tensor([self._placed[position].length for position in positions])
        places = lengths[:, None] + torch.arange(len(fed[0]))
        return self.model(
            input_ids=torch.tensor(fed).to(device),
            position_ids=places.to(device),
            attention_mask=self._masks(places),
            past_key_values=self._cache.at(positions, places.to(device)),
            use_cache=True,
            logits_to_keep=1,
        ).logits

    def _masks(self, places: Any) -> Any:
        """What each new token may look at: its row's past and itself, or the last of it. `places`: (rows, tokens)."""
        import torch

        config = self.model.config
        ages = places[:, :, None] - torch.arange(int(places.max()) + 1)
        hidden = {FULL: ages < 0}
        if window := getattr(config, "sliding_window", None):
            hidden[SLIDING] = (ages < 0) | (ages >= window)
        # in the model's own precision: a finer mask would make the weights finer than the values that they weigh
        added = {
            kind: torch.zeros(mask.shape, dtype=self.model.dtype).masked_fill_(mask, float("-inf"))
            for kind, mask in hidden.items()
        }
        return masks_for(config, {kind: mask[:, None].to(self.model.device) for kind, mask in added.items()})

    def _sample(self, positions: list[int], logits: Any) -> None:
        """Samples from `logits` (rows that sample, vocabulary) and hands tokens and finished turns out."""
        import torch

        rows = [self._placed[position] for position in positions]
        temperatures = logits.new_tensor([row.turn.temperature for row in rows if row.turn])[:, None]
        logprobs = torch.log_softmax(logits / torch.where(temperatures == 0, 1.0, temperatures), dim=-1)
        cumulative = logprobs.exp().cumsum(-1)
        drawn = logits.new_tensor([float(row.uniforms[row.sampled]) for row in rows])[:, None]
        chosen = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)[:, 0]
        chosen = chosen.clamp(max=logits.shape[-1] - 1).where(temperatures[:, 0] != 0, logits.argmax(-1))
        picked = logprobs.gather(-1, chosen[:, None])[:, 0]
        for row, token, logprob in zip(rows, chosen.tolist(), picked.tolist(), strict=True):
            turn = row.turn
            assert turn is not None
            row.sampled += 1
            row.pending.append(token)
            turn.ids.append(token)
            turn.logprobs.append(logprob)
            if turn.on_token is not None:
                turn.on_token(token)
            if token in self._turn_ends or len(turn.ids) >= turn.limit:
                row.turn = None
                turn.finish(Written(turn.ids, turn.logprobs))


def in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the beginning that two texts have in common."""
    end = min(len(one), len(other))
    if one[:end] == other[:end]:
        return end
    return next(place for place in range(end) if one[place] != other[place])
