"""Who goes to the canary: a keyed hash of the session, so that a session always meets the same policy.

Both arms stick, and a larger share only adds buckets: nobody who had the canary loses it while it ramps up. The salt is
the release's own (`routing.salt` of its manifest), so that it is not always the same customers who try what is new.
"""

import hashlib
import hmac

from agentrl_resources.release import BUCKETS


def bucket(salt: str, session: str) -> int:
    """0 to 9,999: HMAC-SHA256 of the session's key under the salt, modulo the number of buckets."""
    return int.from_bytes(hmac.digest(salt.encode(), session.encode(), hashlib.sha256)[:8], "big") % BUCKETS


def goes_to_canary(salt: str, session: str, percent: float) -> bool:
    """Whether a session belongs to the canary's share of `percent`."""
    return bucket(salt, session) < percent * BUCKETS / 100
