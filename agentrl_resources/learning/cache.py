"""A key-value cache that is written in place.

Transformers' dynamic cache copies all keys and values of all rows with every token. Here they lie in buffers that are
doubled when they are full, and a layer sees a view of them: everything, or its sliding window.
"""

from typing import Any

from transformers import Cache
from transformers.cache_utils import DynamicLayer

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
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return Cache(
        layers=[BufferedLayer(config.sliding_window if kind == "sliding_attention" else None) for kind in kinds]
    )


def _buffer(like: Any, capacity: int) -> Any:
    rows, heads, _, size = like.shape
    return like.new_empty(rows, heads, capacity, size)


def _grown(old: Any, length: int, capacity: int) -> Any:
    new = _buffer(old, capacity)
    new[:, :, :length] = old[:, :, :length]
    return new
