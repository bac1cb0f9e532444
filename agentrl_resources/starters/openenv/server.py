"""The parcel desk as an OpenEnv environment, with tools. A step that settles a task is worth 1, a forbidden one -1."""

from typing import Any

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State

SESSIONS = 400
"""At least as many as episodes are played at once (`ppo.episodes`, `evaluation.concurrency`)."""


class ParcelDesk(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        tools = FastMCP("parcels")

        @tools.tool
        def get_parcel(number: str) -> dict[str, str]:
            """Looks up where a parcel is."""
            self._check(number)
            return {"number": number, "stage": self.stage}

        @tools.tool
        def redirect(number: str, place: str) -> dict[str, bool]:
            """Sends a parcel to another place."""
            self._check(number)
            self._settle(-1.0 if self.wanted is None else float(place == self.wanted))
            return {"done": True}

        @tools.tool
        def decline(number: str) -> dict[str, bool]:
            """Tells the customer that a parcel cannot be redirected any more."""
            self._check(number)
            self._settle(float(self.wanted is None))
            return {"done": True}

        super().__init__(tools)

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, parcel: str = "", stage: str = "",
        wanted: str | None = None, **_: Any,
    ) -> Observation:  # fmt: skip
        self.parcel, self.stage, self.wanted = parcel, stage, wanted
        self.worth: float | None = None
        self.settled = False
        return Observation()

    async def step_async(self, action: Action, timeout_s: float | None = None, **more: Any) -> Observation:
        self.worth = None
        seen = await super().step_async(action, timeout_s=timeout_s, **more)
        if isinstance(action, CallToolAction):
            seen.reward, seen.done = self.worth, self.settled
        return seen

    def _step_impl(self, action: Action, timeout_s: float | None = None, **_: Any) -> Observation:
        raise ValueError("this environment has tools only")

    @property
    def state(self) -> State:
        return State()

    def _settle(self, worth: float) -> None:
        self.worth, self.settled = worth, True

    def _check(self, number: str) -> None:
        if number != self.parcel:
            raise ValueError("there is no such parcel")


if __name__ == "__main__":
    app = create_fastapi_app(ParcelDesk, CallToolAction, CallToolObservation, max_concurrent_envs=SESSIONS)
    uvicorn.run(app, port=8000, log_level="warning")
