"""API keys of the gateway, of which only hashes are kept."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_bytes, locked, read_json, write_json

_PREFIX = "arl_"
_LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Key:
    """What is known of a key. `admin`: it may use the admin routes. `simulated`: its traffic is marked as simulated.

    `sha256` is of the key as it is presented. A key is 32 random bytes, which nobody can search through, so one plain
    SHA-256 protects it as well as a slow hash with a salt protects a password, and costs a request a microsecond.
    """

    name: str
    sha256: str
    created_at: str
    admin: bool = False
    simulated: bool = False


class KeyRing:
    """The keys in a JSON file that only its owner may read. Processes may change it at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: Sequence[Key] = ()
        self._seen: tuple[int, int, int] | None = None
        self._look_at = 0.0

    def create(self, name: str, *, admin: bool = False, simulated: bool = False) -> str:
        """Make a key and return it; it cannot be shown again. AgentRLError when the name is taken or empty."""
        if not name.strip():
            raise AgentRLError("A key needs a name, such as that of the service that uses it.")
        presented = _PREFIX + secrets.token_urlsafe(32)
        key = Key(name, _hash(presented), datetime.now(UTC).isoformat(timespec="seconds"), admin, simulated)
        with self._changing():
            keys = self.list()
            if any(known.name == name for known in keys):
                raise AgentRLError(f"There is a key named {name!r} already. Revoke it, or choose another name.")
            self._store([*keys, key])
        return presented

    def revoke(self, name: str) -> None:
        """Forget a key; a running gateway refuses it within a second. AgentRLError when there is none of that name."""
        with self._changing():
            keys = self.list()
            if all(key.name != name for key in keys):
                names = ", ".join(key.name for key in keys) or "none"
                raise AgentRLError(f"There is no key named {name!r}. Known: {names}.")
            self._store([key for key in keys if key.name != name])

    def list(self) -> Sequence[Key]:
        """The keys as the file has them now, oldest first."""
        if not self.path.exists():
            return []
        try:
            return [Key(**key) for key in read_json(self.path)["keys"]]
        except (TypeError, KeyError) as error:
            raise AgentRLError(
                f"{self.path}: this is no file of keys ({error}). Make new keys, or restore it."
            ) from error

    def check(self, presented: str) -> Key | None:
        """The key that was presented, or None. Looks at the file for changes, at most once a second.

        Takes the same time whichever key it is and however much of it is right.
        """
        self._reload()
        digest = _hash(presented)
        matching = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        return matching[0] if matching else None

    def _reload(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        seen = None
        if self.path.exists():
            status = self.path.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            self._keys = self.list()
        self._seen, self._look_at = seen, now + _LOOK_AGAIN_SECONDS

    def _changing(self) -> AbstractContextManager[None]:
        return locked(self.path.with_suffix(".lock"))

    def _store(self, keys: Sequence[Key]) -> None:
        write_json(self.path, {"keys": [asdict(key) for key in keys]})
        self.path.chmod(0o600)


def _hash(presented: str) -> str:
    return digest_bytes(presented.encode(errors="surrogatepass"))
