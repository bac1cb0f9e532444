"""A fake OpenAI server on a real port: it answers as a test tells it to, and keeps what it was asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentrl_resources.gateway.completions import Completion, CompletionReader

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}

Answer = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """One request to the fake server, which answers as it is told to at the moment."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.fake.bodies.append(body)
        self.server.fake.headers.append(dict(self.headers))
        self.server.fake.paths.append(self.path)
        with suppress(OSError):  # whoever asked may have gone
            self.server.fake.answer(self, body)

    def send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.begin(status, **{"content_length": str(len(data))} | headers)
        self.wfile.write(data)

    def begin(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def events(self, *values: Any) -> None:
        for value in values:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.wfile.write(b"data: " + data + b"\n\n")
            self.wfile.flush()

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    fake: "Fake"


@dataclass
class Fake:
    """A fake OpenAI server, and what it was asked."""

    url: str
    answer: Answer
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def fake_server() -> Iterator[Fake]:
    server = Server(("127.0.0.1", 0), Handler)
    server.fake = Fake(f"http://127.0.0.1:{server.server_port}/v1", closes)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.fake
    finally:
        server.shutdown()
        server.server_close()


# --- what a server may answer -----------------------------------------------------------------------------------------


def plain(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "model": "m", "created": 0, "choices": [choice], "usage": USAGE}


def call(name: str, arguments: dict[str, Any], call_id: str = "theirs") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def says(message: dict[str, Any], finish: str = "stop") -> Answer:
    """The message, whole or, when a stream is asked for, in pieces of three characters."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        if not body["stream"]:
            handler.send(json.dumps(plain(message, finish)).encode(), content_type="application/json")
            return
        handler.begin(content_type="text/event-stream")
        handler.events(chunk({"role": "assistant", "content": ""}))
        for name in ("reasoning_content", "content"):
            handler.events(*(chunk({name: piece}) for piece in threes(message.get(name) or "")))
        for index, made in enumerate(message.get("tool_calls") or ()):
            function = {**made["function"], "arguments": ""}
            handler.events(chunk({"tool_calls": [{**made, "index": index, "function": function}]}))
            for piece in threes(made["function"]["arguments"]):
                handler.events(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        handler.events(chunk({}, finish), {**chunk({}), "choices": [], "usage": USAGE}, b"[DONE]")

    return answer


def threes(text: str) -> list[str]:
    return [text[start : start + 3] for start in range(0, len(text), 3)]


def raw(data: bytes, status: int = 200, **headers: str) -> Answer:
    return lambda handler, body: handler.send(data, status, **headers)


def as_json(value: Any) -> Answer:
    return raw(json.dumps(value).encode())


def breaks_off(*values: Any) -> Answer:
    """A stream that ends without its end."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin(content_type="text/event-stream")
        handler.events(*values)

    return answer


def breaks_off_inside(handler: Handler, body: dict[str, Any]) -> None:
    """Promises more than it sends."""
    handler.begin(content_length="1000")
    handler.wfile.write(b'{"choices": [')


def hangs(handler: Handler, body: dict[str, Any]) -> None:
    time.sleep(1.5)
    handler.close_connection = True


def closes(handler: Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True


# --- answers as bytes, and what is read in them -----------------------------------------------------------------------

DONE = b"data: [DONE]\n\n"


def chunk(content: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": content, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "model": "m", "created": 0, "choices": [choice], **more}


USED = {**chunk({}), "choices": [], "usage": USAGE}


def whole(message: Any, finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    body = {"id": "x", "object": "chat.completion", "model": "m", "created": 0, "choices": [choice], "usage": USAGE}
    return json.dumps(body | more).encode()


def sse(*events: Any, end: bytes = b"\n\n") -> bytes:
    """Objects become `data:` events, bytes stand as they are."""
    return b"".join(one if isinstance(one, bytes) else b"data: " + json.dumps(one).encode() + end for one in events)


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in names}


def read(*pieces: bytes) -> Completion:
    return read_with_text(*pieces)[0]


def read_with_text(*pieces: bytes) -> tuple[Completion, list[str]]:
    """The completion in the bytes of an answer, and what was told of its text on the way."""
    told: list[str] = []
    reader = CompletionReader(told.append)
    for piece in pieces:
        reader.feed(piece)
    return reader.end(), told
