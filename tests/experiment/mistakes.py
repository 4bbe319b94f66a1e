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
}
