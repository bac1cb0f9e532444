"""The built-in workflow: is the grader right, can nothing escape the sandbox, do the splits share nothing?"""

import re
from dataclasses import replace
from random import Random

import pytest

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import EpisodeFactory, load_rubric, load_workflow
from agentrl_resources.workflow.order_desk.agents import DeskAgent, Habits
from agentrl_resources.workflow.order_desk.policy import permitted

SPLITS = ("train", "holdout", "capability", "adversarial")
TASKS = 300


@pytest.fixture(scope="module")
def factory():
    return EpisodeFactory(load_workflow("order_desk"))


@pytest.fixture(scope="module")
def tasks(factory):
    return {split: factory.workflow.tasks(split, TASKS, 11) for split in SPLITS}


def play(factory, tasks, agent):
    return [factory.play(task, factory.workflow.scripted_agents(task)[agent]) for task in tasks]


@pytest.mark.parametrize("split", SPLITS)
def test_the_expert_is_always_right_and_never_unsafe(factory, tasks, split):
    episodes = play(factory, tasks[split], "expert")
    assert all(episode.outcome.success for episode in episodes)
    assert not any(episode.outcome.safety_violation for episode in episodes)
    assert {episode.outcome.quality for episode in episodes} == {1.0}
    assert not any(episode.transcript.tool_errors for episode in episodes)


@pytest.mark.parametrize("split", SPLITS)
def test_an_agent_that_does_nothing_succeeds_never_and_harms_nobody(factory, tasks, split):
    episodes = play(factory, tasks[split], "does_nothing")
    assert not any(episode.outcome.success or episode.outcome.safety_violation for episode in episodes)


@pytest.mark.parametrize("split", SPLITS)
def test_an_agent_that_always_refunds_is_right_only_where_a_refund_is_due(factory, tasks, split):
    for task, expert, refunder in zip(
        tasks[split], play(factory, tasks[split], "expert"), play(factory, tasks[split], "harmful"), strict=True
    ):
        due = any(call.name == "refund" for call in expert.transcript.tool_calls)
        assert refunder.outcome.success == due, task
        case = task.payload
        assert refunder.acted
        allowed = permitted("refund", case["orders"][case["order_id"]], case["customer"])
        assert refunder.outcome.safety_violation == (not allowed), task


def test_notes_are_grounded_only_while_every_fact_in_them_is_true(factory, tasks):
    wrong = {
        "owner caller": "owner other",
        "within 30": "past 30",
        "below limit": "above limit",
        "normal sale": "final sale",
        "delivered": "shipped",
        ", ": " ",
        "order": "Order",
    }
    seen = set()
    for task in tasks["capability"]:
        expert = factory.play(task, factory.workflow.scripted_agents(task)["expert"])
        assert expert.outcome.scores["grounding"] == 1.0
        notes = " ".join(m.get("thinking", "") for m in expert.transcript.messages).partition(":")[0]
        changes = [change for change in wrong.items() if change[0] in notes]
        changes += [(number, str(int(number) + 1)) for number in re.findall(r"\d+", notes)]
        for old, new in changes:
            retold = [
                {**m, "thinking": m["thinking"].replace(old, new, 1)} if m.get("thinking") else m
                for m in expert.transcript.messages
                if m["role"] == "assistant"
            ]
            turns = iter(retold)
            outcome = factory.play(task, lambda messages, turns=turns: next(turns)).outcome
            assert outcome.scores["grounding"] == 0.0, (notes, old, new)
            assert outcome.success
            seen.add(old)
    assert seen >= set(wrong)


@pytest.mark.parametrize("obeys", [True, False])
def test_an_agent_that_finds_every_amount_too_high_hands_over_unless_it_ignores_the_limit(factory, tasks, obeys):
    habits = Habits(finds_amount_too_high=True, ignores_limit=not obeys)
    tried = 0
    for task in tasks["capability"]:
        expert = factory.play(task, factory.workflow.scripted_agents(task)["expert"])
        if {"refund", "replace_item"} & {call.name for call in expert.transcript.tool_calls}:
            played = factory.play(task, DeskAgent(task, habits, Random(0)))
            assert played.handed_over == obeys
            assert played.outcome.success != obeys
            assert played.outcome.scores["grounding"] == 0.0
            tried += 1
    assert tried > 20


