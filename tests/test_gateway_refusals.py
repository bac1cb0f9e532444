"""What the gateway refuses over real HTTP: wrong keys, malformed and large bodies, tricks with paths, slow clients."""

import socket
import time

import pytest
from gateways import Running, raw


@pytest.mark.parametrize("given_key", ["", "Bearer", "Bearer nonsense", "Basic {key}", "Bearer {key}x"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/feedback"])
def test_without_a_valid_key_nothing_is_served(served: Running, given_key: str, path: str) -> None:
    method = "GET" if path.endswith("models") else "POST"
    headers = {"authorization": given_key.format(key=served.key)}
    status, said = raw(served, method, path, None if method == "GET" else {}, headers)
    assert status == 401
    assert said["error"]["code"] == "invalid_api_key"
    assert served.key not in str(said)


def test_admin_routes_are_not_among_the_traffic_and_need_an_admin_key(served: Running) -> None:
    from agentrl_resources.gateway import KeyRing

    for method, path in (("GET", "/admin/status"), ("POST", "/admin/fail-back"), ("GET", "/metrics")):
        assert raw(served, method, path, {} if method == "POST" else None)[0] == 404
    assert raw(served, "POST", "/v1/chat/completions", {}, admin=True)[0] == 404
    plain = KeyRing(served.home / "keys.json").create("plain")
    time.sleep(1.1)  # a running gateway looks at the keys once a second
    status, _ = raw(served, "GET", "/admin/status", headers={"authorization": f"Bearer {plain}"}, admin=True)
    assert status == 403
    assert raw(served, "GET", "/admin/status", admin=True)[0] == 200
    assert raw(served, "POST", "/admin/fail-back", {"why": "none runs"}, admin=True)[0] == 409


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"model": NaN}',
        b"\xff\xfe",
        b'{"model": "order_desk"}',
        b'{"model": "order_desk", "messages": []}',
        b'{"model": "order_desk", "messages": [{"role": "pope", "content": "x"}]}',
        b'{"model": "order_desk", "messages": [{"role": "user", "content": 7}]}',
        b'{"model": "order_desk", "messages": [{"role": "user", "content": "x"}], "n": 2}',
        b'{"model": "order_desk", "messages": [{"role": "user", "content": "x"}], "temperature": -1}',
        b'{"model": "order_desk", "messages": [{"role": "user", "content": "x"}], "task": {"payload": 1}}',
        b'{"model": "order_desk", "messages": [{"role": "user", "content": "x"}], "tools": [], "functions": [{}]}',
        b'{"model": "order_desk", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)  # fmt: skip
def test_a_malformed_body_gets_one_clear_error(served: Running, body: bytes) -> None:
    before = len(served.records())
    status, said = raw(served, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert set(said["error"]) == {"message", "type", "param", "code"}
    assert len(served.records()) == before


def test_large_bodies_are_refused_declared_or_not(served: Running) -> None:
    large = b'{"model": "' + b"x" * 2_000_000 + b'"}'
    assert raw(served, "POST", "/v1/chat/completions", large)[0] == 413
    place = served.url.removeprefix("http://").split(":")
    with socket.create_connection((place[0], int(place[1])), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
            "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        piece = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
        try:
            for _ in range(40):
                connection.sendall(piece)
        except ConnectionError:
            pass  # it has said enough
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "path",
    ["/v1/../admin/status", "/v1/models/../../admin/status", "/v1/models/%2e%2e/secret", "//admin/status",
     "/v1/models/order_desk%00", "/etc/passwd", "/v1/chat/completions/"],
)  # fmt: skip
def test_tricks_with_paths_lead_nowhere(served: Running, path: str) -> None:
    assert raw(served, "GET", path)[0] in (400, 404)


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/chat/comp", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-a: "],
)
def test_a_client_that_never_finishes_its_head_is_let_go(fresh: Running, sent: bytes) -> None:
    host, port = fresh.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        started = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - started < 5


def test_a_client_that_never_finishes_its_body_is_told(fresh: Running) -> None:
    host, port = fresh.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {fresh.key}\r\n"
            "content-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
