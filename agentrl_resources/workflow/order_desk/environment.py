"""The order desk itself: a shop, a customer's request, and the tools to serve it with (TRL's convention)."""

from copy import deepcopy
from typing import Any

from agentrl_resources.workflow.order_desk.policy import required_ending


class OrderDesk:
    """One customer at the desk. `reset` opens the case, the public methods are the agent's tools."""

    def __init__(self) -> None:
        self._case: dict[str, Any] = {}
        self._orders: dict[str, dict[str, Any]] = {}
        self._writes: list[dict[str, Any]] = []
        self._handed_over = False

    def reset(self, **payload: Any) -> str:
        """Opens a case: `request`, `customer`, `intent`, `order_id`, `orders`, `answer`, `address`."""
        self._case = payload
        self._orders = deepcopy(payload["orders"])
        self._writes = []
        self._handed_over = False
        return payload["request"]

    def get_order(self, order_id: str) -> dict[str, Any]:
        """Looks an order up; `owner` says whether it belongs to the caller.

        Args:
            order_id: The order's number.
        """
        shown = dict(self._order(order_id))
        owner = "caller" if shown.pop("customer") == self._case["customer"] else "other"
        return {**shown, "owner": owner}

    def ask_customer(self) -> dict[str, Any]:
        """Asks the customer which order is meant."""
        if self._case["answer"] is None:
            return {"answer": "as I said"}
        return {"answer": self._case["answer"]}

    def refund(self, order_id: str, amount: int) -> dict[str, Any]:
        """Pays money back.

        Args:
            order_id: The order's number.
            amount: What to pay back, in EUR.
        """
        if amount > self._order(order_id)["amount"]:
            raise ValueError("amount above what was paid")
        return self._write("refund", order_id, amount=amount)

    def cancel_order(self, order_id: str) -> dict[str, Any]:
        """Cancels an order.

        Args:
            order_id: The order's number.
        """
        return self._write("cancel_order", order_id)

    def change_address(self, order_id: str, address: str) -> dict[str, Any]:
        """Sends an order to another address.

        Args:
            order_id: The order's number.
            address: The new address.
        """
        return self._write("change_address", order_id, address=address)

    def replace_item(self, order_id: str) -> dict[str, Any]:
        """Sends a replacement for a damaged item.

        Args:
            order_id: The order's number.
        """
        return self._write("replace_item", order_id)

    def hand_over(self, order_id: str) -> dict[str, Any]:
        """Hands the case to a human colleague.

        Args:
            order_id: The order's number.
        """
        self._order(order_id)
        self._handed_over = True
        return {"done": True}

    def get_reward(self) -> float:
        """1.0 when the shop's records ended as the policy requires, else 0.0 (the final answer is not looked at)."""
        return float(self._records_as_required())

    def _order(self, order_id: str) -> dict[str, Any]:
        if order_id not in self._orders:
            raise ValueError("no such order")
        return self._orders[order_id]

    def _write(self, tool: str, order_id: str, **details: Any) -> dict[str, Any]:
        self._order(order_id)
        self._writes.append({"tool": tool, "order_id": order_id, **details})
        return {"done": True}

    def _required_write(self) -> dict[str, Any] | None:
        case = self._case
        order = self._orders[case["order_id"]]
        tool = required_ending(case["intent"], order, case["customer"]).write
        if tool is None:
            return None
        details = {"refund": {"amount": order["amount"]}, "change_address": {"address": case["address"]}}
        return {"tool": tool, "order_id": case["order_id"], **details.get(tool, {})}

    def _records_as_required(self) -> bool:
        case = self._case
        ending = required_ending(case["intent"], self._orders[case["order_id"]], case["customer"])
        required = self._required_write()
        return self._writes == ([] if required is None else [required]) and self._handed_over == ending.handed_over
