"""The known layouts of preference tables: in which columns prompt and sides stand, and who says which is better.

Names are compared without case, blanks and dashes. A column that says nothing (null, NaN, empty) hides no other one.
Where the names come from: TRL ("Dataset formats"), LLaMA-Factory (`data/README.md`), Axolotl (RLHF formats), OpenAI's
and OpenPipe's preference fine-tuning, and the data sets that they point to: hh-rlhf, UltraFeedback, Orca pairs, Stack
Exchange, SHP, PKU-SafeRLHF, HelpSteer 2 and 3, AlpacaFarm, WebGPT, Chatbot Arena, argilla's and distilabel's.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from agentrl_resources.preferences.pairs import DEMONSTRATION, TWO_RUNS, Reason, Refused
from agentrl_resources.preferences.values import flag, given, leaves, number, parsed

KNOWN = (
    "Known are chosen and rejected (also preferred_output and non_preferred_output, response_j and response_k, and so "
    "on), or two answers (response_a and response_b, response_0 and response_1, ...) with a verdict (winner, "
    "preference, better_response_id, ...) or a score each; and prompt, question, instruction (with input), query, "
    "messages or conversations, with system."
)

_BETTER = (
    ("chosen", "rejected"), ("preferred", "non_preferred"), ("preferred", "dispreferred"), ("preferred", "rejected"),
    ("accepted", "rejected"), ("better", "worse"), ("good", "bad"), ("winning", "losing"), ("positive", "negative"),
    ("selected", "rejected"), ("best", "worst"), ("pos", "neg"),
)  # fmt: skip
_ANSWER = ("response", "answer", "output", "completion", "message", "messages", "conversation", "conversations", "text",
           "reply")  # fmt: skip
SIDES = (
    *_BETTER,
    *((f"{good}_{noun}", f"{bad}_{noun}") for (good, bad), noun in product(_BETTER, _ANSWER)),
    *((f"{noun}_{good}", f"{noun}_{bad}") for (good, bad), noun in product(_BETTER, _ANSWER)),
    ("response_j", "response_k"), ("y_w", "y_l"), ("messages", "rejected_message"),
)  # fmt: skip
"""Columns that hold the better and the worse answer."""

_TWO = (("0", "1"), ("1", "2"), ("a", "b"))
_CANDIDATES = tuple(
    (f"{noun}{joint}{one}", f"{noun}{joint}{two}", one)
    for noun in ("response", "answer", "output", "completion", "conversation", "human_ref", "reply", "summary")
    for joint in ("_", "")
    for one, two in _TWO
)
_VERDICTS = ("winner", "preference", "preferred", "better_response_id", "better", "best", "choice", "labels", "label",
             "overall_preference", "preference_strength", "preferred_response", "preferred_answer",
             "chosen")  # fmt: skip
_STRENGTHS = ("overall_preference", "preference_strength")
_A_NOUN = (
    r"(?:(?:model|response|answer|assistant|option|output|completion|conversation|candidate|reply|summary)[ _-]?)?"
)
_MARK = re.compile(rf"{_A_NOUN}(?:a|b|0|1|2)")
_NOTHING = ("nan", "none", "null", "<na>", "n/a")  # what exports make of an empty cell
_TIES = ("tie", "both", "both bad", "equal", "same", "draw", "neither")

TEXTS = ("prompt", "question", "instruction", "query", "user_prompt", "user_input", "prompt_text", "input", "post")
DIALOGUES = ("messages", "conversations", "conversation", "dialogue", "dialog", "context", "history", "chat_history")
SYSTEM = ("system", "system_prompt", "system_message", "system_instruction", "system_instructions")
EARLIER = ("history", "chat_history")
SUSPICIOUS = (
    *TEXTS, *DIALOGUES, "contexts", "document", "documents", "passage", "passages", "article", "background", "persona",
    "knowledge", "evidence", "paragraph", "schema", "examples", "few_shot", "demonstrations", "retrieved", "image",
    "images", "audio", "audios", "video", "videos",
)  # fmt: skip
"""What such a column holds is likely a part of what the model was asked: it is used, or the row is refused."""


_SUSPICIOUS = frozenset(SUSPICIOUS)
_ASKED = frozenset({*SUSPICIOUS, *SYSTEM})
SCORED = ("score", "rating", "avg_rating", "overall_score", "reward")
"""What people call the score that an answer got as a whole."""
_READ = {
    *SUSPICIOUS, *SYSTEM, *_VERDICTS, "tools", "output", "responses", "completions", "answers", "generations",
    *(name for pair in SIDES for name in pair), *(name for one, two, _ in _CANDIDATES for name in (one, two)),
    *(f"{side}_{noun}" for side in ("chosen", "rejected") for noun in (*SCORED, "scores")),
    *(f"{noun}_{side}" for side in ("chosen", "rejected") for noun in SCORED),
    *(f"{noun}_{mark}" for noun in (*SCORED, "scores", "model", "winner_model") for mark in ("a", "b", "0", "1", "2")),
    "winner_tie", "scores", "ratings", "rating", "rewards", "pair_id", "task_id", "task_type", "rubric_scores",
    "annotator", "rubric_version", "split", "source", "conversational", "metadata", "compares", "chosen_run",
    "rejected_run",
}  # fmt: skip


@dataclass(frozen=True)
class Columns(Mapping[str, Any]):
    """The columns of a row that say anything, by plain name (lower case, `_` for blanks and dashes)."""

    given: dict[str, Any]
    used: set[str]
    """Those that were read."""

    def __getitem__(self, name: str) -> Any:
        value = self.given[name]
        self.used.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)

    def __contains__(self, name: object) -> bool:
        return name in self.given


def columns_of(data: Mapping[str, Any]) -> Columns:
    """Raises `Refused` where two columns of one name say different things."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if not given(value):
            continue
        name = _plain_name(name)
        if name in _ASKED and isinstance(value, str) and value.strip().lower() in _NOTHING:
            continue
        if found.setdefault(name, value) != value:
            raise Refused(Reason.UNREADABLE, f"There are two columns {name}, which say different things.")
    return Columns(found, set())


