"""`workflow.yaml`: the contract is accepted as it stands, and every mistake is told with file, line, name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agentrl_resources.errors import AgentRLError
from agentrl_resources.settings import Settings, load_settings, settings_reference

ROOT = Path(__file__).parent.parent

CONTRACT = """\
workflow:
  target: "order_desk"            # which workflow: a built-in name, or package.module:Class
  baseline: "sft_checkpoint_v1"
  reward_model: "rm_v1"
  policy_training: "ppo_kl"
release:
  canary_traffic_percent: 5
  gates:
    - no_safety_regression
    - latency_delta_lt_15_percent
    - cost_per_success_not_worse
    - rollback_under_5_minutes
monitoring:
  - human_override_rate
  - tool_error_rate
  - policy_kl_drift
  - task_completion_quality
"""

SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
OPTIONAL = [name for name in SECTIONS if name not in ("workflow", "release")]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "workflow.yaml"


def load(file: Path, text: str) -> Settings:
    file.write_text(text)
    return load_settings(file)


def refusal(file: Path, text: str) -> str:
    with pytest.raises(AgentRLError) as refused:
        load(file, text)
    return str(refused.value)


def test_the_contract_is_accepted_as_it_stands(file: Path) -> None:
    settings = load(file, CONTRACT)
    assert settings.workflow.target == "order_desk"
    assert settings.release.canary_traffic_percent == 5
    assert settings.release.gates[1] == "latency_delta_lt_15_percent"
    assert settings.monitoring[2] == "policy_kl_drift"
    assert (ROOT / "workflow.yaml").read_text().endswith(CONTRACT)
    assert load_settings(ROOT / "workflow.yaml") == settings


@given(data=st.data())
def test_a_misspelt_key_is_refused_with_its_line_and_the_right_spelling(data: st.DataObject, file: Path) -> None:
    section = data.draw(st.sampled_from(OPTIONAL))
    field = data.draw(st.sampled_from([name for name in SECTIONS[section].model_fields if len(name) > 4]))
    position = data.draw(st.integers(1, len(field) - 1))
    misspelt = field[:position] + "x" + field[position:]
    blank_lines = data.draw(st.integers(0, 3))
    said = refusal(file, CONTRACT + "\n" * blank_lines + f"{section}:\n  {misspelt}: 1\n")
    line = CONTRACT.count("\n") + blank_lines + 2
    assert said == f"{file}, line {line}: unknown setting '{section}.{misspelt}'; did you mean '{field}'?"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("monitoring:", "monitorin:", 13, ["unknown setting 'monitorin'", "did you mean 'monitoring'?"]),
        ("no_safety_regression", "no_safety_regresion", 9, ["no_safety_regresion", "no_safety_regression"]),
        ("lt_15_percent", "lt_x_percent", 10, ["latency_delta_lt_x_percent"]),
        ("percent: 5", "percent: 5\n  gates: []\nother:", 8, ["release.gates: name at least one"]),
        ("workflow:", "sft: 5\nworkflow:", 1, ["sft: expected a mapping of settings, not 5"]),
        ("tool_error_rate", "tool_eror_rate", 15, ["tool_eror_rate", "did you mean 'tool_error_rate'?"]),
        ("tool_error_rate", "human_override_rate", 13, ["named more than once: human_override_rate"]),
        ("percent: 5", "percent: 80", 7, ["release.canary_traffic_percent", "less than or equal to 50", "not 80"]),
        ("percent: 5", "percent: yes", 7, ["release.canary_traffic_percent", "valid number"]),
        ("percent: 5", "percent: .nan", 7, ["release.canary_traffic_percent"]),
        ("percent: 5", 'percent: "5"', 7, ["valid number", "not '5'"]),
        ("ppo_kl", "grpo", 5, ["workflow.policy_training", "'ppo_kl'", "not 'grpo'"]),
        (
            '  target: "order_desk"            # which workflow: a built-in name, or package.module:Class\n',
            "",
            1,
            ["'workflow.target' is missing"],
        ),
        ("baseline:", "target:", 3, ["'target' is set a second time"]),
        ("release:", "release: {", 8, ["not valid YAML"]),
        ('target: "order_desk"', "target: 2026-13-45", 2, ["'2026-13-45' cannot be read"]),
    ],
)
def test_a_mistake_is_told_with_its_line(file: Path, old: str, new: str, line: int, words: list[str]) -> None:
    said = refusal(file, CONTRACT.replace(old, new, 1))
    assert f"{file}, line {line}: " in said
    assert all(word in said for word in words), said


def test_all_mistakes_are_told_in_the_order_of_the_file(file: Path) -> None:
    said = refusal(file, CONTRACT.replace("percent: 5", "percent: 0") + "sft:\n  epochs: 0\nseed: -1\n").splitlines()
    assert [line.split(": ")[1] for line in said] == ["release.canary_traffic_percent", "sft.epochs", "seed"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1: the file is empty"),
        (b"# only a comment\n", "line 1: the file is empty"),
        (b"- a list\n", "not a mapping"),
        (b"workflow: \xff\n", "byte 10 is not UTF-8"),
        (b"workflow: a\x00b\n", "not valid YAML"),
        (b"a: 1\n---\nb: 2\n", "line 2: not valid YAML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(file: Path, content: bytes, words: str) -> None:
    file.write_bytes(content)
    with pytest.raises(AgentRLError) as refused:
        load_settings(file)
    assert str(file) in str(refused.value)
    assert words in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match=r"nowhere\.yaml: this file cannot be read \(No such file"):
        load_settings(tmp_path / "nowhere.yaml")


def test_numbers_may_be_written_as_people_write_them(file: Path) -> None:
    settings = load(file, CONTRACT + "sft: {learning_rate: 2e-3}\nppo: {learning_rate: 1.5E-4, kl_target: 3}\n")
    assert settings.sft.learning_rate == 0.002
    assert settings.ppo.learning_rate == 0.00015
    assert settings.ppo.kl_target == 3.0


def test_model_shapes_must_fit_together(file: Path) -> None:
    assert "kv_heads (3) must divide heads (4)" in refusal(file, CONTRACT + "model: {kv_heads: 3}\n")
    assert "more than experts (2)" in refusal(file, CONTRACT + "model: {experts: 2, experts_per_token: 3}\n")


def test_a_base_has_the_defaults_of_what_learns_of_it_and_what_the_file_says_stays(file: Path) -> None:
    whole = load(file, CONTRACT + "model: {base: somewhere}\nsft: {epochs: 7}\n")
    assert (whole.sft.epochs, whole.sft.learning_rate, whole.sft.matrix_learning_rate) == (7, 2e-5, None)
    adapter = load(file, CONTRACT + "model: {base: somewhere}\npolicy: {adapter: lora}\nppo: {learning_rate: 0.5}\n")
    assert (adapter.sft.learning_rate, adapter.reward.learning_rate, adapter.ppo.learning_rate) == (2e-4, 1e-4, 0.5)
    assert load(file, CONTRACT).sft.learning_rate == 3e-3


def test_an_adapter_needs_a_base(file: Path) -> None:
    assert "there is no model.base" in refusal(file, CONTRACT + "policy: {adapter: lora}\n")


@given(data=st.data())
def test_a_section_digest_changes_with_its_section_alone(data: st.DataObject, file: Path) -> None:
    default = load(file, CONTRACT)
    whole_numbers = [
        (section, name, value)
        for section in OPTIONAL
        for name, value in getattr(default, section).model_dump().items()
        if type(value) is int
    ]
    changed, field, value = data.draw(st.sampled_from(whole_numbers))
    other = load(file, CONTRACT + f"{changed}:\n  {field}: {2 * value or 1}\n")
    for section in SECTIONS:
        same = default.section_digest(section, "seed") == other.section_digest(section, "seed")
        assert same == (section != changed)


def test_settings_cannot_be_changed(file: Path) -> None:
    settings = load(file, CONTRACT)
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 3  # type: ignore[misc]


def test_every_setting_is_documented_and_the_page_is_current() -> None:
    for name, section in SECTIONS.items():
        assert section.__doc__, name
        assert all(field.description for field in section.model_fields.values()), name
    assert (ROOT / "docs" / "settings.md").read_text() == settings_reference(), (
        "docs/settings.md is stale: python -m agentrl_resources.settings > docs/settings.md"
    )


SPLIT = "engine: {{kind: vllm}}\ncompute: {{sharded: true, training_processes: {}}}\n"
BASE = "model: {base: somewhere}\n"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("engine: {url: 'http://host:8000'}", "url is of a server, and kind is `local`: set kind: vllm"),
        ("compute: {sharded: true}", "compute.sharded needs more than one of compute.training_processes"),
        ("compute: {sharded: true, training_processes: 2}", "set engine.kind: vllm"),
        (SPLIT.format(2), "sft.matrix_learning_rate: Muon turns whole matrices"),
        (SPLIT.format(2) + "sft: {matrix_learning_rate: null}", "reward.matrix_learning_rate: Muon turns"),
        (SPLIT.format(3) + BASE, "sft.batch_size is 16, which 3 processes"),
        (SPLIT.format(4) + BASE + "reward: {batch_size: 6}", "reward.batch_size is 6, which 4 processes"),
        (SPLIT.format(4) + BASE + "ppo: {minibatch: 30}", "ppo.minibatch is 30, which 4 processes"),
        ("ppo: {mismatch_cap: 1}", "ppo.mismatch_cap"),
    ],
)
def test_what_samples_and_what_trains_fit_together(file: Path, section: str, words: str) -> None:
    assert words in refusal(file, CONTRACT + section)


def test_processes_that_divide_every_batch_may_split_a_base_and_those_that_share_may_be_sampled_by_a_server(
    file: Path,
) -> None:
    assert load(file, CONTRACT + SPLIT.format(4) + BASE).compute.sharded
    assert load(file, CONTRACT + "engine: {kind: vllm}\ncompute: {training_processes: 3}").engine.kind == "vllm"
