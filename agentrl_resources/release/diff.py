"""What changed between two releases, in words."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

MODELS = ("tokenizer", "sft_checkpoint", "reward_model", "policy")
DATA = ("preference_data", "on_policy_preference_data")
EVALUATION = ("eval_suite", "eval_episodes")

_TOLD_ELSEWHERE = {"code", "settings", "artifacts", "verdicts"}
_FOLLOWS_FROM_THE_REST = {"gate_configuration", "routing", "gates", "seeds"}
_ABSENT = "absent"


def differences_in_words(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each thing that a person would name, grouped by its first word; `nothing` when nothing did.

    Both are manifests. What only follows from something that is told (digests of digests, salts) is told by itself
    only when nothing else explains it.
    """
    lines = [
        *_code(old["code"], new["code"]),
        *_settings(old["settings"], new["settings"]),
        *_artifacts(old["artifacts"], new["artifacts"]),
        *_gates(old["verdicts"], new["verdicts"]),
        *_fields(old, new, (old.keys() | new.keys()) - _TOLD_ELSEWHERE - _FOLLOWS_FROM_THE_REST),
    ]
    return lines or list(_fields(old, new, _FOLLOWS_FROM_THE_REST)) or ["nothing"]


def _code(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old != new:
        yield f"code: {_commit(old)} -> {_commit(new)}"


def _commit(code: Mapping[str, Any]) -> str:
    commit = f"commit {code['commit'][:12]}" if code["commit"] else "no commit"
    return f"{commit} with uncommitted changes" if code["dirty"] else commit


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for section in sorted(old.keys() | new.keys()):
        changes = list(_changes(old.get(section, _ABSENT), new.get(section, _ABSENT)))
        if changes:
            yield f"settings {section}: {', '.join(changes)}"


def _changes(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{name}.{key}".lstrip("."))
    elif old != new:
        yield f"{name} {_value(old)} -> {_value(new)}".strip()


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    return "none" if value is None else str(value)


def _artifacts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    groups = {"rubric": ("rubric",), "data": DATA, "models": MODELS, "evaluation": EVALUATION}
    named = {name for names in groups.values() for name in names}
    others = tuple(sorted((old.keys() | new.keys()) - named))
    for group, names in {**groups, "also": others}.items():
        told = [said for name in names for said in _artifact(name, old.get(name), new.get(name))]
        if told:
            yield f"{group}: {'; '.join(told)}"


def _artifact(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[str]:
    if old == new:
        return
    if old is None or new is None:
        yield f"{name} {'is new' if old is None else 'is gone'}"
        return
    before, after = old["files"], new["files"]
    files = [file for file in sorted(before.keys() | after.keys()) if before.get(file) != after.get(file)]
    kinds = f" from {old['kind']} to {new['kind']}" if old["kind"] != new["kind"] else ""
    told = ", ".join(file for file in files if not file.endswith(".png"))
    yield f"{name} changed{kinds}" + (f" ({told})" if told else "")


def _gates(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for gate in [*new, *(gate for gate in old if gate not in new)]:
        before, after = old.get(gate), new.get(gate)
        if before != after:
            said, says = _verdict(before), _verdict(after)
            yield f"gate {gate}: " + (f"{says}, measured again" if said == says else f"{said} -> {says}")


def _verdict(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "not judged"
    numbers = []
    if verdict.get("estimate") is not None:
        numbers.append(f"{verdict['estimate']:.3g} {verdict.get('unit', '')}".strip())
    if verdict.get("interval"):
        low, high = verdict["interval"]
        numbers.append(f"{low:.3g} to {high:.3g}")
    if verdict.get("n") is not None:
        numbers.append(f"n = {verdict['n']}")
    return f"{verdict['answer']} ({', '.join(numbers)})" if numbers else verdict["answer"]


def _fields(old: Mapping[str, Any], new: Mapping[str, Any], fields: set[str]) -> Iterator[str]:
    for field in sorted(fields):
        changes = list(_changes(old.get(field, _ABSENT), new.get(field, _ABSENT)))
        if changes:
            yield f"{field.replace('_', ' ')}: {', '.join(changes)}"
