"""The gateway over real HTTP: OpenAI's own client, sticky arms, fallback, records."""

import asyncio
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from gateways import WORKFLOW, Running, ask, client, context, raw, running, sessions_of, settings_with, tasks
from hypothesis import given
from hypothesis import strategies as st

from agentrl_resources.canary import ScriptedBackend
from agentrl_resources.gateway import UnderWay, bucket, goes_to_canary
from agentrl_resources.release import BUCKETS
from agentrl_resources.workflow import Task

# --- the protocol -----------------------------------------------------------------------------------------------------


def test_the_official_client_lists_the_model_and_gets_a_right_answer(served: Running) -> None:
    assert [model.id for model in client(served).models.list()] == ["order_desk"]
    assert client(served).models.retrieve("order_desk").owned_by == "agentrl"
    task = tasks(1)[0]
    answer = ask(served, task)
    record = next(record for record in served.records() if record.run_id == answer.id)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == record.trace["messages"][-1]["content"] != ""
    assert record.success
    assert (record.task_id, record.task_type, record.simulated) == (task.task_id, task.task_type, True)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (record.tokens_in, record.tokens_out)


def test_a_streamed_answer_is_the_plain_one_in_pieces(served: Running) -> None:
    task = tasks(1)[0]
    plain = ask(served, task)
    chunks = list(ask(served, task, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage == plain.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[0].id in {record.run_id for record in served.records()}


def test_unknown_models_are_refused_as_openai_does(served: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="there is one model here: 'order_desk'"):
        client(served).chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.NotFoundError):
        client(served).models.retrieve("gpt-4")


# --- routing ----------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1), st.text(min_size=1), st.floats(0, 50), st.floats(0, 50))
def test_ramping_only_adds_sessions(salt: str, session: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert goes_to_canary(salt, session, high) or not goes_to_canary(salt, session, low)
    assert 0 <= bucket(salt, session) < BUCKETS


def test_five_percent_of_a_hundred_thousand_sessions_and_other_ones_with_another_salt() -> None:
    n = 100_000
    first = {s for s in range(n) if goes_to_canary("one", str(s), 5)}
    second = {s for s in range(n) if goes_to_canary("other", str(s), 5)}
    # five standard deviations of a binomial
    assert abs(len(first) - 0.05 * n) < 5 * (n * 0.05 * 0.95) ** 0.5
    assert abs(len(first & second) - 0.0025 * n) < 5 * (n * 0.0025) ** 0.5


def test_both_arms_stick_and_records_say_which(fresh: Running) -> None:
    fresh.start_canary(50)
    names = sessions_of(fresh, True, 50, 6) + sessions_of(fresh, False, 50, 6)
    for _ in range(2):
        for task, name in zip(tasks(12), names, strict=True):
            ask(fresh, task, name)
    records = fresh.records()
    arms = [record.assigned_channel for record in records]
    assert arms == (["canary"] * 6 + ["general"] * 6) * 2
    assert {record.canary_percent for record in records} == {50.0}
    assert {record.release_id for record in records[:6]} == {fresh.releases["canary"]}
    hashes = [record.session_key_hash for record in records]
    assert hashes[:12] == hashes[12:]
    assert len(set(hashes)) == 12
    assert not any(name in str(record) for record in records for name in names)


# --- fallback ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "failure"), [("crashing", "error"), ("hanging", "timeout")])
def test_a_canary_that_fails_is_replaced_and_the_failure_is_its_own(fresh: Running, kind: str, failure: str) -> None:
    fresh.start_canary(50)
    fresh.fault.kind = kind
    answer = ask(fresh, tasks(1)[0], sessions_of(fresh, True, 50, 1)[0])
    (record,) = fresh.records()
    assert answer.choices[0].message.content
    assert record.fallback
    assert (record.assigned_channel, record.served_channel) == ("canary", "general")
    assert record.release_id == fresh.releases["canary"]
    assert record.trace["failure"]["kind"] == failure
    assert record.success


class WritesThenFails(ScriptedBackend):
    """An agent that refunds and then breaks, or hangs."""

    def __init__(self) -> None:
        super().__init__(lambda task, seed: WORKFLOW.scripted_agents(task)["harmful"])

    def converse(self, task: Task, sampling: Any) -> Any:
        conversation = super().converse(task, sampling)
        turn = conversation.turn

        async def breaking(messages: Any, on_text: Any = None) -> Any:
            if messages[-1].get("name") == "refund":
                raise RuntimeError("customer Ada said something private")
            return await turn(messages, on_text)

        conversation.turn = breaking  # type: ignore[method-assign]
        return conversation


def test_nothing_is_replayed_after_a_tool_with_side_effects(fresh: Running, caplog: Any, capfd: Any) -> None:
    fresh.start_canary(50)
    assert fresh.gateway.canary is not None
    fresh.gateway.canary.backend = WritesThenFails()
    refund = next(task for task in tasks(50) if task.task_type == "refund")
    with pytest.raises(openai.InternalServerError, match="a person has to take over"):
        ask(fresh, refund, sessions_of(fresh, True, 50, 1)[0])
    (record,) = fresh.records()
    assert not record.fallback
    assert record.served_channel is None
    assert record.success is False
    assert record.trace["failure"] == {"kind": "error", "said": "RuntimeError", "side_effects": True}
    assert [call["name"] for call in record.trace["tool_calls"]].count("refund") == 1
    assert "private" not in caplog.text + "".join(capfd.readouterr())


def test_the_breaker_ends_a_crashing_canary_and_says_when(fresh: Running) -> None:
    fresh.start_canary(50)
    fresh.fault.kind = "crashing"
    names = sessions_of(fresh, True, 50, 20)
    injected = time.time()
    for task, name in zip(tasks(20), names, strict=True):
        ask(fresh, task, name)
        if fresh.gateway.canary is None:
            break
    assert len(fresh.records()) <= 5
    fresh.wait(lambda: fresh.registry.pointers().canary is None)
    fresh.wait(fresh.events)
    (event,) = fresh.events()
    times = [injected, *(event[name] for name in ("detected_at", "decided_at", "swapped_at", "pointer_at"))]
    assert times == sorted(times)
    assert event["by"] == "breaker"
    assert event["release"] == fresh.releases["canary"]
    assert ask(fresh, tasks(1)[0], names[0]).choices[0].message.content
    assert fresh.records()[-1].assigned_channel == "general"
    assert fresh.registry.pointers().who == "gateway"


def test_unsafe_answers_trip_the_breaker_and_a_healthy_canary_does_not(fresh: Running) -> None:
    fresh.start_canary(50)
    names = sessions_of(fresh, True, 50, 60)
    for task, name in zip(tasks(20), names[:20], strict=True):
        ask(fresh, task, name)
    assert fresh.gateway.canary is not None
    fresh.fault.kind = "unsafe"
    for task, name in zip(tasks(40), names[20:], strict=True):
        ask(fresh, task, name)
    assert fresh.gateway.canary is None
    fresh.wait(fresh.events)
    assert fresh.events()[0]["cause"] == "safety violations"


def test_hanging_runs_are_taken_over_when_the_canary_ends(tmp_path: Path) -> None:
    """Nobody waits for the time limit of a canary that is gone."""
    with running(tmp_path, settings_with(canary_seconds=30.0)) as served:
        served.start_canary(50)
        served.fault.kind = "hanging"
        name = sessions_of(served, True, 50, 1)[0]
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(ask(served, tasks(1)[0], name)))
        waiting.start()
        assert served.gateway.canary is not None
        under_way = served.gateway.canary.under_way
        served.wait(lambda: not under_way.none_left.is_set())
        status, said = raw(served, "POST", "/admin/fail-back", {"why": "a test"}, admin=True)
        assert (status, said["failed_back"]) == (200, served.releases["canary"])
        waiting.join(5)
        assert answers[0].choices[0].message.content
        served.wait(served.events)
        assert served.records()[0].trace["failure"]["kind"] == "cut"


def test_an_attempt_whose_time_is_just_up_does_not_keep_the_canary_from_ending() -> None:
    """Its deadline cannot be moved any more; the others are cut all the same."""

    async def ended() -> tuple[bool, bool]:
        under_way, moments = UnderWay(), []

        async def attempt(seconds: float) -> None:
            try:
                async with asyncio.timeout(seconds) as deadline:
                    under_way.begin(deadline, lambda: True)
                    try:
                        await asyncio.Event().wait()
                    finally:
                        moments.append(under_way.end(deadline))
            except TimeoutError:
                pass

        first, other = asyncio.create_task(attempt(0.01)), asyncio.create_task(attempt(60))
        await asyncio.sleep(0)
        time.sleep(0.02)  # both the timeout and the next line are due in the same turn of the loop
        asyncio.get_running_loop().call_later(0, under_way.cut)
        await asyncio.wait_for(asyncio.gather(first, other), 5)
        return moments[0], moments[1]

    assert asyncio.run(ended()) == (False, True)


# --- the pointers -----------------------------------------------------------------------------------------------------


def test_a_rollback_by_pointer_reaches_traffic_without_a_restart(fresh: Running) -> None:
    seen = fresh.registry.pointers()
    fresh.registry.swap(
        "test", who="test", why="test", seen=seen, champions=(*seen.champions, fresh.releases["canary"])
    )
    fresh.wait(lambda: fresh.gateway.champion.release == fresh.releases["canary"])  # type: ignore[union-attr]
    fresh.registry.rollback(who="test", why="test", seen=fresh.registry.pointers())
    fresh.wait(lambda: fresh.gateway.champion.release == fresh.releases["champion"])  # type: ignore[union-attr]
    assert ask(fresh, tasks(1)[0]).choices[0].message.content


def test_a_canary_that_cannot_be_loaded_is_set_back(fresh: Running) -> None:
    release = fresh.registry.add({"name": "broken", "artifacts": {}, "settings": {}})
    fresh.gateway._load = None  # type: ignore[assignment]
    seen = fresh.registry.pointers()
    fresh.registry.swap("test", who="test", why="test", seen=seen, canary=release, canary_percent=5.0)
    fresh.wait(lambda: fresh.registry.pointers().canary is None)
    assert "cannot be loaded" in fresh.registry.pointers().why
    assert ask(fresh, tasks(1)[0]).choices[0].message.content


# --- feedback and metrics ---------------------------------------------------------------------------------------------


def test_feedback_becomes_labels_of_the_run(served: Running) -> None:
    answer = ask(served, tasks(1)[0])
    labelled = {"run_id": answer.id, "human_override": True, "labelled_at": "2026-11-24T09:00:00+01:00"}
    assert raw(served, "POST", "/v1/feedback", labelled)[0] == 202
    text = "".join(file.read_text() for file in (served.home / "spool").glob("*.jsonl"))
    labels = [line for line in map(json.loads, text.splitlines()) if line["kind"] == "label"]
    assert labels == [{"kind": "label", "run_id": answer.id, "labelled_at": "2026-11-24T08:00:00.000000Z",
                       "human_override": True}]  # fmt: skip


def test_an_override_that_is_reported_later_is_charged_to_its_run(fresh: Running) -> None:
    from agentrl_resources.telemetry import Warehouse

    answers = [ask(fresh, task) for task in tasks(3)]
    for answer in answers:
        raw(fresh, "POST", "/v1/feedback", {"run_id": answer.id, "human_override": True, "success": False})
    warehouse = Warehouse(fresh.home / "warehouse.duckdb")
    warehouse.ingest_spool(fresh.home / "spool")
    prices = WORKFLOW.prices
    for row in warehouse.query("SELECT * FROM agent_runs"):
        worked = prices.of(row["tokens_in"], row["tokens_out"], row["tool_calls_count"], True, False)
        assert row["cost"] == pytest.approx(worked)


@pytest.mark.parametrize(
    "body",
    [
        {"run_id": "chatcmpl-" + "0" * 32},
        {"run_id": "../../etc/passwd", "success": True},
        {"run_id": "chatcmpl-" + "0" * 32, "success": True, "labelled_at": "yesterday"},
        {"run_id": "chatcmpl-" + "0" * 32, "success": True, "labelled_at": "2099-01-01"},
        {"run_id": "chatcmpl-" + "0" * 32, "success": True, "labelled_at": "1970-01-01"},
        {"run_id": "chatcmpl-" + "0" * 32, "success": "true"},
        {"run_id": "chatcmpl-" + "0" * 32, "success": True, "more": 1},
    ],
)
def test_feedback_that_says_nothing_usable_is_refused(served: Running, body: dict[str, Any]) -> None:
    status, said = raw(served, "POST", "/v1/feedback", body)
    assert status == 400
    assert said["error"]["type"] == "invalid_request_error"


def test_metrics_count_what_the_spool_holds(fresh: Running) -> None:
    for task in tasks(5):
        ask(fresh, task)
    status, text = raw(fresh, "GET", "/metrics", headers={"authorization": ""}, admin=True)
    assert status == 200
    counted = {float(n) for n in re.findall(r'agentrl_runs_total\{channel="general",outcome="success"\} (\S+)', text)}
    assert counted == {float(sum(record.success is True for record in fresh.records()))} == {5.0}
    assert "agentrl_run_seconds_count" in text


# --- load and the end -------------------------------------------------------------------------------------------------


def test_too_many_at_once_are_told_to_come_back(tmp_path: Path) -> None:
    with running(tmp_path, settings_with(concurrency=1, queue=1, canary_seconds=0.6)) as served:
        served.start_canary(50)
        served.fault.kind = "hanging"
        name = sessions_of(served, True, 50, 1)[0]
        statuses: list[int] = []
        body = {"model": "order_desk", "user": name, "messages": [{"role": "user", "content": "x"}],
                "task": context(tasks(1)[0])}  # fmt: skip

        def one() -> None:
            statuses.append(raw(served, "POST", "/v1/chat/completions", body)[0])

        threads = [threading.Thread(target=one) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(statuses) == [200, 200, 429, 429, 429]
        assert len(served.records()) == 2


def test_what_is_under_way_is_finished_at_the_end(tmp_path: Path) -> None:
    answers: list[Any] = []
    with running(tmp_path, settings_with(canary_seconds=0.5)) as served:
        served.start_canary(50)
        served.fault.kind = "hanging"
        name = sessions_of(served, True, 50, 1)[0]
        waiting = threading.Thread(target=lambda: answers.append(ask(served, tasks(1)[0], name)))
        waiting.start()
        served.wait(lambda: served.gateway.status()["waiting_and_running"] == 1)
    waiting.join(5)
    assert answers[0].choices[0].message.content
    assert len(served.records()) == 1


def test_two_hundred_clients_at_once_lose_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as served:
        served.start_canary(20)

        async def all_of_them() -> list[Any]:
            async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as asked:
                return await asyncio.gather(
                    *(
                        asked.chat.completions.create(
                            model="order_desk",
                            user=str(number),
                            messages=[{"role": "user", "content": "x"}],
                            extra_body={"task": context(task)},
                        )
                        for number, task in enumerate(tasks(200))
                    )
                )

        ids = [answer.id for answer in asyncio.run(all_of_them())]
        records = served.records()
        assert sorted(record.run_id for record in records) == sorted(ids)
        assert all(record.success for record in records)
        expected = {str(n): goes_to_canary("canary", str(n), 20) for n in range(200)}
        assert sum(record.assigned_channel == "canary" for record in records) == sum(expected.values())
