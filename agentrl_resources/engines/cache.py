"""Key-value caches that are written in place.

Transformers' dynamic cache copies all keys and values of all rows with every token. Here they lie in buffers that are
doubled when they are full, and a layer sees a view of them: everything, or its sliding window (`buffered_cache`, for
rows that are equally long), or everything up to the longest row (`row_cache`, for rows that come and go).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import Cache
from transformers.cache_utils import DynamicLayer

from agentrl_resources.engines.layers import SLIDING, layer_kinds

FIRST_CAPACITY = 128
"""Tokens that a buffer holds before it is doubled for the first time."""


class BufferedLayer(DynamicLayer):
    """One layer's keys and values, each (rows, key heads, capacity, size). `window` is None for full attention."""

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.is_sliding = window is not None
        self.length = 0

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Appends tokens and returns what the layer may look at: views, valid until the next call."""
        added = key_states.shape[-2]
        end = self.length + added
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys = _buffer(key_states, max(FIRST_CAPACITY, end))
            self.values = _buffer(value_states, max(FIRST_CAPACITY, end))
        elif end > self.keys.shape[-2]:
            self.keys, self.values = (_grown(old, self.length, 2 * end) for old in (self.keys, self.values))
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        start = self._first_visible()
        self.length = end
        return self.keys[:, :, start:end], self.values[:, :, start:end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        start = self._first_visible()
        return self.length + query_length - start, start

    def get_seq_length(self) -> int:
        return self.length

    def _first_visible(self) -> int:
        """Position of the first token that the next token can see."""
        return 0 if self.window is None else max(0, self.length - self.window + 1)


def buffered_cache(config: Any) -> Cache:
    """An empty cache for a model with this configuration."""
    kinds = layer_kinds(config)
    return Cache(layers=[BufferedLayer(config.sliding_window if kind == SLIDING else None) for kind in kinds])


class _Written(NamedTuple):
    """What a pass writes: `rows` (n) in ascending order and `places` (n, tokens), where each one's tokens go."""

    rows: Any
    places: Any
    high: int
    """One more than the highest row."""
    longest: int
    """Tokens of the longest of the rows, those of this pass included."""


class RowLayer(DynamicLayer):
    """One layer's keys and values, each (rows, key heads, capacity, size), written where each row's text ends."""

    def __init__(self) -> None:
        super().__init__()
        self.written = _Written(None, None, 0, 0)

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Writes each row's tokens; returns those rows up to the longest one, which a mask must cut for the others."""
        rows, places, high, longest = self.written
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys = _buffer(key_states, FIRST_CAPACITY).zero_()
            self.values = _buffer(value_states, FIRST_CAPACITY).zero_()
        if high > self.keys.shape[0] or longest > self.keys.shape[2]:
            self.keys, self.values = (_with_room(old, high, longest) for old in (self.keys, self.values))
        self.keys[rows[:, None], :, places] = key_states.transpose(1, 2)
        self.values[rows[:, None], :, places] = value_states.transpose(1, 2)
        if len(rows) == high:  # all of them, in their order: nothing needs to be copied
            return self.keys[:high, :, :longest], self.values[:high, :, :longest]
        return self.keys[rows, :, :longest], self.values[rows, :, :longest]

    def move(self, source: int, target: int, length: int) -> None:
        """Copies a row's first `length` tokens to another, which may be new."""
        if self.is_initialized:
            if target >= self.keys.shape[0]:
                self.keys, self.values = (_with_room(old, target + 1, length) for old in (self.keys, self.values))
            for buffer in (self.keys, self.values):
                buffer[target, :, :length] = buffer[source, :, :length]


class RowCache(Cache):
    """Rows of different lengths, of which a pass writes some or all."""

    def at(self, rows: Sequence[int], places: Any) -> "RowCache":
        """The same cache, told what the next pass writes.

        Args:
            rows: which ones, in ascending order.
            places: (rows, tokens), where each one's tokens go.
        """
        import torch

        written = _Written(torch.tensor(rows, device=places.device), places, rows[-1] + 1, int(places.max()) + 1)
        for layer in self.layers:
            layer.written = written
        return self

    def move(self, source: int, target: int, length: int) -> None:
        """Copies a row's first `length` tokens over another row."""
        for layer in self.layers:
            layer.move(source, target, length)


def row_cache(config: Any) -> RowCache:
    """An empty cache for a model with this configuration."""
    return RowCache(layers=[RowLayer() for _ in layer_kinds(config)])


def _buffer(like: Any, capacity: int) -> Any:
    rows, heads, _, size = like.shape
    return like.new_empty(rows, heads, capacity, size)


def _grown(old: Any, length: int, capacity: int) -> Any:
    new = _buffer(old, capacity)
    new[:, :, :length] = old[:, :, :length]
    return new


def _with_room(old: Any, rows: int, length: int) -> Any:
    """A copy with room for at least as many rows and tokens, whichever is short doubled."""
    old_rows, heads, old_length, size = old.shape
    new_rows = old_rows if rows <= old_rows else max(rows, 2 * old_rows)
    new_length = old_length if length <= old_length else max(length, 2 * old_length)
    # zeros: the mask hides what was never written, and a hidden NaN would still reach the output
    new = old.new_zeros(new_rows, heads, new_length, size)
    new[:old_rows, :, :old_length] = old
    return new