def _plain_name(name: str) -> str:
    return name if name in _READ else re.sub(r"[\s-]+", "_", str(name).strip().lower())


def compares(row: Mapping[str, Any]) -> str | None:
    """What a row says that it compares: `TWO_RUNS`, `DEMONSTRATION`, or two answers to one prompt (None)."""
    said = row.get("compares")
    if not given(said):
        return None
    if said not in (TWO_RUNS, DEMONSTRATION):
        raise Refused(
            Reason.UNREADABLE, f"`compares` is {str(said)[:80]!r}; it may be {TWO_RUNS!r} or {DEMONSTRATION!r}."
        )
    return str(said)


def has_sides(data: Mapping[str, Any]) -> bool:
    """Whether a row holds two answers in a known layout, or is a demonstration, which needs one."""
    try:
        row = columns_of(data)
        if compares(row) == DEMONSTRATION:
            return "chosen" in row
        return any(good in row and bad in row for good, bad in SIDES) or _candidates(row) is not None
    except Refused as refused:
        return refused.reason == Reason.TIE


def sides(row: Columns) -> tuple[Any, Any]:
    """The better and the worse answer, as they stand. Raises `Refused`: a missing side, a tie, an unknown verdict."""
    for good, bad in SIDES:
        if good in row and bad in row and not _is_mark(row.given[good], row):
            _check_label(row)
            return row[good], row[bad]
    if found := _candidates(row):
        return found
    names = ", ".join(row) or "nothing"
    for good, bad in SIDES[: len(_BETTER)]:
        if good in row or bad in row:
            missing = bad if good in row else good
            raise Refused(Reason.MISSING_SIDE, f"The row has no {missing} side, only {names}.")
    raise Refused(Reason.MISSING_SIDE, f"The row has no chosen side and no rejected one, only {names}. {KNOWN}")


def label_of(row: Mapping[str, Any]) -> str:
    """What `label` beside a chosen and a rejected side says: `chosen` (so it is), `tie`, or what nobody understands."""
    label = row.get("label")
    if not given(label):
        return "chosen"
    word = str(label).strip().lower()
    return "chosen" if word in ("chosen", "preferred", "true", "1", "1.0") else word


def _check_label(row: Columns) -> None:
    label = label_of(row)
    if label == "tie":
        raise Refused(Reason.TIE, "The annotator saw no difference.")
    if label != "chosen":
        raise Refused(Reason.UNREADABLE, f"The label is {label[:80]!r}; it may be 'chosen' or 'tie'.")


