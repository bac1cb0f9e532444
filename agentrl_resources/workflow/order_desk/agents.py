"""Scripted agents: the expert who reads the policy, two yardsticks, and the historical agents with their habits.

A scripted agent understands the request (a person would), but learns everything about orders through the tools.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from agentrl_resources.workflow.base import Agent, Message, Task
from agentrl_resources.workflow.order_desk.policy import (
    CLAIM_OF_WRITE,
    HAND_OVER,
    HUMAN_LIMIT,
    REFUSAL,
    WINDOW_DAYS,
    WRITE_OF_INTENT,
    Ending,
    Order,
    required_ending,
)
from agentrl_resources.workflow.order_desk.requests import INJECTIONS, PRESSURE
from agentrl_resources.workflow.order_desk.tasks import CHEAPEST, DEAREST, EARLIEST, LATEST


@dataclass(frozen=True)
class Habits:
    """What an agent gets wrong in one run. The expert has none of these.

    `SHARED_HABITS` are those of the whole desk; the others are slips that any run may have.
    """

    skips_owner_check: bool = False
    gives_in: bool = False
    ignores_limit: bool = False
    refuses_damaged_final_sale: bool = False
    refuses_anyway: bool = False
    finds_amount_too_high: bool = False
    misreads: bool = False
    claims_without_acting: bool = False
    malformed_call: bool = False
    wrong_number: bool = False
    looks_up_twice: bool = False


SHARED_HABITS = ("skips_owner_check", "gives_in", "ignores_limit")
PROFILES: Mapping[str, Mapping[str, float]] = {
    "hurried": {
        "skips_owner_check": 0.85,
        "gives_in": 0.65,
        "ignores_limit": 0.65,
        "refuses_damaged_final_sale": 0.4,
        "refuses_anyway": 0.12,
        "finds_amount_too_high": 0.1,
        "misreads": 0.2,
        "claims_without_acting": 0.06,
        "malformed_call": 0.04,
        "wrong_number": 0.04,
        "looks_up_twice": 0.03,
    },
    "cautious": {
        "skips_owner_check": 0.6,
        "gives_in": 0.4,
        "ignores_limit": 0.45,
        "refuses_damaged_final_sale": 0.4,
        "refuses_anyway": 0.2,
        "finds_amount_too_high": 0.2,
        "misreads": 0.2,
        "claims_without_acting": 0.03,
        "malformed_call": 0.04,
        "wrong_number": 0.03,
        "looks_up_twice": 0.06,
    },
}
"""How often each habit shows, by kind of historical agent."""


def draw_habits(profile: Mapping[str, float], random: Random) -> Habits:
    return Habits(**{field.name: random.random() < profile[field.name] for field in fields(Habits)})


def with_slips_of(habits: Habits, other: Habits) -> Habits:
    """The same agent in another run: `habits`' shared habits, `other`'s slips."""
    return replace(other, **{name: getattr(habits, name) for name in SHARED_HABITS})


def call(name: str, **arguments: Any) -> Message:
    """An assistant turn that calls a tool."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}


def say(content: str) -> Message:
    """An assistant turn that ends the episode."""
    return {"role": "assistant", "content": content}


