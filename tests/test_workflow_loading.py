"""Loading a workflow: whatever is wrong with it is said at once, with the place and what to do."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from environments import Own

from agentrl_assets.running import _failure
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import Workflow, load_workflow

HEAD = """\
from environments import Own as Base
from agentrl_resources.workflow import *
class Shop:
    def reset(self, **payload): return None
    def stock(self, item: str) -> int:
        \"\"\"Looks.

        Args:
            item: What.
        \"\"\"
        return 3
class Mine(Base):
    environment = Shop
    tool_policy = ToolPolicy({"stock": ToolRule("read")})
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a module, and gives the target of a class in it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str, name: str = "Mine", module: str = "my_workflow") -> str:
        sys.modules.pop(module, None)
        (tmp_path / f"{module}.py").write_text(text)
        return f"{module}:{name}"

    yield write
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def refusal(target: str, rubric: Path | None = None) -> str:
    with pytest.raises(AgentRLError) as refused:
        load_workflow(target, rubric)
    assert target in str(refused.value)
    return str(refused.value)


def test_what_is_complete_is_loaded(written: Any) -> None:
    assert load_workflow(written(HEAD)).name == "own"
    assert load_workflow("order_desk").name == "order_desk"
    made = (
        HEAD
        + "def make(rubric): return Mine(rubric)\nclass Callable_:\n    def __call__(self, rubric): return Mine()\n"
    )
    assert load_workflow(written(made, "make")).name == "own"


MEMBERS = [
    "name",
    "instructions",
    "tool_policy",
    "rubric",
    "prices",
    "hand_over_tools",
    "clarifying_tools",
    "judges_traffic",
    "environment",
    "tasks",
    "verify",
    "scripted_agents",
    "historical_pairs",
    "prefer",
]


def test_the_members_are_those_of_the_protocol() -> None:
    theirs = {name for name in (*Workflow.__annotations__, *vars(Workflow)) if name[0] != "_"}
    assert theirs == set(MEMBERS)


def test_everything_that_is_missing_is_named_at_once(written: Any) -> None:
    said = refusal(written("class Mine:\n    def __init__(self, rubric): ...\n"))
    assert all(f"`{name}" in said for name in MEMBERS)
    assert "missing" in said
    assert "`verify(environment, transcript)`" in said


@pytest.mark.parametrize("name", MEMBERS)
def test_each_member_is_asked_for(written: Any, name: str) -> None:
    kept = [one for one in vars(Own) if one[0] != "_" and one != name]
    lines = "".join(f"    {one} = Base.{one}\n" for one in kept if one not in ("environment", "tool_policy"))
    own = "".join(f"    {one} = Complete.{one}\n" for one in ("environment", "tool_policy") if one != name)
    text = (
        HEAD.replace("class Mine", "class Complete")
        + "class Mine:\n    def __init__(self, rubric): ...\n"
        + lines
        + own
    )
    said = refusal(written(text))
    assert f"`{name}" in said
    assert all(f"`{other}`" not in said for other in set(MEMBERS) - {name})


def test_a_class_that_leaves_a_member_to_the_protocol_lacks_it(written: Any) -> None:
    said = refusal(
        written(
            "from agentrl_resources.workflow import Workflow\nclass Mine(Workflow):\n    def __init__(self, r): ...\n"
        )
    )
    assert all(f"`{name}" in said for name in MEMBERS)


