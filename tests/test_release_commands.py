"""`agentrl release ...` as a person or a script uses it."""

import json
from datetime import UTC, datetime

import pytest
from conftest import Command, Here
from small_releases import WHO, Bundle, release_of

from agentrl_resources.files import digest_json
from agentrl_resources.release import Registry


@pytest.fixture
def bundle(here: Here) -> Bundle:
    """A champion and a candidate in the state folder of the command."""
    here.home.mkdir()
    bundle = Bundle(here.home)
    registry = bundle.registry
    registry.promote(bundle.baseline, **WHO, seen=registry.pointers())
    registry.propose(bundle.release, **WHO, seen=registry.pointers())
    return bundle


def stop_expansion(registry: Registry, release: str) -> None:
    for gate in ("no_safety_regression", "cost_per_success_not_worse"):
        at = datetime(2026, 11, 18, tzinfo=UTC)
        registry.expansion.record_break(gate=gate, at=at, release=release, said="worse than the champion")


def test_the_list_says_which_release_plays_which_part(here: Here, bundle: Bundle) -> None:
    registry = bundle.registry
    registry.start_canary(bundle.release, 5, **WHO, seen=registry.pointers())
    registry.record_decision(bundle.release, {"answer": "HOLD", "reason": "too few sessions"})
    out = here("release", "list").stdout
    assert f"{bundle.release[:12]}  candidate, canary (5 %) " in out
    assert "canary HOLD" in out
    assert f"{bundle.baseline[:12]}  champion " in out
    assert "stopped" not in out
    stop_expansion(registry, bundle.release)
    assert "EXPANSION is stopped: cost_per_success_not_worse and no_safety_regression broke in 2026-W47" in (
        here("release", "list").stdout
    )
    said = json.loads(here("release", "list", "--json").stdout)
    assert said["expansion"]["week"] == "2026-W47"
    assert said["pointers"]["canary_percent"] == 5
    rows = {row["release"]: row for row in said["releases"]}
    assert rows[bundle.release]["pointers"] == ["candidate", "canary"]
    assert rows[bundle.release]["decision"] == "HOLD"
    assert set(rows[bundle.release]["gates"].values()) == {"GO"}


def test_a_gate_that_does_not_say_go_is_named_in_the_list(here: Here, bundle: Bundle) -> None:
    release_of(bundle.registry, "bad", no_safety_regression="NO-GO", cost_per_success_not_worse="GO")
    assert "no_safety_regression NO-GO" in here("release", "list").stdout


def test_show_tells_the_whole_story_of_one_release(here: Here, bundle: Bundle) -> None:
    registry = bundle.registry
    registry.start_canary(bundle.release, 5, who="ada", why="a try", seen=registry.pointers())
    registry.ramp(50, who="bob", why="so far so good", seen=registry.pointers())
    registry.record_decision(bundle.release, {"answer": "NO-GO", "reason": "slower", "decided_at": "2026-11-23T10:00"})
    registry.fail_back(who="canary", why="it is slower", seen=registry.pointers())
    out = here("release", "show", bundle.release[:8]).stdout
    for line in (
        f"RELEASE {bundle.release}  candidate",
        f"reward_model {bundle.artifacts['reward_model'].digest[:12]}",
        "  GO     no_safety_regression: GO, as it happens",
        "  NO-GO  2026-11-23T10:00 slower",
        "start canary by ada: a try",
        "ramp by bob: so far so good",
        "fail back by canary: it is slower",
    ):
        assert line in out
    moves = json.loads(here("release", "show", "--json").stdout)["history"]
    assert [move["action"] for move in moves] == ["fail back", "ramp", "start canary", "propose"]
    assert "GATES" not in here("release", "show", "champion").stdout


def test_diff_says_what_changed(here: Here, bundle: Bundle) -> None:
    out = here("release", "diff").stdout.splitlines()
    assert out[0] == f"{bundle.baseline[:12]} -> {bundle.release[:12]}"
    assert "rubric: rubric is new" in out
    assert here("release", "diff", "candidate", "candidate").stdout.splitlines()[1:] == ["nothing"]
    said = json.loads(here("release", "diff", "--json").stdout)
    assert said["old"] == bundle.baseline
    assert said["changed"] == out[1:]