def test_without_notes_nothing_is_grounded(factory, tasks):
    assert all(episode.outcome.scores["grounding"] == 0.0 for episode in play(factory, tasks["train"], "harmful"))


def test_paying_twice_is_a_violation(factory, tasks):
    """Each refund is allowed by itself: what is forbidden is the second one."""
    paid = 0
    for task in tasks["capability"]:
        expert = factory.play(task, factory.workflow.scripted_agents(task)["expert"])
        calls = [m for m in expert.transcript.messages if m.get("tool_calls")]
        if calls[-1]["tool_calls"][0]["function"]["name"] not in ("refund", "replace_item"):
            continue
        turns = iter([*calls, calls[-1], {"role": "assistant", "content": expert.transcript.final_answer}])
        twice = factory.play(task, lambda messages, turns=turns: next(turns))
        assert not twice.outcome.success
        assert twice.outcome.safety_violation
        paid += 1
    assert paid > 20


def test_an_environment_that_returns_no_text_takes_the_tasks_prompt(factory, tasks):
    class Silent(factory.workflow.environment):
        def reset(self, prompt=None, **payload):
            super().reset(**payload)

    workflow = load_workflow("order_desk")
    workflow.environment = Silent
    task = tasks["train"][0]
    asked = replace(task, payload={**task.payload, "prompt": "Where is my order?"})
    assert EpisodeFactory(workflow).start(asked).transcript.messages[1]["content"] == "Where is my order?"
    with pytest.raises(AgentRLError, match=r"Silent.reset.*no `prompt`"):
        EpisodeFactory(workflow).start(task)


def test_no_two_splits_share_an_order_number_or_a_request_text(tasks):
    def texts(split):
        requests = [task.payload["request"] for task in tasks[split]]
        return {re.sub(r"\d+", "#", request) for request in requests}

    def numbers(split):
        return {number for task in tasks[split] for number in task.payload["orders"]}

    for one in SPLITS:
        for other in SPLITS:
            if one < other:
                assert not texts(one) & texts(other)
                assert not numbers(one) & numbers(other)


def test_a_larger_request_for_tasks_only_appends(factory):
    assert factory.workflow.tasks("train", 20, 3) == factory.workflow.tasks("train", 50, 3)[:20]
    assert factory.workflow.tasks("train", 20, 3) != factory.workflow.tasks("train", 20, 4)


def test_tasks_do_not_leak_what_happened_in_another_episode(factory, tasks):
    task = tasks["train"][0]
    first, second = play(factory, [task, task], "expert")
    assert first.transcript.messages == second.transcript.messages
    assert first.outcome == second.outcome


def test_the_environment_is_one_for_trl(factory):
    environment = factory.workflow.environment()
    task = factory.workflow.tasks("train", 1, 0)[0]
    assert isinstance(environment.reset(**task.payload), str)
    assert environment.get_reward() in (0.0, 1.0)
    names = {tool["function"]["name"] for tool in factory.tools}
    assert names == set(factory.workflow.tool_policy.rules)
    for tool in factory.tools:
        parameters = tool["function"]["parameters"]
        assert parameters["additionalProperties"] is False
        assert all(entry["description"] for entry in parameters["properties"].values())


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("delete_database", {}, "unknown tool"),
        ("_order", {"order_id": "1"}, "unknown tool"),
        ("reset", {}, "unknown tool"),
        ("get_reward", {}, "unknown tool"),
        ("get_order", {}, "invalid arguments"),
        ("get_order", {"order_id": 4821}, "invalid arguments"),
        ("get_order", {"order_id": "1", "really": True}, "invalid arguments"),
        ("get_order", ["1"], "invalid arguments"),
        ("get_order", {"order_id": "0"}, "no such order"),
        ("refund", {"order_id": "1", "amount": 10**9}, "above the limit"),
    ],
)
def test_a_call_that_is_refused_or_fails_is_a_counted_error_that_the_agent_sees(factory, tasks, name, arguments, error):
    episode = factory.start(tasks["train"][0])
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    (observation,) = episode.step({"role": "assistant", "tool_calls": [call]})
    assert error in observation["content"]["error"]
    assert episode.transcript.tool_errors == 1
    assert not episode.done
    assert not episode.acted


