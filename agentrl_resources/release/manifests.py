"""Releases as files that never change: `releases/<digest>.json`, a manifest named by the SHA-256 of its bytes.

Beside it lies the same in standard formats: `<digest>.provenance.json` and `<digest>.mlbom.json`.
"""

import json
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json, digest_bytes, write_atomic
from agentrl_resources.release.provenance import documents

SCHEMA = "agentrl.release/3"

Manifest = dict[str, Any]


class Manifests:
    """All releases of a registry, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def folder(self) -> Path:
        """Where the manifests lie."""
        return self.root / "releases"

    def add(self, manifest: Manifest) -> str:
        """Store a manifest for ever and return its digest. The same manifest again is the same release."""
        data = canonical_json(manifest)
        release = digest_bytes(data)
        if manifest.get("schema") == SCHEMA:
            for name, document in documents(release, json.loads(data)).items():
                write_atomic(self.folder / name, document)
        write_atomic(self._path(release), data)
        return release

    def manifest(self, release: str) -> Manifest:
        """The manifest of a release (full digest). AgentRLError when it is unknown or not what its name says."""
        path = self._path(release)
        if not path.exists():
            raise AgentRLError(f"{path}: there is no release {release[:12]} here")
        data = path.read_bytes()
        found = digest_bytes(data)
        if found != release:
            raise AgentRLError(f"{path} has changed: its SHA-256 should be {release[:12]}, it is {found[:12]}")
        manifest: Manifest = json.loads(data)
        return manifest

    def releases(self) -> list[str]:
        """The digests of all releases, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.json") if "." not in path.stem)

    def _path(self, release: str) -> Path:
        return self.folder / f"{release}.json"
