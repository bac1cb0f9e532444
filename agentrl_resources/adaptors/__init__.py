"""Environments of other libraries, as ours: each adaptor is a base class that a few lines make one of."""
