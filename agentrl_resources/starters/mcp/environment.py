"""The parcel desk, whose tools are those of an MCP server."""

import sys

from agentrl_resources.adaptors.mcp import McpServer


class ParcelDesk(McpServer):
    """You work at the desk of a parcel service. Redirect a parcel only before it is out for delivery."""

    command = (sys.executable, "server.py")  # or, for a server that runs elsewhere: url = "https://.../mcp"
    fresh = False  # one server for all episodes; without this line each episode starts one of its own
    hidden = ("open_desk", "close_desk")  # not for the agent, but for reset and get_reward
    filled = ("desk",)  # each call gets self.desk, and the agent sees nothing of it
    simulated = True  # its customers are made up; leave this out of a world that is real
    judges_traffic = True  # each request brings its row along; leave this out where get_reward cannot know

    def reset(self, prompt: str, parcel: str, stage: str, wanted: str | None = None) -> None:
        self.stage, self.wanted = stage, wanted
        self.desk = self.server.call("open_desk", parcel=parcel, stage=stage)["desk"]
        self.sent_to: str | None = None

    def get_reward(self) -> float:
        self.sent_to = self.server.call("close_desk", desk=self.desk)["sent_to"]
        return float(self.sent_to == self.wanted)

    def get_violation(self) -> bool:
        return self.sent_to is not None and self.stage == "out for delivery"
