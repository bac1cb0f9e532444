"""`workflow.yaml`: every setting, its default and what it means.

python -m agentrl_resources.settings > docs/settings.md     # after a change here
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_json
from agentrl_resources.strict_yaml import StrictModel, load_model, nearest


def _gate(name: str) -> str:
    from agentrl_resources.evaluation import parse_gate

    try:
        parse_gate(name)
    except AgentRLError as error:
        raise ValueError(str(error)) from error
    return name


def _metric(name: str) -> str:
    from agentrl_resources.telemetry import METRICS

    if name not in METRICS:
        raise ValueError(f"unknown metric '{name}'; {nearest(name, list(METRICS))}")
    return name


def _at_least_one(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("name at least one")
    return names


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"named more than once: {', '.join(sorted(repeated))}")
    return names


def _rising(shares: tuple[float, ...]) -> tuple[float, ...]:
    if list(shares) != sorted(set(shares)):
        raise ValueError("shares must rise")
    return shares


Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
GateName = Annotated[str, AfterValidator(_gate)]
MetricName = Annotated[str, AfterValidator(_metric)]
GATES = (
    "no_safety_regression",
    "latency_delta_lt_15_percent",
    "cost_per_success_not_worse",
    "rollback_under_5_minutes",
)
Gates = Annotated[tuple[GateName, ...], AfterValidator(_at_least_one), AfterValidator(_once_each)]
Metrics = Annotated[tuple[MetricName, ...], AfterValidator(_once_each)]


class WorkflowSettings(StrictModel):
    """Which workflow is improved, and how."""

    target: Name
    """The workflow: a built-in name, or `package.module:Class`, a workflow or an environment. Modules beside this file
    are found."""
    tasks: str | None = None
    """Of an environment: a file with its tasks (from this file's own folder), a JSON object a line, Parquet, or a
    folder of the `datasets` library. Of the target `traces`: a file of traces, as `agentrl import` reads them."""
    baseline: Name = "sft"
    """The name that the SFT checkpoint carries as `model_version` in run records."""
    reward_model: Name = "rm"
    """The name that the reward model carries as `reward_model_version` in run records."""
    policy_training: Literal["ppo_kl"] = "ppo_kl"
    """How the policy is trained: PPO with an explicit KL penalty to the SFT checkpoint."""


class ReleaseSettings(StrictModel):
    """What a release must show before it is promoted, and how it meets traffic."""

    canary_traffic_percent: Annotated[float, Field(gt=0, le=50)] = 5.0
    """Share of sessions that the canary gets, in percent."""
    gates: Gates = GATES
    """Gates that block a release. The number is part of the name: `latency_delta_lt_10_percent` works too."""
    programme_cost: NotNegative | None = None
    """What improving this workflow has cost so far, EUR (people, data, compute); without it profit is unknown."""


class PreferenceSettings(StrictModel):
    """Where preference data comes from and which rows may train."""

    source: str | None = None
    """JSONL or Parquet file (also .gz) or `datasets` folder; nothing means the workflow's own annotators."""
    pairs: Count = 7000
    """Pairs that the workflow's own annotators make."""
    holdout_percent: Annotated[int, Field(ge=1, le=50)] = 10
    """Share of tasks kept out of training, in percent, where the data name no split."""
    max_characters: Count = 6000
    """Rows longer than this are quarantined."""
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Pairs at least this alike (Jaccard similarity of their shingles) count as one."""


class ModelSettings(StrictModel):
    """The model that learns: a base with its renderer, or else a small one of the size that the other settings say."""

    base: str | None = None
    """Folder (from this file's own) or hub id of a causal language model; nothing: a small one, made on the spot."""
    renderer: str | None = None
    """How the base's conversations are written: a name of the `renderers` library (`qwen3`, `llama-3`, `glm-4.5`, ...),
    or `template` for the tokenizer's own chat template; nothing means that it is recognised."""
    renderer_options: dict[str, Any] = Field(default_factory=dict)
    """Options of that renderer, by the library's names, such as `enable_thinking: false`."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Precision of the base's weights; nothing: float32 on a processor, as they are stored on an accelerator."""
    width: Count = 128
    """Hidden size."""
    layers: Count = 4
    """Layers, sliding and full attention in turn."""
    heads: Count = 4
    """Attention heads."""
    kv_heads: Count = 2
    """Key and value heads; divides `heads`."""
    head_dim: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    """Size of a head."""
    experts: Count = 4
    """Experts in a layer."""
    experts_per_token: Count = 2
    """Experts that see a token; at most `experts`."""
    expert_width: Count = 64
    """Hidden size inside an expert."""
    sliding_window: Count = 128
    """Tokens that a sliding-attention layer looks back."""
    initial_spread: Positive = 0.06
    """Standard deviation of the random weights before training."""
    vocabulary: Annotated[int, Field(ge=300)] = 2048
    """Largest number of tokens of the tokenizer that is trained on the spot."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelSettings":
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads ({self.kv_heads}) must divide heads ({self.heads})")
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token ({self.experts_per_token}) is more than experts ({self.experts})")
        return self


class PolicySettings(StrictModel):
    """What learns of a base model."""

    adapter: Literal["full", "lora"] = "full"
    """`full`: all weights. `lora`: small matrices beside the base's, which all networks of a stage share."""
    rank: Count = 16
    """Rank of these matrices."""
    alpha: Positive = 32
    """Their weight: what an adapter adds is multiplied by alpha / rank."""
    targets: Annotated[tuple[Name, ...], AfterValidator(_at_least_one)] | None = None
    """Names of the layers that have an adapter; nothing: every linear layer but the head (Schulman et al. 2025, "LoRA
    without regret")."""
    gradient_checkpointing: bool = False
    """For the backward pass each layer keeps only what it was given, and is computed once more there: less memory, a
    third more work."""


class SftSettings(StrictModel):
    """Supervised training of the baseline on the preferred answers."""

    epochs: Positive = 4
    """Passes over the preferred answers."""
    batch_size: Count = 16
    """Conversations in a step."""
    learning_rate: Positive = 3e-3
    """Highest learning rate of AdamW."""
    matrix_learning_rate: Positive | None = 0.02
    """Highest learning rate of Muon, which trains the matrices inside the layers; null leaves them to AdamW."""
    warmup_fraction: Share = 0.05
    """Share of the steps in which the learning rate rises."""
    probe_tasks: Count = 240
    """Hold-out tasks that the checkpoint tries, for its success by type of task and the first episode to look at."""


class OnPolicySettings(StrictModel):
    """Pairs sampled from the SFT checkpoint and labelled under the rubric."""

    tasks: Count = 1200
    """Training tasks that are sampled."""
    holdout_tasks: Count = 200
    """Hold-out tasks that are sampled beside them, to judge the reward model on."""
    samples_per_task: Annotated[int, Field(ge=2)] = 4
    """Answers sampled for each task; the best is judged against the worst, the second best against the second worst."""
    temperature: Positive = 1.2
    """Sampling temperature: above production's, so that the answers differ."""
    queue: Count = 100
    """Pairs of answers that wait for people to label them, where the workflow cannot: dialogues without tools."""


class RewardSettings(StrictModel):
    """The reward model, and how good it must be before a policy may learn from it."""

    epochs: Positive = 2
    """Passes over the pairs."""
    batch_size: Count = 16
    """Pairs in a step."""
    learning_rate: Positive = 7e-4
    """Highest learning rate of AdamW."""
    matrix_learning_rate: Positive | None = 0.01
    """Highest learning rate of Muon, which trains the matrices inside the layers; null leaves them to AdamW."""
    centering: NotNegative = 0.005
    """Weight of the mean square of a pair's summed scores, which keeps episodes of different tasks on one scale
    (TRL's `center_rewards_coefficient`; Eisenstein et al. 2023)."""
    history_pairs: Count = 2000
    """Cleaned historical pairs that train beside the on-policy pairs."""
    min_accuracy: Share = 0.85
    """Blocks below this accuracy on hold-out pairs of which one succeeded and the other did not, and on those of them
    whose worse side refused wrongly."""
    min_auc: Share = 0.80
    """Blocks below this area under the ROC curve that tells good from bad among the SFT checkpoint's own episodes."""
    max_ece: Share = 0.10
    """Blocks above this expected calibration error on the hold-out tasks."""


class PpoSettings(StrictModel):
    """PPO with an explicit KL penalty to the frozen SFT checkpoint."""

    iterations: Count = 10
    """Rounds of rollout and update."""
    episodes: Count = 192
    """Episodes in a rollout."""
    minibatch: Count = 64
    """Episodes in an update step."""
    epochs: Count = 2
    """Passes over a rollout."""
    learning_rate: Positive = 3e-4
    """Learning rate of the policy."""
    critic_learning_rate: Positive = 3e-4
    """Learning rate of the critic, which starts as the reward model."""
    critic_warmup: Annotated[int, Field(ge=0)] = 1
    """First iterations in which the critic learns and the policy waits."""
    clip: Positive = 0.2
    """The importance ratio counts only within 1 - clip and 1 + clip."""
    gae_lambda: Share = 0.95
    """Lambda of generalised advantage estimation."""
    discount: Share = 1.0
    """Discount for each token that the agent chose."""
    entropy_coefficient: NotNegative = 0.0
    """Weight of the entropy bonus."""
    model_weight: NotNegative = 1.0
    """Weight of the reward model's score in the reward."""
    verifier_weight: NotNegative = 0.0
    """Weight of what the workflow's verifier says of an episode (quality, 0 to 1) in the reward, where it is to be
    learned from and not only watched."""
    kl_target: Positive = 0.8
    """KL to the SFT checkpoint that the coefficient steers to, in nats per episode."""
    kl_coefficient: NotNegative = 0.1
    """First KL coefficient, in reward per nat."""
    kl_coefficient_floor: NotNegative = 0.1
    """The KL coefficient never goes below this."""
    kl_ceiling: Positive = 20.0
    """Training stops above this KL, in nats per episode."""
    max_gradient_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    average_last: Count = 5
    """The final policy has the mean of the weights after so many of the last updates."""
    temperature: Positive = 1.0
    """Sampling temperature of rollouts."""
    mismatch_correction: Literal["sequence_mask", "token", "none"] = "sequence_mask"
    """What is done where trainer and sampler give the same tokens other probabilities: leave out episodes that the
    trainer finds more than `mismatch_cap` times as likely, weigh each token by the ratio up to the cap, or nothing."""
    mismatch_cap: Annotated[float, Field(gt=1)] = 3.0
    """Largest ratio of the two."""
    version_lag: Annotated[int, Field(ge=0, le=1)] = 0
    """Updates that whoever plays may be behind: with 1 the next rollout is played, by a server meanwhile, with the
    policy from before this update, and corrected for it."""

    @model_validator(mode="after")
    def _has_a_reward(self) -> "PpoSettings":
        if not (self.model_weight or self.verifier_weight):
            raise ValueError("model_weight and verifier_weight are both 0: there would be nothing to learn from")
        return self


class EvaluationSettings(StrictModel):
    """The comparison of baseline and candidate on the same held-out tasks."""

    capability_tasks: Count = 2000
    """Tasks that ask for ordinary work; where a workflow's tasks are given, as many of these as there are. Below a
    hundred no gate gives a verdict but HOLD; the fewer, the larger an effect has to be to show."""
    adversarial_tasks: Count = 300
    """Tasks that try to make the agent do wrong, likewise."""
    temperature: Positive = 0.7
    """The production temperature: gates and score are measured at it."""
    greedy_control: bool = True
    """Run both arms with greedy decoding as well, as a control that no gate looks at."""
    greedy_tasks: Count = 300
    """First tasks of each suite that the control is run on."""
    trials: Count = 1
    """Episodes of each task and arm, with different seeds. With more than one the comparison tells pass^k too: the
    chance that k runs of a task all succeed. Greedy decoding is the same every time, and runs once."""
    concurrency: Count = 384
    """Episodes that run side by side in one batch."""


class AlternativesSettings(StrictModel):
    """What PPO is compared with, to see whether RL is worth it here."""

    tasks: Count = 200
    """First capability tasks that are played."""
    best_of: Annotated[int, Field(ge=2)] = 4
    """Samples of the SFT policy, of which the one counts that the reward model likes best; all are paid for."""
    instructions: str | None = None
    """Other instructions, with which the SFT policy plays the same tasks; nothing: they are not tried."""


class RollbackSettings(StrictModel):
    """The failures that are injected into a live gateway before a release, to time how soon they are over."""

    drills: Count = 100
    """How many; the longest one counts. With fewer than a hundred the gate on rollbacks says HOLD."""
    canary_percent: Annotated[float, Field(gt=0, le=50)] = 20.0
    """Share of sessions that the canary has in the drill. The fewer, the longer until its failure shows."""
    at_once: Count = 4
    """Gateways that are drilled at the same time, each with its own registry and customers."""


class GatewaySettings(StrictModel):
    """The service that answers traffic, with the champion and, while there is one, the canary."""

    champion_url: str | None = None
    """An OpenAI-compatible server that answers for the champion (`http://host:8000/v1`); nothing: the local bundle."""
    champion_model: Name = "champion"
    """What that server calls the champion's model."""
    canary_url: str | None = None
    """The same for the canary."""
    canary_model: Name = "canary"
    """What that server calls the canary's model."""
    upstream_key_variable: str | None = None
    """Environment variable that holds the API key of these servers."""
    concurrency: Count = 64
    """Runs that are worked on at the same time."""
    queue: Annotated[int, Field(ge=0)] = 256
    """Runs that may wait for their turn; further requests are answered with 429."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    """Larger requests are answered with 413."""
    body_seconds: Positive = 10.0
    """Time in which a request, head and body, must have arrived (408), and in which a client must take each piece of
    an answer."""
    request_seconds: Positive = 60.0
    """Time for an answer (504)."""
    canary_seconds: Positive = 5.0
    """Time for the canary's answer; then it has failed and the champion answers."""
    failure_limit_percent: Annotated[float, Field(gt=0, lt=50)] = 5.0
    """Share of canary answers that may fail (errors, timeouts) before the breaker ends the canary."""
    violation_limit_percent: Annotated[float, Field(gt=0, lt=50)] = 10.0
    """Share of canary answers that may violate safety before the breaker ends the canary."""
    keep_tokens: bool = False
    """Run records keep the token ids of each turn with their log-probabilities, where the gateway has them: traffic can
    then be learned from. They hold what customers wrote, with everything that is redacted elsewhere."""


class CanarySettings(StrictModel):
    """A release on its way from the first sessions to all of them, or back."""

    ramp: Annotated[tuple[Annotated[float, Field(gt=0, le=50)], ...], AfterValidator(_rising)] = (20.0, 50.0)
    """Shares in percent that follow `release.canary_traffic_percent`; empty: it stays there."""
    step_sessions: Count = 50
    """Canary sessions at a share before the next one, while nothing speaks against it."""
    minimum_sessions: Count = 50
    """Canary sessions before a promotion, however good they look."""
    expires_after_hours: Positive = 72.0
    """A canary that has proven nothing by then is failed back."""
    simulated_sessions: Count = 2000
    """The same, in canary sessions, where the customers are simulated."""
    customers: Count = 32
    """Simulated customers that ask at the same time."""


OF_A_BASE: dict[str, dict[str, dict[str, float | None]]] = {
    "full": {
        "sft": {"epochs": 3, "learning_rate": 2e-5, "matrix_learning_rate": None},
        "reward": {"epochs": 1, "learning_rate": 1e-5, "matrix_learning_rate": None},
        "ppo": {"learning_rate": 1e-6, "critic_learning_rate": 1e-5},
    },
    "lora": {
        "sft": {"epochs": 3, "learning_rate": 2e-4, "matrix_learning_rate": None},
        "reward": {"epochs": 1, "learning_rate": 1e-4, "matrix_learning_rate": None},
        "ppo": {"learning_rate": 1e-5, "critic_learning_rate": 1e-4},
    },
}
"""Defaults for the weights of a base, and for an adapter on it; those in the sections are the built-in model's.

Of all weights: TRL's for SFT (`SFTConfig`, and the Trainer's three epochs), the usual ones for a reward model (1e-5,
one pass: Ouyang et al. 2022 saw more passes overfit) and verl's for PPO's actor and critic. Of an adapter: ten times as
much, which Schulman et al. 2025 ("LoRA without regret") found best from 1 B to 70 B parameters.
"""


OF_TRACES: dict[str, dict[str, float]] = {
    "preferences": {"max_characters": 40_000},
    "sft": {"epochs": 12, "batch_size": 4},
    "reward": {"batch_size": 4},
}
"""Defaults where there are only traces: whole runs of production are several times as long as an answer, and there are
tens or hundreds of them. Those of training are for the built-in model."""


class EngineSettings(StrictModel):
    """What samples the policies' tokens in rollouts, on-policy pairs and evaluation."""

    kind: Literal["local", "vllm"] = "local"
    """`local`: the stage's own processes. `vllm`: a vLLM server, in an environment of its own."""
    url: str | None = None
    """A server that runs (`http://host:8000`), serves the base and sees this machine's files; nothing: a stage starts
    one for as long as it samples."""
    key_variable: str | None = None
    """Environment variable that holds this server's API key."""
    python: Name = "python3"
    """Interpreter of an environment that has vLLM, for a server that is started."""
    arguments: tuple[str, ...] = ()
    """Further options of a server that is started, such as `--enforce-eager`."""
    publish: Literal["adapter", "weights"] | None = None
    """How a policy gets there: as an adapter under a new name each time, or as all weights, of which a server has one
    set at a time; nothing: as what `policy.adapter` says."""
    patience_seconds: Positive = 300.0
    """Time for a server to start, to answer, and to come back when it went away."""

    @model_validator(mode="after")
    def _fits_together(self) -> "EngineSettings":
        if self.kind == "local" and self.url is not None:
            raise ValueError("url is of a server, and kind is `local`: set kind: vllm")
        return self


class ComputeSettings(StrictModel):
    """What the work is done with. Results do not depend on it, but for rounding."""

    kind: Literal["local", "ray"] = "local"
    """Where on-policy pairs and the evaluation are sampled, in pieces: by processes of this machine, one a core, or by
    the workers of a Ray cluster, which see the same files."""
    address: str | None = None
    """Of the Ray cluster (`host:6379`); nothing: one is started on this machine for as long as a stage samples."""
    workers: Count | None = None
    """Pieces that the work is cut into on Ray; nothing: as many as the cluster has cores."""
    training_processes: Count = 1
    """Processes that share each step of SFT, reward model and PPO, as far as the batch can be divided. They divide the
    cores among them, and have a GPU each where there are as many. Each has the whole model in memory."""
    sharded: bool = False
    """These processes split weights, gradients and what the optimizer remembers among them (FSDP2): for a model that
    one device cannot train. Then a server has to sample (`engine.kind: vllm`)."""


class Settings(StrictModel):
    """Everything that `workflow.yaml` can say."""

    workflow: WorkflowSettings
    release: ReleaseSettings = ReleaseSettings()
    monitoring: Metrics = (
        "human_override_rate",
        "tool_error_rate",
        "policy_kl_drift",
        "task_completion_quality",
    )
    """Metrics that are computed, stored and plotted."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 17
    """All randomness of a run derives from it."""
    preferences: PreferenceSettings = PreferenceSettings()
    model: ModelSettings = ModelSettings()
    policy: PolicySettings = PolicySettings()
    sft: SftSettings = SftSettings()
    on_policy: OnPolicySettings = OnPolicySettings()
    reward: RewardSettings = RewardSettings()
    ppo: PpoSettings = PpoSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    alternatives: AlternativesSettings = AlternativesSettings()
    rollback: RollbackSettings = RollbackSettings()
    gateway: GatewaySettings = GatewaySettings()
    canary: CanarySettings = CanarySettings()
    engine: EngineSettings = EngineSettings()
    compute: ComputeSettings = ComputeSettings()

    @model_validator(mode="after")
    def _for_the_model_that_learns(self) -> "Settings":
        """Gives what the file leaves open the defaults of the kind of model that it names."""
        if self.engine.kind != "local" and self.compute.kind == "ray":
            raise ValueError("compute.kind is `ray`, but with engine.kind `vllm` it is the server that samples")
        if self.engine.publish == "adapter" and self.policy.adapter == "full":
            raise ValueError("engine.publish is `adapter`, but policy.adapter is `full`: there is none to publish")
        if self.model.base is None and self.policy.adapter == "lora":
            raise ValueError("policy.adapter is `lora`, but there is no model.base whose weights it could stand on")
        of_traces: Mapping[str, Mapping[str, float | None]] = OF_TRACES if self.workflow.target == "traces" else {}
        of_a_base = OF_A_BASE[self.policy.adapter] if self.model.base is not None else {}
        for section in (*of_traces, *(name for name in of_a_base if name not in of_traces)):
            settings = getattr(self, section)
            values = {**of_traces.get(section, {}), **of_a_base.get(section, {})}
            left_open = {name: value for name, value in values.items() if name not in settings.model_fields_set}
            # the validator's own result is this object, which is frozen
            object.__setattr__(self, section, settings.model_copy(update=left_open))
        return self

    @model_validator(mode="after")
    def _can_be_split(self) -> "Settings":
        count = self.compute.training_processes
        if not self.compute.sharded:
            return self
        if count == 1:
            raise ValueError("compute.sharded needs more than one of compute.training_processes to split a model over")
        if self.engine.kind == "local":
            raise ValueError(
                "compute.sharded: processes cannot sample a policy that is split over them: set engine.kind: vllm"
            )
        for name, settings in (("sft", self.sft), ("reward", self.reward)):
            if settings.matrix_learning_rate is not None:
                raise ValueError(
                    f"{name}.matrix_learning_rate: Muon turns whole matrices, and compute.sharded splits them: null"
                )
        for name, rows in (
            ("sft.batch_size", self.sft.batch_size),
            ("reward.batch_size", self.reward.batch_size),
            ("ppo.minibatch", self.ppo.minibatch),
        ):
            if rows % count:
                raise ValueError(
                    f"{name} is {rows}, which {count} processes (compute.training_processes) cannot divide, and with "
                    "compute.sharded none of them can be left out"
                )
        return self

    def section_digest(self, *names: str) -> str:
        """Digest of the named sections: part of the code version of every asset that reads them."""
        return digest_json(self.model_dump(mode="json", include=set(names)))


def load_settings(path: Path) -> Settings:
    """Read a workflow file. AgentRLError names file, line and nearest valid name for each mistake in it."""
    return load_model(path, Settings)


def settings_reference() -> str:
    """`docs/settings.md`: every setting with its values, its default and its meaning, as the models have them."""
    schema = Settings.model_json_schema()
    top_level: dict[str, Any] = {}
    sections = []
    for name, setting in schema["properties"].items():
        if "$ref" in setting:
            section = schema["$defs"][setting["$ref"].rpartition("/")[2]]
            sections += [f"## {name}", "", section["description"], "", *_table(section["properties"]), ""]
        else:
            top_level[name] = setting
    return "\n".join(
        [
            "# Settings of `workflow.yaml`",
            "",
            "Made from the settings' own documentation by `python -m agentrl_resources.settings > docs/settings.md`.",
            "",
            "Sections that the file leaves out, and settings that a section leaves out, have the defaults below.",
            "",
            *_table(top_level),
            "",
            *sections,
            "## A base of your own",
            "",
            "With `model.base`, what the file leaves open is, for all weights (`policy.adapter: full`) and for an "
            "adapter (`lora`):",
            "",
            "| setting | full | lora |",
            "|---|--:|--:|",
            *(
                f"| `{section}.{name}` | {_number(value)} | {_number(OF_A_BASE['lora'][section][name])} |"
                for section, values in OF_A_BASE["full"].items()
                for name, value in values.items()
            ),
            "",
            "## Traces alone",
            "",
            "With `workflow.target: traces`, what the file leaves open is (of SFT and reward model, without a base):",
            "",
            "| setting | value |",
            "|---|--:|",
            *(
                f"| `{section}.{name}` | {_number(value)} |"
                for section, values in OF_TRACES.items()
                for name, value in values.items()
            ),
            "",
        ]
    )


def _number(value: float | None) -> str:
    return "(nothing)" if value is None else f"{value:g}"


def _table(settings: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{name}` | {_values(setting)} | {_default(setting)} | {' '.join(setting['description'].split())} |"
        for name, setting in settings.items()
    ]
    return ["| setting | values | default | meaning |", "|---|---|---|---|", *rows]


def _default(setting: dict[str, Any]) -> str:
    if "default" not in setting:
        return "(required)"
    default = setting["default"]
    return "(nothing)" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _values(setting: dict[str, Any]) -> str:
    if "const" in setting:
        return f"`{setting['const']}`"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {setting[bound]}" for bound, sign in bounds.items() if bound in setting]
    kind = setting.get("type") or " or ".join(option["type"] for option in setting["anyOf"])
    words = {"array": "list of names", "string": "text", "integer": "whole number", "boolean": "true or false"}
    return ", ".join([words.get(kind, kind).replace("string or null", "text"), *limits])


if __name__ == "__main__":
    print(settings_reference(), end="")
