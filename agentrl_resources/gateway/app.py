"""The routes: traffic on one port, administration on another. Nothing that is said here reaches a log."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.keys import Key, KeyRing
from agentrl_resources.gateway.openapi import openapi
from agentrl_resources.gateway.protocol import chunk, completion, event, last_chunks, models
from agentrl_resources.gateway.requests import (
    ChatRequest,
    Feedback,
    Model,
    RequestError,
    TaskContext,
    conversation_of,
    read_body,
    sampling_of,
)
from agentrl_resources.gateway.runs import EpisodeJob, Job, TurnJob
from agentrl_resources.gateway.service import Answer, Gateway, new_run_id
from agentrl_resources.telemetry import LABELS, past_time, utc_iso
from agentrl_resources.workflow import EpisodeFactory, Task

_JSON_TYPES = ("application/json", "")


class Routes:
    """The handlers of both applications, over one gateway."""

    def __init__(self, gateway: Gateway, factory: EpisodeFactory, keys: KeyRing, temperature: float) -> None:
        self._gateway = gateway
        self._factory = factory
        self._keys = keys
        self._temperature = temperature
        self._created = int(time.time())
        self._openapi = openapi(gateway.workflow.name)

    def traffic(self) -> Starlette:
        """What the workflow's application talks to."""
        return self._application(
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.model),
            Route("/v1/feedback", self.feedback, methods=["POST"]),
            Route("/openapi.json", self.description),
        )

    def admin(self) -> Starlette:
        """What operators and Prometheus talk to."""
        return self._application(
            Route("/metrics", self.metrics),
            Route("/admin/status", self.status),
            Route("/admin/fail-back", self.fail_back, methods=["POST"]),
        )

    def _application(self, *routes: Route) -> Starlette:
        both = (Route("/health", self.health), Route("/ready", self.ready))
        handlers = {
            HTTPException: _http_error,
            RequestError: _request_error,
            Exception: _unexpected,
        }
        application = Starlette(routes=[*both, *routes], exception_handlers=handlers)  # type: ignore[arg-type]
        application.router.redirect_slashes = False
        application.add_middleware(PatientSender, seconds=self._gateway.options.body_seconds)
        return application

    # --- traffic ------------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """One run."""
        key = self._key(request)
        asked, body = await self._read(request, ChatRequest)
        if asked.model != self._gateway.workflow.name:
            raise self._no_such_model()
        job = self._job(asked, body)
        session = _header(request, "x-agentrl-session") or asked.session
        if asked.stream:
            return await self._streamed(asked, job, session, key)
        answer = await self._gateway.run(job, new_run_id(), session, key.simulated)
        content = completion(answer.run_id, asked.model, answer.release[:12], answer.turn)
        return JSONResponse(content, headers=_channel_headers(answer))

    async def _streamed(self, asked: ChatRequest, job: Job, session: str | None, key: Key) -> Response:
        """Server-sent events. The response begins with the first text, or when the run is over: until then a failure
        has a status of its own.
        """
        run_id = new_run_id()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        async def work() -> Answer:
            try:
                return await self._gateway.run(job, run_id, session, key.simulated, pieces.put_nowait)
            finally:
                pieces.put_nowait(None)

        run = asyncio.create_task(work())
        first = await pieces.get()
        if first is None and run.done() and run.exception():
            run.result()

        async def events() -> AsyncIterator[bytes]:
            yield chunk(run_id, asked.model, "", {"role": "assistant", "content": ""})
            piece = first
            while piece is not None:
                yield chunk(run_id, asked.model, "", {"content": piece})
                piece = await pieces.get()
            try:
                answer = await run
            except RequestError as error:
                yield event(error.to_dict())
                return
            yield last_chunks(run_id, asked.model, "", answer.turn, first is not None, asked.wants_usage)

        return StreamingResponse(events(), media_type="text/event-stream")

    def _job(self, asked: ChatRequest, body: dict[str, Any]) -> Job:
        """What a request is: an episode that is played here, or one message of a conversation that the client leads."""
        shown, withheld = conversation_of(body)
        # 31 bits: there are servers that keep a seed in a signed 32-bit number
        sampling = sampling_of(asked, body, secrets.randbits(31), self._temperature)
        task = asked.task or TaskContext()
        turn = TurnJob(shown, sampling, task.task_id or "traffic", task.task_type, withheld)
        words = asked.words
        if asked.says_tools or (words is None and asked.task is None):
            return turn
        if words is None:
            raise RequestError(
                400,
                "messages: with `task` the workflow's agent has its own instructions, takes one user message of text, "
                "and plays the whole episode. Say which `tools` there are to lead the conversation yourself",
                param="messages",
            )
        payload = {"prompt": words} if task.payload is None else task.payload
        case = Task(turn.task_id, task.task_type or "unknown", "traffic", payload)
        return EpisodeJob(self._factory, case, sampling, words, None if asked.task else turn)

    async def models(self, request: Request) -> Response:
        """The workflow is the one model: which release answers is the gateway's business."""
        self._key(request)
        return JSONResponse(models([self._gateway.workflow.name], self._created))

    async def model(self, request: Request) -> Response:
        self._key(request)
        if request.path_params["name"] != self._gateway.workflow.name:
            raise self._no_such_model()
        return JSONResponse(models([self._gateway.workflow.name], self._created)["data"][0])

    async def feedback(self, request: Request) -> Response:
        """What became of a run; it may be long over, or not ingested yet."""
        self._key(request)
        said, _ = await self._read(request, Feedback)
        labels = {name: getattr(said, name) for name in LABELS}
        if not any(value is not None for value in labels.values()):
            raise RequestError(400, f"say at least one of {', '.join(LABELS)}")
        try:
            now = utc_iso(datetime.now(UTC).isoformat())
            labelled_at = min(past_time("labelled_at", said.labelled_at or now), now)  # a client's clock may be ahead
        except AgentRLError as error:
            raise RequestError(400, str(error)) from error
        self._gateway.feedback(said.run_id, labelled_at, labels)
        return JSONResponse({"run_id": said.run_id, "labelled_at": labelled_at}, status_code=202)

    async def description(self, request: Request) -> Response:
        return JSONResponse(self._openapi)

    # --- both, and administration -------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """The process is there."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """A champion is loaded."""
        loaded = self._gateway.champion is not None
        return JSONResponse({"ready": loaded}, status_code=200 if loaded else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._gateway.metrics.text(), media_type="text/plain; version=0.0.4")

    async def status(self, request: Request) -> Response:
        self._key(request, admin=True)
        return JSONResponse(self._gateway.status())

    async def fail_back(self, request: Request) -> Response:
        """A person ends the canary at once."""
        key = self._key(request, admin=True)
        said, _ = await self._read(request, FailBack)
        ended = self._gateway.fail_back(by=key.name, why=said.why)
        if not ended:
            raise RequestError(409, "there is no canary", code="no_canary")
        return JSONResponse({"failed_back": ended})

    # --- what every route needs ---------------------------------------------------------------------------------------

    def _key(self, request: Request, admin: bool = False) -> Key:
        """The API key of a request. RequestError: 401 without a known one, 403 where it is not enough."""
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        key = self._keys.check(presented.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise RequestError(401, "give a valid API key: `Authorization: Bearer ...`", code="invalid_api_key")
        if admin and not key.admin:
            raise RequestError(403, "this needs an admin key", "permission_error")
        return key

    async def _read(self, request: Request, model: type[Model]) -> tuple[Model, dict[str, Any]]:
        """The body as the model has it. RequestError: 408, 413, 415, 400."""
        options = self._gateway.options
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _JSON_TYPES:
            raise RequestError(415, "send the body as application/json")
        too_large = RequestError(413, f"the body is larger than {options.max_body_bytes} bytes")
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > options.max_body_bytes:
            raise too_large
        data = bytearray()
        try:
            async with asyncio.timeout(options.body_seconds):
                async for piece in request.stream():
                    data += piece
                    if len(data) > options.max_body_bytes:
                        raise too_large
        except TimeoutError as error:
            raise RequestError(408, f"the body did not arrive within {options.body_seconds:g} s") from error
        except ClientDisconnect as error:
            raise RequestError(400, "the client went away before its request was whole") from error
        return read_body(model, bytes(data))

    def _no_such_model(self) -> RequestError:
        name = self._gateway.workflow.name
        return RequestError(404, f"there is one model here: '{name}'", code="model_not_found", param="model")


class FailBack(BaseModel, extra="forbid"):
    """Why the canary is ended."""

    why: Annotated[str, Field(pattern=r"\S", max_length=2000)]


class PatientSender:
    """Gives up on a client that does not take a piece of its answer in time."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        with suppress(TimeoutError):
            await self._app(scope, receive, send_in_time)


def _header(request: Request, name: str) -> str | None:
    value = request.headers.get(name)
    if value is not None and not 0 < len(value) <= 512:
        raise RequestError(400, f"{name}: between 1 and 512 characters")
    return value


def _channel_headers(answer: Answer) -> dict[str, str]:
    return {"x-agentrl-channel": answer.channel, "x-agentrl-release": answer.release[:12]}


async def _request_error(request: Request, error: RequestError) -> Response:
    headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}, 408: {"connection": "close"}}
    return JSONResponse(error.to_dict(), status_code=error.status, headers=headers.get(error.status))


async def _http_error(request: Request, error: HTTPException) -> Response:
    said = RequestError(error.status_code, error.detail)
    return JSONResponse(said.to_dict(), status_code=error.status_code, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    said = RequestError(500, "the gateway failed; the run was not answered", "api_error")
    return JSONResponse(said.to_dict(), status_code=500)
