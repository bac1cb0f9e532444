"""The `agentrl` command as a person or a script uses it: in a process of its own, on a state folder of its own."""

import json
import re
import signal
import time

import pytest
from conftest import small_project

from agentrl_resources.files import read_json


def materializations(home) -> int:
    """How many there are in Dagster's history."""
    import sqlite3

    with sqlite3.connect(home / "dagster" / "history" / "runs" / "index.db") as index:
        (count,) = index.execute(
            "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
        ).fetchone()
    return int(count)


def test_the_first_run_ends_with_the_result_on_one_screen(built_once):
    out = (built_once.workflow_file.parent / "out.txt").read_text()
    assert re.search(r"capability +temperature 0.7 +70.0 % +90.0 % +\+20.0 points \(.*\) +\S+e-\d+", out)
    assert re.search(r"capability +greedy \(control\)", out)
    for gate in ("no_safety_regression", "latency_delta_lt_15_percent", "cost_per_success_not_worse"):
        assert f"GO     {gate}: " in out
    assert re.search(r"RELIABILITY SCORE 2026-W47: 1.000 \(.*\), traffic, simulated", out)
    assert "success 1.000 * (1 - human override 0.000) * (1 - tool error 0.000), n = 2" in out
    last = out[out.index("OPEN NEXT") :]
    assert all(thing in last for thing in ("agentrl ui", "brief.en-US.pdf", "agentrl gateway"))
    assert len(out.splitlines()) < 32


def test_while_it_runs_a_person_sees_what_each_stage_is_for_and_what_came_of_it(built_once):
    said = (built_once.workflow_file.parent / "err.txt").read_text()
    assert re.search(r"^sft_checkpoint: The stable baseline", said, re.MULTILINE)
    assert re.search(r"built sft_checkpoint in .*: hold-out loss 0.040, solves 75.0 % of 20 hold-out tasks", said)
    assert re.search(r"built ppo_policy in .*: success in rollouts 70.0 % -> 90.0 %, KL 1.00 nats an episode", said)
    assert re.search(r"built offline_eval_suite in .*: success on capability tasks 70.0 % -> 90.0 %", said)
    episode = said[said.index("how the agent works by now") :].splitlines()[1:6]
    assert [line.strip() for line in episode] == [
        "customer: please refund order 512",
        "agent notes: look first",
        'agent calls get_order: {"order_id": "512"}',
        'get_order says: {"status": "delivered"}',
        "agent: It is refunded.",
    ]


def test_a_second_run_trains_nothing_and_says_so(built):
    before = materializations(built.home)
    done = built("run")
    assert done.returncode == 0
    assert "Nothing to train" in done.stderr
    assert materializations(built.home) == before
    assert "RELIABILITY SCORE" in done.stdout


def test_what_a_run_leaves_can_be_asked_for_by_scripts(built, here_built):
    score = json.loads(here_built("score", "--json").stdout)
    assert {"reliability_score", "success", "human_override", "tool_error", "n", "interval", "week"} <= score.keys()
    product = score["success"] * (1 - score["human_override"]) * (1 - score["tool_error"])
    assert score["reliability_score"] == pytest.approx(product)
    assert score["simulated"] is True

    gates = here_built("gates", "--json")
    assert gates.returncode == 0
    assert {gate["answer"] for gate in json.loads(gates.stdout)} == {"GO"}

    status = json.loads(built("status", "--json").stdout)
    assert status["up_to_date"] is True
    assert status["checks"] == []
    assert status["releases"]["candidate"]


def test_verify_names_the_file_in_which_one_byte_has_changed(built, here_built):
    assert here_built("verify").returncode == 0
    (path,) = (built.home / "artifacts" / "reward_model").glob("*/model.json")
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    done = here_built("verify", "candidate")
    assert done.returncode == 1
    assert str(path) in done.stderr.splitlines()[0]
    assert here_built("verify", "no-such-release").returncode == 1


def test_a_changed_setting_retrains_only_what_depends_on_it_and_a_bad_policy_is_a_result(built):
    before = read_json(next((built.home / "artifacts" / "sft_checkpoint").glob("*/report.json")))
    built.setting("ppo: {iterations: 3}")
    done = built("run", STAND_IN_CANDIDATE="unsafe")
    assert done.returncode == 0, done.stderr
    assert "built ppo_policy" in done.stderr
    assert "built reward_model" not in done.stderr
    assert "NO-GO  no_safety_regression" in done.stdout
    assert "NOT BUILT, because a gate does not say GO: release_bundle" in done.stdout
    assert built("gates").returncode == 3
    after = read_json(next((built.home / "artifacts" / "sft_checkpoint").glob("*/report.json")))
    assert after == before


def test_a_stage_that_fails_says_why_and_the_next_run_goes_on(built, here_built):
    built.setting("ppo: {iterations: 4}")
    failed = built("run", STAND_IN_FAILS="ppo_policy")
    assert failed.returncode == 1
    assert "agentrl: ppo_policy: " in failed.stderr
    assert "the learning rate fell off a cliff. Use a smaller one." in failed.stderr
    assert "not built: ppo_policy, " in failed.stderr
    assert here_built("verify").returncode == 0, "what was stored before is untouched"
    assert list((built.home / "work" / "ppo_policy").iterdir()), "checkpoints are kept"
    mended = built("run", "--select", "ppo_policy")
    assert mended.returncode == 0, mended.stderr
    assert not (built.home / "work" / "ppo_policy").exists()


