"""Mistakes that show against what is on the machine: models, their hooks and sizes, files, folders."""

from __future__ import annotations

from .mistakes import SEARCH

MISTAKES_AT_HAND = {
    "misspelt-built-in-model": (
        "builtin:tiny-lm",
        "builtin:tinylm",
        "3:15: base.model_name: unknown built-in model 'builtin:tinylm'; there is builtin:tiny-lm",
    ),
    "misspelt-built-in-dataset": (
        "builtin:python-docs",
        "builtin:python-doc",
        "6:17: base.dataset_path: unknown built-in dataset 'builtin:python-doc'; did you mean 'builtin:python-docs'?",
    ),
    "missing-model-folder": (
        "builtin:tiny-lm",
        "./models/nope",
        "3:15: base.model_name: the folder './models/nope' does not exist; give a model folder or a Hub id",
    ),
    "missing-data-file": (
        "builtin:python-docs",
        "./data/nope.jsonl",
        "6:17: base.dataset_path: './data/nope.jsonl' does not exist; give a file, folder, glob or a Hub dataset id",
    ),
    "missing-data-file-without-folder": (
        "builtin:python-docs",
        "nope.jsonl",
        "6:17: base.dataset_path: 'nope.jsonl' does not exist; give a file, folder, glob or a Hub dataset id",
    ),
    "glob-without-files": (
        "builtin:python-docs",
        "data/*.nope",
        "6:17: base.dataset_path: no file matches 'data/*.nope'; give a file, folder, glob or a Hub dataset id",
    ),
    "missing-warm-start": (
        "trials: 15",
        "trials: 15, warm_start: ./nope",
        "15:34: search.warm_start: './nope' is no folder here; give the run directory of an earlier run",
    ),
    "missing-reference": (
        SEARCH,
        SEARCH + "evaluation: {references: [./nope]}\n",
        "16:27: evaluation.references[0]: './nope' does not exist; give the folder of an exported SAE or its place on the Hub",
    ),
    "missing-from-cfg": (
        "  model_name",
        "  from_cfg: ./nope\n  model_name",
        "3:13: base.from_cfg: './nope' is neither a folder nor a file here, nor a Hub id; name a runner_cfg.json, a cfg.json, the folder of one, or user/repo/folder",
    ),
    "layer-too-high": (
        "model.layers.2",
        "model.layers.9",
        "5:14: base.hook_name: model.layers.9: builtin:tiny-lm has 4 layers, numbered from 0; the last is model.layers.3",
    ),
    "layer-too-high-of-the-other-library": (
        "model.layers.2",
        "blocks.4.hook_resid_post",
        "5:14: base.hook_name: model.layers.4: builtin:tiny-lm has 4 layers, numbered from 0; the last is model.layers.3",
    ),
    "misspelt-hook": (
        "model.layers.2",
        "model.layer.2",
        "5:14: base.hook_name: builtin:tiny-lm has no 'model.layer.2'; did you mean 'model.layers.2'?",
    ),
    "hook-without-a-counterpart": (
        "model.layers.2",
        "blocks.2.attn.hook_q",
        "5:14: base.hook_name: blocks.2.attn.hook_q is a hook of TransformerLens, and no module of builtin:tiny-lm holds the same for certain; set model_class_name: TransformerBridge to use it, or choose a module that `saesweep hooks` lists",
    ),
    "module-in-TransformerLens": (
        "model_class_name: AutoModelForCausalLM\n  hook_name: model.layers.2",
        "model_class_name: TransformerBridge\n  hook_name: model.layers.2.mlp.up_proj",
        "5:14: base.hook_name: model.layers.2.mlp.up_proj is a module of Hugging Face's model, and no hook of TransformerLens holds the same for certain; set model_class_name: AutoModelForCausalLM to use it, or choose a hook that `saesweep hooks` lists",
    ),
    "wrong-d_in": (
        "d_in: 128",
        "d_in: 256",
        "11:40: base.sae.d_in: 256 is given, but model.layers.2 of builtin:tiny-lm is 128 wide; write 128, or leave it out",
    ),
    "context-too-long": (
        "context_size: 256",
        "context_size: 100000",
        "7:17: base.context_size: 100000 is more than builtin:tiny-lm takes (256 tokens); lower it to at most that",
    ),
}