def test_a_stop_of_expansion_is_cleared_with_a_reason_that_is_kept(here: Here, bundle: Bundle) -> None:
    stop_expansion(bundle.registry, bundle.release)
    assert here("release", "clear").returncode == 2
    assert here("release", "clear", "--reason", " ").returncode == 1
    done = here("release", "clear", "--reason", "the price list was wrong", "--who", "ada")
    assert done.returncode == 0
    assert "expansion is open again" in done.stdout
    (clearing,) = bundle.registry.expansion.clearings()
    assert (clearing.who, clearing.reason, clearing.week) == ("ada", "the price list was wrong", "2026-W47")
    again = here("release", "clear", "--reason", "again")
    assert again.returncode == 1
    assert "nothing to clear" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["promote", "--why", "x"], 1, "there is no canary yet"),
        (["promote"], 2, "--why"),
        (["rollback"], 2, "--why"),
        (["rollback", "--why", "x"], 1, "there is no previous release"),
        (["fail-back", "--why", "x"], 1, "there is no canary to fail back"),
        (["show", "xyz"], 1, "no release is called 'xyz'"),
        (["diff", "champion", "xyz"], 1, "no release is called 'xyz'"),
        (["verify", "previous"], 1, "there is no previous yet"),
        (["fly"], 2, "invalid choice"),
        ([], 2, "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_clear_message(
    here: Here, bundle: Bundle, arguments: list[str], code: int, said: str
) -> None:
    done = here("release", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_state_folder_has_no_release(here: Here) -> None:
    assert here("release", "list").stdout == "there is no release yet\n"
    assert "there is no candidate yet" in here("release", "show").stderr


def test_a_release_that_a_run_made_goes_to_the_champion_and_back(built: Command, here_built: Here) -> None:
    registry = Registry(built.home / "registry")
    release = registry.resolve("candidate")
    baseline = registry.manifest(release)["rollback_target"]
    before = {"champions": (baseline,), "canary": None, "canary_percent": 0.0}  # whatever its canary came to
    registry.swap("try again", **WHO, seen=registry.pointers(), **before)
    assert here_built("release", "verify").returncode == 0
    refused = here_built("release", "promote", "candidate", "--why", "at once")
    assert refused.returncode == 1
    assert "it is not the canary" in refused.stderr

    registry.start_canary(release, 5, **WHO, seen=registry.pointers())
    assert "is not taken yet" in here_built("release", "promote", "--why", "impatient").stderr
    ended = here_built("release", "fail-back", "--why", "the shop is closed", "--who", "ada")
    assert ended.stdout == f"champion {baseline[:12]}, previous none\n"
    assert (registry.pointers().canary, registry.pointers().who) == (None, "ada")
    registry.start_canary(release, 5, **WHO, seen=registry.pointers())
    registry.record_decision(release, {"answer": "GO", "reason": "every metric is good"})
    stop_expansion(registry, baseline)
    stopped = here_built("release", "promote", "--why", "it went well")
    assert stopped.returncode == 1
    assert "Expansion is stopped: cost_per_success_not_worse and no_safety_regression broke in 2026-W47" in (
        stopped.stderr
    )
    assert here_built("release", "clear", "--reason", "another release's").returncode == 0

    (path,) = (built.home / "artifacts" / "reward_model").glob("*/model.json")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b" ")
    for command in (["promote", "--why", "it went well"], ["verify"]):
        spoilt = here_built("release", *command)
        assert spoilt.returncode == 1
        assert f"{path} has changed" in spoilt.stderr
    path.write_bytes(content)

    done = here_built("release", "promote", "--why", "it went well", "--who", "ada", "--json")
    assert json.loads(done.stdout) | {"champion": release, "previous": baseline, "who": "ada"} == (
        json.loads(done.stdout)
    )
    assert registry.pointers().canary is None
    stop_expansion(registry, release)
    back = here_built("release", "rollback", "--why", "complaints")
    assert back.stdout == f"champion {baseline[:12]}, previous none\n"
    assert registry.pointers().champion == baseline


def test_a_verdict_that_the_evidence_does_not_give_is_not_promoted(built: Command, here_built: Here) -> None:
    """A manifest whose every byte is right, with a better verdict than its own episodes give."""
    registry = Registry(built.home / "registry")
    manifest = registry.manifest(registry.resolve("candidate"))
    manifest["verdicts"]["no_safety_regression"]["estimate"] = -99.0
    del manifest["routing"]
    forged = registry.add({**manifest, "routing": {"salt": digest_json(manifest), "buckets": 10_000}})
    done = here_built("release", "promote", forged, "--why", "it looks good")
    assert done.returncode == 1
    assert "it does not verify: verdicts.no_safety_regression.estimate is -99.0 in the manifest" in done.stderr
    assert registry.pointers().champion != forged
