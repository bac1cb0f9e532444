"""Padded micro-batches of token sequences, and what a model says of every token in them."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from agentrl_resources.engines import is_small, upcast
from agentrl_resources.learning.beginnings import alike, beginning, read_behind
from agentrl_resources.learning.ranks import ALONE
from agentrl_resources.learning.sharding import as_one_pass, evened, sharers

Answer = TypeVar("Answer")


class Tokens(Protocol):
    """Token ids and, for each, whether the agent chose it (1) or it was context (0); the first was never chosen."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def mask(self) -> list[int]: ...


Conversation = TypeVar("Conversation", bound=Tokens)


TOKENS_PER_BATCH = 2048
"""Padded tokens in one forward pass: bounds memory, keeps short sequences from being padded to long ones, and what a
layer hands to the next stays in a core's cache. With four times as many a small model takes half as long again."""


def micro_batches(lengths: Sequence[int], shared: int = 0, tokens: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Positions grouped by similar length so that a padded group holds at most `tokens` (or one sequence), of which
    those that all sequences begin with, `shared`, count once."""
    group: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if group and shared + (lengths[position] - shared) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(position)
    if group:
        yield group


TOKENS_PER_STEP = 16_384
"""The same for a small model's training step: 16 pairs of 512 tokens are one pass."""
LOGITS_AT_ONCE = 2**26
"""Numbers that the head makes at once, 256 MiB in float32: a large vocabulary's logits of all of a batch's agent tokens
would be most of a step's memory."""


def slices_of_a_step(model: Any, *batches: Any) -> list[slice]:
    """How a training step is cut into passes, each of which takes the same rows of all its padded batches (rows,
    tokens); a pass has at least one row."""
    import torch

    ids = torch.cat(batches)
    shared = beginning(model, ids)
    tokens = TOKENS_PER_STEP if is_small(model) else TOKENS_PER_BATCH
    at_once = max(1, (tokens - shared) // max(1, len(batches) * (ids.shape[1] - shared)))
    return [slice(start, start + at_once) for start in range(0, len(batches[0]), at_once)]


BUCKET = 16
"""Batches among which sequences are sorted by length."""


def bucketed_order(lengths: Sequence[int], batch: int, epochs: float, seed: int) -> list[int]:
    """Positions for `epochs` passes in the order of training: batches of similar length, themselves in random order.

    The Trainer's own grouping by length runs from long to short without a shuffle. Where length goes with the kind of
    task, as here, steps then follow one kind of task after the other, and learning suffers.
    """
    from random import Random

    random = Random(seed)
    wanted = round(len(lengths) * epochs)
    order: list[int] = []
    while len(order) < wanted:
        order += random.sample(range(len(lengths)), len(lengths))
    batches: list[list[int]] = []
    for start in range(0, wanted, batch * BUCKET):
        bucket = sorted(order[start : min(start + batch * BUCKET, wanted)], key=lambda position: lengths[position])
        batches += [bucket[i : i + batch] for i in range(0, len(bucket), batch)]
    # only the last batch may be smaller, or all that follow it would be cut in other places
    whole = [group for group in batches if len(group) == batch]
    random.shuffle(whole)
    return [position for group in whole for position in group] + [p for g in batches if len(g) < batch for p in g]


def pad(sequences: Sequence[Sequence[float]], value: float = 0, dtype: Any = None) -> Any:
    """Right-padded tensor (sequences, longest)."""
    import torch

    tensors = [torch.as_tensor(sequence, dtype=dtype or torch.long) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def in_micro_batches(
    model: Any, rows: Sequence[Conversation], answer: Callable[[list[Conversation]], Sequence[Answer]]
) -> list[Answer]:
    """What `answer` gives for each row, in their order, asked group by group and without gradient. `model` is who is
    asked."""
    import torch

    answers: dict[int, Answer] = {}
    groups = list(micro_batches([len(row.ids) for row in rows], alike(model, [row.ids for row in rows])))
    # weights that were gathered for a pass outlive it, and learn later
    with torch.inference_mode() if sharers(model) is ALONE else torch.no_grad():
        for group, counts in evened(model, groups, [0]):
            said = answer([rows[position] for position in group])
            if counts:
                answers |= zip(group, said, strict=True)
    return [answers[position] for position in range(len(rows))]


def asked_where(model: Any, ids: Any, where: Any, answers: Any, ask: Callable[..., Any]) -> Any:
    """What `ask` says of a causal language model's logits for the next token, at some places only.

    The head, with its logits over the whole vocabulary, is a large part of a small model's work and of a large one's
    memory, and only what follows an agent's token is ever asked. Where these are many, they are asked part by part, and
    once more in the backward pass, so that one part's logits are in memory at a time.

    Args:
        model: a causal language model.
        ids: (batch, tokens), padded on the right. No token sees the padding, which comes after it.
        where: (batch, tokens), true where the next token is asked for; false in the last column.
        answers: (places), the token that follows each place, in the order of `where`.
        ask: (logits (places, vocabulary) in float32 or better, answers) -> (places, ...) or (1, ...).

    Returns:
        What `ask` said, part after part.
    """
    head_is_all = _head_is_all(model)
    return as_one_pass(model, lambda: _asked_where(model, ids, where, answers, ask, head_is_all))


def _asked_where(model: Any, ids: Any, where: Any, answers: Any, ask: Callable[..., Any], head_is_all: bool) -> Any:
    import torch
    from torch.utils.checkpoint import checkpoint

    start = beginning(model, ids, where)
    asked = where[:, start:]
    if not head_is_all:
        return ask(upcast(read_behind(model, ids, start).logits[asked]), answers)
    hidden = read_behind(model.get_decoder(), ids, start).last_hidden_state[asked]
    head = model.get_output_embeddings()

    def of_part(hidden: Any, answers: Any) -> Any:
        return ask(upcast(head(hidden)), answers)

    at_once = max(1, LOGITS_AT_ONCE // model.config.get_text_config().vocab_size)
    if len(hidden) <= at_once:
        return of_part(hidden, answers)
    parts = zip(hidden.split(at_once), answers.split(at_once), strict=True)
    return torch.cat([checkpoint(of_part, *part, use_reentrant=False) for part in parts])


_HEADS: MutableMapping[Any, bool] = WeakKeyDictionary()


def _head_is_all(model: Any) -> bool:
    """Whether nothing follows a model's head: some families scale or bound the logits (Gemma 2, Cohere, Granite).

    Found out by looking once, at two tokens.
    """
    import torch

    if model not in _HEADS:
        ids = torch.arange(2, device=model.device)[None]
        was_training = model.training
        model.eval()
        with torch.no_grad():
            said = model(input_ids=ids, use_cache=False).logits
            _HEADS[model] = torch.equal(as_one_pass(model, lambda: _by_trunk_and_head(model, ids)), said)
        model.train(was_training)
    return _HEADS[model]


def _by_trunk_and_head(model: Any, ids: Any) -> Any:
    return model.get_output_embeddings()(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)


def before(mask: Any) -> Any:
    """The places from which the masked tokens were chosen: (batch, tokens) of bool, one to the left of them."""
    import torch

    return torch.nn.functional.pad(mask[:, 1:].bool(), (0, 1))


def chosen_logprobs(model: Any, episodes: Sequence["Tokens"], temperature: float) -> list[list[float]]:
    """Log-probability of each token that the agent chose, given those before it, without gradient.

    Args:
        model: a causal language model.
        episodes: whole episodes.
        temperature: of the policy whose log-probabilities these are; 0 counts as 1.

    Returns:
        For each episode, in nats, as many as its mask has ones.
    """
    import torch

    def of_batch(batch: list["Tokens"]) -> list[list[float]]:
        ids = pad([episode.ids for episode in batch]).to(model.device)
        mask = pad([episode.mask for episode in batch]).to(model.device)

        def of_answers(logits: Any, answers: Any) -> Any:
            return torch.log_softmax(logits / (temperature or 1.0), dim=-1).gather(-1, answers[:, None])[:, 0]

        picked = asked_where(model, ids, before(mask), ids[mask.bool()], of_answers)
        return [row.tolist() for row in picked.split(mask.sum(1).tolist())]

    return in_micro_batches(model, episodes, of_batch)


def unpadded(values: Any, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
    """The rows of a padded (batch, tokens) tensor as lists, each as long as its sequence."""
    return [row[: len(sequence)] for row, sequence in zip(values.tolist(), sequences, strict=True)]
