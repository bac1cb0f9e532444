"""Your workflow: what a task begins with, the tools, and whether it went well. Change every line of it."""

from typing import Any


class MyDesk:
    """You look things up for people. Answer with what the tool says."""

    simulated = True  # leave this out of a world that is real

    def reset(self, prompt: str, key: str, value: str) -> None:
        # a row of tasks.jsonl is what reset is called with; `prompt` is what the user says
        self.known = {key: value}
        self.value = value

    # every public method is a tool: type hints, a docstring, and `Args:` with each argument
    def look_up(self, key: str) -> str:
        """Looks something up.

        Args:
            key: What to look up.
        """
        return self.known[key]

    def get_reward(self, transcript: Any) -> float:
        # 1 is success; it may look at the state of the environment, and at what the agent said
        return float(self.value in (transcript.final_answer or ""))
