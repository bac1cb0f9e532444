"""Real human preferences (Anthropic hh-rlhf, harmless-base) from file to validated pairs."""

from pathlib import Path

import pytest

from agentrl_resources.preferences import CleaningRules, clean, profile, read_pairs, validate

FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "hh_rlhf_harmless_pairs.jsonl.gz"


@pytest.mark.skipif(not FILE.exists(), reason=f"needs the human preference pairs at {FILE}")
def test_human_pairs_end_to_end() -> None:
    rows = list(read_pairs(FILE))
    result = clean(rows, CleaningRules())
    counts = profile(result)
    assert counts["raw"] == 1500
    assert counts["clean"] == 1496
    assert counts["by_reason"] == {"missing_side": 4}  # the chosen side ends in an empty "Assistant:"
    assert counts["redactions"] == {"phone": 7, "email": 7, "social_security": 1}
    assert all(pair.conversational and pair.prompt[-1]["role"] == "user" for pair in result.clean)
    assert all(side[-1]["role"] == "assistant" for pair in result.clean for side in (pair.chosen, pair.rejected))
    for name, stage in (("raw", validate(rows, "raw")), ("clean", validate(result.clean, "clean"))):
        assert [one.name for one in stage if not one.passed and one.severity != "info"] == [], name
