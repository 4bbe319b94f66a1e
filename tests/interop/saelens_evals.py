"""Compare saesweep's evaluation and files with SAELens 6.54, on the built-in language model.

Runs in an environment that has SAELens (saesweep itself never imports it), from the root of the repository:

    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_evals.py

Matrix: every architecture and `normalize_activations`, written by saesweep and read by SAELens and the other way round:
latents and reconstructions, and every metric of SAELens' `run_evals` against ours on the same tokens. Then `runner_cfg.json`
through SAELens' `LanguageModelSAERunnerConfig.from_dict`, and a run trained by SAELens: its checkpoint and its result as
`from_cfg` and `from_pretrained_path`. Prints a table; exits with 1 if a difference is above its bound.
"""

# Shape suffix legend:  C = contexts, T = positions, B = tokens in a batch, D = d_in

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE, LanguageModelSAERunnerConfig, LoggingConfig, TrainingSAE
from sae_lens.config import LanguageModelSAERunnerConfig as RunnerConfig
from sae_lens.evals import EvalConfig, run_evals
from sae_lens.llm_sae_training_runner import LanguageModelSAETrainingRunner
from sae_lens.load_model import HookedProxyLM
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from sae_lens.training.activation_scaler import ActivationScaler
from transformers import AutoModelForCausalLM, AutoTokenizer

from saesweep.activations.held_out import HeldOutActivations
from saesweep.activations.rows import RowFilter
from saesweep.builtin import model_path
from saesweep.evaluation.evaluate import HeldOutEvaluator
from saesweep.experiment import load_experiment
from saesweep.models import bridge
from saesweep.models.huggingface import HuggingFaceModel
from saesweep.runs.runner_cfg import runner_cfg
from saesweep.saes import (
    ExportedSAE,
    Knobs,
    Normalizer,
    architecture_for,
    calibrate_threshold,
    load_sae_folder,
    pretrained_params,
    read_pretrained,
    save_sae_folder,
)
from saesweep.specs import BaseRun
from saesweep.specs.architectures import SAESpec, spec_class
from saesweep.worker.artifacts import hook_metadata
from tests.interop.saelens_parity import MODES, RUNTIME, Table, difference, saelens_twin
from tests.saes.plain_formulas import denormalized

HOOK, D_IN, D_SAE = "model.layers.2", 128, 512
CONTEXTS, CONTEXT, PER_BATCH = 24, 128, 8
SAME = 1e-4
METRIC_BOUND = 1e-3
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "batchtopk", "matryoshka_batchtopk")
PAIRS = {
    "ce_loss_score": ("model_performance_preservation", "ce_loss_score"),
    "ce_loss_with_sae": ("model_performance_preservation", "ce_loss_with_sae"),
    "ce_loss_without_sae": ("model_performance_preservation", "ce_loss_without_sae"),
    "ce_loss_with_ablation": ("model_performance_preservation", "ce_loss_with_ablation"),
    "kl_div": ("model_behavior_preservation", "kl_div_with_sae"),
    "kl_div_score": ("model_behavior_preservation", "kl_div_score"),
    "l0": ("sparsity", "l0"),
    "l1": ("sparsity", "l1"),
    "explained_variance": ("reconstruction_quality", "explained_variance"),
    "mse": ("reconstruction_quality", "mse"),
    "cosine_similarity": ("reconstruction_quality", "cossim"),
    "l2_ratio": ("shrinkage", "l2_ratio"),
    "relative_reconstruction_bias": ("shrinkage", "relative_reconstruction_bias"),
}
"""Our metric -> where `run_evals` has it."""


class SameTokens:
    """What `run_evals` asks of an activation store, over fixed contexts from the first one on."""

    store_batch_size_prompts = PER_BATCH
    context_size = CONTEXT

    def __init__(self, tokens_CT: torch.Tensor) -> None:
        self._tokens_CT = tokens_CT
        self._at = 0

    def get_batch_tokens(self, batch_size: int) -> torch.Tensor:
        start = self._at % len(self._tokens_CT)
        self._at += batch_size
        return self._tokens_CT[start : start + batch_size]

    def reset_input_dataset(self) -> None:
        self._at = 0


