"""The parcel desk, which an OpenEnv server runs."""

from agentrl_resources.adaptors.openenv import OpenEnv


class ParcelDesk(OpenEnv):
    """You work at the desk of a parcel service. Redirect a parcel only before it is out for delivery, else decline."""

    url = "http://127.0.0.1:8000"  # without it the environment variable OPENENV_URL says where
    simulated = True  # its customers are made up; leave this out of a world that is real
    judges_traffic = True  # each request brings its row along; leave this out where the rewards cannot know

    # get_reward() is the sum of the steps' rewards, and 1 or more is success. Give one of your own where it is not.

    def get_violation(self) -> bool:
        return min(self.rewards, default=0.0) < 0
