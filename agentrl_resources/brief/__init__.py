"""The Reliability Brief: one page a release with an annex, for people, in three languages, every figure traceable."""

from agentrl_resources.brief.collecting import collect
from agentrl_resources.brief.content import Brief, Condition, Phase
from agentrl_resources.brief.evidence import store_evidence
from agentrl_resources.brief.locales import LOCALES
from agentrl_resources.brief.phases import phases
from agentrl_resources.brief.rendering import phases_text, write_brief

__all__ = [
    "LOCALES",
    "Brief",
    "Condition",
    "Phase",
    "collect",
    "phases",
    "phases_text",
    "store_evidence",
    "write_brief",
]