class World:
    """The language model in both tools, the same tokens, and their activations."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model_path())
        model = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()
        self.ours = HuggingFaceModel(model, self.tokenizer)
        # SAELens' hooks stay on its modules, so it gets a model of its own.
        theirs = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()
        self.theirs = HookedProxyLM(theirs, self.tokenizer, hook_names=[HOOK])
        text = Path("docs/options.md").read_text(encoding="utf-8") + Path("docs/metrics.md").read_text(encoding="utf-8")
        ids = self.tokenizer(text * 3, add_special_tokens=False)["input_ids"]
        self.bos = self.tokenizer.bos_token_id
        body_CT = torch.tensor(ids[: CONTEXTS * (CONTEXT - 1)]).reshape(CONTEXTS, CONTEXT - 1)
        self.tokens_CT = torch.cat([torch.full((CONTEXTS, 1), self.bos), body_CT], dim=1)
        part = self.part(excluded=(self.bos,))
        self.x_BD = torch.cat(list(part.batches(HOOK)))

    def part(self, excluded: tuple[int, ...]) -> HeldOutActivations:
        return HeldOutActivations(
            model=self.ours,
            hooks=[HOOK],
            head_index=None,
            tokens_NT=self.tokens_CT,
            rows=RowFilter(context_size=CONTEXT, excluded=excluded),
            forward_contexts=PER_BATCH,
            batch_tokens=1024,
            device=torch.device("cpu"),
        )

    def measure(
        self, saes: list[ExportedSAE], excluded: tuple[int, ...], *, spread: bool = False
    ) -> list[dict[str, float]]:
        evaluator = HeldOutEvaluator(self.part(excluded), self.ours, contexts_per_forward=PER_BATCH)
        return evaluator.measure(saes, HOOK, with_model=True, spread=spread)

    def run_evals(self, sae: Any, excluded: tuple[int, ...], per_batch: int = CONTEXTS) -> dict[str, Any]:
        batches = CONTEXTS // per_batch
        config = EvalConfig(
            batch_size_prompts=per_batch,
            n_eval_reconstruction_batches=batches,
            n_eval_sparsity_variance_batches=batches,
            compute_kl=True,
            compute_ce_loss=True,
            compute_l2_norms=True,
            compute_sparsity_metrics=True,
            compute_variance_metrics=True,
        )
        found, _ = run_evals(
            sae,
            SameTokens(self.tokens_CT),
            self.theirs,
            ActivationScaler(),
            eval_config=config,
            exclude_special_tokens=list(excluded) or False,
        )
        return dict(found)


def trained(architecture: str, mode: str, x_BD: torch.Tensor) -> Any:
    """Return our implementation, parameters after a few training steps, normaliser and threshold."""
    options: dict[str, Any] = {"normalize_activations": mode}
    if "topk" in architecture:
        options["k"] = 16 if architecture == "topk" else 16.0
        options["aux_loss_coefficient"] = 0.0 if mode in RUNTIME else 1.0
    if architecture == "matryoshka_batchtopk":
        options["matryoshka_widths"] = [64, 256, D_SAE]
    if architecture == "jumprelu":
        options |= {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_bandwidth": 2.0, "jumprelu_init_threshold": 0.1}
    spec = spec_class(architecture)(architecture=architecture, d_in=D_IN, d_sae=D_SAE, **options)
    implementation = architecture_for(spec)
    params = implementation.init(torch.Generator().manual_seed(0))
    normalizer = Normalizer.fit(mode, [x_BD], D_IN)
    scaled_BD = normalizer.apply(x_BD)
    leaves = {name: tensor.requires_grad_() for name, tensor in params.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=3e-3)
    knobs = Knobs(l1_coefficient=1.0, l0_coefficient=0.5, k=float(getattr(spec, "k", 0)))
    for step in range(60):
        rows_B = torch.randint(len(scaled_BD), (256,), generator=torch.Generator().manual_seed(step))
        loss = implementation.forward(leaves, scaled_BD[rows_B], knobs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        implementation.constrain_(leaves)
    params = {name: tensor.detach() for name, tensor in leaves.items()}
    threshold = None
    if implementation.needs_threshold:
        threshold = calibrate_threshold(lambda: [implementation.pre_acts_for_threshold(params, scaled_BD)], 16.0)
    return implementation, params, normalizer, threshold


def own_run(spec: SAESpec) -> BaseRun:
    """Return a run of ours that trains such an SAE, for the metadata that its export has."""
    fields = {"model_name": str(model_path()), "hook_name": HOOK, "dataset_path": "given", "context_size": CONTEXT}
    return BaseRun(**fields, sae=spec)


def write_both(architecture: str, mode: str, x_BD: torch.Tensor, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (direction, folder): the SAE written by us, for SAELens to read, and by SAELens, for us."""
    implementation, params, normalizer, threshold = trained(architecture, mode, x_BD)
    ours, theirs = root / f"{architecture}-{mode}-ours", root / f"{architecture}-{mode}-theirs"
    exported = implementation.export(params, normalizer, threshold)
    save_sae_folder(ours, exported.with_metadata(hook_metadata(own_run(implementation.spec))), sparsity_F=None)
    yield "saesweep -> SAELens", ours
    twin = saelens_twin(implementation, params)
    if threshold is not None:
        twin.topk_threshold.fill_(threshold)
    if normalizer.scale is not None:
        twin.fold_activation_norm_scaling_factor(normalizer.scale)
    if normalizer.whitening is not None:
        w = normalizer.whitening
        twin.fold_activation_whitening(w.mean_D, w.matrix_DD, w.inverse_DD)
    twin.cfg.metadata.hook_name, twin.cfg.metadata.hook_head_index = HOOK, None  # as SAELens' runner does
    twin.save_inference_model(theirs)
    yield "SAELens -> saesweep", theirs