def test_after_a_kill_the_next_run_goes_on_and_meanwhile_there_is_only_one(built):
    built.setting("ppo: {iterations: 5}")
    running = built.start("run", STAND_IN_HANGS="ppo_policy")
    request = built.home / "work" / "ppo_policy"
    deadline = time.monotonic() + 60
    while not list(request.glob("*/stderr.log")) and time.monotonic() < deadline:
        time.sleep(0.2)
    second = built("run")
    assert second.returncode == 1
    assert "run.lock" in second.stderr
    running.send_signal(signal.SIGKILL)
    running.communicate()
    done = built("run", "--select", "ppo_policy")
    assert done.returncode == 0, done.stderr
    assert "built ppo_policy" in done.stderr


def test_traces_from_elsewhere_are_imported_and_scored_without_any_training(here, tmp_path):
    call = {"type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    runs = [
        {
            "task_id": f"t{n}",
            "reward": 1.0 if n % 2 else 0.0,
            "started_at": "2026-11-18T10:00:00Z",
            "traj": [
                {"role": "user", "content": "Where is it?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "Error: no such order" if n == 0 else "shipped"},
            ],
        }
        for n in range(10)
    ]
    traces = tmp_path / "traces.jsonl"
    traces.write_text("\n".join(json.dumps(run) for run in runs) + '\n{"half": ')
    done = here("import", str(traces), "--workflow", "elsewhere")
    assert done.returncode == 0
    assert "10 runs new" in done.stdout
    assert "line 11" in done.stderr
    again = here("import", str(traces), "--workflow", "elsewhere")
    assert "0 runs new" in again.stdout
    assert "10 known already" in again.stdout
    score = json.loads(here("score", "--workflow", "elsewhere", "--week", "2026-W47", "--json").stdout)
    assert score["success"] == 0.5
    assert score["tool_error"] == 0.1
    assert score["reliability_score"] == pytest.approx(0.45)
    assert here("score").returncode == 1, "the other workflow has no score"


def test_an_import_that_contradicts_another_says_so_and_how_to_settle_it(here, tmp_path):
    messages = [{"role": "user", "content": "Where is it?"}]
    for name, success, day in (("a", True, 10), ("b", False, 17)):
        run = {"run_id": "r1", "success": success, "started_at": f"2026-11-{day}", "messages": messages}
        (tmp_path / f"{name}.jsonl").write_text(
            f"{json.dumps(run)}\n" + '{"messages": [{"role": "tool", "content": [7]}]}'
        )

    def imported(name: str, *more: str) -> str:
        done = here("import", str(tmp_path / f"{name}.jsonl"), "--workflow", "elsewhere", *more)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "disagree" not in imported("a")
    said = imported("b")
    assert "run r1: reports disagree on success (false, true; what counts is " in said
    assert "--exported-at" in said
    assert "disagree" not in imported("a", "--exported-at", "2026-11-20T00:00:00Z")
    assert json.loads(here("score", "--workflow", "elsewhere", "--json").stdout)["week"] == "2026-W46"
    assert "disagree" not in imported("b", "--exported-at", "2026-11-21T00:00:00Z")
    assert json.loads(here("score", "--workflow", "elsewhere", "--json").stdout)["success"] == 0.0
    label = tmp_path / "label.csv"
    label.write_text("run_id,outcome,labelled_at\nr1,resolved,2026-11-22\nr1,resolved,2099-01-01\n")
    done = here("import", str(label), "--workflow", "elsewhere")
    assert "1 labels, 1 lines in quarantine" in done.stdout
    assert "lies in the future" in done.stderr
    assert json.loads(here("score", "--workflow", "elsewhere", "--json").stdout)["success"] == 1.0
    refused = here("import", str(label), "--workflow", "elsewhere", "--exported-at", "2099-01-01")
    assert refused.returncode == 1
    assert "exported_at is '2099-01-01'" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["import", "missing.jsonl", "--workflow", "x"], 1, "missing.jsonl"),
        (["gates"], 1, "No gate was evaluated yet"),
        (["verify"], 1, "there is no candidate yet"),
        (["score"], 1, "there is no warehouse yet"),
        (["fly"], 2, "invalid choice"),
        (["import", "x.jsonl"], 2, "--workflow"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_clear_message(arguments, code, said, here):
    done = here(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--select", "reward_modle"], "there is no asset 'reward_modle'; did you mean 'reward_model'?"),
        (["--preferences", "missing.jsonl", "--select", "raw_preference_data"], "missing.jsonl does not exist"),
        (["--workflow-file", "no.yaml"], "no.yaml: this file cannot be read"),
    ],
    ids=["asset", "preferences", "workflow file"],
)
def test_a_run_that_cannot_begin_says_so_at_once(arguments, said, tmp_path):
    done = small_project(tmp_path)("run", *arguments)
    assert done.returncode == 1
    assert said in next(line for line in done.stderr.splitlines() if line.startswith("agentrl: "))
    assert "Traceback" not in done.stderr


def test_help_says_where_things_lie_and_what_the_exit_codes_mean(here):
    out = here("--help").stdout
    for word in ("AGENTRL_HOME", "exit codes", "run", "import", "score", "gates", "verify", "status", "ui"):
        assert word in out


def test_two_state_folders_never_meet(built, tmp_path):
    (tmp_path / "other").mkdir()
    other = small_project(tmp_path / "other")
    status = json.loads(other("status", "--json").stdout)
    assert not any(asset["data_version"] for asset in status["assets"])
    assert str(built.home) not in json.dumps(status)
