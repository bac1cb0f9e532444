"""What a piece of Python code does, as a digest: of its own source and of all source of its project that it uses.

Source is parsed, never imported. A file's top-level statements are its parts, each with what it binds and what it uses.
From where one starts, a statement leads to those that bind the names it uses, also in other files, until nothing new is
found. So an edit counts where it can change what happens, and nowhere else. Comments, docstrings and layout do not
count; the minor version of Python does, since it reads the source.

Two kinds of code are followed differently. Modules of `by_name` (AgentRL's own, which does nothing when it is imported)
are followed statement by statement. All other code, which may register things by being imported, counts file by file.
The standard library and what is installed in site-packages never count.
"""

import ast
import importlib.util
import json
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_bytes, digest_file, digest_json, write_atomic

INSTALLED = frozenset(("site-packages", "dist-packages"))
DATA = frozenset((".yaml", ".yml", ".json", ".jsonl", ".toml", ".csv", ".txt", ".sql", ".jinja", ".j2", ".typ"))
"""Files that count as part of a package beside its Python files."""
LARGE = 1_000_000
"""Bytes from which a data file counts by its size and time: it is looked at whenever the code location is imported."""


@dataclass(frozen=True)
class _Source:
    """One file. `statements`: (digest, the file's names and other places that it uses). `binds`: name -> statements.
    `imports`: name -> the places it is from, as `module:name` or `module:`. `always`: statements that bind nothing, so
    they act on what others have bound.
    """

    statements: list[tuple[str, list[str]]]
    binds: dict[str, list[int]]
    imports: dict[str, list[str]]
    always: list[int]


