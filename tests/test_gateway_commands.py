"""`agentrl gateway` and `agentrl drill` from the command line: one clear message where they cannot."""

from conftest import Command

from agentrl_resources.files import locked


def test_without_a_champion_there_is_nothing_to_serve(here):
    done = here("gateway", "--port", "0", "--admin-port", "0")
    assert done.returncode == 1
    assert "there is no champion to serve yet" in done.stderr


def test_a_policy_that_cannot_be_loaded_is_told(built: Command):
    """The stand-in's policy is no model."""
    done = built("gateway", "--port", "0", "--admin-port", "0")
    assert done.returncode == 1
    assert "cannot be served" in done.stderr
    assert "Traceback" not in done.stderr


def test_there_is_one_gateway_a_state_folder(built: Command):
    with locked(built.home / "gateway" / "lock"):
        done = built("gateway", "--port", "0", "--admin-port", "0")
    assert done.returncode == 1
    assert "another process has held this lock" in done.stderr


def test_a_drill_needs_a_release(here):
    nothing = here("drill")
    assert nothing.returncode == 1
    assert "there is no candidate yet" in nothing.stderr


def test_a_drill_needs_something_to_go_back_to(built: Command):
    done = built("drill", "--release", "previous")
    assert done.returncode == 1
    assert "has nothing to go back to" in done.stderr
