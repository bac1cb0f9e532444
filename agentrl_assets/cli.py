"""The `agentrl` command. What is slow to import is imported by the command that needs it."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl_assets.brief_commands import add_brief_commands
from agentrl_assets.commands import this_workspace
from agentrl_assets.demonstrate_command import add_demonstrate_command
from agentrl_assets.doctor_command import add_doctor_command
from agentrl_assets.export_commands import add_export_command
from agentrl_assets.gateway_commands import add_gateway_commands
from agentrl_assets.init_command import add_init_command
from agentrl_assets.keys_commands import add_keys_commands
from agentrl_assets.pairs_command import add_pairs_command
from agentrl_assets.release_commands import add_release_commands, verify_release
from agentrl_resources.errors import AgentRLError

_HELP = """\
From preference data to a released agent policy that is proven better.

Everything a command leaves lies in one state folder: AGENTRL_HOME, by default .agentrl in the current folder. Delete
it for a clean start; two state folders know nothing of each other.
"""

_EXIT_CODES = """\
exit codes:
  0  it ran through, also when a gate says NO-GO or HOLD: that is a result
  1  it failed or was refused; the reason is on stderr. `verify`: something differs
  2  wrong usage
  3  `gates`: not every gate says GO
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        _enter_project(options)
        return int(options.command(options))
    except AgentRLError as error:
        print("\n".join(f"agentrl: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("agentrl: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _enter_project(options: argparse.Namespace) -> None:
    """Options become the environment, which the code location and every child process read."""
    for variable, value in (("AGENTRL_WORKFLOW_FILE", options.workflow_file), ("AGENTRL_HOME", options.home)):
        if value:
            os.environ[variable] = str(Path(value).absolute())
    if getattr(options, "preferences", None):
        os.environ["AGENTRL_PREFERENCES"] = str(Path(options.preferences).absolute())
    # A workflow of the user's own, `package.module:Class`, lies beside the workflow file.
    folder = str(Path(os.environ.get("AGENTRL_WORKFLOW_FILE", "workflow.yaml")).absolute().parent)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))


def _run(options: argparse.Namespace) -> int:
    from agentrl_assets.project import WORKSPACE
    from agentrl_assets.running import bring_up_to_date, dagster_instance
    from agentrl_assets.summary import summary

    # Dagster redirects the descriptors 1 and 2 while steps run; a person watches this one.
    with os.fdopen(os.dup(2), "w") as terminal:
        report = bring_up_to_date(WORKSPACE, options.select, terminal)
    if report.failures:
        for said in report.failures:
            print(f"agentrl: {said}", file=sys.stderr)
        if report.held_back:
            print(f"agentrl: not built: {', '.join(report.held_back)}", file=sys.stderr)
        print(f"agentrl: the whole story is in {WORKSPACE.root / 'run.log'}", file=sys.stderr)
        return 1
    with dagster_instance(WORKSPACE) as instance:
        print(f"\n{summary(instance, WORKSPACE)}")
    if report.held_back:
        print(f"NOT BUILT, because a gate does not say GO: {', '.join(report.held_back)}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from agentrl_resources.dagster_resources import PROJECT
    from agentrl_resources.telemetry import build_models, import_traces, load_models

    path = Path(options.traces)
    warehouse = this_workspace().warehouse
    own = _hand_over_tools(options.workflow)
    found = import_traces(path, options.workflow, exported_at=options.exported_at, hand_over_tools=own)
    report = warehouse.ingest(found.records, found.rejected, found.labels)
    with warehouse.connect() as connection:
        build_models(connection, load_models(PROJECT / "dbt_like_sql"))
    print(
        f"{os.fsencode(path).decode(errors='backslashreplace')}: {report.inserted} runs new, {report.updated} changed, "
        f"{report.unchanged} known already, {found.label_rows} labels, {len(found.rejected)} lines in quarantine"
    )
    if repeated := len(found.records) - len({record.run_id for record in found.records}):
        print(f"agentrl: {repeated} rows report a run that another row reports too", file=sys.stderr)
    if undated := sum(not record.start_known for record in found.records):
        print(f"agentrl: {undated} runs say no time and count in the week of their first import", file=sys.stderr)
    _list_some([f"{line.source}, line {line.line}: {line.reason}" for line in found.rejected], "import_quarantine")
    _list_some([str(conflict) for conflict in report.conflicts], "run_reports")
    if report.conflicts:
        print(
            "agentrl: what counts is the same in whatever order files are imported. To say which is the newest, give "
            "rows `updated_at`, or the file --exported-at.",
            file=sys.stderr,
        )
    return 0 if found.records or found.label_rows else 1


def _list_some(said: Sequence[str], table: str) -> None:
    for sentence in said[:10]:
        print(f"agentrl: {sentence}", file=sys.stderr)
    if len(said) > 10:
        print(f"agentrl: and {len(said) - 10} more; all of them are in the table {table}", file=sys.stderr)


def _hand_over_tools(name: str) -> frozenset[str]:
    """Those of the workflow of this name; when it cannot be loaded here, the usual names, and it says so."""
    from agentrl_assets.telemetry import hand_over_tools
    from agentrl_resources.telemetry import HAND_OVER_TOOLS

    own = hand_over_tools(this_workspace(), name)
    if own is None:
        usual = " or ".join(sorted(HAND_OVER_TOOLS))
        print(f"agentrl: {name} is no workflow of this project: a call of {usual} is a hand-over", file=sys.stderr)
    return HAND_OVER_TOOLS if own is None else own


def _score(options: argparse.Namespace) -> int:
    from agentrl_resources.telemetry import weekly_score

    workspace = this_workspace()
    workflow = options.workflow or workspace.workflow.name
    with workspace.warehouse.connect(read_only=True) as connection:
        score = asdict(weekly_score(connection, workflow, options.week))
    score["week"] = score.pop("iso_week")
    _show(options, score, lambda: "\n".join(f"{name}: {_known(value)}" for name, value in score.items()))
    return 0


def _known(value: Any) -> Any:
    return "unknown" if value is None else value


def _gates(options: argparse.Namespace) -> int:
    from agentrl_assets.running import dagster_instance
    from agentrl_assets.summary import gate_states

    workspace = this_workspace()
    with dagster_instance(workspace) as instance:
        states = gate_states(instance, workspace)
    lines = (
        f"{state.verdict.answer:<6} {state.verdict.gate}: {state.verdict.reason}"
        + ("" if state.current else f" [out of date: {state.why_not}]")
        for state in states
    )
    _show(options, [state.to_dict() for state in states], lambda: "\n".join(lines))
    return 0 if all(state.is_go for state in states) else 3


def _status(options: argparse.Namespace) -> int:
    from agentrl_assets.running import dagster_instance
    from agentrl_assets.status import status, status_text

    workspace = this_workspace()
    with dagster_instance(workspace) as instance:
        found = status(instance, workspace)
    _show(options, found, lambda: status_text(found))
    return 0


def _ui(options: argparse.Namespace) -> int:
    from agentrl_resources.dagster_resources import PROJECT, write_dagster_yaml

    workspace = this_workspace()
    os.environ["DAGSTER_HOME"] = str(write_dagster_yaml(workspace.root))
    os.environ["AGENTRL_HOME"], os.environ["AGENTRL_WORKFLOW_FILE"] = workspace.home, workspace.workflow_file
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(PROJECT / "workspace.yaml")]
    os.execv(sys.executable, [*command, "--host", options.host, "--port", str(options.port)])