def compare_matrix(table: Table, world: World, root: Path) -> None:
    """Compare latents, reconstructions and metrics for every architecture, mode and direction."""
    for architecture, mode in itertools.product(ARCHITECTURES, MODES):
        for direction, folder in write_both(architecture, mode, world.x_BD, root):
            excluded = (world.bos,) if mode != "none" else ()
            compare_one(table, world, f"evals {architecture} {mode} {direction}", folder, excluded)


def compare_one(table: Table, world: World, case: str, folder: Path, excluded: tuple[int, ...]) -> None:
    """Compare one folder as both tools read it."""
    ours, theirs = load_sae_folder(folder), SAE.load_from_disk(folder)
    with torch.no_grad():
        acts_BF = theirs.encode(world.x_BD)
        recon_BD = theirs.decode(acts_BF)
    table.add(
        case,
        {"latents": difference(ours.encode(world.x_BD), acts_BF), "recon": difference(ours(world.x_BD), recon_BD)},
        SAME,
    )
    mine, found = world.measure([ours], excluded)[0], world.run_evals(theirs, excluded)
    gaps = {name: _relative(mine[name], found[group][key]) for name, (group, key) in PAIRS.items()}
    worst = max(gaps, key=lambda name: gaps[name])
    table.add(case, {name: gaps[name] for name in ("ce_loss_score", "l0", "explained_variance")}, SAME)
    # All contexts are one batch of SAELens': it averages the ratio of relative_reconstruction_bias over batches.
    table.add(f"{case} (all {len(PAIRS)}; worst: {worst})", {"worst": gaps[worst]}, METRIC_BOUND)


def _relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(theirs), 1e-6)


def compare_configs(table: Table) -> None:
    """Let SAELens read the runner_cfg.json of every architecture of the shipped experiments."""
    # The TransformerLens of this environment is older than ours and lacks the table of official names.
    bridge.hub_name = lambda name: name
    for file in sorted(Path("experiments").glob("*.yaml")):
        experiment = load_experiment(file)
        name = str(experiment.base_run().model_name)
        if name.startswith(".") and not Path(name).exists():
            print(f"left out: {file} (there is no folder {name})")
            continue
        for architecture in experiment.architectures:
            run = experiment.corner_runs(architecture)[0]
            if run.sae.architecture not in SAE_TRAINING_CLASS_REGISTRY:  # it trains no transcoders and no crosscoders
                print(f"left out: {architecture} of {file.name} (SAELens does not train it)")
                continue
            run = run.model_copy(update={"sae": run.sae.resolve_widths(run.sae.d_in or 64)})
            written = runner_cfg(run)
            read = RunnerConfig.from_dict(written)
            lost = [
                name
                for name in ("lr", "training_tokens", "lr_warm_up_steps", "lr_decay_steps", "context_size", "hook_name")
                if getattr(read, name) != written[name]
            ]
            lost += [
                f"sae.{name}"
                for name, value in read.sae.to_dict().items()
                if name != "metadata" and written["sae"].get(name, value) != value
            ]
            table.add(f"runner_cfg {architecture} of {file.name} {' '.join(lost)}", {"fields lost": float(len(lost))})


