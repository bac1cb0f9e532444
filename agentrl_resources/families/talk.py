"""One conversation as the token ids that its agent reads and writes, whoever samples them."""

from collections.abc import Sequence

from agentrl_resources.families.base import ChatFormat, read_next
from agentrl_resources.workflow import Message


class Talk:
    """Token in, token out: `next` is what the agent reads before a turn, `wrote` takes what was sampled.

    Args:
        chat: writes and reads the conversation.
    """

    def __init__(self, chat: ChatFormat) -> None:
        self.chat = chat
        self.ids: list[int] = []
        """All that was read and written, as the conversation stands."""
        self.anew = False
        """Whether the last `next` was the whole conversation from its beginning, because the family wrote its history
        anew: what `ids` held before is over."""
        self._turn_start = 0

    def next(self, messages: Sequence[Message], new: int) -> list[int]:
        """What the agent reads before its next turn.

        Args:
            messages: the whole conversation.
            new: how many of its last messages came after the agent's last turn.
        """
        self.anew, read = False, None
        if self.ids:
            read = read_next(self.chat, self.ids[: self._turn_start], self.ids[self._turn_start :], messages, new)
            self.anew = read is None
        if read is None:
            read, self.ids = self.chat.prompt(messages), []
        self.ids += read
        return read

    def wrote(self, turn: Sequence[int]) -> Message | None:
        """The message of a turn; None when it is malformed, or was cut off before its end."""
        self._turn_start = len(self.ids)
        self.ids += turn
        ended = turn and turn[-1] in self.chat.turn_ends
        return self.chat.read(self.ids[: self._turn_start], turn) if ended else None
