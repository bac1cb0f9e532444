"""API keys: what is stored, who gets in, and several processes at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command, small_project

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway import KeyRing, keys

ROOT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys.json"


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The clock of the key ring; a test sets it."""
    now = [1000.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])
    return now


def test_a_key_is_shown_once_and_only_its_hash_is_kept(path: Path) -> None:
    ring = KeyRing(path)
    shown = [ring.create("shop"), ring.create("operator", admin=True), ring.create("drill", simulated=True)]
    assert len(set(shown)) == 3
    assert all(key.startswith("arl_") and len(key) == 47 for key in shown)
    assert not any(key[4:] in path.read_text() for key in shown)
    assert path.stat().st_mode & 0o777 == 0o600
    found = [ring.check(key) for key in shown]
    assert found == list(ring.list())
    assert [(key.name, key.admin, key.simulated) for key in found if key] == [
        ("shop", False, False),
        ("operator", True, False),
        ("drill", False, True),
    ]


def test_whatever_is_not_a_key_is_refused(path: Path) -> None:
    ring = KeyRing(path)
    assert ring.check("arl_") is None
    key = KeyRing(path).create("shop")
    ring = KeyRing(path)
    wrong = [f"{key[:at]}{'a' if letter != 'a' else 'b'}{key[at + 1 :]}" for at, letter in enumerate(key)]
    (stored,) = json.loads(path.read_text())["keys"]
    others = ["", key[:-1], f"{key} ", f" {key}", key.upper(), stored["sha256"], "shop", "\ud800", "é", "x" * 100_000]
    assert [ring.check(presented) for presented in [*wrong, *others]] == [None] * (len(key) + len(others))
    assert ring.check(key) is not None


def test_what_another_process_changes_counts_within_a_second(path: Path, clock: list[float]) -> None:
    serving, changing = KeyRing(path), KeyRing(path)
    assert serving.check("arl_x") is None
    first, second = changing.create("first"), changing.create("second")
    clock[0] += 0.9
    assert serving.check(first) is None
    clock[0] += 0.2
    assert serving.check(first)
    changing.revoke("first")
    clock[0] += 1.1
    assert serving.check(first) is None
    assert serving.check(second)
    path.unlink()
    clock[0] += 1.1
    assert serving.check(second) is None


def test_the_file_is_read_again_only_after_a_change(path: Path, clock: list[float], monkeypatch) -> None:
    ring = KeyRing(path)
    key = ring.create("shop")
    read = []
    real = keys.read_json
    monkeypatch.setattr(keys, "read_json", lambda file: (read.append(file), real(file))[1])
    for _ in range(50):
        clock[0] += 0.5
        assert ring.check(key)
    assert len(read) == 1


def test_a_name_is_unique_and_only_a_known_one_is_revoked(path: Path) -> None:
    ring = KeyRing(path)
    first = ring.create("shop")
    with pytest.raises(AgentRLError, match="a key named 'shop' already"):
        ring.create("shop", admin=True)
    with pytest.raises(AgentRLError, match="needs a name"):
        ring.create(" ")
    with pytest.raises(AgentRLError, match="no key named 'shops'"):
        ring.revoke("shops")
    ring.revoke("shop")
    second = ring.create("shop")
    fresh = KeyRing(path)
    assert fresh.check(first) is None
    assert fresh.check(second)


def test_a_file_that_holds_no_keys_lets_nobody_in_and_says_so(path: Path) -> None:
    path.parent.mkdir()
    for content in ("[]", '{"keys": [{"name": "shop"}]}', "{}", "not json"):
        path.write_text(content)
        with pytest.raises(AgentRLError, match=r"keys\.json"):
            KeyRing(path).check("arl_x")
        with pytest.raises(AgentRLError, match=r"keys\.json"):
            KeyRing(path).create("shop")
        assert path.read_text() == content


def test_processes_that_make_keys_at_once_all_keep_theirs(path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from agentrl_resources.gateway import KeyRing
ring = KeyRing(Path({str(path)!r}))
for number in range(10):
    print(ring.create(f"{{sys.argv[1]}}-{{number}}"))
"""
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen([*command, str(number)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for number in range(3)
    ]
    made = [process.communicate()[0].split() for process in processes]
    ring = KeyRing(path)
    names = [key.name for keys_of_one in made for key in map(ring.check, keys_of_one) if key]
    assert names == [f"{process}-{number}" for process in range(3) for number in range(10)]


def test_the_command_makes_lists_and_revokes_keys(tmp_path: Path) -> None:
    agentrl: Command = small_project(tmp_path)
    made = agentrl("keys", "create", "shop", "--simulated")
    key = made.stdout.strip()
    found = KeyRing(agentrl.home / "keys.json").check(key)
    assert found is not None
    assert (found.name, found.simulated, found.admin) == ("shop", True, False)
    (listed,) = json.loads(agentrl("keys", "list", "--json").stdout)
    assert listed == {"name": "shop", "created_at": found.created_at, "admin": False, "simulated": True}
    assert agentrl("keys", "list").stdout.split() == ["shop", found.created_at, "simulated"]
    assert agentrl("keys", "revoke", "shop").returncode == 0
    again = agentrl("keys", "revoke", "shop")
    assert (again.returncode, again.stderr) == (1, "agentrl: There is no key named 'shop'. Known: none.\n")
