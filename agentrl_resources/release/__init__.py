"""Releases: a manifest that can be proved, and pointers that move only when it is earned."""

from agentrl_resources.release.bundle import BASELINE_ARTIFACTS, BUCKETS, BUNDLE_ARTIFACTS, build_manifest, verify
from agentrl_resources.release.diff import differences_in_words
from agentrl_resources.release.expansion import Expansion, ExpansionState, iso_week
from agentrl_resources.release.manifests import Manifest
from agentrl_resources.release.provenance import ml_bom, provenance
from agentrl_resources.release.registry import (
    BROKE_OFF,
    DECIDED_AGAINST,
    POINTER_NAMES,
    Pointers,
    Registry,
    serves_the_same,
)

__all__ = [
    "BASELINE_ARTIFACTS",
    "BROKE_OFF",
    "BUCKETS",
    "BUNDLE_ARTIFACTS",
    "DECIDED_AGAINST",
    "POINTER_NAMES",
    "Expansion",
    "ExpansionState",
    "Manifest",
    "Pointers",
    "Registry",
    "build_manifest",
    "differences_in_words",
    "iso_week",
    "ml_bom",
    "provenance",
    "serves_the_same",
    "verify",
]
