"""The release bundle: one manifest that versions models, data, evidence and verdicts together, and can be checked."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import (
    Artifact,
    ArtifactStore,
    canonical_json,
    digest_bytes,
    digest_json,
    digest_of_files,
    file_digests,
    write_atomic,
)
from agentrl_resources.release.manifests import SCHEMA, Manifest, Manifests
from agentrl_resources.release.provenance import documents
from agentrl_resources.settings import Settings

BUCKETS = 10_000
"""Sessions are hashed into this many buckets; a canary's share is a number of them."""

# What a release that gates have judged is made of. The splits of preference_data and the suites of eval_suite are
# files of their artifact, so the manifest holds a digest for each of them.
BUNDLE_ARTIFACTS = (
    "rubric",
    "preference_data",
    "on_policy_preference_data",
    "tokenizer",
    "sft_checkpoint",
    "reward_model",
    "policy",
    "eval_suite",
    "eval_episodes",
)
BASELINE_ARTIFACTS = ("tokenizer", "policy")


def build_manifest(
    settings: Settings,
    store: ArtifactStore,
    artifacts: Mapping[str, Artifact],
    verdicts: Mapping[str, Mapping[str, Any]] | None,
    *,
    parent: str | None,
    rollback_target: str | None,
    lock_file: Path,
    conversations: Mapping[str, Any] | None = None,
) -> Manifest:
    """Everything that makes a release what it is. It holds no time: the same content is the same release.

    `artifacts` has at least BUNDLE_ARTIFACTS by name, `verdicts` what each gate said, by the gate's name, with at
    least its `answer`. Without verdicts it is a baseline, the first champion, which needs only BASELINE_ARTIFACTS.
    `parent` and `rollback_target` are releases. `conversations` is how the policy reads and writes: family, template
    and tools. The lock file is archived; the commit is that of the repository which tracks it.
    AgentRLError when an artifact is not given.
    """
    needed = BASELINE_ARTIFACTS if verdicts is None else BUNDLE_ARTIFACTS
    missing = [name for name in needed if name not in artifacts]
    if missing:
        raise AgentRLError(f"A release cannot be bundled without {', '.join(missing)}; build them first")
    archived = {**artifacts, "lock_file": _archive(store, "lock_file", lock_file)}
    manifest = {
        "schema": SCHEMA,
        "workflow": settings.workflow.target,
        "parent": parent,
        "rollback_target": rollback_target,
        "code": _code(lock_file),
        "settings": settings.model_dump(mode="json"),
        "seeds": {"seed": settings.seed},
        "artifacts": {
            name: {"kind": artifact.kind, "digest": artifact.digest, "files": file_digests(artifact.path)}
            for name, artifact in archived.items()
        },
        "conversations": None if conversations is None else dict(conversations),
        "gate_configuration": settings.section_digest("release"),
        "gates": [] if verdicts is None else list(settings.release.gates),
        "verdicts": {gate: dict(verdict) for gate, verdict in (verdicts or {}).items()},
    }
    return {**manifest, "routing": _routing(manifest)}


def verify(
    release: str, registry: Manifests, store: ArtifactStore, recomputed: Mapping[str, Any] | None = None
) -> list[str]:
    """Compute every digest of a release again, offline. One sentence for each difference; none when all is as it was.

    It covers the manifest and the standard documents beside it, every file of every artifact, the gate configuration,
    the routing salt, the parent's manifest, and the rollback target with its artifacts. `recomputed` holds fields of
    the manifest that the caller has derived again, such as `verdicts` from the archived episodes.
    """
    return list(_differences(release, registry, store, recomputed or {}))


def _differences(
    release: str, registry: Manifests, store: ArtifactStore, recomputed: Mapping[str, Any]
) -> Iterator[str]:
    try:
        manifest = registry.manifest(release)
        if manifest["parent"]:
            registry.manifest(manifest["parent"])
        fallback = registry.manifest(manifest["rollback_target"]) if manifest["rollback_target"] else None
    except AgentRLError as error:
        yield str(error)
        return
    if manifest.get("schema") != SCHEMA:
        yield (
            f"Release {release[:12]} has the format {manifest.get('schema')}, this version of agentrl can only verify "
            f"{SCHEMA}. Bundle it again: agentrl run --select release_bundle"
        )
        return
    yield from _document_differences(release, manifest, registry)
    bundles = [manifest, fallback] if fallback else [manifest]
    entries = {digest_json(entry): entry for bundle in bundles for entry in bundle["artifacts"].values()}
    for entry in entries.values():
        yield from _artifact_differences(entry, store)
    configuration = digest_json({"release": manifest["settings"]["release"]})
    yield from _unequal("gate_configuration", manifest["gate_configuration"], configuration)
    routing = _routing({field: value for field, value in manifest.items() if field != "routing"})
    yield from _unequal("routing", manifest["routing"], routing)
    for field, value in recomputed.items():
        yield from _unequal(field, manifest[field], json.loads(canonical_json(value)))


def _document_differences(release: str, manifest: Manifest, registry: Manifests) -> Iterator[str]:
    for name, document in documents(release, manifest).items():
        path = registry.folder / name
        if not path.exists():
            yield f"{path} is missing"
        elif (found := path.read_bytes()) != document:
            should, is_ = digest_bytes(document)[:12], digest_bytes(found)[:12]
            yield f"{path} has changed: its SHA-256 should be {should}, it is {is_}"


def _artifact_differences(entry: Mapping[str, Any], store: ArtifactStore) -> Iterator[str]:
    kind, digest, files = entry["kind"], entry["digest"], entry["files"]
    if digest_of_files(files) != digest:
        yield f"The manifest contradicts itself: the files that it lists for {kind} are not those of {digest[:12]}"
        return
    try:
        artifact = store.get(kind, digest)
    except AgentRLError as error:
        yield str(error)
        return
    yield from store.differences(artifact, files)


def _unequal(where: str, said: Any, found: Any) -> Iterator[str]:
    if isinstance(said, dict) and isinstance(found, dict):
        for key in sorted(said.keys() | found.keys()):
            yield from _unequal(f"{where}.{key}", said.get(key), found.get(key))
    elif said != found:
        yield f"{where} is {said!r} in the manifest and {found!r} when it is computed again"


def _routing(manifest: Manifest) -> dict[str, Any]:
    """How sessions are hashed to a canary: the salt is another one for each release, and follows from its content."""
    return {"salt": digest_json(manifest), "buckets": BUCKETS}


def _archive(store: ArtifactStore, kind: str, file: Path) -> Artifact:
    with store.stage(kind) as folder:
        write_atomic(folder / file.name, file.read_bytes())
        return store.commit(kind, folder)


def _code(tracked: Path) -> dict[str, Any]:
    """The git commit and whether files differ from it; both None where no repository tracks this file.

    An installed wheel often lies in an environment inside a repository that is not AgentRL's.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=tracked.parent, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", tracked.name) is None:
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
