"""YAML files read into pydantic models, where a mistake is told with its file, its line and the nearest valid name."""

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from agentrl_resources.errors import AgentRLError

Location = tuple[int | str, ...]


class StrictModel(BaseModel):
    """Frozen, no unknown keys, no silent conversions (`"17"` or `yes` is not a number), a docstring for each field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Model = TypeVar("Model", bound=BaseModel)


def load_model(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a model. AgentRLError has one line for each mistake, in the order of the file."""
    lines: dict[Location, int] = {}
    data = _read(path, lines)
    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        mistakes = sorted((_line(mistake["loc"], lines), _sentence(mistake, model)) for mistake in invalid.errors())
        raise AgentRLError("\n".join(f"{path}, line {line}: {said}" for line, said in mistakes)) from invalid


def nearest(name: str, valid: list[str]) -> str:
    """The end of a sentence about an unknown name: the closest valid one, or all of them when none is close."""
    close = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean '{close[0]}'?" if close else f"valid here: {', '.join(valid)}"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-3 as text. People who write learning rates mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read(path: Path, lines: dict[Location, int]) -> Any:
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        document = loader.get_single_node()
    except OSError as error:
        raise AgentRLError(f"{path}: this file cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise AgentRLError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise AgentRLError(f"{path}, line {mark.line + 1 if mark else 1}: not valid YAML ({error.problem})") from error
    except yaml.YAMLError as error:
        raise AgentRLError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(document, yaml.MappingNode):
        raise AgentRLError(f"{path}, line 1: the file is empty or is not a mapping of `key: value`")

    def plain(node: yaml.Node, location: Location) -> Any:
        lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key, line = str(key_node.value), key_node.start_mark.line + 1
                if key in mapping:
                    raise AgentRLError(f"{path}, line {line}: '{key}' is set a second time; keep one of the two")
                lines[(*location, key)] = line
                mapping[key] = plain(value_node, (*location, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return tuple(plain(item, (*location, index)) for index, item in enumerate(node.value))
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            line = node.start_mark.line + 1
            raise AgentRLError(f"{path}, line {line}: '{node.value}' cannot be read ({error})") from error

    return plain(document, ())


def _line(location: Location, lines: dict[Location, int]) -> int:
    """The line of a place in the file; for a key that is missing, the line of what should hold it."""
    return next(lines[location[:depth]] for depth in range(len(location), -1, -1) if location[:depth] in lines)


def _sentence(mistake: Any, model: type[BaseModel]) -> str:
    *parents, name = mistake["loc"] or ("the file",)
    where = ".".join(str(part) for part in (*parents, name))
    match mistake["type"]:
        case "extra_forbidden":
            return f"unknown setting '{where}'; {nearest(str(name), _fields_at(model, parents))}"
        case "missing":
            return f"'{where}' is missing"
        case "model_type":
            return f"{where}: expected a mapping of settings, not {mistake['input']!r:.80}"
        case "value_error":
            return f"{where}: {mistake['ctx']['error']}"
        case _:
            return f"{where}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}, not {mistake['input']!r:.80}"


def _fields_at(model: type[BaseModel], location: list[int | str]) -> list[str]:
    for name in location:
        if name in model.model_fields:
            annotation = model.model_fields[str(name)].annotation
            candidates = (annotation, *get_args(annotation))
            model = next(kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
