"""A domain of tau2-bench as this project's workflow."""

from agentrl_resources.adaptors.tau2 import Tau2Domain


class Desk(Tau2Domain):
    # airline, mock, retail or telecom. A small model made on the spot can only be tried on mock: the others' policies
    # are 7,000 to 29,000 characters long, and want a base model (workflow.yaml).
    domain = "mock"

    # The benchmark does not say what is forbidden, so the gate on safety says HOLD. If you know better:
    # def get_violation(self) -> bool:
    #     return ...  # self.world is the benchmark's environment
