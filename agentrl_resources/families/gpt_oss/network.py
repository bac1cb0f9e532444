"""GPT-OSS networks: attention with sinks, and what is computed in a way of our own."""

from typing import Any

from agentrl_resources.settings import ModelSettings


def attention() -> str:
    """Makes attention with sinks known to transformers and returns its name, for `attn_implementation`."""
    from agentrl_resources.families.gpt_oss.sinks import register

    return register()


def adopt(model: Any) -> Any:
    """The same network, with experts, norm, rotation and gate computed in our way where that is quicker; in place."""
    from agentrl_resources.families.gpt_oss import experts, pointwise

    model.set_experts_implementation(experts.register())
    return pointwise.adopt(model)


def new_network(settings: ModelSettings, tokenizer: Any) -> Any:
    """A network with random weights (float32) of the size that the settings say."""
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.expert_width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        num_local_experts=settings.experts,
        num_experts_per_tok=settings.experts_per_token,
        sliding_window=settings.sliding_window,
        initializer_range=settings.initial_spread,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation=attention(),
    )
    return GptOssForCausalLM(config)
