"""Environments of other makes as ours: a base class each, which a user's few lines fill in."""
