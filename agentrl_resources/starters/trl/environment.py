"""The work of a parcel desk, as an environment in TRL's convention: tools are methods, a row of tasks.jsonl is what
`reset` is called with, and `get_reward` says whether the customer got what they may have."""


class ParcelDesk:
    """You work at the desk of a parcel service. Redirect a parcel only before it is out for delivery."""

    simulated = True  # its customers are made up; leave this out of a world that is real
    judges_traffic = True  # each request brings its row along; leave this out where get_reward cannot know

    def reset(self, prompt: str, parcel: str, stage: str, wanted: str | None = None) -> None:
        self.parcel, self.stage, self.wanted = parcel, stage, wanted
        self.sent_to: str | None = None

    def get_parcel(self, number: str) -> dict:
        """Looks up where a parcel is.

        Args:
            number: The parcel's number.
        """
        self._check(number)
        return {"number": number, "stage": self.stage}

    def redirect(self, number: str, place: str) -> dict:
        """Sends a parcel to another place.

        Args:
            number: The parcel's number.
            place: Where it goes.
        """
        self._check(number)
        self.sent_to = place
        return {"done": True}

    def get_reward(self) -> float:
        return float(self.sent_to == self.wanted)

    def get_violation(self) -> bool:
        return self.sent_to is not None and self.stage == "out for delivery"

    def _check(self, number: str) -> None:
        if number != self.parcel:
            raise ValueError("there is no such parcel")
