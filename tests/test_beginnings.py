"""What conversations begin with alike is read once: the same losses and gradients, with fewer tokens."""

import pytest
import torch
from small_models import in_double

from agentrl_resources.families import Encoded
from agentrl_resources.learning import batching, beginnings
from agentrl_resources.learning.batching import chosen_logprobs, micro_batches, pad
from agentrl_resources.learning.reward import running_scores, scorer_inputs
from agentrl_resources.learning.sft import language_loss

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0,
}  # fmt: skip
NETWORKS = {
    "Llama": {},
    "Qwen3": {"head_dim": 8},
    "Mistral": {"sliding_window": 7},  # shorter than the beginning
    "GptOss": {"head_dim": 8, "sliding_window": 9, "num_local_experts": 4, "num_experts_per_tok": 2,
               "eos_token_id": 1, "bos_token_id": None},
}  # fmt: skip
SHARED = 40


@pytest.fixture(params=list(NETWORKS))
def made(request, monkeypatch):
    """A network of a kind that counts as large, in float64: (kind, what it is made for) -> network."""
    import transformers

    from agentrl_resources.learning.model import _made_ours

    monkeypatch.setattr(beginnings, "is_small", lambda _: False)
    config = getattr(transformers, f"{request.param}Config")(**{**SIZES, **NETWORKS[request.param]}, num_labels=1)

    def make(what):
        torch.manual_seed(3)
        return in_double(_made_ours(getattr(transformers, f"{request.param}For{what}")(config))).eval()

    return make


@pytest.fixture
def rows():
    """Conversations of different lengths that begin alike."""
    generator = torch.Generator().manual_seed(5)
    start = torch.randint(1, 60, (SHARED,), generator=generator).tolist()
    found = []
    for number, length in enumerate((5, 19, 12, 9)):
        rest = [number + 1, *torch.randint(1, 60, (length,), generator=generator).tolist()]
        found.append(Encoded(start + rest, [0] * (SHARED + 2) + [number % 2, *[1] * (length - 2)]))
    return found


def gradients(network):
    found = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
    network.zero_grad()
    return found


def with_and_without(monkeypatch, work):
    """What `work` gives with the beginning read once, and with each row read whole; and the tokens that were read."""
    results = []
    for worth_it in (1, 10**6):
        monkeypatch.setattr(beginnings, "WORTH_IT", worth_it)
        results.append(work())
    return results


def counted(network):
    read = []

    def note(_, arguments, named):
        read.append((named.get("input_ids") if "input_ids" in named else arguments[0]).numel())

    base = network.base_model
    base.register_forward_pre_hook(note, with_kwargs=True)
    return read


def test_the_loss_and_every_gradient_are_those_of_whole_rows(made, rows, monkeypatch):
    network = made("CausalLM")
    read = counted(network)
    ids, labels = pad([row.ids for row in rows]), pad([row.ids for row in rows])
    labels[pad([row.mask for row in rows]) == 0] = -100
    loss = language_loss(network, ids, labels)  # asks the head once whether it is all
    network.zero_grad()

    def work():
        read.clear()
        loss = language_loss(network, ids, labels)
        loss.backward()
        return loss.detach(), gradients(network), sum(read)

    (loss, learned, tokens), (whole_loss, whole_learned, whole_tokens) = with_and_without(monkeypatch, work)
    torch.testing.assert_close(loss, whole_loss, rtol=1e-10, atol=1e-12)
    assert learned.keys() == whole_learned.keys()
    for name, gradient in whole_learned.items():
        torch.testing.assert_close(learned[name], gradient, rtol=1e-8, atol=1e-10, msg=name)
    assert whole_tokens == ids.numel()
    assert tokens == ids.numel() - SHARED * (len(rows) - 1)


def test_scores_and_their_gradients_are_those_of_whole_rows(made, rows, monkeypatch):
    scorer = made("TokenClassification")

    def work():
        scores = running_scores(scorer, *scorer_inputs(rows))
        scores[:, -1].square().sum().backward()
        return scores.detach(), gradients(scorer)

    (scores, learned), (whole_scores, whole_learned) = with_and_without(monkeypatch, work)
    torch.testing.assert_close(scores, whole_scores, rtol=1e-10, atol=1e-12)
    for name, gradient in whole_learned.items():
        torch.testing.assert_close(learned[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


def test_probabilities_of_what_was_chosen_are_those_of_whole_rows(made, rows, monkeypatch):
    network = made("CausalLM")
    one, other = with_and_without(monkeypatch, lambda: chosen_logprobs(network, rows, 0.7))
    for shared, whole in zip(one, other, strict=True):
        assert shared == pytest.approx(whole, rel=1e-10)


def test_nothing_that_is_asked_counts_as_beginning(made, rows):
    network = made("CausalLM")
    ids = pad([row.ids for row in rows])
    nowhere = torch.zeros_like(ids, dtype=torch.bool)
    assert beginnings.beginning(network, ids, nowhere) == SHARED == beginnings.alike(network, [r.ids for r in rows])
    early = nowhere.clone()
    early[2, 35] = True
    assert beginnings.beginning(network, ids, early) == 35
    assert beginnings.beginning(network, ids[:1], nowhere) == 0, "one row shares with nobody"
    same = ids[:1].expand(3, -1)
    assert beginnings.beginning(network, same, nowhere[:3]) == ids.shape[1] - 1, "something has to be left to read"
    network.activation_checkpointing_enable()
    assert beginnings.beginning(network, ids, nowhere) == 0


def test_more_rows_fit_a_pass_where_they_share_a_beginning():
    lengths = [900] * 7
    assert [len(group) for group in micro_batches(lengths, tokens=2048)] == [2, 2, 2, 1]
    assert [len(group) for group in micro_batches(lengths, 600, tokens=2048)] == [4, 3]


def test_a_small_model_reads_whole_rows(rows):
    import transformers

    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    assert beginnings.alike(network, [row.ids for row in rows]) == 0
    assert batching.slices_of_a_step(network, pad([row.ids for row in rows])) == [
        slice(0, batching.TOKENS_PER_STEP // 60)
    ]