class DeskAgent:
    """Serves one task the way the desk does: find the order, decide, act, tell the customer."""

    def __init__(self, task: Task, habits: Habits, random: Random) -> None:
        self._case = task.payload
        self._habits = habits
        self._random = random
        self._slips = {name for name in ("malformed_call", "looks_up_twice") if getattr(habits, name)}

    def __call__(self, messages: Sequence[Message]) -> Message:
        last = messages[-1]
        if last["role"] == "user" and self._case["answer"] is not None:
            return call("ask_customer")
        if last["role"] == "user" or last["name"] == "ask_customer":
            return self._look_up()
        if last["name"] == "get_order":
            if "error" in last["content"] or "looks_up_twice" in self._slips:
                self._slips.discard("looks_up_twice")
                return self._look_up()
            self._order: Order = last["content"]
            return self._decide()
        if "error" in last["content"] and self._habits.malformed_call and not self._habits.wrong_number:
            return self._act()
        if "error" in last["content"]:
            return say("I cannot: something went wrong.")
        return self._tell()

    def _look_up(self) -> Message:
        number = self._case["order_id"]
        if self._slip("malformed_call", chance=0.5):
            return call("get_order", order=number)
        return call("get_order", order_id=number)

    def _decide(self) -> Message:
        self._ending, reason = self._judge()
        if self._ending == REFUSAL:
            return {**say(f"I cannot: {_EXCUSES[reason]}."), "thinking": f"{self._facts}: refuse"}
        if self._ending.write is None and not self._ending.handed_over:
            return {**self._tell(), "thinking": f"{self._facts}: tell"}
        if self._habits.claims_without_acting:
            return {**self._tell(), "thinking": f"{self._facts}: done"}
        return self._act()

    def _judge(self) -> tuple[Ending, str]:
        """What this agent thinks the request must end in, and why it would refuse; notes the facts it looked at.

        The facts stand in every note; a conclusion from them (`past 30`) only where the agent drew it.
        """
        habits, case = self._habits, self._case
        order, misjudged = self._misread(self._order) if habits.misreads else (self._order, "")
        intent, customer = case["intent"], case["customer"]
        self._facts = f"order {case['order_id']}, owner {order['owner']}"
        if order["owner"] != "caller" and not habits.skips_owner_check:
            return REFUSAL, "owner"
        order = {**order, "customer": customer}
        self._facts += f", {order['status']}"
        timed = intent in ("refund", "damaged") and order["status"] == "delivered"
        pushed = order["note"] in INJECTIONS or any(words in case["request"] for words in PRESSURE)
        if habits.gives_in and pushed and intent in WRITE_OF_INTENT:
            if timed:
                self._facts += f", {_sale(order)}, {order['days']} days, {order['amount']} EUR"
            self._facts += ", customer insists"
            return _granted(intent), ""
        if habits.refuses_anyway:
            return REFUSAL, self._false_reason(order)
        if timed:
            self._facts += f", {_sale(order)}"
            if order["final_sale"] and (intent == "refund" or habits.refuses_damaged_final_sale):
                return REFUSAL, "final_sale"
            within = (order["days"] <= WINDOW_DAYS) != (misjudged == "window")
            over = (order["amount"] > HUMAN_LIMIT) != (misjudged == "limit") or habits.finds_amount_too_high
            self._facts += f", {order['days']} days {'within' if within else 'past'} {WINDOW_DAYS}"
            if within:
                self._facts += f", {order['amount']} EUR {'above' if over else 'below'} limit"
            order |= {"days": WINDOW_DAYS + (not within), "amount": HUMAN_LIMIT + over}
        ending = required_ending(intent, order, customer)
        if ending == HAND_OVER and habits.ignores_limit:
            ending = _granted(intent)
        return ending, "window" if timed else "status"

    def _false_reason(self, order: Order) -> str:
        """Any reason to refuse, noted as if the facts gave it."""
        number, status = self._case["order_id"], order["status"]
        reason = self._random.choice(("owner", "status", "window", "final_sale"))
        if reason == "owner":
            self._facts = f"order {number}, owner other"
        elif reason == "status":
            self._facts = f"order {number}, owner {order['owner']}, {self._other_status(status)}"
        elif reason == "window":
            self._facts += f", {_sale(order)}, {order['days']} days past {WINDOW_DAYS}"
        else:
            self._facts += ", final sale"
        return reason

    def _misread(self, order: Order) -> tuple[Order, str]:
        """The order as a hasty reader takes it: one fact wrong, or the conclusion from one (which is named)."""
        wrong = self._random.choice(_MISREADINGS)
        if wrong in ("window", "limit"):
            return order, wrong
        values: dict[str, Any] = {
            "days": self._random.randrange(EARLIEST, LATEST),
            "amount": self._random.randrange(CHEAPEST, DEAREST),
            "status": self._other_status(order["status"]),
            "owner": "other" if order["owner"] == "caller" else "caller",
            "final_sale": not order["final_sale"],
        }
        return {**order, wrong: values[wrong]}, ""

    def _other_status(self, status: str) -> str:
        return self._random.choice([other for other in ("processing", "shipped", "delivered") if other != status])

    def _act(self) -> Message:
        number = self._case["order_id"]
        if self._habits.wrong_number:
            number = number[:-1] + str((int(number[-1]) + self._random.randrange(1, 10)) % 10)
        tool = self._ending.write or "hand_over"
        key = "order" if self._slip("malformed_call", chance=1.0) else "order_id"
        details: dict[str, Any] = {key: number}
        thinking = f"{self._facts}: {tool}"
        if tool == "refund":
            details["amount"] = self._order["amount"]
        if tool == "change_address":
            details["address"] = self._case["address"]
        return {**call(tool, **details), "thinking": thinking}

    def _tell(self) -> Message:
        return say(_ENDINGS[self._ending.claim].format(number=self._case["order_id"], amount=self._order["amount"]))

    def _slip(self, name: str, chance: float) -> bool:
        """Makes a slip once."""
        if name not in self._slips or self._random.random() >= chance:
            return False
        self._slips.discard(name)
        return True


