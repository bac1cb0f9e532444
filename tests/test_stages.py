"""What the stages decide by themselves: which pairs count as what, and when no policy may learn."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import small_factory, small_harmony, small_model

from agentrl_resources.families import FORMAT_FILE, Encoded
from agentrl_resources.families.gpt_oss import Harmony
from agentrl_resources.files import read_json, read_jsonl, write_json, write_jsonl
from agentrl_resources.learning import EncodedPair, SampledEpisode
from agentrl_resources.plotting import picture
from agentrl_resources.preferences import ON_POLICY, Pair
from agentrl_resources.settings import RewardSettings, load_settings
from agentrl_resources.stages import StageRequest, evaluate, on_policy, ppo, sft
from agentrl_resources.stages.request import save_with_format
from agentrl_resources.stages.reward import (
    encode_pair,
    is_wrong_refusal,
    judge_reward_model,
    outcome_differs,
    reasons_to_block,
    too_few,
)
from agentrl_resources.stages.sft import worth_imitating
from agentrl_resources.workflow import EpisodeFactory, load_rubric, load_workflow

ACTING = load_workflow("order_desk").tool_policy.acting_tools
RUBRIC = load_workflow("order_desk").rubric
OTHER_NAMES = """
version: 7
criteria:
  resolved: {weight: 5, wording: It is solved., role: outcome}
  harmless: {weight: 5, wording: Nobody is hurt., role: safety}
  private: {weight: 5, wording: Nobody is exposed., role: safety}
  truthful: {weight: 1, wording: It is true., role: honesty}
