"""Low-rank adapters (LoRA, Hu et al. 2021) on a base that is in memory once.

Policy, SFT reference, reward model and critic are networks of their own whose weights are the very tensors of one base;
beside some of these each has small matrices of its own, and a head where it scores. So nothing has to be switched: a
network is called like any other, and its gradient reaches nothing but its own. An adapter's folder is what `peft` reads
and writes, with the base that it stands on.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_file, digest_json, read_json, write_json
from agentrl_resources.learning.sharding import full, split_like
from agentrl_resources.settings import PolicySettings

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BASE_FILE = "base.json"
"""Which base an adapter stands on: see `Base`."""
_PREFIX = "base_model.model."
"""What peft writes before the name of every weight."""
_HEADS = ("score.weight", "score.bias")
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")
SAME_VECTOR = 0.9999
"""Cosine from which on two vectors of a head are one: those that a base never learned differ by rounding alone, and the
closest that SmolLM2 did learn are at 0.99."""


ROWS_AT_ONCE = 16_384
"""Of a head, that are looked at in float32."""


@dataclass(frozen=True)
class Base:
    """A network that is loaded once and learns nothing.

    Args:
        place: a folder, or a hub id whose weights this machine has.
        dtype: precision that it is computed in, by torch's name.
    """

    place: str
    dtype: str


def is_adapter(place: str | Path) -> bool:
    return (Path(place) / CONFIG).is_file()


def base_of(folder: Path) -> Base:
    """The base of an adapter.

    Raises:
        AgentRLError: it is gone, or its weights are no longer those that the adapter was trained on.
    """
    noted = read_json(folder / BASE_FILE)
    base = Base(noted["place"], noted["dtype"])
    if digest_of_base(base.place) != noted["sha256"]:
        raise AgentRLError(
            f"{folder}: the adapter was trained on other weights than those in `{base.place}` now. Put the base back "
            "that it was trained on, or train again: agentrl run"
        )
    return base


def digest_of_base(place: str) -> str:
    """SHA-256 over the weight files and the configuration of a base.

    Raises:
        AgentRLError: there are none.
    """
    folder = folder_of(place)
    files = [folder / "config.json", *(file for kind in _WEIGHT_FILES for file in sorted(folder.glob(kind)))]
    found = [file for file in files if file.is_file()]
    if len(found) < 2:
        raise AgentRLError(f"base `{place}`: no weights in {folder}. Name a folder with config.json and weights.")
    # of a file that was read before nothing is read again, as long as its size and time are the same
    return digest_json([[file.name, _digest(file, (now := file.stat()).st_size, now.st_mtime_ns)] for file in found])


def shared_copy(network: Any) -> Any:
    """The same network once more, with modules of its own around the same tensors, none of which learns."""
    for tensor in network.parameters():
        tensor.requires_grad_(False)
    same = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, same)


def add_adapter(network: Any, settings: PolicySettings, seed: int) -> Any:
    """Gives a network an adapter that changes nothing yet, in place; it alone learns.

    Raises:
        AgentRLError: the network has none of the layers that the settings name.
    """
    import torch
    from peft import LoraConfig

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # it may be any number
        target_modules=list(settings.targets) if settings.targets else "all-linear",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _inject(network, config)


def load_adapter(network: Any, folder: Path) -> Any:
    """Gives a network the adapter of a folder, and its head where it scores and the folder has one; in place.

    Raises:
        AgentRLError: the adapter does not fit the network.
    """
    from peft import PeftConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    _inject(network, PeftConfig.from_pretrained(str(folder)))
    stored = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    heads = {name: stored.pop(name) for name in _HEADS if name in stored}
    said: Any = set_peft_model_state_dict(network, stored)
    missing = [name for name in said.missing_keys if "lora_" in name]
    if said.unexpected_keys or missing:
        odd = (list(said.unexpected_keys) + missing)[0]
        raise AgentRLError(f"{folder}: the adapter is not one for this base (`{odd}`)")
    if heads and hasattr(network, "score"):
        network.load_state_dict(heads, strict=False)
    return network


def save_adapter(network: Any, folder: Path, base: Base) -> None:
    """Writes the adapter, with its head where it scores."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = next(iter(network.peft_config.values()))
    config.base_model_name_or_path = base.place
    config.save_pretrained(str(folder))
    weights = get_peft_model_state_dict(network)
    if hasattr(network, "score"):
        weights |= {name: tensor for name, tensor in network.state_dict().items() if name in _HEADS}
    save_file({_PREFIX + name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    write_json(folder / BASE_FILE, asdict(base) | {"sha256": digest_of_base(base.place)})


def has_adapter(network: Any) -> bool:
    return bool(getattr(network, "peft_config", None))


def indistinct(network: Any, tokens: Sequence[int]) -> list[int]:
    """Those of `tokens` that no adapter can teach a network to write: its head, which stays as it is, has the same
    vector for another token. A base is like that where it was never trained, as in its reserve for later use."""
    import torch

    head = network.get_output_embeddings()
    if not tokens or any(tensor.requires_grad for tensor in head.parameters()):
        return []
    found: set[int] = set()
    with torch.no_grad():
        own = head.weight[list(tokens)].float()
        lengths = own.norm(dim=-1, keepdim=True)
        for start in range(0, len(head.weight), ROWS_AT_ONCE):
            others = head.weight[start : start + ROWS_AT_ONCE].float()
            both = lengths * others.norm(dim=-1)
            # vectors of nothing are the same too
            same = (own @ others.T > SAME_VECTOR * both) | ((lengths == 0) & (others == 0).all(-1))
            for row, other in same.nonzero().tolist():
                if tokens[row] != start + other:
                    found.add(tokens[row])
    return [token for token in tokens if token in found]


def merged(network: Any) -> Any:
    """A network of its own whose weights are base and adapter in one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not has_adapter(network):
        return network
    own = copy.deepcopy(network)
    for name, layer in list(own.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, place = name.rpartition(".")
            setattr(own.get_submodule(parent), place, layer.get_base_layer())
    del own.peft_config
    return own


def learned(network: Any) -> dict[str, Any]:
    """The weights that learn: all of them, or those of the adapter and the head."""
    return {name: tensor for name, tensor in network.named_parameters() if tensor.requires_grad}


def copied(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same numbers in memory of their own."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def put_back(network: Any, weights: Mapping[str, Any]) -> None:
    """Gives a network weights that `learned` told of, whole or as it has them itself."""
    unknown = network.load_state_dict(as_in(network, weights), strict=False).unexpected_keys
    if unknown:
        raise AgentRLError(f"weights of another network: `{unknown[0]}`")


def as_in(network: Any, weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same weights, split as the network's own are, if they are."""
    own = dict(network.named_parameters())
    return {name: split_like(tensor, own.get(name)) for name, tensor in weights.items()}


def how_far(network: Any, before: Mapping[str, Any]) -> float:
    """How far the weights that learn have come: the norm of what changed, as a share of their norm."""
    import torch

    now = learned(network)
    with torch.no_grad():
        changed = torch.stack([full((tensor - before[name]).norm()) for name, tensor in now.items()]).norm()
        whole = torch.stack([full(tensor.norm()) for tensor in now.values()]).norm()
        return float(changed / whole.clamp(min=1e-12))


def _inject(network: Any, config: Any) -> Any:
    from peft import inject_adapter_in_model

    try:
        inject_adapter_in_model(config, network)
    except ValueError as error:  # no such layers
        raise AgentRLError(f"policy.targets: no adapter can be put on this model: {error}") from error
    for name in _HEADS:
        module, _, weight = name.partition(".")
        if (tensor := getattr(getattr(network, module, None), weight, None)) is not None:
            tensor.requires_grad_(True)
    return network


def folder_of(place: str) -> Path:
    """The folder of a base: it is one, or a hub id whose files this machine has. AgentRLError when it is neither."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(place, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        raise AgentRLError(f"base `{place}` is neither a folder nor a model that this machine has") from error


@functools.lru_cache(maxsize=256)
def _digest(file: Path, size: int, changed: int) -> str:
    return digest_file(file)
