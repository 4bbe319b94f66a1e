"""The commented experiment that `saesweep init` writes."""

from __future__ import annotations

_TEMPLATE = """\
# saesweep run experiment.yaml
#
# As it stands, this sweeps SAEs on the language model that ships with saesweep, with no download, in a few minutes on a
# CPU. Put your own model, hook and dataset under `base`, widen `space`, and run `saesweep validate` and `saesweep plan`.
# Every option: docs/options.md, or `saesweep schema` for your editor.

name: my_experiment                       # the run directory is runs/<name>

base:                                     # one whole training run, in SAELens' field names and with its defaults
  # from_cfg: path/to/runner_cfg.json     # start from a SAELens run, or from a saesweep best/ folder
  model_name: builtin:tiny-lm             # or a Hub id, or a local folder
  model_class_name: AutoModelForCausalLM  # hooks are module names; TransformerBridge takes TransformerLens' hook points
  hook_name: model.layers.2
  dataset_path: builtin:python-docs       # or a Hub id, or local .txt, .jsonl, .csv or .parquet files
  context_size: 256                       # tokens
  exclude_special_tokens: true            # norms at BOS are huge and distort scale and explained variance
  max_activation_norm_multiple: 10        # leaves out attention sinks: tokens with more than 10 times the median norm
  training_tokens: 400k                   # per trial; for a result to keep, hundreds of millions
  train_batch_size_tokens: 2048
  lr: 1e-3
  lr_warm_up_steps: 2%                    # durations are steps (100), tokens (5Mtok) or a share of the run (2%)
  lr_decay_steps: 20%
  sae:
    architecture: batchtopk
    d_in: 128                             # width at the hook, as `saesweep hooks` shows it; `run` infers it, `plan` does not
    d_sae: 1024                           # latents; or expansion_factor
    normalize_activations: expected_average_only_in

by_architecture:                          # overrides of `base` for one architecture
  jumprelu: {preset: anthropic-jan-2025, sae.jumprelu_ste_to_input: true}

space:                                    # dotted paths of `base`; bounds are values, both included. {} trains once
  sae.architecture:   {choice: [batchtopk, topk, jumprelu]}
  sae.k:              {int: [8, 64], log: true}         # sampled only for architectures with a `k`
  sae.l0_coefficient: {float: [0.3, 10], log: true}     # likewise: jumprelu. No range fits every model
  lr:                 {float: [3e-4, 3e-3], log: true}

objective: {pareto: [{minimize: l0}, {minimize: delta_ce}]}
# objective: {maximize: explained_variance, subject_to: {l0: {max: 32}}}
# objective: {minimize: delta_ce, matched: {l0: [8, 16, 32]}}   # which architecture is best at the same L0? docs/matched.md

evaluation: {select_tokens: 20k, test_tokens: 20k}      # held out by document; `test` is read once, for the winner

search:
  trials: 9
  seed: 0
  stratify: sae.architecture              # an equal share of the trials for each architecture
  rungs: [10%, 20%, 40%]                  # where a trial is judged by the forecast of its end, and hopeless ones are pruned

cohort: {size: auto}                      # SAEs that train at once from one activation stream
"""


def template() -> str:
    """Return the text of a commented experiment that runs anywhere."""
    return _TEMPLATE
