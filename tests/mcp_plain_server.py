"""An MCP server of few lines that speaks the protocol of 2025, and starts at once: each process counts by itself."""

import json
import os
import sys
import time

TEXT = {"type": "string"}
TOOLS = {name: {} for name in ("count", "forget", "hang", "pid", "stop_server")} | {
    "greet": {"word": TEXT, "who": TEXT}
}
counted = 0


def listed():
    tools = [
        {
            "name": name,
            "description": name,
            "inputSchema": {"type": "object", "properties": takes, "required": [*takes]},
        }
        for name, takes in TOOLS.items()
    ]
    return {"none": [], "twice": [*tools, tools[0]]}.get(os.environ.get("PLAIN_TOOLS"), tools)


def called(name, arguments):
    global counted
    if name == "stop_server":
        os._exit(1)
    if name == "hang":
        time.sleep(3600)
    counted = counted + 1 if name == "count" else 0 if name == "forget" else counted
    says = {"count": str(counted), "pid": str(os.getpid()), "greet": " ".join(arguments.values())}
    return says.get(name, "ok")


def answer(method, given):
    if method == "initialize":
        version, about = given["protocolVersion"], {"name": "plain", "version": "1"}
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": listed()}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": called(given["name"], given["arguments"])}]}
    return None


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        found = answer(request["method"], request.get("params") or {})
        said = {"error": {"code": -32601, "message": "unknown"}} if found is None else {"result": found}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}), flush=True)
