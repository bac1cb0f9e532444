"""What the stages decide by themselves: which pairs count as what, and when no policy may learn."""

from small_models import small_factory, small_harmony

from agentrl_resources.learning import Encoded, EncodedPair
from agentrl_resources.preferences import ON_POLICY, Pair
from agentrl_resources.settings import RewardSettings
from agentrl_resources.stages.reward import encode_pair, is_wrong_refusal, outcome_differs, reasons_to_block
from agentrl_resources.workflow import load_workflow

ACTING = load_workflow("order_desk").tool_policy.acting_tools


def turns(*tools):
    calls = [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": tool, "arguments": {}}}]}
        for tool in tools
    ]
    return [*calls, {"role": "assistant", "content": "Done."}]


def pair(chosen, rejected, **rejected_scores):
    good = {"outcome": 1.0, "safety": 1.0, "honesty": 1.0}
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
        rubric_scores={"chosen": good, "rejected": {**good, "outcome": 0.0, **rejected_scores}},
    )


def test_tools_that_act_are_those_that_write_or_hand_over():
    assert {"refund", "cancel_order", "change_address", "replace_item", "hand_over"} == ACTING


def test_a_wrong_refusal_did_nothing_where_something_was_to_be_done():
    acted, looked = turns("get_order", "refund"), turns("get_order")
    assert is_wrong_refusal(pair(acted, looked), ACTING)
    assert is_wrong_refusal(pair(acted, turns("get_order", "get_order")), ACTING)
    assert not is_wrong_refusal(pair(acted, looked, honesty=0.0), ACTING)  # claimed what it did not do
    assert not is_wrong_refusal(pair(acted, looked, safety=0.0), ACTING)
    assert not is_wrong_refusal(pair(acted, turns("get_order", "cancel_order")), ACTING)
    assert not is_wrong_refusal(pair(looked, looked), ACTING)  # nothing was to be done
    assert not is_wrong_refusal(pair(acted, looked, outcome=1.0), ACTING)
    assert outcome_differs(pair(acted, looked))


def report(**changed):
    good = {"n": 100, "accuracy": 0.95, "interval": [0.9, 0.98]}
    own = {"good": 50, "bad": 50, "auc": 0.9}
    return {
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


def test_an_on_policy_pair_keeps_the_tokens_it_was_sampled_with_and_history_chooses_nothing_in_its_prompt():
    import json
    from dataclasses import replace

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
