"""Every known layout gives the conversation that it stands for, and no prompt is doubled, lost or invented."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_resources.preferences import CleaningRules, Pair, RawRow, Reason, clean

QUESTION = "How far is it from Lyon to Nice?"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


ASK, YES, NO, RULE = user(QUESTION), assistant("About 470 km."), assistant("Hard to say."), system("You guide people.")
FIRST = [user("Hello."), assistant("Hello, where to?")]
SIDES = {"chosen": YES["content"], "rejected": NO["content"]}
WHOLE = {"chosen": [ASK, YES], "rejected": [ASK, NO]}
BOTH = {"response_a": NO["content"], "response_b": YES["content"]}


def fate(data: dict[str, Any], **rules: Any) -> Any:
    result = clean([RawRow(1, "test", data)], CleaningRules(**rules))
    return (result.clean + result.quarantine)[0]


def share_gpt(turn: dict[str, Any]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return {"from": names[turn["role"]], "value": turn["content"]}


def parts(turn: dict[str, Any]) -> dict[str, Any]:
    pieces = turn["content"][:5], turn["content"][5:]
    return {**turn, "content": [{"type": "text", "text": piece} for piece in pieces]}


def chat_ml(*turns: dict[str, Any]) -> str:
    return "\n".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" for turn in turns)


# --- one question, two answers ----------------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, Any]] = {
    "TRL, conversational": {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
    "TRL, plain": {"prompt": QUESTION, **SIDES},
    "TRL, implicit prompt": WHOLE,
    "prompt repeated in texts": {"prompt": QUESTION, **{k: f"{QUESTION} {v}" for k, v in SIDES.items()}},
    "prompt repeated twice in texts": {"prompt": QUESTION,
                                       **{k: f"{QUESTION}\n{QUESTION} {v}" for k, v in SIDES.items()}},
    "prompt messages, repeated in texts": {"prompt": [ASK], **{k: f"{QUESTION}\n\n{v}" for k, v in SIDES.items()}},
    "prompt text, repeated in messages": {"prompt": f" {QUESTION}\n", **WHOLE},
    "prompt messages, repeated in parts": {"prompt": [ASK], "chosen": [parts(ASK), YES], "rejected": [parts(ASK), NO]},
    "prompt repeated in one side": {"prompt": QUESTION, "chosen": [ASK, YES], "rejected": NO["content"]},
    "UltraFeedback binarized": {"prompt": QUESTION, "prompt_id": "a1", **WHOLE, "messages": [ASK, YES],
                                "score_chosen": 8.5, "score_rejected": 4.0},
    "hh-rlhf": {"chosen": f"\n\nHuman: {QUESTION}\n\nAssistant: {YES['content']}",
                "rejected": f"\n\nHuman: {QUESTION}\n\nAssistant: {NO['content']}"},
    "hh-rlhf with its prompt": {"prompt": f"Human: {QUESTION}\n\nAssistant:", **SIDES},
    "a dialogue line by line": {"chosen": f"User: {QUESTION}\nAssistant: {YES['content']}",
                                "rejected": f"User: {QUESTION}\nAssistant: {NO['content']}"},
    "headings": {"prompt": f"### Human: {QUESTION}\n### Assistant:", **SIDES},
    "ChatML": {"prompt": QUESTION, "chosen": chat_ml(ASK, YES), "rejected": chat_ml(ASK, NO)},
    "Orca": {"system": "", "question": QUESTION, **SIDES},
    "Stack Exchange": {"question": QUESTION, "response_j": YES["content"], "response_k": NO["content"]},
    "argilla": {"instruction": QUESTION, "chosen_response": YES["content"], "rejected_response": NO["content"],
                "chosen_avg_rating": 4.5, "rejected_avg_rating": 2},
    "the noun first": {"query": QUESTION, "response_chosen": YES["content"], "response_rejected": NO["content"]},
    "OpenAI": {"input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True},
               "preferred_output": [YES], "non_preferred_output": [NO]},
    "OpenPipe": {"messages": [ASK, YES], "rejected_message": NO},
    "one message a side (Axolotl)": {"messages": [ASK], "chosen": YES, "rejected": NO},
    "ShareGPT (LLaMA-Factory)": {"conversations": [share_gpt(ASK)], "chosen": share_gpt(YES),
                                 "rejected": share_gpt(NO)},
    "Alpaca without an input": {"instruction": QUESTION, "input": "", "output": [YES["content"], NO["content"]]},
    "JSON text": {"prompt": json.dumps([ASK]), "chosen": json.dumps([ASK, YES]), "rejected": json.dumps([ASK, NO])},
    "Python's text": {"prompt": str([ASK]), "chosen": str([YES]), "rejected": str([NO])},
    "PKU-SafeRLHF": {"prompt": QUESTION, "response_0": NO["content"], "response_1": YES["content"],
                     "better_response_id": 1},
    "HelpSteer 2": {"prompt": QUESTION, "response_1": YES["content"], "response_2": NO["content"],
                    "preference_strength": -2},
    "HelpSteer 3": {"context": [ASK], "response1": NO["content"], "response2": YES["content"], "overall_preference": 3},
    "SHP": {"history": QUESTION, "human_ref_A": NO["content"], "human_ref_B": YES["content"], "labels": 0},
    "AlpacaFarm": {"instruction": QUESTION, "input": None, "output_1": NO["content"], "output_2": YES["content"],
                   "preference": 2},
    "WebGPT": {"question": QUESTION, "answer_0": NO["content"], "answer_1": YES["content"], "score_0": -0.5,
               "score_1": "0.5"},
    "Chatbot Arena": {"conversation_a": [ASK, NO], "conversation_b": [ASK, YES], "winner": "model_b", "model_a": "m",
                      "model_b": "n"},
    "Chatbot Arena by model": {"prompt": QUESTION, **BOTH, "model_a": "M", "model_b": "N", "winner": "N"},
    "winner in flags": {"prompt": QUESTION, **BOTH, "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
    "winner by answer": {"prompt": QUESTION, **BOTH, "preferred": "Response B"},
    "prompt repeated in an assistant's words": {
        "prompt": [ASK], "chosen": [assistant(f"{QUESTION} {YES['content']}")],
        "rejected": [assistant(f"{QUESTION}\n{NO['content']}")]},
    "Chatbot Arena, rounds as text": {
        "prompt": json.dumps([QUESTION]), "response_a": json.dumps([NO["content"]]),
        "response_b": json.dumps([YES["content"]]), "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
    "NeMo RL": {"context": [ASK], "completions": [{"rank": 1, "completion": [NO]}, {"rank": 0, "completion": [YES]}]},
    "answers with scores": {"prompt": QUESTION, "responses": [{"text": NO["content"], "score": 1},
                                                              {"text": YES["content"], "score": "2"}]},
    "answers with their models": {"question": {"full_text": QUESTION, "id": 7},
                                  "chosen": {"content": YES["content"], "model": "m"},
                                  "rejected": {"content": NO["content"], "model": "n"}},
    "an empty cell as text": {"prompt": "nan", "question": QUESTION, "system": "None", **SIDES},
    "an answer is named": {"prompt": QUESTION, **BOTH, "chosen": "response_b", "rejected": "response_a"},
    "the chosen one is named": {"prompt": QUESTION, **BOTH, "chosen": "B"},
    "a finished conversation beside the sides": {"messages": [share_gpt(ASK), share_gpt(YES)], **WHOLE},
    "a prompt that ends in an answer": {"prompt": [ASK, NO], **SIDES},
    "other blanks": {"prompt": QUESTION.replace(" ", "\r\n"), **WHOLE},
    "a list and ratings": {"instruction": QUESTION, "generations": [NO["content"], YES["content"]], "ratings": [2, 5]},
    "capital names": {"Prompt": QUESTION, "Chosen Response": YES["content"], "Rejected Response": NO["content"]},
    "null hides nothing": {"prompt": None, "question": QUESTION, "chosen": None, "rejected": None,
                           "chosen_response": YES["content"], "rejected_response": NO["content"]},
    "documents that the prompt holds": {"prompt": QUESTION, "documents": ["Lyon", "Nice"], **SIDES},
    "said twice in columns": {"prompt": f"Passage one.\n\n{QUESTION}", "context": "Passage one.", "query": QUESTION,
                              **SIDES},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_known_layout_is_the_pair_it_stands_for(name: str) -> None:
    pair = fate(LAYOUTS[name])
    assert isinstance(pair, Pair), pair.detail
    expected = [user(f"Passage one.\n\n{QUESTION}")] if name == "said twice in columns" else [ASK]
    assert (pair.prompt, pair.chosen, pair.rejected) == (expected, [YES], [NO])


# --- what stands before the question ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        ({"system": RULE["content"], "question": QUESTION, **SIDES}, [RULE, ASK]),
        ({"system_prompt": RULE["content"], "prompt": [ASK], **WHOLE}, [RULE, ASK]),
        ({"system": RULE["content"], "prompt": [RULE, ASK], **SIDES}, [RULE, ASK]),
        ({"system": RULE["content"], **WHOLE}, [RULE, ASK]),
        ({"system": "You  guide\npeople.", "chosen": [RULE, ASK, YES], "rejected": [RULE, ASK, NO]}, [RULE, ASK]),
        ({"system": "Be kind.", "prompt": f"Be kind.\n\n{QUESTION}", **SIDES}, [user(f"Be kind.\n\n{QUESTION}")]),
        ({"prompt": [ASK], "chosen": [RULE, ASK, YES], "rejected": [RULE, ASK, NO]}, [RULE, ASK]),
        ({"prompt": QUESTION, "chosen": [RULE, ASK, YES], "rejected": [RULE, ASK, NO]}, [RULE, ASK]),
        ({"prompt": [RULE], **WHOLE}, [RULE, ASK]),
        ({"input": {"messages": [RULE, ASK]}, "preferred_output": [YES], "non_preferred_output": [NO]}, [RULE, ASK]),
        ({"messages": [RULE, *FIRST, ASK, YES], "rejected_message": NO}, [RULE, *FIRST, ASK]),
        ({"prompt": QUESTION, "chosen": [*FIRST, ASK, YES], "rejected": [*FIRST, ASK, NO]}, [*FIRST, ASK]),
        ({"prompt": "Hello.", "chosen": [*FIRST, ASK, YES], "rejected": [*FIRST, ASK, NO]}, [*FIRST, ASK]),
        ({"prompt": FIRST, **WHOLE}, [*FIRST, ASK]),
        ({"prompt": FIRST[1:], "chosen": [FIRST[1], ASK, YES], "rejected": [FIRST[1], ASK, NO]}, [FIRST[1], ASK]),
        ({"instruction": QUESTION, "history": [[one["content"] for one in FIRST]], **SIDES}, [*FIRST, ASK]),
        ({"instruction": "Add.", "input": "1 and 2", **SIDES}, [user("Add.\n1 and 2")]),
        ({"conversations": [share_gpt(one) for one in (RULE, *FIRST, ASK)], **SIDES}, [RULE, *FIRST, ASK]),
        ({"conversation": [*FIRST, ASK, YES], **SIDES}, [*FIRST, ASK]),
        ({"chosen": [RULE, *FIRST, ASK, YES], "rejected": [RULE, *FIRST, ASK, NO]}, [RULE, *FIRST, ASK]),
    ],
)  # fmt: skip
def test_what_was_said_before_is_in_the_prompt_once(data: dict[str, Any], prompt: list[Any]) -> None:
    pair = fate(data)
    assert isinstance(pair, Pair), pair.detail
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, [YES], [NO])


def test_an_answer_that_the_prompt_begins_is_whole() -> None:
    begun = [ASK, assistant("It is")]
    data = {"prompt": begun, "chosen": [ASK, assistant("It is far.")], "rejected": [ASK, assistant("It is near.")]}
    assert fate(data).prompt == [ASK]
    assert fate(data).chosen == [assistant("It is far.")]


def test_answers_that_greet_back_are_whole() -> None:
    pair = fate({"prompt": "Hi", "chosen": "Hi there!", "rejected": "Hi, what?"})
    assert (pair.prompt, pair.chosen, pair.rejected) == (
        [user("Hi")],
        [assistant("Hi there!")],
        [assistant("Hi, what?")],
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"prompt": "Another one?", **WHOLE}, "another prompt than the row's own"),
        ({"prompt": [ASK], "chosen": [ASK, YES], "rejected": [user("Else?"), NO]}, "rejected side begins with another"),
        ({"prompt": [RULE, ASK], "chosen": [system("B"), ASK, YES], "rejected": [system("B"), ASK, NO]}, "another"),
        ({"prompt": [*FIRST, ASK, assistant("X")], "chosen": [ASK, YES], "rejected": [ASK, NO]}, "another prompt"),
        ({"chosen": [ASK, YES], "rejected": [user("Else?"), NO]}, "do not answer the same prompt"),
        ({"chosen": [*FIRST, ASK, YES], "rejected": [*FIRST, user("Else?"), NO]}, "do not answer the same prompt"),
        ({"chosen": f"Human: {QUESTION}\n\nAssistant: a", "rejected": "Human: b\n\nAssistant: c"}, "same prompt"),
        ({"prompt": QUESTION, "chosen": f"{QUESTION} Yes.", "rejected": "No."}, "Only the chosen side repeats"),
        ({"prompt": QUESTION, "context": "Lyon has 520,000 people.", **SIDES}, "the column context"),
        ({"prompt": QUESTION, "documents": ["Lyon", "Paris"], **SIDES}, "the column documents"),
        ({"prompt": QUESTION, "context": "470 km", **SIDES}, "the column context"),
        ({"prompt": QUESTION, "question": "Another?", **SIDES}, "the column question"),
        ({"prompt": QUESTION, "input": "1 2", **SIDES}, "the column input"),
        ({"prompt": QUESTION, "messages": [*FIRST, ASK], **SIDES}, "the column messages"),
        ({"prompt": QUESTION, "images": ["a.png"], **SIDES}, "the column images"),
        ({"prompt": [RULE, ASK], "system": "Be short.", **SIDES}, "not the one that the conversation begins with"),
        ({"prompt": QUESTION, "system": "A", "system_prompt": "B", **SIDES}, "different system prompts"),
        ({"prompt": f"[INST] {QUESTION} [/INST]", **SIDES}, "chat template"),
        ({"prompt": f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}", **SIDES}, "chat template"),
        ({"prompt": "[{'role': 'user', 'content': 'half", **SIDES}, "looks like messages"),
        ({"prompt": QUESTION, "completion": "a", "label": True}, "Known are chosen and rejected"),
        ({"question": QUESTION, "answer": "a"}, "Known are chosen and rejected"),
        ({"prompt": QUESTION, **BOTH}, "no column says which is better"),
        ({"prompt": QUESTION, **BOTH, "winner": "banana"}, "winner is 'banana'"),
        ({"prompt": QUESTION, **BOTH, "label": 1}, "label is '1'"),
        ({"prompt": QUESTION, "Prompt": "Another?", **SIDES}, "two columns prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_with_a_sentence(data: dict[str, Any], words: str) -> None:
    found = fate(data)
    assert not isinstance(found, Pair)
    assert words in found.detail


@pytest.mark.parametrize(
    "verdict",
    [{"winner": "tie"}, {"winner": "tie (bothbad)"}, {"overall_preference": 0}, {"score_a": 1, "score_b": "1.0"},
     {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}],
)  # fmt: skip
def test_no_difference_is_a_tie(verdict: dict[str, Any]) -> None:
    assert fate({"prompt": QUESTION, **BOTH, **verdict}).reason == Reason.TIE


def test_a_rows_own_tools_must_be_the_workflows() -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    row = {"prompt": QUESTION, **SIDES, "tools": json.dumps(tools)}
    assert isinstance(fate(row, tool_schemas={"look": {}}), Pair)
    assert "look" in fate(row, tool_schemas={"act": {}}).detail


def test_columns_that_nobody_reads_are_told() -> None:
    result = clean([RawRow(1, "t", {**LAYOUTS["UltraFeedback binarized"], "reviewer": "x"})], CleaningRules())
    assert result.unused_columns == {"prompt_id": 1, "reviewer": 1}


def test_scores_of_whole_answers_are_held_against_the_label() -> None:
    row = {"prompt": QUESTION, **SIDES, "chosen_rating": "2.0", "rejected-rating": 4}
    for weights in ({}, {"outcome": 1.0}):
        assert fate(row, rubric_weights=weights).reason == Reason.LABEL_DISAGREES_WITH_SCORES
    assert fate({**row, "chosen_rating": None}).rubric_scores is None


# --- the same conversation, however it is cut -------------------------------------------------------------------------

WORD = st.text("abcdefghij", min_size=2, max_size=6)
SENTENCE = st.lists(WORD, min_size=4, max_size=8).map(" ".join)
CONVERSATION = st.tuples(
    st.lists(SENTENCE, max_size=1).map(lambda texts: [system(f"S {text}") for text in texts]),
    st.lists(st.tuples(SENTENCE, SENTENCE), max_size=2).map(
        lambda rounds: [turn for ask, say in rounds for turn in (user(f"U {ask}"), assistant(f"A {say}"))]
    ),
    SENTENCE.map(lambda text: [user(f"Q {text}")]),
).map(lambda found: found[0] + found[1] + found[2])


def written(turns: list[dict[str, Any]], how: str) -> Any:
    if how == "json":
        return json.dumps(turns)
    if how == "python":
        return str(turns)
    if how == "sharegpt":
        return [share_gpt(turn) for turn in turns]
    return [parts(turn) for turn in turns] if how == "parts" else turns


WAYS = st.sampled_from(["messages", "json", "python", "sharegpt", "parts"])


@settings(max_examples=150, deadline=None)
@given(CONVERSATION, SENTENCE, SENTENCE, WAYS, WAYS, st.integers(0, 6), st.booleans(), st.booleans())
def test_prompt_and_side_are_the_conversation_that_was_given(
    conversation: list[dict[str, Any]], yes: str, no: str, how: str, other: str, start: int, repeat: bool, both: bool
) -> None:
    """Whichever part of the conversation the prompt holds, and whether the sides repeat it or not."""
    good, bad = [assistant(f"A {yes}")], [assistant(f"B {no}")]
    whole = {"chosen": written([*conversation, *good], other), "rejected": written([*conversation, *bad], other)}
    answers = {"chosen": written(good, other), "rejected": written(bad, other)}
    prompt = conversation[min(start, len(conversation) - 1) :] if repeat else conversation
    sides = whole if repeat else answers
    if repeat and not both:
        prompt, sides = conversation, {**whole, "rejected": answers["rejected"]}
    pair = fate({"prompt": written(prompt, how), **sides})
    assert isinstance(pair, Pair), pair.detail
    assert pair.prompt == conversation
    assert (pair.chosen, pair.rejected) == (good, bad)


@settings(max_examples=150, deadline=None)
@given(SENTENCE, SENTENCE, SENTENCE, st.sampled_from([" ", "\n", "\n\n", ""]), st.sampled_from(["?", ".", ":", ""]))
def test_a_text_that_repeats_its_prompt_is_cut_behind_it(ask: str, yes: str, no: str, gap: str, end: str) -> None:
    prompt = f"Q {ask}{end}"
    pair = fate({"prompt": prompt, "chosen": f"{prompt}{gap}Yes {yes}", "rejected": f"{prompt}{gap}No {no}"})
    assert isinstance(pair, Pair), pair.detail
    if gap or end:
        assert (pair.prompt, pair.chosen, pair.rejected) == (
            [user(prompt)], [assistant(f"Yes {yes}")], [assistant(f"No {no}")]
        )  # fmt: skip
    else:  # no blank, no mark: another word
        assert pair.chosen == [assistant(f"{prompt}Yes {yes}")]
