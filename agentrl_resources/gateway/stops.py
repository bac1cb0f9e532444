"""Stop sequences: where a text ends for the client, also when it comes in pieces."""

from collections.abc import Callable, Sequence


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the stop sequence that is complete first, as whoever reads it letter by letter ends it."""
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    return text[: min(found, key=lambda one: (one[0] + len(one[1]), one[0]))[0]] if found else text


class StoppedText:
    """Passes a text on up to a stop sequence. What may be the beginning of one waits for what follows."""

    def __init__(self, stops: Sequence[str], on_text: Callable[[str], None]) -> None:
        self._stops = stops
        self._on_text = on_text
        self._text = ""
        self._sent = 0

    def __call__(self, piece: str) -> None:
        self._text += piece
        text = until(self._text, self._stops)
        held = max((_begun(text, stop) for stop in self._stops), default=0) if text == self._text else 0
        self._pass_on(len(text) - held)

    def end(self) -> None:
        """No more comes: what waited is no stop sequence."""
        self._pass_on(len(until(self._text, self._stops)))

    def _pass_on(self, end: int) -> None:
        if end > self._sent:
            self._on_text(self._text[self._sent : end])
            self._sent = end


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop sequence."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
