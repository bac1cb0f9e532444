"""Episodes in which more happens than a request and its answer: a user who answers back, planted text, tools with
schemas of their own, several environments as one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import EpisodeFactory, Task, load_workflow
from agentrl_resources.workflow.own import OwnWorkflow, plays

SWITCH = {
    "name": "switch",
    "description": "Switches a lamp.",
    "inputSchema": {
        "type": "object",
        "properties": {"lamp": {"$ref": "#/$defs/Lamp"}, "to": {"enum": ["on", "off"]}},
        "required": ["lamp", "to"],
        "additionalProperties": False,
        "$defs": {"Lamp": {"type": "string", "minLength": 1}},
    },
}
LOOK = {"type": "function", "function": {"name": "get_lamp", "description": "Whether it is on.", "parameters": {}}}


class Served:
    """You switch lamps that a server has."""

    tools = [SWITCH, LOOK]  # noqa: RUF012
    name = "lamps"

    @classmethod
    def tasks(cls) -> Iterator[dict[str, Any]]:
        for number in range(40):
            yield {
                "prompt": f"Switch lamp {number} {'on' if number % 2 else 'off'}.",
                "wanted": "on" if number % 2 else "off",
                "reference": [{"name": "switch", "arguments": {"lamp": "a", "to": "on" if number % 2 else "off"}}],
            }

    def reset(self, wanted: str) -> None:
        self.wanted, self.now = wanted, ""

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "get_lamp":
            return {"lamp": self.now}
        self.now = arguments["to"]
        return "done"

    def get_reward(self) -> float:
        return float(self.now == self.wanted)

    def get_violation(self) -> bool:
        return self.now == "broken"


class Talking(Served):
    """You switch lamps, and ask which one."""

    def user_reply(self, text: str) -> str | None:
        return "The one in the hall." if "which" in text.casefold() else None


class Bell:
    """You ring bells."""

    def reset(self, times: int) -> str:
        self.times, self.rung = times, 0
        return f"Ring {times} times."

    async def ring(self, often: int) -> str:
        """Rings the bell.

        Args:
            often: How many times.
        """
        self.rung += often
        return "rung"

    def get_reward(self) -> float:
        return float(self.rung == self.times)


class Gong(Bell):
    """You beat gongs."""

    async def ring(self, often: int) -> str:
        """Beats the gong.

        Args:
            often: How many times.
        """
        return "beaten"


def make_bell() -> Bell:
    return Bell()


both = {"lamps": Talking, "bell": Bell}
bells = {"bell": make_bell, "second": Bell}
differing = {"bell": Bell, "gong": Gong}
nothing: dict[str, Any] = {}


class Lamp:
    def reset(self, prompt: str) -> None:
        self.prompt = prompt

    def look(self, where: str) -> dict[str, str]:
        """Looks.

        Args:
            where: The place.
        """
        return {"seen": where}

    def get_reward(self) -> float:
        return 1.0


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "tasks.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_tools_may_bring_their_schemas_and_tasks_may_come_from_the_class() -> None:
    workflow = load_workflow(f"{__name__}:Served")
    factory = EpisodeFactory(workflow)
    assert workflow.name == "lamps"
    assert [tool["function"]["name"] for tool in factory.tools] == ["get_lamp", "switch"]
    shown = factory.tools[1]["function"]["parameters"]
    assert shown["properties"]["lamp"] == {"type": "string", "minLength": 1}  # without references
    task = workflow.tasks("train", 1, 0)[0]
    episode = factory.play(task, workflow.scripted_agents(task)["expert"])
    assert episode.outcome.success
    wrong = factory.play(task, plays([("switch", {"lamp": "", "to": "on"})], "There."))
    assert wrong.transcript.tool_calls[0].error == "invalid arguments"
    assert not wrong.outcome.success


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([SWITCH, SWITCH], "two tools of the name `switch`"),
        ([{**SWITCH, "description": " "}], "`switch` has no description"),
        ([{"description": "Does it."}], "it is no function schema"),
        ([{**SWITCH, "inputSchema": {"type": "objekt"}}], "no JSON schema"),
        ([{**SWITCH, "inputSchema": {"type": "array"}}], 'must be of type "object"'),
        ([{**SWITCH, "inputSchema": {"properties": {"x": {"$ref": "#/$defs/X"}}}}], "refer to what is not there"),
        ({"switch": SWITCH}, "It is a list of function schemas"),
    ],
)
def test_what_is_no_tool_is_told_with_its_number(tools: Any, said: str) -> None:
    kind = type("Broken", (Served,), {"tools": tools})
    with pytest.raises(AgentRLError) as error:
        OwnWorkflow(kind, None)
    assert said in str(error.value)


def test_tools_without_anybody_to_run_them_are_refused() -> None:
    with pytest.raises(AgentRLError, match=r"has `tools`, but no `call`"):
        OwnWorkflow(type("Silent", (Served,), {"call": None}), None)


def test_a_user_answers_back_and_the_episode_goes_on() -> None:
    factory = EpisodeFactory(OwnWorkflow(Talking, None))
    task = factory.workflow.tasks("train", 1, 0)[0]
    steps = [("", "Which lamp do you mean?"), ("switch", {"lamp": "hall", "to": task.payload["wanted"]})]
    episode = factory.play(task, plays(steps, "It is done."))
    roles = [message["role"] for message in episode.transcript.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "tool", "assistant"]
    assert episode.transcript.messages[3]["content"] == "The one in the hall."
    assert (episode.transcript.final_answer, episode.outcome.success) == ("It is done.", True)


def test_nobody_answers_for_a_real_user() -> None:
    factory = EpisodeFactory(OwnWorkflow(Talking, None))
    episode = factory.start(factory.workflow.tasks("train", 1, 0)[0], answered=False)
    assert episode.step({"role": "assistant", "content": "Which?"}) == []
    assert episode.done


def test_replies_stand_in_the_row_and_a_reference_may_speak(tmp_path: Path) -> None:
    row = {
        "prompt": "It is dark.",
        "replies": ["In the hall.", "Thanks."],
        "reference": [{"say": "Where?"}, {"name": "look", "arguments": {"where": "hall"}}, {"say": "I see it."}],
        "answer": "You are welcome.",
    }
    workflow = OwnWorkflow(Lamp, written(tmp_path, [{**row, "task_id": str(number)} for number in range(9)]))
    task = workflow.tasks("capability", 1, 0)[0]
    episode = EpisodeFactory(workflow).play(task, workflow.scripted_agents(task)["expert"])
    said = [message["content"] for message in episode.transcript.messages if message["role"] == "user"]
    assert said == ["It is dark.", "In the hall.", "Thanks."]
    assert episode.transcript.final_answer == "You are welcome."
    archived = Task.from_dict(json.loads(json.dumps(task.to_dict())))
    once_more = EpisodeFactory(workflow).play(archived, workflow.scripted_agents(task)["expert"])
    assert once_more.transcript.messages == episode.transcript.messages


def test_a_user_who_never_stops_does_not_keep_an_episode_open() -> None:
    kind = type("Chatty", (Served,), {"user_reply": lambda self, text: "And then?"})
    factory = EpisodeFactory(OwnWorkflow(kind, None))
    episode = factory.play(factory.workflow.tasks("train", 1, 0)[0], plays([], "Well."))
    said = sum(message["role"] == "user" for message in episode.transcript.messages)
    assert said == factory.workflow.tool_policy.max_calls + 2  # its opening, and one more than there are calls


def test_planted_text_stands_once_in_what_a_reading_tool_returns() -> None:
    factory = EpisodeFactory(OwnWorkflow(Served, None))
    task = next(task for task in factory.workflow.tasks("adversarial", 40, 0) if task.task_type == "injection")
    steps = [("switch", {"lamp": "a", "to": "on"}), ("get_lamp", {}), ("get_lamp", {})]
    results = [call.result for call in factory.play(task, plays(steps, "So.")).transcript.tool_calls]
    assert results[0] == "done"
    assert results[1] == {"lamp": "on", "note": task.payload["injected"]}
    assert results[2] == {"lamp": "on"}


def test_attacks_are_on_the_evaluations_own_tasks_and_only_where_a_violation_can_be_told() -> None:
    workflow = OwnWorkflow(Served, None)
    capability, attacked = (workflow.tasks(split, 100, 0) for split in ("capability", "adversarial"))
    named = {f"{task.task_id}-{family}" for task in capability for family in ("pressure", "injection")}
    assert len(attacked) == len(capability)
    assert {task.task_id for task in attacked} <= named
    assert {task.task_type for task in attacked} == {"pressure", "injection"}
    blind = OwnWorkflow(type("Blind", (Served,), {"get_violation": None}), None)
    assert blind.tasks("adversarial", 100, 0) == []


def test_several_environments_are_one_and_a_column_says_which(tmp_path: Path) -> None:
    rows = [{"environment": name, "times": number} for number in range(12) for name in ("bell", "second")]
    workflow = load_workflow(f"{__name__}:bells", tasks=written(tmp_path, rows))
    factory = EpisodeFactory(workflow)
    task = workflow.tasks("train", 1, 0)[0]
    episode = factory.play(task, plays([("ring", {"often": task.payload["times"]})], "Rung."))
    assert episode.transcript.tool_calls[0].result == "rung"
    assert episode.outcome.success


@pytest.mark.parametrize(
    ("target", "row", "said"),
    [
        ("bells", {"times": 1}, "line 1: `environment` is None. Environments are: bell, second"),
        ("bells", {"environment": "bell", "often": 1}, "reset() takes no `often`"),
        ("differing", {"environment": "bell", "times": 1}, "two tools of one name: `ring` of bell and of gong"),
        ("both", {"environment": "bell", "times": 1}, "lists its tools"),
        ("nothing", {}, "is empty"),
    ],
)
def test_what_is_wrong_with_several_environments(tmp_path: Path, target: str, row: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentRLError) as error:
        load_workflow(f"{__name__}:{target}", tasks=written(tmp_path, [row]))
    assert said in str(error.value)


def test_a_function_that_makes_environments_will_do(tmp_path: Path) -> None:
    rows = [{"times": number} for number in range(12)]
    workflow = load_workflow(f"{__name__}:make_bell", tasks=written(tmp_path, rows))
    task = workflow.tasks("train", 1, 0)[0]
    episode = EpisodeFactory(workflow).play(task, plays([("ring", {"often": task.payload["times"]})], "Rung."))
    assert (workflow.name, episode.outcome.success) == ("bell", True)


def test_tasks_that_a_class_cannot_give_are_told(tmp_path: Path) -> None:
    def failing(cls: type) -> Any:
        raise OSError("no such database")

    def odd(cls: type) -> Any:
        return [{"wanted": {1, 2}}]

    for made, said in ((failing, r"OSError: no such database"), (odd, "set")):
        kind = type("Odd", (Served,), {"tasks": classmethod(made)})
        with pytest.raises(AgentRLError, match=said):
            OwnWorkflow(kind, None)
