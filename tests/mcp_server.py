"""An MCP server made with the official package, over stdio, or over HTTP on the port that its argument says."""

import os
import sys
import time
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server = MCPServer("desk")
written: list[str] = []


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def notes() -> list[str]:
    """What was written down."""
    return written


@server.tool(annotations=ToolAnnotations(destructive_hint=False))
def write(text: str) -> dict[str, int]:
    """Writes something down."""
    written.append(text)
    return {"notes": len(written)}


@server.tool(structured_output=False)
def get_told() -> list[str]:
    """Tells two things; its name alone would say that it only reads."""
    return ["first", "second"]


@server.tool(title="Add two numbers")
def add(a: int, b: int, who: str = "nobody") -> int:
    if who == "refused":
        raise ToolError("not for you")
    return a + b


@server.tool()
def odd(kind: str) -> Any:
    """Returns odd things."""
    deep: Any = "bottom"
    for _ in range(60):
        deep = [deep]
    return {"none": None, "huge": "x" * 100_000, "deep": deep, "bytes": b"ab", "not a number": float("nan")}[kind]


@server.tool()
def stop_server() -> None:
    """Ends the server without an answer."""
    print("out of memory", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
def hang() -> None:
    """Never comes back."""
    time.sleep(3600)


@server.tool()
def forget() -> None:
    """Brings the server back to its beginning."""
    written.clear()


@server.tool()
def pid() -> int:
    """Which process it is."""
    return os.getpid()


@server.tool()
def secret() -> str | None:
    """What is in its environment."""
    return os.environ.get("DESK_SECRET")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run()
