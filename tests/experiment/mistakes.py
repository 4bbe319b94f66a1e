"""Mistakes that people make, and the exact message that each gets: what is wrong, where, and what to write instead."""

from __future__ import annotations

BASE = """\
name: mistakes
base:
  model_name: builtin:tiny-lm
  model_class_name: AutoModelForCausalLM
  hook_name: model.layers.2
  dataset_path: builtin:python-docs
  context_size: 256
  training_tokens: 400k
  train_batch_size_tokens: 2048
  lr: 1e-3
  sae: {architecture: batchtopk, d_in: 128, d_sae: 1024, k: 32}
space:
  sae.k: {int: [8, 64], log: true}
  lr: {float: [8e-4, 5e-3], log: true}
search: {trials: 15}
"""
LR, K = "lr: {float: [8e-4, 5e-3], log: true}", "sae.k: {int: [8, 64], log: true}"
BASE_LR, SEARCH = "  lr: 1e-3\n", "search: {trials: 15}\n"

MISTAKES = {
    # what it is: (what is replaced, by what, the messages as line:column: path: message)
    "wandb-range": (
        LR,
        "lr: {min: 1e-4, max: 1e-3}",
        "14:8: space.lr.min: write lr: {float: [0.0001, 0.001]}",
    ),
    "wandb-whole-numbers": (
        K,
        "sae.k: {min: 8, max: 64}",
        "13:11: space.sae.k.min: write sae.k: {int: [8, 64]}",
    ),
    "wandb-log": (
        LR,
        "lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-3}",
        "14:42: space.lr.min: write lr: {float: [0.0001, 0.001], log: true}",
    ),
    "wandb-exponents": (
        LR,
        "lr: {distribution: log_uniform, min: -9.2, max: -6.9}",
        "14:35: space.lr.min: write lr: {float: [0.000101, 0.00101], log: true} (bounds are values here, not exponents)",
    ),
    "wandb-values": (
        K,
        "sae.k: {values: [16, 32]}",
        "13:11: space.sae.k.values: write sae.k: {choice: [16, 32]}",
    ),
    "wandb-value": (
        K,
        "sae.k: {value: 32}",
        "13:11: space.sae.k.value: one value is not searched; set it under base, as sae: {k: 32}",
    ),
    "wandb-parameters": (
        "space:\n  sae.k: {int: [8, 64], log: true}\n  lr: {float: [8e-4, 5e-3], log: true}",
        "space:\n  parameters: {lr: {min: 1e-4, max: 1e-3}}",
        "13:3: space.parameters: write what is in it directly under space",
    ),
    "wandb-metric": (
        SEARCH,
        SEARCH + "objective: {metric: {name: delta_ce, goal: minimize}}\n",
        "16:12: objective: write objective: {minimize: delta_ce}",
    ),
    "wandb-method": (
        "trials: 15",
        "trials: 15, method: bayes",
        "15:22: search.method: write sampler: tpe",
    ),
    "optuna-bounds": (
        LR,
        "lr: {low: 1e-4, high: 1e-3, log: true}",
        "14:8: space.lr.low: write lr: {float: [0.0001, 0.001], log: true}",
    ),
    "optuna-type": (
        LR,
        "lr: {type: float, low: 1e-4, high: 1e-3}",
        "14:21: space.lr.low: write lr: {float: [0.0001, 0.001]}",
    ),
    "optuna-suggest": (
        LR,
        "lr: {suggest_float: [1e-4, 1e-3]}",
        "14:8: space.lr.suggest_float: write lr: {float: [0.0001, 0.001]}",
    ),
    "optuna-suggest-int": (
        K,
        "sae.k: {suggest_int: [8, 64]}",
        "13:11: space.sae.k.suggest_int: write sae.k: {int: [8, 64]}",
    ),
    "optuna-categorical": (
        K,
        "sae.k: {categorical: [16, 32]}",
        "13:11: space.sae.k.categorical: write sae.k: {choice: [16, 32]}",
    ),
    "optuna-direction": (
        SEARCH,
        SEARCH + "objective: {metric: delta_ce, direction: minimize}\n",
        "16:12: objective: write objective: {minimize: delta_ce}",
    ),
    "optuna-n-trials": (
        "trials: 15",
        "n_trials: 15",
        "15:10: search.n_trials: unknown key 'n_trials'; did you mean 'trials'?",
    ),
    "ray-loguniform": (
        LR,
        "lr: {loguniform: [1e-4, 1e-3]}",
        "14:8: space.lr.loguniform: write lr: {float: [0.0001, 0.001], log: true}",
    ),
    "ray-randint": (
        K,
        "sae.k: {randint: [8, 64]}",
        "13:11: space.sae.k.randint: write sae.k: {int: [8, 64]}",
    ),
    "ray-grid-search": (
        K,
        "sae.k: {grid_search: [16, 32]}",
        "13:11: space.sae.k.grid_search: write sae.k: {choice: [16, 32]}",
    ),
    "hydra-interval": (
        LR,
        "lr: interval(1e-4, 1e-3)",
        "14:7: space.lr: write lr: {float: [0.0001, 0.001]}",
    ),
    "choices": (
        K,
        "sae.k: {choices: [16, 32]}",
        "13:11: space.sae.k.choices: write sae.k: {choice: [16, 32]}",
    ),
    "distribution-beside-float": (
        LR,
        "lr: {float: [8e-4, 5e-3], distribution: log_uniform}",
        "14:29: space.lr.distribution: remove it: float and int say what the range is; distribution: log_uniform is said by log: true",
    ),
    "bare-list": (
        K,
        "sae.k: [16, 32]",
        "13:10: space.sae.k: a list of values is a choice; write sae.k: {choice: [16, 32]}",
    ),
    "bare-value": (
        K,
        "sae.k: 32",
        "13:10: space.sae.k: one value is not searched; set it under base, as sae: {k: 32}; to search it, write sae.k: {int: [low, high]}",
    ),
    "base-prefix": (
        K,
        "base.sae.k: {int: [8, 64], log: true}",
        "13:3: space.base.sae.k: paths begin inside base; write sae.k: {int: [8, 64], log: true}",
    ),
    "nested-space": (
        K,
        "sae: {k: {int: [8, 64]}}",
        "13:3: space.sae: is a group of fields; write dotted paths: sae.k: {int: [8, 64]}",
    ),
    "no-such-field": (
        K,
        "sae.kk: {int: [8, 64]}",
        "13:3: space.sae.kk: no field of a base run is called 'sae.kk'; did you mean 'sae.k'?",
    ),
    "swapped-bounds": (
        LR,
        "lr: {float: [5e-3, 8e-4], log: true}",
        "14:15: space.lr.float: [0.005, 0.0008]: the lower bound is above the upper; write [0.0008, 0.005]",
    ),
    "exponents": (
        LR,
        "lr: {float: [-4, -3], log: true}",
        "14:15: space.lr.float: log: true needs a lower bound above 0, not -4; bounds are values, not exponents: [1e-4, 1e-3]",
    ),
    "three-bounds": (
        LR,
        "lr: {float: [1e-4, 1e-3, 1e-2]}",
        "14:15: space.lr.float: takes [low, high], both included; to try certain values, write choice: [...]",
    ),
    "percent-in-words": (
        BASE_LR,
        BASE_LR + "  lr_warm_up_steps: 5 percent\n",
        "11:21: base.lr_warm_up_steps: '5 percent': write a share of the run as 5%",
    ),
    "half-as-duration": (
        BASE_LR,
        BASE_LR + "  lr_warm_up_steps: 0.05\n",
        "11:21: base.lr_warm_up_steps: 0.05 is not a whole number of steps >= 0; a share of the run is written 5%",
    ),
    "duration-in-words": (
        BASE_LR,
        BASE_LR + "  lr_warm_up_steps: some\n",
        "11:21: base.lr_warm_up_steps: 'some' is not a duration; write steps (1000), tokens (5Mtok) or a share of the run (5%)",
    ),
    "no-blank-after-colon": (
        BASE_LR,
        "  lr:1e-3\n",
        "11:3: not valid YAML: a blank is missing after the colon; write lr: 1e-3",
    ),
    "no-blank-in-braces": (
        "{architecture: batchtopk,",
        "{architecture:batchtopk,",
        "11:9: base.sae.architecture:batchtopk: a blank is missing after the colon; write architecture: batchtopk",
    ),
    "None": (
        BASE_LR,
        "  lr: None\n",
        "10:7: base.lr: 'None' is text in YAML; write null, or leave the key out for the default",
    ),
    "None-for-a-list": (
        BASE_LR,
        BASE_LR + "  seqpos_slice: None\n",
        "11:17: base.seqpos_slice: 'None' is text in YAML; write null, or leave the key out for the default",
    ),
    "yes": (
        BASE_LR,
        BASE_LR + "  streaming: yes\n",
        "11:14: base.streaming: takes true or false, not 'yes'",
    ),
    "quoted-number": (
        BASE_LR,
        "  lr: '1e-3'\n",
        "10:7: base.lr: takes a number, not '1e-3'; take the quotes off",
    ),
    "count-in-words": (
        "400k",
        "0.4 million",
        "8:20: base.training_tokens: '0.4 million' is not a count; write a whole number or one with k, M, B or T, such as 90M",
    ),
    "tab": (
        BASE_LR,
        "\tlr: 1e-3\n",
        "10:1: not valid YAML: found character '\\t' that cannot start any token while scanning for the next token; indent with spaces",
    ),
    "twice": (
        BASE_LR,
        BASE_LR + BASE_LR,
        "11:3: base.lr: duplicate key; the first is on line 10; remove one",
    ),
    "misspelt-section": (
        "search:",
        "serach:",
        "15:1: serach: unknown key 'serach'; did you mean 'search'?",
    ),
    "field-of-the-sae": (
        BASE_LR,
        BASE_LR + "  k: 32\n",
        "11:3: base.k: unknown key 'k'; it is a field of the SAE: sae: {k: ...}",
    ),
    "misspelt-field": (
        BASE_LR,
        BASE_LR + "  lr_sheduler_name: constant\n",
        "11:3: base.lr_sheduler_name: unknown key 'lr_sheduler_name'; did you mean 'lr_scheduler_name'?",
    ),
    "misspelt-field-that-is-required": (
        "  dataset_path: builtin:python-docs\n",
        "  dataset_pth: builtin:python-docs\n",
        "6:3: base.dataset_pth: unknown key 'dataset_pth'; did you mean 'dataset_path'?",
    ),
    "misspelt-name": (
        "name: mistakes\n",
        "nmae: mistakes\n",
        "1:1: nmae: unknown key 'nmae'; did you mean 'name'?",
    ),
    "required-field-of-the-sae": (
        "  sae: {architecture: batchtopk, d_in: 128, d_sae: 1024, k: 32}\n",
        "  sae.d_sae: 1024\n  sae: {architecture: batchtopk, d_in: 128, k: 32}\n",
        "11:3: base.sae.d_sae: unknown key 'sae.d_sae'; write it nested, as sae: {d_sae: ...}",
    ),
    "misspelt-hook-of-a-transcoder": (
        "  sae: {architecture: batchtopk, d_in: 128, d_sae: 1024, k: 32}\n",
        "  hook_nam_out: model.layers.3\n  sae: {architecture: batchtopk_transcoder, d_in: 128, d_sae: 1024, k: 32}\n",
        "11:3: base.hook_nam_out: unknown key 'hook_nam_out'; did you mean 'hook_name_out'?",
    ),
    "misspelt-architecture": (
        "batchtopk",
        "batch-topk",
        "11:23: base.sae.architecture: unknown architecture 'batch-topk'; did you mean 'batchtopk'? (known: standard, gated, jumprelu, topk, batchtopk, matryoshka_batchtopk and their transcoders, matching_pursuit, abstopk, multi_k, standard_crosscoder, jumprelu_crosscoder, topk_crosscoder, batchtopk_crosscoder)",
    ),
    "misspelt-metric": (
        SEARCH,
        SEARCH + "objective: {minimize: delta_cee}\n",
        "16:23: objective.minimize: unknown metric 'delta_cee'; did you mean 'delta_ce'?",
    ),
    "british-objective": (
        SEARCH,
        SEARCH + "objective: {minimise: delta_ce}\n",
        "16:13: objective.minimise: write minimize: delta_ce",
    ),
    "metric-alone": (
        SEARCH,
        SEARCH + "objective: delta_ce\n",
        "16:12: objective: names a metric without a direction; write objective: {minimize: delta_ce}",
    ),
    "front-of-names": (
        SEARCH,
        SEARCH + "objective: {pareto: [l0, delta_ce]}\n",
        "16:22: objective.pareto[0]: needs its direction; write {minimize: l0}",
        "16:26: objective.pareto[1]: needs its direction; write {minimize: delta_ce}",
    ),
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
    "no-such-device": (
        BASE_LR,
        BASE_LR + "  device: gpu\n",
        "11:11: base.device: 'gpu' is no device; use auto, cpu, cuda, cuda:0 or mps",
    ),
    "refused-sampler": (
        "trials: 15",
        "trials: 15, sampler: optuna.samplers.GridSampler",
        "15:31: search.sampler: optuna.samplers.GridSampler cannot suggest for a cohort; use `sampler: grid`",
    ),
    "no-such-sampler": (
        "trials: 15",
        "trials: 15, sampler: tpee",
        "15:31: search.sampler: unknown sampler 'tpee'; did you mean 'tpe'? (tpe, random, grid, fixed, or a class path such as optuna.samplers.GPSampler)",
    ),
    "no-such-sampler-class": (
        "trials: 15",
        "trials: 15, sampler: optuna.samplers.NopeSampler",
        "15:31: search.sampler: optuna.samplers.NopeSampler cannot be imported: module 'optuna.samplers' has no attribute 'NopeSampler'; write one of tpe, random, grid, fixed, or a class path such as optuna.samplers.GPSampler",
    ),
    "warm-up-too-long": (
        BASE_LR,
        BASE_LR + "  lr_warm_up_steps: 100k\n",
        "11:21: base.lr_warm_up_steps: warm-up (100000 steps) and decay (0 steps) are longer than the run (195 steps); shorten one",
    ),
    "warm-up-and-decay-too-long": (
        BASE_LR,
        BASE_LR + "  lr_warm_up_steps: 60%\n  lr_decay_steps: 60%\n",
        "12:19: base.lr_decay_steps: warm-up (117 steps) and decay (117 steps) are longer than the run (195 steps); shorten one",
    ),
    "baseline-outside": (
        "trials: 15",
        "trials: 15, baselines: [{sae.k: 128}]",
        "15:42: search.baselines[0].sae.k: 128 is outside the space: int [8, 64]; take a value of it, or widen it",
    ),
    "baseline-of-no-field": (
        "trials: 15",
        "trials: 15, baselines: [{sae.kk: 16}]",
        "15:35: search.baselines[0].sae.kk: no field of a base run is called 'sae.kk'; did you mean 'sae.k'?",
    ),
    "more-baselines-than-trials": (
        "trials: 15",
        "trials: 1, baselines: [{sae.k: 16}, {sae.k: 32}]",
        "15:18: search.trials: 1, but search.baselines lists 2 trials: the last 1 would never run; raise trials to at least 2, or list fewer",
    ),
    # one value where a mapping or a list belongs, and the other way round
    "range-in-one-piece": (
        K,
        "sae.k: 8-64",
        "13:10: space.sae.k: write sae.k: {int: [8, 64]}",
    ),
    "range-as-text": (
        K,
        "sae.k: {int: 8..64}",
        "13:16: space.sae.k.int: write int: [8, 64]",
    ),
    "range-left-empty": (
        K,
        "sae.k:",
        "13:9: space.sae.k: does not say what to search; write sae.k: {int: [low, high]} or sae.k: {choice: [first, second]}, or leave the line out",
    ),
    "choice-without-brackets": (
        K,
        "sae.architecture: {choice: topk}",
        "13:30: space.sae.architecture.choice: write choice: [topk]",
    ),
    "several-values-under-base": (
        "hook_name: model.layers.2",
        "hook_name: [model.layers.1, model.layers.2]",
        "5:14: base.hook_name: batchtopk reads one hook; to try each, write under space: hook_name: {choice: [model.layers.1, model.layers.2]}; to read them together, choose a crosscoder such as topk_crosscoder, which may have the list under by_architecture",
    ),
    "two-goals-under-one": (
        SEARCH,
        SEARCH + "objective: {minimize: [l0, delta_ce]}\n",
        "16:12: objective: several goals make a front; write pareto: [{minimize: l0}, {minimize: delta_ce}]",
    ),
    "two-goals": (
        SEARCH,
        SEARCH + "objective: {minimize: l0, maximize: explained_variance}\n",
        "16:12: objective: several goals make a front; write pareto: [{minimize: l0}, {maximize: explained_variance}]",
    ),
    "limit-without-an-end": (
        SEARCH,
        SEARCH + "objective: {minimize: delta_ce, subject_to: {l0: 64}}\n",
        "16:50: objective.subject_to.l0: write l0: {max: 64}",
    ),
    "limit-as-a-comparison": (
        SEARCH,
        SEARCH + "objective: {minimize: delta_ce, subject_to: l0 <= 64}\n",
        "16:45: objective.subject_to: write subject_to: {l0: {max: 64}}",
    ),
    "trials-alone": (
        SEARCH,
        "search: 15\n",
        "15:9: search: write search: {trials: 15}",
    ),
    "size-alone": (
        SEARCH,
        SEARCH + "cohort: 4\n",
        "16:9: cohort: write cohort: {size: 4}",
    ),
    "confirm-yes": (
        "trials: 15",
        "trials: 15, confirm: true",
        "15:31: search.confirm: write confirm: {top: 3}",
    ),
    "confirm-count": (
        "trials: 15",
        "trials: 15, confirm: 5",
        "15:31: search.confirm: write confirm: {top: 5}",
    ),
    "rung-without-brackets": (
        "trials: 15",
        "trials: 15, rungs: 5%",
        "15:29: search.rungs: write rungs: [5%]",
    ),
    "baseline-without-brackets": (
        "trials: 15",
        "trials: 15, baselines: {sae.k: 32}",
        "15:33: search.baselines: write baselines: [{sae.k: 32}]",
    ),
    "targets-alone": (
        "sae.k: {int: [8, 64], log: true}\n  lr: {float: [8e-4, 5e-3], log: true}\nsearch: {trials: 15}\n",
        "lr: {float: [8e-4, 5e-3], log: true}\nsearch: {trials: 15}\nobjective: {minimize: delta_ce, matched: [16, 32]}\n",
        "11:61: base.sae.k: objective.matched sets k of batchtopk: each trial gets a target L0 there; leave it out",
        "15:42: objective.matched: write matched: {l0: [16, 32]}",
    ),
    "one-target": (
        "sae.k: {int: [8, 64], log: true}\n  lr: {float: [8e-4, 5e-3], log: true}\nsearch: {trials: 15}\n",
        "lr: {float: [8e-4, 5e-3], log: true}\nsearch: {trials: 15}\nobjective: {minimize: delta_ce, matched: {l0: 32}}\n",
        "11:61: base.sae.k: objective.matched sets k of batchtopk: each trial gets a target L0 there; leave it out",
        "15:47: objective.matched.l0: write l0: [32]",
    ),
    "logger-alone": (
        BASE_LR,
        BASE_LR + "  logger: wandb\n",
        "11:11: base.logger: write logger: {log_to_wandb: true}",
    ),
    "field-of-the-logger": (
        BASE_LR,
        BASE_LR + "  log_to_wandb: true\n",
        "11:3: base.log_to_wandb: unknown key 'log_to_wandb'; it is a field of the logger: logger: {log_to_wandb: ...}",
    ),
    "devices-as-numbers": (
        SEARCH,
        SEARCH + "cohort: {devices: [0, 1]}\n",
        "16:19: cohort.devices: write devices: [cuda:0, cuda:1]",
    ),
    "decimal-comma": (
        BASE_LR,
        "  lr: 0,001\n",
        "10:7: base.lr: takes a number, not '0,001'; write 0.001, with a point",
    ),
    "name-as-a-number": (
        "name: mistakes",
        "name: 12",
        "1:7: name: takes text, not 12; put it in quotes: '12'",
    ),
    "sampler-in-capitals": (
        "trials: 15",
        "trials: 15, sampler: TPE",
        "15:31: search.sampler: unknown sampler 'TPE'; did you mean 'tpe'? (tpe, random, grid, fixed, or a class path such as optuna.samplers.GPSampler)",
    ),
    "sampler-of-wandb": (
        "trials: 15",
        "trials: 15, sampler: bayesian",
        "15:31: search.sampler: unknown sampler 'bayesian'; did you mean 'tpe'? (tpe, random, grid, fixed, or a class path such as optuna.samplers.GPSampler)",
    ),
    "schedule-in-short": (
        BASE_LR,
        BASE_LR + "  lr_scheduler_name: cosine\n",
        "11:22: base.lr_scheduler_name: takes 'constant', 'cosineannealing' or 'cosineannealingwarmrestarts', not 'cosine'; did you mean 'cosineannealing'?",
    ),
    "second-document": (
        SEARCH,
        SEARCH + "---\nname: more\n",
        "16:1: not valid YAML: a second document begins here; an experiment is one, so remove the line ---",
    ),
    # words and shapes of other tools, and what the reader of a message still has to be told
    "field-of-the-sae-at-the-top": (
        SEARCH,
        SEARCH + "sae.k: 32\n",
        "16:1: sae.k: unknown key 'sae.k'; write it under base: {sae: {k: 32}}",
    ),
    "trials-at-the-top": (
        SEARCH,
        SEARCH + "trials: 10\n",
        "16:1: trials: unknown key 'trials'; write it under search: {trials: 10}",
    ),
    "sweep-file-of-wandb": (
        SEARCH,
        SEARCH + "method: bayes\nmetric: {name: delta_ce, goal: minimize}\nparameters: {lr: {min: 1, max: 2}}\n",
        "16:1: method: unknown key 'method'; write search: {sampler: ...}",
        "17:1: metric: unknown key 'metric'; write objective: {minimize: ...} or {maximize: ...}",
        "18:1: parameters: unknown key 'parameters'; write what is in it under space",
    ),
    "program-of-wandb": (
        SEARCH,
        SEARCH + "program: train.py\n",
        "16:1: program: unknown key 'program'; saesweep trains by itself; leave it out",
    ),
    "early-stopping-of-wandb": (
        SEARCH,
        SEARCH + "early_terminate: {type: hyperband}\n",
        "16:1: early_terminate: unknown key 'early_terminate'; search.pruner stops trials by a forecast of their ends; leave it out",
    ),
    "ray-quniform": (
        K,
        "sae.k: {quniform: [8,64,8]}",
        "13:11: space.sae.k.quniform: write sae.k: {int: [8, 64], step: 8}",
    ),
    "wandb-steps": (
        K,
        "sae.k: {distribution: q_uniform, min: 8, max: 64, q: 8}",
        "13:36: space.sae.k.min: write sae.k: {int: [8, 64], step: 8}",
    ),
    "wandb-normal": (
        LR,
        "lr: {distribution: normal, mu: 1e-3, sigma: 1e-4}",
        "14:30: space.lr.mu: only ranges are searched; write lr: {float: [0.0008, 0.0012]}",
    ),
    "wandb-constant": (
        K,
        "sae.k: {distribution: constant, value: 32}",
        "13:35: space.sae.k.value: one value is not searched; set it under base, as sae: {k: 32}",
    ),
    "optuna-step": (
        K,
        "sae.k: {low: 8, high: 64, step: 8}",
        "13:11: space.sae.k.low: write sae.k: {int: [8, 64], step: 8}",
    ),
    "hydra-choice": (
        K,
        "sae.k: choice(16,32)",
        "13:10: space.sae.k: write sae.k: {choice: [16, 32]}",
    ),
    "hydra-range": (
        K,
        "sae.k: range(8,64)",
        "13:10: space.sae.k: write sae.k: {int: [8, 64]}",
    ),
    "scale-beside-float": (
        LR,
        "lr: {float: [8e-4, 5e-3], scale: log}",
        "14:29: space.lr.scale: remove it: float and int say what the range is; scale: log is said by log: true",
    ),
    "choice-of-nothing": (
        K,
        "sae.k: {choice: []}",
        "13:19: space.sae.k.choice: is empty; list the values: choice: [first, second]",
    ),
    "value-twice": (
        K,
        "sae.k: {choice: [16,16]}",
        "13:19: space.sae.k.choice: names a value twice; list each once",
    ),
    "count-with-its-unit": (
        "400k",
        "400k tokens",
        "8:20: base.training_tokens: '400k tokens' is not a count; write 400k",
    ),
    "steps-with-their-unit": (
        BASE_LR,
        BASE_LR + "  lr_warm_up_steps: 100 steps\n",
        "11:21: base.lr_warm_up_steps: '100 steps' is not a duration; write 100",
    ),
    "tokens-with-their-unit": (
        BASE_LR,
        BASE_LR + "  lr_warm_up_steps: 5M tokens\n",
        "11:21: base.lr_warm_up_steps: '5M tokens' is not a duration; write 5Mtok",
    ),
    "learning-rate-in-full": (
        BASE_LR,
        BASE_LR + "  learning_rate: 1e-3\n",
        "11:3: base.learning_rate: unknown key 'learning_rate'; did you mean 'lr'?",
    ),
    "width-of-dictionary_learning": (
        "d_sae: 1024",
        "d_dict: 1024",
        "11:45: base.sae.d_dict: unknown key 'd_dict'; did you mean 'd_sae'?",
    ),
    "activation-of-saelens-5": (
        "architecture: batchtopk",
        "activation_fn: topk",
        "11:9: base.sae.activation_fn: unknown key 'activation_fn'; did you mean 'architecture'?",
        "11:54: base.sae.k: a field of topk, batchtopk, matryoshka_batchtopk, abstopk, multi_k, and the experiment has standard; leave it out",
        "13:3: space.sae.k: no architecture of this experiment (standard) has k; it belongs to topk, batchtopk, matryoshka_batchtopk, abstopk, multi_k",
    ),
    "vanilla": (
        "batchtopk",
        "vanilla",
        "11:23: base.sae.architecture: unknown architecture 'vanilla'; did you mean 'standard'? (known: standard, gated, jumprelu, topk, batchtopk, matryoshka_batchtopk and their transcoders, matching_pursuit, abstopk, multi_k, standard_crosscoder, jumprelu_crosscoder, topk_crosscoder, batchtopk_crosscoder)",
        "11:56: base.sae.k: a field of topk, batchtopk, matryoshka_batchtopk, abstopk, multi_k, and the experiment has standard; leave it out",
        "13:3: space.sae.k: no architecture of this experiment (standard) has k; it belongs to topk, batchtopk, matryoshka_batchtopk, abstopk, multi_k",
    ),
    "objective-in-one-piece": (
        SEARCH,
        SEARCH + "objective: minimize delta_ce\n",
        "16:12: objective: write objective: {minimize: delta_ce}",
    ),
    "list-of-goals": (
        SEARCH,
        SEARCH + "objective: [minimize: l0, minimize: delta_ce]\n",
        "16:12: objective: several goals make a front; write objective: {pareto: [{minimize: l0}, {minimize: delta_ce}]}",
    ),
    "front-as-a-mapping": (
        SEARCH,
        SEARCH + "objective: {pareto: {minimize: l0, maximize: delta_ce}}\n",
        "16:21: objective.pareto: write pareto: [{minimize: l0}, {maximize: delta_ce}]",
    ),
    "limit-with-an-operator": (
        SEARCH,
        SEARCH + 'objective: {minimize: delta_ce, subject_to: {l0: {"<=": 64}}}\n',
        "16:50: objective.subject_to.l0: write l0: {max: 64}",
    ),
    "limit-as-text": (
        SEARCH,
        SEARCH + 'objective: {minimize: delta_ce, subject_to: {l0: "< 64"}}\n',
        "16:50: objective.subject_to.l0: write l0: {max: 64}",
    ),
    "limits-as-a-list": (
        SEARCH,
        SEARCH + "objective: {minimize: delta_ce, subject_to: [l0 < 64]}\n",
        "16:45: objective.subject_to: write subject_to: {l0: {max: 64}}",
    ),
    "dtype-in-short": (
        BASE_LR,
        BASE_LR + "  dtype: fp16\n",
        "11:10: base.dtype: takes 'float32', 'float64', 'bfloat16' or 'float16', not 'fp16'; did you mean 'float16'?",
    ),
    "quoted-count": (
        "trials: 15",
        'trials: "15"',
        "15:18: search.trials: takes a whole number, not '15'; take the quotes off",
    ),
    "grid-search": (
        "trials: 15",
        "trials: 15, sampler: grid_search",
        "15:31: search.sampler: unknown sampler 'grid_search'; did you mean 'grid'? (tpe, random, grid, fixed, or a class path such as optuna.samplers.GPSampler)",
    ),
    "missing-colon": (
        "name: mistakes",
        "name mistakes",
        "2:5: not valid YAML: mapping values are not allowed here; a colon is missing on the line before, or this line is indented too far",
    ),
    "open-brace": (
        "k: 32}",
        "k: 32",
        "12:6: not valid YAML: expected ',' or '}', but got ':' while parsing a flow mapping; close the { of line 11",
    ),
    "open-bracket": (
        "[8, 64]",
        "[8, 64",
        "13:33: not valid YAML: expected ',' or ']', but got '}' while parsing a flow sequence; close the [ of line 13",
    ),
    "variable-of-the-shell": (
        "builtin:python-docs",
        "$HOME/x",
        "6:17: base.dataset_path: write ${env:HOME}/x",
    ),
    "hook-in-words": (
        "model.layers.2",
        "resid_post_2",
        "5:14: base.hook_name: builtin:tiny-lm has no 'resid_post_2'; did you mean 'model.layers.2'?",
    ),
    "layer-from-the-end": (
        "model.layers.2",
        "model.layers.-1",
        "5:14: base.hook_name: builtin:tiny-lm has no 'model.layers.-1'; did you mean 'model.layers.3'?",
    ),
    "layer-in-brackets": (
        "model.layers.2",
        "model.layers[2]",
        "5:14: base.hook_name: builtin:tiny-lm has no 'model.layers[2]'; did you mean 'model.layers.2'?",
    ),
    "misspelt-model-class": (
        "AutoModelForCausalLM",
        "AutoModelForCausalLm",
        "4:21: base.model_class_name: 'AutoModelForCausalLm' is no class; did you mean 'AutoModelForCausalLM'?",
    ),
}
