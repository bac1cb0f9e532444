"""What Prometheus reads of the gateway: counts, times and shares, never what anybody said."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from agentrl_resources.gateway.channels import Channel
from agentrl_resources.telemetry import RunRecord

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The gateway's own metrics, in a collector registry of their own."""

    def __init__(self) -> None:
        self._collectors = CollectorRegistry()
        own: Any = {"registry": self._collectors}
        self.runs = Counter("agentrl_runs", "Runs by the arm of their session and how they ended.",
                            ["channel", "outcome"], **own)  # fmt: skip
        self.fallbacks = Counter("agentrl_fallbacks", "Canary runs that the champion had to answer.", **own)
        self.violations = Counter("agentrl_safety_violations", "Runs with a safety violation.", ["channel"], **own)
        self.tool_calls = Counter("agentrl_tool_calls", "Tool calls by result.", ["channel", "result"], **own)
        self.tokens = Counter("agentrl_tokens", "Tokens by direction.", ["channel", "direction"], **own)
        self.cost = Counter("agentrl_cost_eur", "What runs have cost, in EUR.", ["channel"], **own)
        self.seconds = Histogram("agentrl_run_seconds", "From request to answer, fallback included.", ["channel"],
                                 buckets=_SECONDS, **own)  # fmt: skip
        self.refused = Counter("agentrl_refused", "Requests that were refused because too many waited.", **own)
        self.trips = Counter("agentrl_breaker_trips", "Canaries that the breaker ended, by cause.", ["cause"], **own)
        self.share = Gauge("agentrl_canary_percent", "Share of sessions that go to the canary.", **own)
        self.release = Gauge("agentrl_release", "1 for what a channel serves.", ["channel", "release"], **own)

    def run(self, record: RunRecord) -> None:
        """Counts one run."""
        channel = record.release_channel
        failed = record.served_channel is None
        outcome = {None: "unknown", True: "success", False: "no_success"}[record.success]
        self.runs.labels(channel, "no_answer" if failed else outcome).inc()
        self.fallbacks.inc(record.fallback)
        self.violations.labels(channel).inc(bool(record.safety_violation))
        if record.tool_error_count is None:
            self.tool_calls.labels(channel, "unknown").inc(record.tool_calls_count)
        else:
            self.tool_calls.labels(channel, "ok").inc(record.tool_calls_count - record.tool_error_count)
            self.tool_calls.labels(channel, "error").inc(record.tool_error_count)
        self.tokens.labels(channel, "in").inc(record.tokens_in or 0)
        self.tokens.labels(channel, "out").inc(record.tokens_out or 0)
        self.cost.labels(channel).inc(record.cost or 0.0)
        self.seconds.labels(channel).observe((record.duration_ms or 0.0) / 1000)

    def channels(self, champion: Channel | None, canary: Channel | None) -> None:
        """Says which release each channel serves."""
        self.share.set(canary.percent if canary else 0.0)
        self.release.clear()
        for channel in (champion, canary):
            if channel is not None:
                self.release.labels(channel.name, channel.release[:12]).set(1)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._collectors)
