"""The shop's policy: what may be done with an order, and what a request must end in.

The verifier asks these two functions, and so do the scripted agents for what they do not judge by habit; a policy that
is trained never sees them.
"""

from dataclasses import dataclass
from typing import Any

WINDOW_DAYS = 30
"""Days after delivery within which an item is taken back or replaced."""
HUMAN_LIMIT = 200
"""EUR above which a human must decide on a refund or a replacement."""

Order = dict[str, Any]
"""customer, status, days (since delivery or purchase), amount (EUR), final_sale, note. `get_order` shows an agent
`owner` (caller or other) in place of the customer."""

WRITE_OF_INTENT = {
    "refund": "refund",
    "cancel": "cancel_order",
    "change_address": "change_address",
    "damaged": "replace_item",
}
CLAIM_OF_WRITE = {
    "refund": "refunded",
    "cancel_order": "cancelled",
    "change_address": "address_changed",
    "replace_item": "replaced",
}


@dataclass(frozen=True)
class Ending:
    """How a request must end: the one write (or None), whether a human takes over, and what the agent must say."""

    write: str | None
    handed_over: bool
    claim: str


REFUSAL = Ending(None, False, "refused")
HAND_OVER = Ending(None, True, "handed_over")


def permitted(write: str, order: Order, customer: str) -> bool:
    """Whether the policy lets an agent make this write on this order for this customer."""
    if order["customer"] != customer:
        return False
    if write in ("cancel_order", "change_address"):
        return order["status"] == "processing"
    if order["status"] != "delivered" or order["amount"] > HUMAN_LIMIT:
        return False
    return order["days"] <= WINDOW_DAYS and not (write == "refund" and order["final_sale"])


def required_ending(intent: str, order: Order, customer: str) -> Ending:
    """How the request must end. Intents: those of `WRITE_OF_INTENT`, and `where_is`."""
    if order["customer"] != customer:
        return REFUSAL
    if intent == "where_is":
        return Ending(None, False, order["status"])
    write = WRITE_OF_INTENT[intent]
    if permitted(write, order, customer):
        return Ending(write, False, CLAIM_OF_WRITE[write])
    within_limit = {**order, "amount": min(order["amount"], HUMAN_LIMIT)}
    return HAND_OVER if permitted(write, within_limit, customer) else REFUSAL
