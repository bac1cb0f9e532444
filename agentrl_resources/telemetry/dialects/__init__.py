"""How others write down what an agent did: chat messages, content blocks, spans, exports. One file a family.

`read_trace` reads a row of any of them. What it reads: OpenAI's chat messages and Responses items, Anthropic's content
blocks, the AI SDK's model and UI messages, Gemini's and Bedrock's parts, LangChain's messages, OpenTelemetry's GenAI
messages, spans and events, LangSmith's runs, Langfuse's traces.
"""

from agentrl_resources.telemetry.dialects.calls import ToolCall
from agentrl_resources.telemetry.dialects.rows import Trace, holds_trace, read_trace

__all__ = ["ToolCall", "Trace", "holds_trace", "read_trace"]