def compare_training(table: Table, world: World, root: Path) -> None:
    """Train with SAELens; resume from its checkpoint and from its result."""
    import datasets

    rows = [{"input_ids": row} for row in world.tokens_CT.tolist()]
    for architecture in ("standard", "batchtopk"):
        out = root / f"run-{architecture}"
        own = {"k": 16} if architecture == "batchtopk" else {"l1_coefficient": 3.0}
        sae_cfg = TrainingSAE.from_dict(
            {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, **own}
            | {"normalize_activations": "expected_average_only_in"}
        ).cfg
        cfg: Any = LanguageModelSAERunnerConfig(
            sae=sae_cfg,
            model_name=str(model_path()),
            model_class_name="AutoModelForCausalLM",
            hook_name=HOOK,
            dataset_path="given",
            context_size=CONTEXT,
            streaming=False,
            training_tokens=64 * 256,
            train_batch_size_tokens=256,
            n_batches_in_buffer=8,
            store_batch_size_prompts=8,
            n_batches_for_norm_estimate=4,
            lr=1e-3,
            n_checkpoints=1,
            checkpoint_path=str(out / "checkpoints"),
            output_path=str(out / "final"),
            logger=LoggingConfig(log_to_wandb=False),
        )
        runner = LanguageModelSAETrainingRunner(
            cfg, override_dataset=datasets.Dataset.from_list(rows * 8), override_model=world.theirs
        )
        runner.run()
        (checkpoint,) = [path.parent for path in (out / "checkpoints").glob("*/*/cfg.json")]
        compare_one(table, world, f"trained {architecture} by SAELens", out / "final", (world.bos,))
        for kind, folder in (("checkpoint", checkpoint), ("result", out / "final")):
            tree = {
                "name": "again",
                "base": {
                    "from_cfg": str(folder),
                    "dataset_path": "builtin:python-docs",
                    "from_pretrained_path": str(folder),
                },
                "space": {},
            }
            run = load_experiment(tree).base_run()
            lost = [
                n for n in ("lr", "training_tokens", "context_size", "hook_name") if getattr(run, n) != getattr(cfg, n)
            ]
            lost += [name for name, value in own.items() if getattr(run.sae, name) != value]
            lost += [] if run.sae.architecture == architecture else ["architecture"]
            implementation = architecture_for(run.sae)
            normalizer = Normalizer.fit(run.sae.normalize_activations, [world.x_BD], D_IN)
            params = pretrained_params(
                read_pretrained(str(folder)), implementation, normalizer, implementation.init(torch.Generator())
            )
            knobs = Knobs.from_spec(run.sae)
            recon_BD = denormalized(
                normalizer, implementation.forward(params, normalizer.apply(world.x_BD), knobs).recon_BD
            )
            expected_BD = _as_saelens_reads(folder, kind, world.x_BD)
            table.add(
                f"from   {architecture} {kind} {' '.join(lost)}",
                {"fields lost": float(len(lost)), "recon": difference(recon_BD, expected_BD)},
                SAME,
            )


def _as_saelens_reads(folder: Path, kind: str, x_BD: torch.Tensor) -> torch.Tensor:
    """Return the training form's reconstruction of raw activations, with the SAE's own scale."""
    if kind == "checkpoint":
        sae: Any = TrainingSAE.load_from_disk(folder)
        scaler = ActivationScaler()
        scaler.load(str(folder / "activation_scaler.json"))
    else:
        # A result in inference form keeps an old threshold; the training form of the same weights selects by k.
        final = SAE.load_from_disk(folder)
        details = final.cfg.metadata["training_architecture_details"]
        name = final.cfg.metadata["training_architecture"]
        sae = TrainingSAE.from_dict(
            {**details, "architecture": name, "d_in": D_IN, "d_sae": D_SAE, "normalize_activations": "none"}
        )
        weights = {key: value for key, value in final.state_dict().items() if key != "threshold"}
        sae.load_state_dict(weights, strict=False)
        scaler = ActivationScaler()
    with torch.no_grad():
        return scaler.unscale(sae.decode(sae.encode(scaler.scale(x_BD))))


def main() -> int:
    """Run the comparisons; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the matrix")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    world = World()
    table = Table()
    with tempfile.TemporaryDirectory() as root:
        compare_configs(table)
        compare_training(table, world, Path(root))
        if not arguments.quick:
            compare_matrix(table, world, Path(root))
    print(f"{table.rows} comparisons, {table.misses} above their bound")
    return 1 if table.misses else 0


if __name__ == "__main__":
    sys.exit(main())