_MISREADINGS = ("days", "amount", "status", "owner", "final_sale", "window", "window", "limit", "limit")
"""What a hasty reader gets wrong, the conclusions twice as often as a fact."""


def _granted(intent: str) -> Ending:
    write = WRITE_OF_INTENT[intent]
    return Ending(write, False, CLAIM_OF_WRITE[write])


def _sale(order: Order) -> str:
    return "final sale" if order["final_sale"] else "normal sale"


_EXCUSES = {
    "owner": "it is not your order",
    "final_sale": "it was a final sale",
    "window": "that is too late",
    "status": "its status does not allow it",
}
_ENDINGS = {
    "refunded": "Refunded {amount} EUR for order {number}.",
    "cancelled": "Order {number} is cancelled.",
    "address_changed": "The address of order {number} is changed.",
    "replaced": "A replacement for order {number} is on its way.",
    "handed_over": "A colleague will take over order {number}.",
    "processing": "Order {number} is processing.",
    "shipped": "Order {number} is shipped.",
    "delivered": "Order {number} is delivered.",
}


def expert(task: Task) -> Agent:
    """Follows the policy without a slip."""
    return DeskAgent(task, Habits(), Random(0))


def does_nothing(messages: Sequence[Message]) -> Message:
    """Ends every episode at once, without a word."""
    return say("")


def harmful(task: Task) -> Agent:
    """Refunds whatever it is asked about, and says so."""
    case = task.payload

    def act(messages: Sequence[Message]) -> Message:
        last = messages[-1]
        if last["role"] == "user" and case["answer"] is not None:
            return call("ask_customer")
        if last["role"] == "user" or last["name"] == "ask_customer":
            return call("get_order", order_id=case["order_id"])
        if last["name"] == "get_order":
            return call("refund", order_id=case["order_id"], amount=last["content"]["amount"])
        return say(f"Refunded order {case['order_id']}.")

    return act


def wasteful(task: Task) -> Agent:
    """Looks every order up three times and then leaves it to a colleague."""
    case = task.payload

    def act(messages: Sequence[Message]) -> Message:
        calls = sum(message["role"] == "tool" for message in messages)
        if calls < 3:
            return call("get_order", order_id=case["order_id"])
        if calls == 3:
            return call("hand_over", order_id=case["order_id"])
        return say(_ENDINGS["handed_over"].format(number=case["order_id"]))

    return act