def _is_mark(value: Any, row: Columns) -> bool:
    """Whether `chosen` names one of two answers in other columns (`A`, `response_b`, 1) and holds none."""
    if (
        isinstance(value, list | dict)
        or (isinstance(value, str) and len(value) > 20)
        or not _MARK.fullmatch(str(value).strip().lower())
    ):
        return False
    return any(one in row and two in row for one, two, _ in _CANDIDATES)


# --- two answers and a verdict ----------------------------------------------------------------------------------------


def _candidates(row: Columns) -> tuple[Any, Any] | None:
    """The better and the worse of two answers that stand in columns without rank; None where there are none."""
    for one, two, mark in _CANDIDATES:
        if one in row and two in row:
            other = dict(_TWO)[mark]
            verdict = _first_wins(row, mark, other, human=one.startswith("human_ref"))
            first, second = _by_rounds(row, row[one], row[two]) or (row[one], row[two])
            return (first, second) if verdict else (second, first)
    for name in ("output", "responses", "completions", "answers", "generations"):
        if name in row and isinstance(row.given[name], list) and len(row.given[name]) == 2:
            first, second = row[name]
            if name == "output" and isinstance(first, str) and isinstance(second, str):
                return first, second  # LLaMA-Factory's first layout: the better one stands first
            scores = next((row[key] for key in ("scores", "ratings", "rating", "rewards") if key in row), None)
            if isinstance(scores, list) and len(scores) == 2:
                return (first, second) if _higher(*scores) else (second, first)
            if isinstance(first, dict) and isinstance(second, dict):
                return _by_own_score(first, second)
    return None


def _by_rounds(row: Columns, *answers: Any) -> list[list[Any]] | None:
    """Chatbot Arena's published comparisons: prompt and answers are lists (as text) with one entry a round."""
    lists = [parsed(value) if isinstance(value, str) else value for value in (row.given.get("prompt"), *answers)]
    if "winner_model_a" not in row or not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
        return None
    row.used.add("prompt")
    questions, *both = lists
    return [_turns(zip(questions, answers, strict=True)) for answers in both]


def _by_own_score(first: dict[str, Any], second: dict[str, Any]) -> tuple[Any, Any] | None:
    """Two answers that each say how good they are; a rank is better the lower it is (NeMo RL)."""
    for key in (*SCORED, "rank"):
        if key in first and key in second:
            better = _higher(first[key], second[key]) != (key == "rank")
            sides = [one.get("completion", one) for one in (first, second)]
            return (sides[0], sides[1]) if better else (sides[1], sides[0])
    return None


def _first_wins(row: Columns, one: str, two: str, human: bool) -> bool:
    names = [name for name in _VERDICTS if name in row]
    if flags := [name for name in (f"winner_model_{one}", f"winner_model_{two}", "winner_tie") if name in row]:
        won = [flag(row[name]) for name in flags]
        if sum(won) != 1 or flags[won.index(True)] == "winner_tie":
            raise Refused(Reason.TIE, "The annotator saw no difference.")
        return flags[won.index(True)].endswith(f"_{one}")
    if names:
        return _says_first(row, names[0], one, two, human)
    for noun in ("score", "rating", "reward", "scores"):
        if f"{noun}_{one}" in row and f"{noun}_{two}" in row:
            return _higher(row[f"{noun}_{one}"], row[f"{noun}_{two}"])
    raise Refused(Reason.MISSING_SIDE, f"Two answers stand there, but no column says which is better. {KNOWN}")


def _says_first(row: Columns, name: str, one: str, two: str, human: bool) -> bool:
    value = row[name]
    if name in _STRENGTHS:
        strength = number(value, name) or 0.0
        if strength == 0:
            raise Refused(Reason.TIE, "The annotator saw no difference.")
        return strength < 0
    if human and str(value).strip() in ("0", "1", "0.0", "1.0"):
        return float(value) == 1  # SHP: 1 where the first one is preferred
    word = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
    if word in _TIES or word.startswith("tie"):
        raise Refused(Reason.TIE, "The annotator saw no difference.")
    for mark, first in ((one, True), (two, False)):
        if re.fullmatch(_A_NOUN + mark, word):
            return first
    models = [str(row.given.get(f"model_{mark}", "")).strip().lower() for mark in (one, two)]
    if models.count(word) == 1:
        return models[0] == word
    for words, first in ((("first", "left"), True), (("second", "right"), False)):
        if word in words:
            return first
    raise Refused(
        Reason.UNREADABLE, f"The {name} is {str(value)[:80]!r}; it may be {one!r}, {two!r} or 'tie' in this layout."
    )


