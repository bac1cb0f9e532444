"""The tutorial is run from its first command to its last, and what the guides name is there.

Here a stand-in takes the place of what learns and samples; the rest is real, up to the gates. With
AGENTRL_TUTORIAL=whole (`make tutorial`) nothing is left out, and it has to be over in 15 minutes.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, STAND_IN

from agentrl_assets.cli import _parser
from agentrl_resources.settings import GATES, Settings, load_settings
from agentrl_resources.workflow import Workflow
from agentrl_resources.workflow.rows import OF_THE_FILE, SPLITS

STARTER = ROOT / "agentrl_resources" / "starters" / "trl"
TUTORIAL = ROOT / "docs" / "your-workflow.md"
SKILL = ROOT / "skills" / "agentrl" / "SKILL.md"
GUIDES = [TUTORIAL, SKILL, ROOT / "AGENTS.md", STARTER / "README.md"]
WRITTEN = {"tasks.jsonl", "pairs.jsonl", "tests/test_NAME.py"}
"""Files that a guide may name before they are there."""
WHOLE = os.environ.get("AGENTRL_TUTORIAL") == "whole"
MINUTES = 15
"""What the whole tutorial may take."""


def inline(text: str) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def blocks(text: str) -> list[list[str]]:
    """The commands of each block of indented code that begins with one."""
    found = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    commands = [[line.strip() for line in block.splitlines()] for block in found]
    return [lines for lines in commands if lines[0].startswith("agentrl ")]


def commands(text: str) -> Iterator[list[str]]:
    for line in [*(line for block in blocks(text) for line in block), *inline(text)]:
        words = shlex.split(line, comments=True) if re.match(r"(\.venv/bin/)?agentrl \S", line) else []
        if words:
            yield words[1:] if words[2:] else [words[1], "--help"]  # one word only names the command


def understood(arguments: list[str]) -> bool:
    try:
        _parser().parse_args(arguments)
    except SystemExit as done:
        return done.code == 0  # as --help ends
    return True


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.parent.name + "/" + guide.name)
class TestWhatAGuideNames:
    def test_each_command_and_option_is_there(self, guide: Path) -> None:
        found = [*commands(guide.read_text())]
        assert found
        assert not [arguments for arguments in found if not understood(arguments)]

    def test_each_file_is_there(self, guide: Path) -> None:
        text = guide.read_text()
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        assert all((guide.parent / link).exists() for link in links), links
        for name in inline(text):
            if re.fullmatch(r"[\w./-]+\.(py|md|jsonl|yaml|toml)", name) and name not in WRITTEN:
                assert any((folder / name).exists() for folder in (guide.parent, ROOT, STARTER)), name

    def test_each_setting_is_there(self, guide: Path, tmp_path: Path) -> None:
        for code in inline(guide.read_text()):
            if re.match(r"\w+: \{", code):
                file = tmp_path / "workflow.yaml"
                file.write_text(json.dumps({"workflow": {"target": "order_desk"}} | yaml.safe_load(code)))
                load_settings(file)


def test_the_fields_of_a_task_are_those_of_the_table() -> None:
    (table,) = re.findall(r"\| field \|.*?\n\n", TUTORIAL.read_text(), re.DOTALL)
    rows = {line.split("|")[1].strip(): line for line in table.splitlines()[2:] if line}
    assert {*rows} == {f"`{name}`" for name in (*OF_THE_FILE, "replies")}
    assert {*SPLITS} < {*inline(rows["`split`"])}


def test_what_replaces_a_derived_part_is_a_name_that_counts() -> None:
    (table,) = re.findall(r"\| what \| from \|.*?\n\n", TUTORIAL.read_text(), re.DOTALL)
    named = {re.split(r"\W", code)[0] for line in table.splitlines()[2:] if line for code in inline(line.split("|")[3])}
    members = {*Workflow.__annotations__, "simulated"}
    assert "tool_policy" in named
    assert named <= {*OF_THE_FILE, *Settings.model_fields} | members


def test_the_skill_is_one_that_agents_find() -> None:
    text = SKILL.read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["name"] == SKILL.parent.name
    assert 50 < len(head["description"]) < 1024
    assert len(text.splitlines()) < 60


def test_the_tutorial_runs_from_a_blank_folder_to_the_gates(tmp_path: Path) -> None:
    (lines,) = blocks(TUTORIAL.read_text())
    assert [line.split()[1] for line in lines if line.startswith("agentrl")] == ["init", "doctor", "run", "gates"]
    path = [ROOT] if WHOLE else [STAND_IN, ROOT]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTRL_")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    folder, said = tmp_path, {}
    began = time.monotonic()
    for line in lines:
        program, *arguments = shlex.split(line)
        if program == "cd":
            folder = folder / arguments[0]
            continue
        command = [sys.executable, "-m", "agentrl_assets.cli", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        expected = (0, 3) if arguments == ["gates"] and WHOLE else (0,)
        assert done.returncode in expected, done.stdout + done.stderr
        said[arguments[0]] = done.stdout
    if WHOLE:
        assert time.monotonic() - began < 60 * MINUTES
    assert "expert            40 of 40" in said["doctor"]
    verdicts = re.findall(r"^(GO|HOLD|NO-GO) +(\w+): ", said["gates"], re.MULTILINE)
    assert {gate for _, gate in verdicts} == {*GATES}
    assert all(f"{answer:<6} {gate}: " in said["run"] for answer, gate in verdicts)
