"""A user who is played by a model behind an OpenAI-compatible server, for an environment's `user_reply`.

    def reset(self, persona: str) -> str:
        self.user = UserModel("http://host:8000/v1", "its-model", persona)
        return self.user.says("Hello, how can I help you?")

    def user_reply(self, text: str) -> str | None:
        return self.user.says(text)

What such a user says is part of what is measured: give the server a fixed model and a seed, and say which in the brief.
"""

import os
from typing import Any

from agentrl_resources.errors import AgentRLError

DONE = "###DONE###"
RULES = f"""\
You play a customer who talks to an agent. This is who you are and what you want:

{{persona}}

Answer as this customer, in one or two sentences, with nothing that is not said above. When what you want is done, or
cannot be done, write only {DONE}"""


class UserModel:
    """One user of one episode.

    Args:
        url: what an OpenAI client takes as its base (`http://host:8000/v1`).
        model: what the server calls the model.
        persona: who the user is and what they want.
        key_variable: environment variable that holds the server's API key.
        seed: of the server's sampling.
        temperature: likewise; 0 says the same again, as far as the server does.
        seconds: for an answer.
    """

    def __init__(
        self,
        url: str,
        model: str,
        persona: str,
        key_variable: str | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        seconds: float = 60.0,
    ) -> None:
        self._url, self._seconds = f"{url.rstrip('/')}/chat/completions", seconds
        self._asked: dict[str, Any] = {"model": model, "seed": seed, "temperature": temperature}
        key = os.environ.get(key_variable, "") if key_variable else ""
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._messages = [{"role": "system", "content": RULES.format(persona=persona)}]

    def says(self, text: str) -> str | None:
        """What the user says to the agent's `text`; None when they are done.

        Raises:
            AgentRLError: the server gives no answer.
        """
        import httpx

        self._messages.append({"role": "user", "content": text})  # the agent is the user of this model
        try:
            answer = httpx.post(
                self._url,
                json={**self._asked, "messages": self._messages},
                headers=self._headers,
                timeout=self._seconds,
            )
            answer.raise_for_status()
            said = str(answer.json()["choices"][0]["message"]["content"] or "").strip()
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise AgentRLError(
                f"the user's model at {self._url} gave no answer: {type(error).__name__}: {error}"
            ) from error
        self._messages.append({"role": "assistant", "content": said})
        return None if not said or DONE in said else said
