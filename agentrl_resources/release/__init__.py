"""Releases: a manifest that can be proved, pointers that are swapped whole, rollbacks that are timed."""

from agentrl_resources.release.bundle import BASELINE_ARTIFACTS, BUNDLE_ARTIFACTS, build_manifest, verify
from agentrl_resources.release.registry import POINTER_NAMES, Manifest, Pointers, Registry
from agentrl_resources.release.rollback import RollbackTiming, measure_rollbacks

__all__ = [
    "BASELINE_ARTIFACTS",
    "BUNDLE_ARTIFACTS",
    "POINTER_NAMES",
    "Manifest",
    "Pointers",
    "Registry",
    "RollbackTiming",
    "build_manifest",
    "measure_rollbacks",
    "verify",
]