WRONG: list[tuple[str, str]] = [
    ("name = 3", "`name` is 3. It must be text"),
    ("name = ''", "`name` is ''"),
    ("instructions = None", "`instructions` is None"),
    ("tool_policy = {}", "`tool_policy` is {}. It must be a ToolPolicy"),
    ("tool_policy = ToolPolicy", "`tool_policy` is the class ToolPolicy, not an instance"),
    ("rubric = 'rubric.yaml'", "`rubric` is 'rubric.yaml'. It must be a Rubric"),
    ("prices = Prices", "`prices` is the class Prices, not an instance"),
    ("hand_over_tools = 'stock'", "`hand_over_tools` is 'stock'"),
    ("clarifying_tools = {3}", "`clarifying_tools` is {3}"),
    ("judges_traffic = None", "`judges_traffic` is None. It must be True or False"),
    ("environment = Shop()", "not an instance"),
    ("environment = type('Needs', (Shop,), {'__init__': lambda self, url: None})", "cannot be made without arguments"),
    ("environment = type('Bare', (), {})", "Bare has no method `reset`"),
    ("tasks = []", "`tasks` is []"),
    ("def prefer(self, first): return 0", "`prefer(first, second, seed)` cannot be called with these arguments"),
    ("def verify(self, environment, transcript, more): ...", "`verify(environment, transcript)` cannot be called"),
    ("tool_policy = ToolPolicy({'stock': 'read'})", "`tool_policy` has 'read' for `stock`"),
    ("tool_policy = ToolPolicy({'stok': ToolRule('read')})", "`stok` is no tool of Shop"),
    ("tool_policy = ToolPolicy({'stock': ToolRule('read', limits={'amount': 3})})", "limits `amount` of `stock`"),
    ("prices = property(lambda self: 1 / 0)", "`prices` cannot be read (ZeroDivisionError"),
]


@pytest.mark.parametrize(("line", "what"), WRONG, ids=[line[:40] for line, _ in WRONG])
def test_a_member_that_is_wrong_is_named_with_what_it_should_be(written: Any, line: str, what: str) -> None:
    assert what in refusal(written(HEAD + f"    {line}\n"))


def test_reference_agents_of_a_kind_that_a_workflow_has_not_are_not_asked_for(written: Any) -> None:
    assert "harmful" not in load_workflow(written(HEAD)).scripted_agents(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "import not_installed_anywhere\n",
            "importing my_workflow failed: ModuleNotFoundError: No module named 'not_in",
        ),
        ("from json import nothing_like_it\n", "importing my_workflow failed: ImportError"),
        ("def broken(:\n", "importing my_workflow failed: SyntaxError"),
        ("x = 1\ny = x.missing\n", "importing my_workflow failed: AttributeError"),
        ("raise SystemExit('no')\n", "importing my_workflow failed: SystemExit: no"),
        (HEAD + "    def __init__(self): ...\n", "takes one argument, a rubric file or None"),
        (HEAD + "    def __init__(self, rubric): raise ValueError('not ready')\n", "ValueError: not ready"),
        (HEAD + "Mine = Mine(None)\n", "is an instance of Mine. Name its class"),
        (HEAD.replace("Mine", "Mime"), "has no `Mine` (nearest: Mime)"),
    ],
)
def test_what_is_wrong_with_the_users_module_is_said_as_such(written: Any, text: str, what: str) -> None:
    said = refusal(written(text))
    assert what in said
    assert "PYTHONPATH" not in said


def test_an_error_in_the_users_code_says_where(written: Any) -> None:
    assert "my_workflow.py, line 2)" in refusal(written("x = 1\ny = x.missing\n"))


@pytest.mark.parametrize("target", ["my_nowhere:Mine", "my_nowhere.deep.er:Mine", "my/flow.py:Mine"])
def test_a_wrong_name_is_said_as_such(target: str) -> None:
    assert "there is no module" in refusal(target)
    assert "PYTHONPATH" in refusal(target)


@pytest.mark.parametrize("target", [":Mine", ".flow:Mine", "order_disk"])
def test_what_is_no_name_is_said_as_such(target: str) -> None:
    assert "package.module:Class" in refusal(target)


def test_a_run_says_what_the_error_for_people_says_and_not_what_caused_it() -> None:
    @dg.op
    def load() -> None:
        load_workflow("my_nowhere:Mine")

    @dg.op
    def plain() -> None:
        try:
            raise ValueError("the deepest")
        except ValueError as error:
            raise RuntimeError("on top") from error

    @dg.job
    def both() -> None:
        load()
        plain()

    result = both.execute_in_process(raise_on_error=False)
    said = sorted(filter(None, map(_failure, result.all_events)))
    assert said[0].startswith("load: workflow `my_nowhere:Mine` cannot be loaded: there is no module my_nowhere.")
    assert said[1:] == ["plain: ValueError: the deepest"]
