"""An OpenEnv server of the package's own classes, as its template makes one: a counter, with tools or with actions.

Run by a Python that has `openenv`, on the port that its argument says: each kind under its own path.
"""

import sys
import time
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastmcp import FastMCP
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State


class Add(Action):
    """Adds a number."""

    number: int


class Seen(Observation):
    text: str = ""
    total: int = 0


class Counter(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self.total, self.goal = 0, 3

    def reset(self, seed: int | None = None, episode_id: str | None = None, goal: int = 3, **_: Any) -> Seen:
        self.total, self.goal = 0, goal
        return Seen(text=f"Reach {goal}.")

    def step(self, action: Add, timeout_s: float | None = None, **_: Any) -> Seen:  # type: ignore[override]
        self.total += action.number
        over = self.total >= self.goal
        return Seen(text="more" if not over else "there", total=self.total, done=over, reward=1.0 if over else None)

    @property
    def state(self) -> State:
        return State(step_count=self.total)


class Tools(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        server = FastMCP("counter")
        self.total, self.goal, self.paid = 0, 3, None

        @server.tool
        def add(number: int) -> int:
            """Adds a number."""
            if number < 0:
                raise ValueError("not downwards")
            self.total += number
            self.paid = 0.5
            return self.total

        @server.tool
        def get_total() -> dict[str, int]:
            """What it is now."""
            self.paid = None
            return {"total": self.total}

        @server.tool
        def hang() -> None:
            """Never comes back."""
            time.sleep(3600)

        super().__init__(server)

    def reset(self, seed: int | None = None, episode_id: str | None = None, goal: int = 3, **_: Any) -> Observation:
        self.total, self.goal, self.paid = 0, goal, None
        return Observation(metadata={"goal": goal})

    def _paid(self, seen: Any) -> Any:
        seen.reward, seen.done = self.paid, self.total >= self.goal
        return seen

    def step(self, action: Action, timeout_s: float | None = None, **more: Any) -> Any:
        seen = super().step(action, timeout_s=timeout_s, **more)
        return self._paid(seen) if isinstance(action, CallToolAction) else seen

    async def step_async(self, action: Action, timeout_s: float | None = None, **more: Any) -> Any:
        seen = await super().step_async(action, timeout_s=timeout_s, **more)
        return self._paid(seen) if isinstance(action, CallToolAction) else seen

    def _step_impl(self, action: Action, timeout_s: float | None = None, **_: Any) -> Observation:
        raise ValueError(f"no action: {action}")

    @property
    def state(self) -> State:
        return State(step_count=self.total)


class Bare(Action):
    """Nothing to say."""


if __name__ == "__main__":
    app = FastAPI()
    for name, made, rooms in (
        ("tools", (Tools, CallToolAction, CallToolObservation), 8),
        ("one", (Tools, CallToolAction, CallToolObservation), 1),
        ("actions", (Counter, Add, Seen), 8),
        ("bare", (Counter, Bare, Seen), 8),
    ):
        app.mount(f"/{name}", create_fastapi_app(*made, max_concurrent_envs=rooms))
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