def _show(options: argparse.Namespace, value: Any, text: Callable[[], str]) -> None:
    print(json.dumps(value, indent=2) if options.json else text())


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="agentrl", description=_HELP, epilog=_EXIT_CODES, formatter_class=plain)
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--workflow-file", metavar="FILE", help="default: workflow.yaml")
    everywhere.add_argument("--home", metavar="FOLDER", help="the state folder; default: AGENTRL_HOME or .agentrl")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what, parents=[everywhere], formatter_class=plain)
        added.set_defaults(command=run)
        return added

    run = command("run", _run, "build what is missing or out of date, and show the result")
    run.add_argument("--select", nargs="+", action="extend", default=[], metavar="ASSET", help="these and upstream")
    run.add_argument("--preferences", metavar="PATH", help="preference data: JSONL, Parquet or a datasets folder")

    add_init_command(commands, everywhere)
    add_doctor_command(commands, everywhere)
    traces = command("import", _import, "read traces of an agent that runs elsewhere, and labels of them")
    traces.add_argument("traces", metavar="TRACES", help="JSON lines, a JSON array, CSV (also .gz) or Parquet")
    traces.add_argument("--workflow", required=True, metavar="NAME", help="the workflow that they are runs of")

    traces.add_argument(
        "--exported-at", metavar="TIME", help="when the file was written; of files that disagree the newest counts"
    )

    add_pairs_command(commands, everywhere)
    add_demonstrate_command(commands, everywhere)
    score = command("score", _score, "the weekly reliability score with its three factors")
    score.add_argument("--workflow", metavar="NAME", help="default: the one of the workflow file")
    score.add_argument("--week", metavar="YYYY-Www", help="default: the latest that has a score")

    gates = command("gates", _gates, "every gate's verdict with its numbers; exit code 3 unless all say GO")
    verify = command("verify", verify_release, "compute every digest and verdict of a release again, offline")
    verify.add_argument("release", nargs="?", default="candidate", metavar="RELEASE", help="digest or pointer")
    add_release_commands(commands, everywhere)
    add_export_command(commands, everywhere)
    add_gateway_commands(commands, everywhere)
    add_brief_commands(commands, everywhere)
    add_keys_commands(commands, everywhere)
    status = command("status", _status, "which assets are up to date, and why the others are not")
    for with_json in (score, gates, status):
        with_json.add_argument("--json", action="store_true", help="for scripts")

    ui = command("ui", _ui, "the graph, checks and pictures in a browser")
    ui.add_argument("--host", default="127.0.0.1")
    ui.add_argument("--port", type=int, default=3000)
    return parser


if __name__ == "__main__":
    sys.exit(main())
