"""More mistakes: a value where a mapping or a list belongs and the other way round, and further words of other tools."""

from __future__ import annotations

from .mistakes import BASE_LR, LR, SEARCH, K

MISTAKEN_SHAPES = {
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
    "a-limit-that-is-no-number": (
        SEARCH,
        SEARCH + "objective: {minimize: delta_ce, subject_to: l0 <= 1e999}\n",
        "16:45: objective.subject_to: takes a mapping of keys, not 'l0 <= 1e999'",
    ),
    "a-range-that-is-no-number": (
        K,
        "sae.k: {int: 8-1e999}",
        "13:16: space.sae.k.int: takes [low, high], both included; to try certain values, write choice: [...]",
    ),
    "no-blank-before-what-is-no-number": (
        BASE_LR,
        "  lr:.inf\n",
        "11:3: not valid YAML: a blank is missing after the colon; write lr: .inf",
    ),
    "no-blank-in-braces-before-what-is-no-number": (
        LR,
        "lr: {float: [1e-4, 1e-3], step:.inf}",
        "14:29: space.lr.step:.inf: a blank is missing after the colon; write step: .inf",
        "14:29: space.lr.step: takes a number, not '.inf'",
    ),
    "a-call-with-what-is-no-number": (
        LR,
        "lr: choice(1e999)",
        "14:3: space.lr.choice[0]: takes a number, not '1e999'",
        "14:7: space.lr: write lr: {choice: [1e999]}",
    ),
    "exponents-that-are-too-large": (
        LR,
        "lr: {distribution: log_uniform, min: -3, max: 1000}",
        "14:35: space.lr.min: write lr: {float: [0.0498, 1.01e+304], log: true} (bounds are values here, not exponents)",
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
    "variable-in-braces": (
        "sae: {architecture: batchtopk,",
        "sae: {architecture: ${env:ARCHITECTURE},",
        '11:24: not valid YAML: in braces and brackets a reference is quoted, as in "${env:NAME}"',
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
