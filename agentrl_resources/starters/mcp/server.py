"""The parcel desk as an MCP server. Each episode opens a desk; its tools say which desk they are of."""

import itertools
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server = MCPServer("parcels")
desks: dict[int, dict[str, Any]] = {}
numbers = itertools.count(1)


@server.tool()
def open_desk(parcel: str, stage: str) -> dict[str, int]:
    """Opens a desk that knows one parcel. For tests and training only."""
    desk = next(numbers)
    desks[desk] = {"parcel": parcel, "stage": stage, "sent_to": None}
    return {"desk": desk}


@server.tool()
def close_desk(desk: int) -> dict[str, Any]:
    """Closes a desk, and says what became of its parcel. For tests and training only."""
    return desks.pop(desk)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def get_parcel(desk: int, number: str) -> dict[str, Any]:
    """Looks up where a parcel is."""
    return {"number": number, "stage": found(desk, number)["stage"]}


@server.tool()
def redirect(desk: int, number: str, place: str) -> dict[str, Any]:
    """Sends a parcel to another place."""
    found(desk, number)["sent_to"] = place
    return {"done": True}


def found(desk: int, number: str) -> dict[str, Any]:
    if desks[desk]["parcel"] != number:
        raise ToolError("there is no such parcel")
    return desks[desk]


if __name__ == "__main__":
    server.run()
