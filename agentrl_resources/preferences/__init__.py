"""Preference data: read what the user has, keep what may train, say why the rest may not, and prove both."""

from agentrl_resources.preferences.cleaning import CleaningRules, CleanResult, clean, length_of, profile
from agentrl_resources.preferences.from_runs import OUTCOMES, FromRuns, opening_of, pairs_from
from agentrl_resources.preferences.pairs import ON_POLICY, Message, Pair, Quarantined, RawRow, Reason
from agentrl_resources.preferences.reading import read_pairs
from agentrl_resources.preferences.validation import ValidationResult, validate

__all__ = [
    "ON_POLICY",
    "OUTCOMES",
    "CleanResult",
    "CleaningRules",
    "FromRuns",
    "Message",
    "Pair",
    "Quarantined",
    "RawRow",
    "Reason",
    "ValidationResult",
    "clean",
    "length_of",
    "opening_of",
    "pairs_from",
    "profile",
    "read_pairs",
    "validate",
]
