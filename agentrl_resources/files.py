"""Files that are whole or absent: atomic writes, digests, and the artifact store.

A file or an artifact appears under its name by one rename, after every byte of it has reached the disk. A crash at
any moment leaves the last complete state; a full disk leaves it too, and says so.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agentrl_resources.errors import AgentRLError


def canonical_json(value: Any) -> bytes:
    """The one JSON spelling of a value: sorted keys, no spaces, UTF-8. AgentRLError on NaN and on unknown types."""
    return _json(value, separators=(",", ":"))


def digest_bytes(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal characters."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of the value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content; the same as `sha256sum`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by POSIX path relative to it, in sorted order."""
    return {name: digest_file(path / name) for name in _file_names(path)}


def digest_tree(path: Path) -> str:
    """SHA-256 of a folder's content: names and bytes of its files. Empty folders, times and modes do not count."""
    return digest_of_files(file_digests(path))


def digest_of_files(files: Mapping[str, str]) -> str:
    """The digest of a folder that holds these files: SHA-256 over the sorted lines `path NUL sha256 LF`."""
    return digest_bytes("".join(f"{name}\0{files[name]}\n" for name in sorted(files)).encode())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that it is either the old one or the new one, also after a crash or on a full disk."""
    with _replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, atomically. NaN is refused."""
    write_atomic(path, _json(value, indent=2) + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. AgentRLError names the file when it is missing or not JSON."""
    try:
        with _opened(path) as file:
            return json.load(file)
    except ValueError as error:
        raise AgentRLError(f"{path}: this is not valid JSON ({error})") from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, atomically and without holding them in memory."""
    with _replacing(path) as file:
        for row in rows:
            file.write(canonical_json(row) + b"\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines one by one. AgentRLError names the file and the line that is not a JSON object."""
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise AgentRLError(f"{path}, line {number}: this is not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise AgentRLError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
            yield row


@contextmanager
def full_disk_is_told(path: Path) -> Iterator[None]:
    """Turn a full disk, however a library words it, into an AgentRLError that names the path and the space left."""
    try:
        yield
    except Exception as error:
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        if not (
            (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
            or "No space left on device" in str(error)  # safetensors
            or (isinstance(error, RuntimeError) and free < 2**16)  # torch.save words it in many ways
        ):
            raise
        raise AgentRLError(
            f"{path}: there is no room for this on the disk ({free / 2**20:.1f} MiB free). "
            "What was stored before is untouched; make room and run again."
        ) from error


@contextmanager
def locked(path: Path, wait_seconds: float = 10.0) -> Iterator[None]:
    """Hold an exclusive lock on a file. It ends with the process; AgentRLError when another holds it for too long."""
    with full_disk_is_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("ab")
    with handle:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise AgentRLError(
                        f"{path}: another process has held this lock for {wait_seconds:.0f} s. "
                        "Wait for it to end, or stop it, and run again."
                    ) from error
                time.sleep(0.01)
        yield


@dataclass(frozen=True)
class Artifact:
    """A stored folder that is named by the digest of its content and never changes."""

    kind: str
    digest: str
    path: Path

    @property
    def report(self) -> dict[str, Any]:
        """What the producer said about it: `report.json`, or nothing."""
        report = self.path / "report.json"
        return dict(read_json(report)) if report.exists() else {}


class ArtifactStore:
    """Folders by content: `artifacts/<kind>/<digest>/` below the state folder, staged in `work/` beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def stage(self, kind: str) -> Iterator[Path]:
        """A fresh folder to fill and then commit. Whatever is not committed is removed at the end."""
        folder = self.root / "work" / f"{kind}-{secrets.token_hex(6)}"
        try:
            with full_disk_is_told(folder):
                folder.mkdir(parents=True)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, kind: str, staged: Path) -> Artifact:
        """Move a staged folder to its digest. The same content again is the same artifact, and heals a damaged copy."""
        with full_disk_is_told(staged):
            sync_tree(staged)
            digest = digest_tree(staged)
            target = self.root / "artifacts" / kind / digest
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and digest_tree(target) != digest:
                with self.stage("damaged") as damaged:
                    target.rename(damaged / digest)
            try:
                staged.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(staged)
            for folder in (target.parent, target.parent.parent, self.root):
                _sync_folder(folder)
        return Artifact(kind, digest, target)

    def get(self, kind: str, digest: str) -> Artifact:
        """The stored artifact. AgentRLError when it is not there."""
        artifact = Artifact(kind, digest, self.root / "artifacts" / kind / digest)
        if not artifact.path.is_dir():
            raise AgentRLError(
                f"{artifact.path}: {kind} {digest[:12]} is not in the artifact store. "
                f"Build {kind} again, or point AGENTRL_HOME at the state folder that holds it."
            )
        return artifact

    def differences(self, artifact: Artifact, expected: Mapping[str, str]) -> Iterator[str]:
        """One sentence for each file, in order of name, whose content is not the expected one."""
        found = file_digests(artifact.path)
        for name in sorted(expected.keys() | found.keys()):
            path = artifact.path / name
            if name not in found:
                yield f"{path} is missing"
            elif name not in expected:
                yield f"{path} does not belong to this {artifact.kind}"
            elif found[name] != expected[name]:
                yield f"{path} has changed: its SHA-256 should be {expected[name][:12]}, it is {found[name][:12]}"


def _json(value: Any, **layout: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, **layout).encode()
    except (TypeError, ValueError) as error:
        raise AgentRLError(f"This value cannot be written as JSON ({error}): {str(value)[:200]}") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise AgentRLError(f"{path}: there is no such file") from error


def _file_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with full_disk_is_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        _sync_folder(path)  # a file's content is flushed the same way as a folder's entries


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