"""


def turns(*tools):
    calls = [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": tool, "arguments": {}}}]}
        for tool in tools
    ]
    return [*calls, {"role": "assistant", "content": "Done."}]


GOOD = {"outcome": 1.0, "safety": 1.0, "honesty": 1.0}


def pair(chosen, rejected, good=GOOD, **rejected_scores):
    outcome = next(iter(good))
    return Pair(
        pair_id="p",
        task_id="t",
        task_type="refund",
        prompt=[{"role": "user", "content": "please"}],
        chosen=chosen,
        rejected=rejected,
        annotator=None,
        rubric_version="1",
        split="holdout",
        source="test",
        conversational=True,
        rubric_scores={"chosen": good, "rejected": {**good, outcome: 0.0, **rejected_scores}},
    )


def test_tools_that_act_are_those_that_write_or_hand_over():
    assert {"refund", "cancel_order", "change_address", "replace_item", "hand_over"} == ACTING


def test_a_wrong_refusal_did_nothing_where_something_was_to_be_done():
    acted, looked = turns("get_order", "refund"), turns("get_order")

    def wrong(one):
        return is_wrong_refusal(one, RUBRIC, ACTING)

    assert wrong(pair(acted, looked))
    assert wrong(pair(acted, turns("get_order", "get_order")))
    assert not wrong(pair(acted, looked, honesty=0.0))  # claimed what it did not do
    assert not wrong(pair(acted, looked, safety=0.0))
    assert not wrong(pair(acted, turns("get_order", "cancel_order")))
    assert not wrong(pair(looked, looked))  # nothing was to be done
    assert not wrong(pair(acted, looked, outcome=1.0))
    assert outcome_differs(pair(acted, looked), RUBRIC)


@pytest.fixture
def other_names(tmp_path):
    (tmp_path / "rubric.yaml").write_text(OTHER_NAMES)
    return load_rubric(tmp_path / "rubric.yaml")


def test_a_rubric_with_other_names_says_by_roles_which_pairs_count_as_what(other_names):
    acted, looked = turns("get_order", "refund"), turns("get_order")
    good = {"resolved": 1.0, "harmless": 1.0, "private": 1.0, "truthful": 1.0}
    one = pair(acted, looked, good)
    assert outcome_differs(one, other_names)
    assert is_wrong_refusal(one, other_names, ACTING)
    assert is_wrong_refusal(pair(acted, looked, {"resolved": 1.0}), other_names, ACTING), "nobody blamed it"
    assert not is_wrong_refusal(pair(acted, looked, good, truthful=0.0), other_names, ACTING)
    assert not outcome_differs(one, RUBRIC), "scored by a rubric that the workflow does not have"
    graded = pair(acted, looked, {"resolved": 0.8}, resolved=0.3)
    assert outcome_differs(graded, other_names)
    assert worth_imitating(one, other_names)
    for name in ("harmless", "private"):
        assert not worth_imitating(pair(acted, looked, {**good, name: 0.0}), other_names)
        assert not worth_imitating(pair(acted, looked, {name: 0.2}), other_names)
    assert worth_imitating(pair(acted, looked, {"resolved": 0.0}), other_names), "nobody scored its safety"


def report(**changed):
    good = {"n": 100, "accuracy": 0.95, "interval": [0.9, 0.98]}
    own = {"good": 50, "bad": 50, "auc": 0.9}
    scored = {"by": "rubric 1", "outcome_criterion": "outcome", "pairs": 100, "pairs_with_outcome": 100}
    return {
        "scored": scored,
        "holdout": good,
        "outcome_differs": good,
        "wrong_refusals": good,
        "own_samples": own,
        "ece": 0.02,
        **changed,
    }


def test_each_weakness_of_a_reward_model_blocks_by_itself_unless_there_is_too_little_to_say():
    settings = RewardSettings()
    assert reasons_to_block(report(), settings) == []
    weak = {"n": 100, "accuracy": 0.6, "interval": [0.5, 0.69]}
    for changed, word in (
        ({"holdout": weak}, "chance"),
        ({"ece": 0.2}, "calibrated"),
        ({"outcome_differs": weak}, "outcome differs"),
        ({"wrong_refusals": weak}, "wrong refusals"),
        ({"own_samples": {"good": 50, "bad": 50, "auc": 0.6}}, "AUC"),
    ):
        (reason,) = reasons_to_block(report(**changed), settings)
        assert word in reason
    assert reasons_to_block(report(wrong_refusals={**weak, "n": 29}), settings) == []
    assert reasons_to_block(report(own_samples={"good": 50, "bad": 29, "auc": 0.6}), settings) == []
    assert too_few(report()) == []
    assert too_few(report(wrong_refusals={**weak, "n": 29})) == ["wrong refusals: 29"]


@pytest.mark.parametrize(
    ("scored", "word"),
    [
        ({"outcome_criterion": None}, "role: outcome"),
        ({"outcome_criterion": None, "pairs": 0, "pairs_with_outcome": 0}, "role: outcome"),
        ({"outcome_criterion": "resolved", "pairs_with_outcome": 0}, "`resolved`"),
    ],
)
def test_gates_that_cannot_be_measured_block_and_say_why(scored, word):
    nothing = {"n": 0, "accuracy": None, "interval": None}
    found = report(outcome_differs=nothing, wrong_refusals=nothing)
    (reason,) = reasons_to_block({**found, "scored": {**found["scored"], **scored}}, RewardSettings())
    assert "not measured" in reason
    assert word in reason
    unscored = {**found["scored"], "pairs": 0, "pairs_with_outcome": 0}  # data without scores say nothing either way
    assert reasons_to_block({**found, "scored": unscored}, RewardSettings()) == []
    assert len(too_few(found)) == 2


class ReadsTheLength:
    """Stands where the reward model does: longer is better."""

    def score(self, episodes):
        return [float(len(episode.ids)) for episode in episodes]


@pytest.mark.parametrize("roles", [True, False])
def test_a_reward_model_is_judged_by_the_criterion_that_the_rubric_names(other_names, tmp_path, roles):
    """From pairs to the verdict: with a rubric of other names both gates measure, and without roles it blocks."""
    factory = small_factory()
    harmony = small_harmony(factory)
    if not roles:
        unnamed = OTHER_NAMES.replace(", role: outcome", "").replace(", role: safety", "")
        (tmp_path / "unnamed.yaml").write_text(unnamed)
        other_names = load_rubric(tmp_path / "unnamed.yaml")
    factory.workflow.rubric = other_names
    good = {"resolved": 1.0, "harmless": 1.0, "private": 1.0, "truthful": 1.0}
    pairs = [pair(turns("get_order", "refund"), turns("get_order"), good)] * 40
    found = judge_reward_model(ReadsTheLength(), harmony, pairs, [], factory.workflow)
    reasons = reasons_to_block(found, RewardSettings(max_ece=1.0))
    if roles:
        assert found["outcome_differs"]["n"] == found["wrong_refusals"]["n"] == 40
        assert reasons == []
    else:
        assert found["outcome_differs"]["n"] == 0
        assert ["role: outcome" in reason for reason in reasons] == [True]


def test_an_on_policy_pair_keeps_the_tokens_it_was_sampled_with_and_history_chooses_nothing_in_its_prompt():
    import json

    harmony = small_harmony(small_factory())
    sampled = {"chosen": {"ids": [5, 6, 7], "mask": [0, 1, 1]}, "rejected": {"ids": [5, 9], "mask": [0, 1]}}
    stored = replace(pair(turns(), turns()), source=ON_POLICY, metadata=sampled)
    encoded = encode_pair(harmony, Pair.from_dict(json.loads(json.dumps(stored.to_dict()))))
    assert encoded == EncodedPair(Encoded([5, 6, 7], [0, 1, 1]), Encoded([5, 9], [0, 1]))

    said = {"role": "assistant", "content": "Hello."}
    asked = [{"role": "user", "content": "please"}]
    long = encode_pair(harmony, replace(pair(turns(), turns()), prompt=[*asked, said, *asked]))
    alone = encode_pair(harmony, replace(pair(turns(), turns()), prompt=asked))
    assert sum(long.chosen.mask) == sum(alone.chosen.mask) > 0
    assert len(long.chosen.ids) > len(alone.chosen.ids)


class Without:
    """The built-in workflow without one of its members, as one of one's own may be."""

    def __init__(self, missing):
        self._missing = missing
        self._inner = small_factory().workflow

    def __getattr__(self, name):
        if name == self._missing:
            raise AttributeError(name)
        return getattr(self._inner, name)


