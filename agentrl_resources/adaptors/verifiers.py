"""A taskset of the `verifiers` library, in an interpreter of its own: verifiers wants other versions of openai and mcp.

    class Sums(VerifiersEnvironment):
        python = ".verifiers/bin/python"
        source = "sums"                 # a module that exports a Taskset, or the id of an installed one

Its toolsets are the tools, under the names that its harnesses give them; its tasks are the rows; its rewards judge the
finished transcript, in its own process.
"""

from agentrl_resources.adaptors.elsewhere import Elsewhere


class VerifiersEnvironment(Elsewhere):
    # No docstring: it would be the instructions of an environment that has none.

    _library = "verifiers"
    _backend = "verifiers_taskset.py"
