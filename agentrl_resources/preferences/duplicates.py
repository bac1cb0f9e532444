"""Near duplicates among pairs: exact Jaccard similarity, found with prefix filtering instead of comparing all with all.

Two pairs are alike when they quote the same numbers, make the same tool calls, share at least the asked part of their
word triples over prompt, chosen and rejected, and share at least half of them on each side taken alone. So two orders
are two tasks, two different short answers to one long prompt are two pairs, and a pair with its sides swapped is no
duplicate of the first. The number of a placeholder counts like any other: which of a row's people is named is part of
what a pair says, and whose data they are is not.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from agentrl_resources.files import canonical_json
from agentrl_resources.preferences.pairs import Message, Pair

_SIDE_SIMILARITY = 0.5
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")


def near_duplicates(pairs: Sequence[Pair], similarity: float) -> dict[int, tuple[int, float]]:
    """Which pairs to drop: position -> (position of the kept pair that it is like, their similarity from 0 to 1).

    Pairs are taken in the order given and kept unless they are like one that is kept already, so that no two kept pairs
    are alike.
    """
    texts = [[_text(part) for part in (pair.prompt, pair.chosen, pair.rejected)] for pair in pairs]
    groups: dict[Any, list[int]] = defaultdict(list)
    for position, pair in enumerate(pairs):
        numbers = tuple(tuple(sorted(_NUMBER.findall(text))) for text in texts[position])
        groups[numbers, _calls(pair)].append(position)
    return {
        position: found
        for group in groups.values()
        if len(group) > 1
        for position, found in _alike(
            group, [[_words(text) for text in texts[position]] for position in group], similarity
        )
    }


def _alike(
    positions: list[int], words: list[list[list[str]]], similarity: float
) -> Iterator[tuple[int, tuple[int, float]]]:
    """Prefix filtering (Chaudhuri et al. 2006): with all shingles ordered by rarity, two sets of Jaccard similarity t
    share one of their |x| - ceil(t |x|) + 1 first ones, so only rows that meet under a rare shingle are compared."""
    import numpy as np

    sets = [_shingles(row) for row in words]
    vocabulary, counts = np.unique(np.concatenate(sets), return_counts=True)
    met: dict[int, list[int]] = defaultdict(list)
    for row, own in enumerate(sets):
        rarest_first = own[np.lexsort((own, counts[np.searchsorted(vocabulary, own)]))]
        prefix = rarest_first[: len(own) - math.ceil(similarity * len(own) - 1e-9) + 1].tolist()
        candidates = {other for shingle in prefix for other in met[shingle]}
        for other in sorted(candidates):
            if _similarity(own, sets[other]) >= similarity and _sides_alike(words[row], words[other]):
                yield positions[row], (positions[other], _similarity(own, sets[other]))
                break
        else:
            for shingle in prefix:
                met[shingle].append(row)


def _sides_alike(row: list[list[str]], other: list[list[str]]) -> bool:
    return all(
        _similarity(_shingles([ours]), _shingles([theirs])) >= _SIDE_SIMILARITY
        for ours, theirs in zip(row[1:], other[1:], strict=True)
    )


def _similarity(one: Any, other: Any) -> float:
    """Jaccard similarity of two sorted arrays without repetitions."""
    import numpy as np

    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _shingles(parts: list[list[str]]) -> Any:
    """Sorted hashes of the word triples of each part; the part's number keeps the sides apart."""
    import numpy as np

    triples = {
        hash((number, *triple))
        for number, words in enumerate(parts)
        for triple in (zip(words, words[1:], words[2:], strict=False) if len(words) > 2 else [tuple(words)])
    }
    return np.array(sorted(triples), dtype=np.int64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _text(turns: list[Message]) -> str:
    parts = (part for turn in turns for part in (turn.get("thinking", ""), turn.get("content", "")))
    return " ".join(str(part) for part in parts)


def _calls(pair: Pair) -> bytes:
    parts = pair.prompt, pair.chosen, pair.rejected
    return canonical_json([[turn["tool_calls"] for turn in part if "tool_calls" in turn] for part in parts])