class SourceCode:
    """Digests of code, by the place where it starts.

    Args:
        by_name: top-level packages that are followed statement by statement.
        leave_out: modules that do not count; a `*` at the end stands for any ending.
        path: where top-level modules are looked for; by default wherever Python would.
        cache: a file that remembers what was parsed, by each file's size and time. It may be missing.
    """

    def __init__(
        self,
        by_name: Collection[str] = (),
        leave_out: Collection[str] = (),
        path: Collection[str] | None = None,
        cache: Path | None = None,
    ) -> None:
        self._by_name = frozenset(by_name)
        self._leave_out = tuple(leave_out)
        self._path = None if path is None else [*path]
        self._cache_file = cache
        self._read_by = [digest_file(Path(__file__)), *sys.version_info[:2]]
        self._cache: dict[str, Any] = {}
        if cache is not None:
            with suppress(OSError, ValueError, TypeError, LookupError):
                stored = json.loads(cache.read_bytes())
                self._cache = stored["files"] if stored["read_by"] == self._read_by else {}
        self._new = False
        self._files: dict[str, Path | None] = {}
        self._sources: dict[str, _Source] = {}
        self._tops: dict[str, list[str] | None] = {}
        self._data: dict[Path, dict[str, str]] = {}

    def digest(self, *places: str) -> str | None:
        """SHA-256 of everything that these places (`package.module:name`, or `package.module` for all of it) use.

        None when one of them does not exist.
        """
        found: dict[str, str] = {}
        seen: set[tuple[str, str]] = set()
        waiting = [_place(place) for place in places]
        for module, name in waiting:
            if self._file(module) is None or (name and not self._has(module, name)):
                return None
        roots = frozenset(_top(module) for module, _ in waiting)
        while waiting:
            module, name = waiting.pop()
            if name and _top(module) not in self._by_name:
                waiting += [(module, ""), (f"{module}.{name}", "")]  # of the two, what there is
            elif (module, name) not in seen:
                seen.add((module, name))
                if self._counts(module, roots):
                    waiting += self._reached(module, name, found)
        self._save()
        return digest_json(found)

    def _counts(self, module: str, roots: frozenset[str]) -> bool:
        if any(module == one or (one.endswith("*") and module.startswith(one[:-1])) for one in self._leave_out):
            return False
        top = _top(module)
        if top in sys.stdlib_module_names:
            return False
        file = self._file(module)
        return file is not None and (top in roots or top in self._by_name or INSTALLED.isdisjoint(file.parts))

    def _reached(self, module: str, name: str, found: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Notes the digests of what `name` of a module stands for (all of it when that is empty); where it leads to."""
        source = self._source(module)
        if parent := module.rpartition(".")[0]:  # which runs when a module of it is imported
            yield parent, _ALWAYS
        if name not in ("", _ALWAYS) and not self._has(module, name):
            # a module of this package; or made in a way that cannot be read here
            yield (f"{module}.{name}", "") if self._file(f"{module}.{name}") else (module, "")
            return
        if name != _ALWAYS:
            found.update(self._data_beside(module))
        for position in range(len(source.statements)) if name == "" else [*source.always, *source.binds.get(name, ())]:
            digest, uses = source.statements[position]
            found[f"{module}:{digest}"] = digest
            yield from (_place(used) if ":" in used else (module, used) for used in uses)
        for places in source.imports.values() if name == "" else [source.imports.get(name, [])]:
            yield from map(_place, places)

    def _has(self, module: str, name: str) -> bool:
        """Whether a file itself says what a name is. A package that imports a module of its own does not."""
        source, itself = self._source(module), [f"{module}:{name}"]
        return name in source.binds or source.imports.get(name, itself) != itself

    def _data_beside(self, module: str) -> dict[str, str]:
        """The digests of a package's data files: beside its modules, and in its folders that are no packages."""
        file = self._file(module)
        assert file is not None
        if file.parent not in self._data:
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            files = _data_files(file.parent) if (file.parent / "__init__.py").exists() else ()
            self._data[file.parent] = {
                f"{package}/{path.relative_to(file.parent).as_posix()}": _data_digest(path) for path in files
            }
        return self._data[file.parent]

    def _file(self, module: str) -> Path | None:
        """The file of a module, found without importing anything."""
        if module not in self._files:
            top, *rest = module.split(".")
            self._files[module] = self._below(top, rest)
        return self._files[module]

    def _below(self, top: str, rest: list[str]) -> Path | None:
        if top not in self._tops:
            try:
                spec = (
                    PathFinder.find_spec(top, self._path) if self._path is not None else importlib.util.find_spec(top)
                )
            except (ImportError, ValueError):  # a module that is being run, or a broken hook
                spec = None
            self._tops[top] = None if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
        places = self._tops[top]
        if places is None:
            return None
        *folders, origin = places
        if not rest:
            return Path(origin) if origin.endswith(".py") else None
        for folder in folders:
            path = Path(folder, *rest)
            for file in (path / "__init__.py", path.with_suffix(".py")):
                if file.is_file():
                    return file
        return None

    def _source(self, module: str) -> _Source:
        if module not in self._sources:
            file = self._file(module)
            assert file is not None
            state = file.stat()
            key = [state.st_size, state.st_mtime_ns]
            kept = self._cache.get(f"{module} {file}")
            if kept is None or kept[0] != key:
                package = module if file.name == "__init__.py" else module.rpartition(".")[0]
                kept = self._cache[f"{module} {file}"] = [key, vars(_parsed(file.read_bytes(), package))]
                self._new = True
            self._sources[module] = _Source(**kept[1])
        return self._sources[module]

    def _save(self) -> None:
        if self._new and self._cache_file is not None and self._cache_file.parent.is_dir():
            with suppress(OSError, AgentRLError):  # next time it is parsed again
                write_atomic(self._cache_file, json.dumps({"read_by": self._read_by, "files": self._cache}))
            self._new = False


_ALWAYS = "*always"
"""In place of a name: what acts whenever a module is imported."""


def _place(place: str) -> tuple[str, str]:
    module, _, name = place.partition(":")
    return module, name


def _top(module: str) -> str:
    return module.partition(".")[0]


def _data_digest(path: Path) -> str:
    state = path.stat()
    return digest_file(path) if state.st_size < LARGE else f"{state.st_size} bytes of {state.st_mtime_ns}"


def _data_files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix in DATA and path.is_file():
            yield path
        elif path.is_dir() and not path.name.startswith((".", "__")) and not (path / "__init__.py").exists():
            yield from _data_files(path)


def _parsed(text: bytes, package: str) -> _Source:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # whoever imports it will say so
        return _Source([(digest_bytes(text), [])], {}, {}, [0])
    source = _Source([], {}, {}, [])
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, place in _imported(statement, package):
                source.imports.setdefault(name, []).append(place)
        elif not _is_text(statement) and not _is_for_types(statement):
            _strip_texts(statement)
            position = len(source.statements)
            source.statements.append((digest_bytes(ast.dump(statement).encode()), sorted(_uses(statement, package))))
            names = {*_bound(statement)}
            for name in names:
                source.binds.setdefault(name, []).append(position)
            if not names:
                source.always.append(position)
    for _, uses in source.statements:
        uses[:] = [used for used in uses if ":" in used or used in source.binds or used in source.imports]
    return source


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, str]]:
    """(name that is bound, where it is from) for each name of an import."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield alias.asname or _top(alias.name), f"{alias.name}:"
        return
    module = statement.module or ""
    if statement.level:
        base = package.split(".")[: len(package.split(".")) - statement.level + 1]
        module = ".".join([*base, module] if module else base)
    for alias in statement.names:
        star = alias.name == "*"
        yield f"* {module}" if star else alias.asname or alias.name, f"{module}:{'' if star else alias.name}"


def _uses(statement: ast.stmt, package: str) -> set[str]:
    """Every name that a statement reads, and everything that it imports. A name of its own may hide one of the file's:
    then it leads to more than is needed."""
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(place for _, place in _imported(node, package))
    return found


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement gives to the file."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    if isinstance(statement, ast.AugAssign):
        return  # it changes what another statement has bound
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        parts: list[ast.AST] = [*targets]
    else:
        parts = [statement]
    for node in (node for part in parts for node in ast.walk(part)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or _top(alias.name)


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, or a string that stands like one below a name."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and not statement.orelse and "TYPE_CHECKING" in ast.unparse(statement.test)


def _strip_texts(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