def request_of(workflow, folder):
    settings = load_settings(Path(__file__).parents[1] / "workflow.yaml")
    names = {"baseline": "b", "candidate": "c", "reward_model": "r"}
    return StageRequest(settings, workflow, {}, folder, folder, lambda *_: None, names, {}, folder / "request.json")


@pytest.mark.parametrize(
    ("workflow", "simulated"),
    [(small_factory().workflow, True), (Without("simulated"), False)],
    ids=["made up", "real"],
)
def test_an_episode_is_simulated_where_the_workflow_says_so(workflow, simulated, tmp_path):
    factory = EpisodeFactory(workflow)
    task = workflow.tasks("capability", 1, 1)[0]
    sampled = SampledEpisode(task, 1, factory.play(task, workflow.scripted_agents(task)["expert"]))
    request = request_of(workflow, tmp_path)
    record = evaluate.run_record(request, sampled, None, "candidate", "capability", 0.7, "2026-11-18")
    assert record.simulated is simulated


HISTORY = [{"iteration": i, "score": 0.1 * i, "kl": 0.1, "success": 0.5, "no_action": 0.1, "safety_violations": 0.0}
           for i in range(2)]  # fmt: skip
ARM = {"success_rate": 0.5, "success_interval": (0.4, 0.6)}
CHARTS = [
    (sft, {"loss": [(1, 2.0), (2, 1.0)], "holdout_loss": 1.0, "success_by_task_type": {"a": {"successes": 1, "n": 2}}}),
    (ppo, HISTORY),
    (evaluate, {"0.7": {"capability": {"baseline": ARM, "candidate": ARM}}}),
]


@pytest.mark.parametrize(("stage", "data"), CHARTS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize(
    ("workflow", "simulated"),
    [(small_factory().workflow, True), (Without("simulated"), False)],
    ids=["made up", "real"],
)
def test_a_chart_of_success_says_simulated_where_the_workflow_does(
    stage, data, workflow, simulated, tmp_path, monkeypatch
):
    titles = []

    @contextmanager
    def looked_at(path, **shape):
        with picture(path, **shape) as axes:
            yield axes
            titles.extend(one.get_title(loc="left") for one in np.ravel(axes))

    monkeypatch.setattr(stage, "picture", looked_at)
    stage.draw(tmp_path / "" if stage is ppo else tmp_path / "x.png", data, request_of(workflow, tmp_path).made_up)
    of_success = [title for title in titles if "uccess" in title or "Rollouts" in title]
    assert of_success
    assert all(("(simulated)" in title) == simulated for title in of_success)


@pytest.mark.parametrize("source", [None, "mine.jsonl"])
@pytest.mark.parametrize(("with_tools", "annotators"), [(True, True), (False, True), (True, False)])
def test_who_labels_follows_from_the_workflow_and_not_from_where_the_data_are_from(
    source, with_tools, annotators, tmp_path
):
    write_json(tmp_path / FORMAT_FILE, {"uses_tools": with_tools})
    request = request_of(small_factory().workflow if annotators else Without("prefer"), tmp_path)
    preferences = request.settings.preferences.model_copy(update={"source": source})
    settings = request.settings.model_copy(update={"preferences": preferences})
    request = replace(request, settings=settings, inputs={"sft_checkpoint": tmp_path})
    assert on_policy.can_label(request) == (with_tools and annotators)


def test_dialogues_are_queued_for_people(tmp_path):
    harmony = Harmony(small_harmony(small_factory()).tokenizer, None, None)
    save_with_format(small_model(harmony), harmony, False, tmp_path)
    write_jsonl(tmp_path / "train.jsonl", [pair(turns(), turns()).to_dict()] * 3)
    request = request_of(small_factory().workflow, tmp_path)
    few = request.settings.on_policy.model_copy(update={"queue": 2})
    settings = request.settings.model_copy(update={"on_policy": few})
    inputs = {"sft_checkpoint": tmp_path, "cleaned_preference_data": tmp_path}
    on_policy.run(replace(request, settings=settings, inputs=inputs))
    assert read_json(tmp_path / "report.json")["queued"] == len(list(read_jsonl(tmp_path / "queue.jsonl"))) == 2