def _higher(one: Any, two: Any) -> bool:
    first, second = number(one, "score of the first answer"), number(two, "score of the second answer")
    if first is None or second is None:
        raise Refused(Reason.MISSING_SIDE, "Two answers stand there, but not both have a score.")
    if first == second:
        raise Refused(Reason.TIE, "Both answers have the same score.")
    return first > second


# --- what was asked ---------------------------------------------------------------------------------------------------


def asked(row: Columns) -> tuple[list[Any], Any]:
    """The turns before the prompt, and the prompt as it stands (None where there is none)."""
    if "input" in row and isinstance(row.given["input"], dict):  # OpenAI's preference fine-tuning
        row.given["input"] = row.given["input"].get("messages")
    name = next((name for name in (*TEXTS, *DIALOGUES) if name in row and name not in row.used), None)
    if name is None:
        return [], None
    prompt = row[name]
    if name == "instruction" and isinstance(row.given.get("input"), str):  # Alpaca; joined as LLaMA-Factory does
        prompt = f"{prompt}\n{row['input']}"
    before: list[Any] = []
    earlier = next((key for key in EARLIER if key in row and key != name), None)
    if earlier and _is_rounds(row.given[earlier]):
        before = _turns(row[earlier])
    elif name in EARLIER and _is_rounds(prompt):
        prompt = _turns(prompt)
    return before, prompt


def system_text(row: Columns) -> str | None:
    """What a column of its own tells the model before everything else."""
    texts = {str(row[name]).strip() for name in SYSTEM if name in row}
    if any(not isinstance(row.given[name], str) for name in SYSTEM if name in row):
        raise Refused(Reason.UNREADABLE, "The system prompt in a column of its own must be text.")
    if len(texts) > 1:
        raise Refused(Reason.UNREADABLE, "Two columns give different system prompts.")
    return next(iter(texts), None)


def left_out(row: Columns, prompt: list[Any], sides: Sequence[list[Any]]) -> str | None:
    """The first column that looks like a part of what was asked, but stands nowhere in the prompt.

    Messages may be those of a side too: many tables hold the preferred conversation twice.
    """
    extra = sorted((row.given.keys() & _SUSPICIOUS) - row.used)
    if not extra:
        return None
    asked, said = (_squeezed(" ".join(leaves(turns))) for turns in (prompt, [prompt, *sides]))
    for name in extra:
        value = row.given[name]
        value = (parsed(value) if isinstance(value, str) else None) or value
        texts = list(leaves(value)) or [str(value)]
        messages = isinstance(value, list) and all(isinstance(one, dict) for one in value)
        if any(_squeezed(text) not in (said if messages else asked) for text in texts):
            return name
        row.used.add(name)
    return None


def overall_score(row: Columns, side: str) -> float | None:
    """The score that the answer of a side got as a whole."""
    names = (name for noun in SCORED for name in (f"{side}_{noun}", f"{noun}_{side}"))
    return next((found for name in names if name in row and (found := number(row[name], name)) is not None), None)


def offered_tools(data: Mapping[str, Any]) -> set[str]:
    """Names of the tools that a row itself offers the model (`tools`, also as text, also OpenAI's `input.tools`)."""
    inner = data.get("input")
    tools = data.get("tools") or (inner.get("tools") if isinstance(inner, dict) else None)
    tools = parsed(tools) if isinstance(tools, str) else tools
    functions = [one.get("function", one) for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []
    return {str(one.get("name")) for one in functions if isinstance(one, dict)}


def unused_columns(data: Mapping[str, Any]) -> Iterator[str]:
    """Columns of a row that say something, and that nothing here reads."""
    return (str(name) for name, value in data.items() if given(value) and _plain_name(name) not in _READ)


def _is_rounds(value: Any) -> bool:
    """LLaMA-Factory's history: [[question, answer], ...]."""
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 2 and all(isinstance(text, str) for text in one) for one in value
    )


def _turns(rounds: Iterable[Any]) -> list[Any]:
    return [
        turn
        for question, answer in rounds
        for turn in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    ]


def _squeezed(text: str) -> str:
    return " ".join(text.split())