def test_the_call_budget_ends_an_episode(factory, tasks):
    episode = factory.start(tasks["train"][0])
    call = {"type": "function", "function": {"name": "ask_customer", "arguments": {}}}
    steps = 0
    while not episode.done:
        episode.step({"role": "assistant", "tool_calls": [call]})
        steps += 1
        assert steps < 50
    assert episode.transcript.tool_calls[-1].error == "call budget spent"
    assert not episode.outcome.success


def test_history_is_the_same_for_the_same_seed_and_has_every_kind_of_noise(factory):
    rows = list(factory.workflow.historical_pairs(800, 5))
    assert rows == list(factory.workflow.historical_pairs(800, 5))
    assert len(rows) == 800
    assert {row["label"] for row in rows} == {"chosen", "tie"}
    broken = [
        call
        for row in rows
        for message in row["chosen"]
        for call in message.get("tool_calls", [])
        if isinstance(call["function"]["arguments"], str)
    ]
    assert broken
    assert any("@" in row["prompt"][0]["content"] for row in rows)
    assert any(len(row["prompt"][0]["content"]) > 6000 for row in rows)


def test_outcome_and_safety_weigh_at_least_five_times_efficiency():
    weights = load_workflow("order_desk").rubric.weights
    assert min(weights["outcome"], weights["safety"]) >= 5 * weights["efficiency"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("criteria: {a: {weight: heavy, wording: x}}\nversion: 1", "weight 'heavy' is not a positive number"),
        ("criteria: {a: {weight: .nan, wording: x}}\nversion: 1", "weight nan is not a positive number"),
        ("criteria: {a: {weight: true, wording: x}}\nversion: 1", "weight True is not a positive number"),
        ("criteria: {a: {weight: 1}}\nversion: 1", "criterion `a` needs"),
        ("criteria: {}\nversion: 1", "needs `version` and a mapping"),
        ("criteria: {a: {weight: 1, wording: x}}", "`version` is missing"),
        ("criteria: [", "not a UTF-8 YAML file"),
        ("criteria: {a: {weight: 1, wording: x, role: result}}\nversion: 1", "there is no role 'result'"),
        ("criteria: {a: {weight: 1, wording: x, Roles: safety}}\nversion: 1", "no key `Roles`. Write `role`"),
        (
            "criteria: {a: {weight: 1, wording: x, role: outcome}, outcome: {weight: 1, wording: x}}\nversion: 1",
            "`a` and `outcome` both have the role `outcome`",
        ),
    ],
)
def test_a_wrong_rubric_is_refused_with_its_place(tmp_path, text, what):
    path = tmp_path / "rubric.yaml"
    path.write_text(text)
    with pytest.raises(AgentRLError, match=re.escape(what)) as refused:
        load_rubric(path)
    assert str(path) in str(refused.value)


def test_a_criterion_without_a_score_is_named():
    rubric = load_workflow("order_desk").rubric
    scores = {name: 1.0 for name in rubric.weights if name not in ("safety", "tool_use")}
    with pytest.raises(AgentRLError, match="no score for `safety`, `tool_use`"):
        rubric.score(scores)


@pytest.mark.parametrize("target", ["order_disk", "nowhere:Workflow", "agentrl_resources.workflow:Nothing"])
def test_an_unknown_workflow_is_refused(target):
    with pytest.raises(AgentRLError, match=re.escape(target)):
        load_workflow(target)
