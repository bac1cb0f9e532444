"""The one error a user sees."""


class AgentRLError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do."""
