"""A task of Inspect AI, in an interpreter of its own: its samples are the tasks, its solver's tools the tools, and its
scorers judge the finished transcript.

    class Capitals(InspectTask):
        python = ".inspect/bin/python"
        source = "capitals.py@capitals"      # a file beside this one and a task in it, or the name of an installed one

Success is every scorer at 1 (`CORRECT`), unless `success_at` says another sum.
"""

from agentrl_resources.adaptors.elsewhere import Elsewhere


class InspectTask(Elsewhere):
    # No docstring: it would be the instructions of an environment that has none.

    _library = "inspect-ai"
    _backend = "inspect_task.py"
