"""Parameters, resolution of trials, the default objective, the number of trials, warnings, identity."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from saesweep.errors import UserError
from saesweep.experiment import describe_changes, load_experiment, space_changes
from saesweep.specs.presets import PRESETS


def sweep(tree: dict[str, Any], **ranges: Any) -> dict[str, Any]:
    tree["base"]["sae"].update(k=8, l1_coefficient=2.0)
    tree["space"] = {
        "sae.architecture": {"choice": ["topk", "standard", "jumprelu"]},
        **{path.replace("__", "."): spec for path, spec in ranges.items()},
    }
    return tree


class TestParameters:
    def test_fields_of_some_architectures_are_conditional(self, tree: dict[str, Any]) -> None:
        ranges = {
            "sae__k": {"int": [1, 8]},
            "lr": {"float": [1e-4, 1e-3]},
            "sae__decoder_init_norm": {"choice": [0.1, 1.0]},
        }
        found = {p.path: p.when for p in load_experiment(sweep(tree, **ranges)).parameters()}
        assert found == {
            "sae.architecture": {},
            "lr": {},
            "sae.decoder_init_norm": {},
            "sae.k": {"sae.architecture": ("topk",)},
        }

    def test_one_architecture_needs_no_condition(self, tree: dict[str, Any]) -> None:
        tree["space"] = {"sae.k": {"int": [1, 8]}}
        (parameter,) = load_experiment(tree).parameters()
        assert parameter.when == {}

    def test_stated_conditions_are_kept_and_narrowed(self, tree: dict[str, Any]) -> None:
        tree = sweep(tree, lr={"float": [1e-4, 1e-3], "when": {"sae.architecture": ["topk", "standard"]}})
        tree["space"]["sae.architecture"]["choice"] += ["gated"]
        tree["space"]["sae.l1_coefficient"] = {"float": [1, 2], "when": {"sae.architecture": ["gated"]}}
        found = {p.path: p.when["sae.architecture"] for p in load_experiment(tree).parameters() if p.when}
        assert found == {"lr": ("topk", "standard"), "sae.l1_coefficient": ("gated",)}

    def test_several_ranges_of_one_path(self, tree: dict[str, Any]) -> None:
        ranges = [{"float": [1, v], "when": {"sae.architecture": a}} for v, a in ((2, "standard"), (3, "topk"))]
        parameters = [p for p in load_experiment(sweep(tree, lr=ranges)).parameters() if p.path == "lr"]
        assert [(p.spec.high, p.when) for p in parameters] == [
            (2, {"sae.architecture": ("standard",)}),
            (3, {"sae.architecture": ("topk",)}),
        ]
        assert [p.spec.high for p in parameters if p.is_active({"sae.architecture": "topk"})] == [3]

    def test_deciders_come_first(self, tree: dict[str, Any]) -> None:
        tree["space"] = {
            "lr_end": {"float": [1e-6, 1e-5]},
            "adam_beta1": {"choice": [0.0, 0.9], "when": {"adam_beta2": 0.99}},
            "adam_beta2": {"choice": [0.99, 0.999]},
            "lr_scheduler_name": {"choice": ["constant", "cosineannealing"]},
        }
        paths = [p.path for p in load_experiment(tree).parameters()]
        assert paths == ["adam_beta2", "lr_scheduler_name", "lr_end", "adam_beta1"]

    def test_fields_that_only_some_setting_reads(self, tree: dict[str, Any]) -> None:
        tree["space"] = {
            "lr_scheduler_name": {"choice": ["constant", "cosineannealing"]},
            "lr_end": {"float": [1e-6, 1e-5]},
        }
        when = {p.path: p.when for p in load_experiment(tree).parameters()}
        assert when["lr_end"] == {"lr_scheduler_name": ("cosineannealing",)}


class TestResolve:
    def test_layers(self, tree: dict[str, Any]) -> None:
        tree = sweep(tree, lr={"float": [1e-4, 1e-2]})
        tree["by_architecture"] = {
            "jumprelu": {"preset": "anthropic-jan-2025", "sae.jumprelu_bandwidth": 1.5},
            "standard": {"sae": {"l1_warm_up_steps": "5%"}, "lr_decay_steps": "10%"},
        }
        experiment = load_experiment(tree)
        topk = experiment.resolve({"sae.architecture": "topk", "lr": 1e-3})
        assert (topk.lr, topk.sae.model_dump()["k"], str(topk.lr_decay_steps)) == (1e-3, 8, "0")
        standard = experiment.resolve({"sae.architecture": "standard", "lr": 1e-3})
        sae = standard.sae.model_dump(mode="json")
        assert (sae["l1_coefficient"], sae["l1_warm_up_steps"], str(standard.lr_decay_steps)) == (2.0, "5%", "10%")
        jumprelu = experiment.resolve({"sae.architecture": "jumprelu", "lr": 1e-3}).sae.model_dump()
        assert (jumprelu["jumprelu_bandwidth"], jumprelu["jumprelu_tanh_scale"]) == (1.5, 4.0)
        assert jumprelu["jumprelu_sparsity_loss_mode"] == "tanh"
        assert "k" not in jumprelu

    def test_parameters_win_over_everything(self, tree: dict[str, Any]) -> None:
        tree = sweep(tree, sae__k={"int": [1, 64]})
        tree["base"]["sae"]["k"] = 16
        experiment = load_experiment(tree)
        assert experiment.resolve({"sae.architecture": "topk", "sae.k": 3}).sae.model_dump()["k"] == 3
        assert experiment.resolve({"sae.architecture": "topk"}).sae.model_dump()["k"] == 16

    def test_a_base_value_that_the_drawn_setting_does_not_read_is_left_out(self, tree: dict[str, Any]) -> None:
        tree["base"]["lr_end"] = 1e-5
        tree["space"] = {"lr_scheduler_name": {"choice": ["constant", "cosineannealing"]}}
        experiment = load_experiment(tree)
        assert experiment.resolve({"lr_scheduler_name": "constant"}).lr_end is None
        assert experiment.resolve({"lr_scheduler_name": "cosineannealing"}).lr_end == 1e-5

    def test_lists_as_choices(self, tree: dict[str, Any]) -> None:
        tree["base"]["sae"]["architecture"] = "matryoshka_batchtopk"
        tree["space"] = {"sae.matryoshka_widths": {"choice": [[64, 256], [128]]}}
        run = load_experiment(tree).resolve({"sae.matryoshka_widths": [64, 256]})
        assert run.sae.model_dump()["matryoshka_widths"] == (64, 256)

    def test_contradictions_name_the_trial(self, tree: dict[str, Any]) -> None:
        experiment = load_experiment(sweep(tree))
        with pytest.raises(
            UserError, match=r"a trial with sae\.architecture 'topk', sae\.k 5000: sae\.k: 5000 is more"
        ):
            experiment.resolve({"sae.architecture": "topk", "sae.k": 5000})
        with pytest.raises(UserError, match="none of topk, standard, jumprelu"):
            experiment.resolve({"sae.architecture": "gated"})

    def test_shared_views(self, tree: dict[str, Any]) -> None:
        tree = sweep(tree, hook_name={"choice": ["model.layers.1", "model.layers.2"]}, sae__d_sae={"choice": [64, 512]})
        experiment = load_experiment(tree)
        assert experiment.hook_names() == ("model.layers.1", "model.layers.2")
        assert {run.sae.d_sae for run in experiment.corner_runs("topk")} == {64, 512}
        assert experiment.base_run().training_tokens == 1_000_000
        assert experiment.rung_steps() == (50, 100, 200, 400, 600)


class TestObjective:
    def test_default(self, tree: dict[str, Any]) -> None:
        experiment = load_experiment(tree)
        assert [(g.metric, g.direction) for g in experiment.objective(True).goals] == [
            ("l0", "minimize"),
            ("delta_ce", "minimize"),
        ]
        assert experiment.objective(False).metric_names() == ("l0", "explained_variance")

    def test_stated(self, tree: dict[str, Any]) -> None:
        tree["objective"] = {"minimize": "kl_div", "subject_to": {"l0": {"max": 32}}}
        experiment = load_experiment(tree)
        assert experiment.objective(True).metric_names() == ("kl_div", "l0")
        with pytest.raises(UserError, match="kl_div needs a language-model head"):
            experiment.objective(False)


class TestTrials:
    @pytest.mark.parametrize(
        ("space", "search", "expected"),
        [
            ({}, {}, 1),
            ({}, {"trials": 9}, 1),
            ({"lr": {"float": [1e-4, 1e-3]}}, {}, 32),
            ({"lr": {"float": [1e-4, 1e-3]}}, {"trials": 5}, 5),
            ({"lr": {"choice": [1e-4, 1e-3]}, "sae.k": {"int": [1, 8], "grid": [1, 4, 8]}}, {"sampler": "grid"}, 6),
            ({"lr": {"choice": [1e-4, 1e-3]}}, {"sampler": "grid", "trials": 9}, 2),
        ],
    )
    def test_number(self, tree: dict[str, Any], space: Any, search: Any, expected: int) -> None:
        assert load_experiment({**tree, "space": space, "search": search}).n_trials == expected

    def test_a_conditional_grid_counts_each_point_once(self, tree: dict[str, Any]) -> None:
        ranges = {"sae__k": {"int": [1, 8], "grid": [1, 4, 8]}, "lr": {"choice": [1e-4, 1e-3]}}
        experiment = load_experiment({**sweep(tree, **ranges), "search": {"sampler": "grid"}})
        assert experiment.n_trials == 3 * 2 + 1 * 2 + 1 * 2


class TestWarnings:
    def test_jumprelu_in_short_runs(self, tree: dict[str, Any]) -> None:
        tree["base"]["sae"]["architecture"] = "jumprelu"
        (warning,) = load_experiment(tree).warnings
        assert "jumprelu_sparsity_loss_mode: step hardly becomes sparse in 1M tokens" in warning
        assert "preset: anthropic-jan-2025, sae.jumprelu_ste_to_input: true" in warning

    @pytest.mark.parametrize(
        "change",
        [
            {"training_tokens": "2B"},
            {"sae": {"architecture": "jumprelu", "d_sae": 64, "jumprelu_sparsity_loss_mode": "tanh"}},
        ],
    )
    def test_no_warning_where_it_works(self, tree: dict[str, Any], change: dict[str, Any]) -> None:
        tree["base"]["sae"]["architecture"] = "jumprelu"
        tree["by_architecture"] = {"jumprelu": {"sae.l0_warm_up_steps": "100%"}}
        tree["base"].update(change)
        assert load_experiment(tree).warnings == ()

    def test_pairs_that_nothing_compares(self, tree: dict[str, Any]) -> None:
        tree["base"]["neighbour_pairs"] = True
        (warning,) = load_experiment(tree).warnings
        assert "no loss of this experiment compares neighbours" in warning
        tree["base"]["sae"] = {"architecture": "matryoshka_batchtopk", "d_sae": 64, "k": 4, "matryoshka_widths": [16]}
        tree["space"] = {"sae.temporal_coefficient": {"choice": [0, 0.4]}}
        assert load_experiment(tree).warnings == ()
        del tree["base"]["neighbour_pairs"]
        with pytest.raises(UserError, match="set neighbour_pairs: true"):
            load_experiment(tree)

    @pytest.mark.parametrize(
        ("architecture", "field", "advised"),
        [("standard", "l1_warm_up_steps", "5%"), ("gated", "l1_warm_up_steps", "5%")],
    )
    def test_a_penalty_without_warm_up(self, tree: dict[str, Any], architecture: str, field: str, advised: str) -> None:
        tree["base"]["sae"]["architecture"] = architecture
        (warning,) = load_experiment(tree).warnings
        assert warning.startswith(
            f"{architecture} without {field}: the penalty is at full strength from the first step"
        )
        advice = warning.rpartition("use ")[2]
        assert advice == f"by_architecture: {{{architecture}: {{sae.{field}: {advised}}}}}"
        assert load_experiment({**tree, **yaml.safe_load(advice)}).warnings == ()
        tree["base"]["sae"]["l1_coefficient"] = 0.0
        assert load_experiment(tree).warnings == ()

    def test_the_advice_for_a_jumprelu_is_the_warm_up_of_its_preset(self, tree: dict[str, Any]) -> None:
        tree["base"]["sae"] |= {"architecture": "jumprelu", "jumprelu_sparsity_loss_mode": "tanh"}
        (warning,) = load_experiment(tree).warnings
        assert warning.endswith("use by_architecture: {jumprelu: {sae.l0_warm_up_steps: 100%}}")
        assert PRESETS["anthropic-jan-2025"]["sae.l0_warm_up_steps"] == "100%"

    def test_a_searched_warm_up_is_meant(self, tree: dict[str, Any]) -> None:
        tree["base"]["sae"]["architecture"] = "standard"
        tree["space"] = {"sae.l1_warm_up_steps": {"choice": ["0%", "5%"]}}
        assert load_experiment(tree).warnings == ()

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_exports_in_half_precision(self, tree: dict[str, Any], dtype: str) -> None:
        tree["base"]["sae"]["dtype"] = dtype
        (warning,) = load_experiment(tree).warnings
        assert warning.startswith(f"sae.dtype: {dtype} rounds the exported weights")
        tree["base"] |= {"autocast": True, "dtype": dtype}  # what trains faster is no reason to warn
        tree["base"]["sae"]["dtype"] = "float32"
        assert load_experiment(tree).warnings == ()

    def test_ranking_across_sparsities(self, tree: dict[str, Any]) -> None:
        tree["space"] = {"sae.k": {"int": [8, 64]}}
        tree["objective"] = {"minimize": "mse"}
        assert "drifts to the densest SAE" in load_experiment(tree).warnings[0]
        tree["objective"]["subject_to"] = {"l0": {"max": 32}}
        assert load_experiment(tree).warnings == ()

    def test_reversed_goals_and_close_rungs(self, tree: dict[str, Any]) -> None:
        tree["space"] = {"lr": {"float": [1e-4, 1e-3]}}
        tree["objective"] = {"minimize": "explained_variance"}
        tree["search"] = {"rungs": ["20%", "21%"]}
        warnings = load_experiment(tree).warnings
        assert "looks reversed" in warnings[0]
        assert "steps 200 and 210 are close" in warnings[1]


class TestIdentity:
    def test_what_may_change(self, tree: dict[str, Any]) -> None:
        old = load_experiment({**tree, "search": {"trials": 4}})
        new = load_experiment(
            {**tree, "search": {"trials": 9}, "cohort": {"checkpoint_seconds": 5, "memory_fraction": 0.5}}
        )
        assert new.fingerprint() == old.fingerprint() == load_experiment(tree).fingerprint()
        assert describe_changes(old.tree, new.tree) == []

    def test_what_may_not(self, tree: dict[str, Any]) -> None:
        old = load_experiment(tree)
        changed = copy.deepcopy(tree)
        changed["base"]["lr"] = 1e-3
        changed["space"] = {"sae.k": {"int": [1, 8]}}
        changed["base"]["sae"]["d_sae"] = 512
        new = load_experiment(changed)
        assert new.fingerprint() != old.fingerprint()
        assert describe_changes(old.tree, new.tree) == [
            "base.sae.d_sae: 1024 -> 512",
            "base.lr: absent -> 0.001",
        ]
        assert space_changes(old.tree, new.tree) == ["space.sae.k: added"]

    def test_what_is_searched_is_distinguished(self, tree: dict[str, Any]) -> None:
        tree["objective"] = {"minimize": "mse", "matched": {"l0": [8, 32]}}
        tree["base"]["sae"].pop("k", None)
        tree["space"] = {"sae.architecture": {"choice": ["topk", "batchtopk"]}, "lr": {"float": [1e-4, 1e-3]}}
        changed = copy.deepcopy(tree)
        changed["space"]["sae.architecture"]["choice"] = ["jumprelu", "topk"]
        changed["space"]["lr"]["float"] = [1e-5, 1e-3]
        changed["by_architecture"] = {"jumprelu": {"lr_warm_up_steps": "5%"}}
        changed["objective"]["matched"]["l0"] = [8, 16, 32]
        old, new = load_experiment(tree), load_experiment(changed)
        assert describe_changes(old.tree, new.tree) == []
        assert space_changes(old.tree, new.tree) == [
            "space.sae.architecture: added 'jumprelu'; removed 'batchtopk'",
            "space.lr.float: [0.0001, 0.001] -> [1e-05, 0.001]",
            "by_architecture.jumprelu: added",
            "objective.matched.l0: added 16",
        ]
        changed["objective"]["matched"]["freeze"] = "50%"
        assert describe_changes(old.tree, load_experiment(changed).tree) == [
            "objective.matched.freeze: absent -> '50%'"
        ]

    def test_order_of_keys_does_not_matter(self, tree: dict[str, Any]) -> None:
        turned = {**dict(reversed(tree.items())), "base": dict(reversed(tree["base"].items()))}
        assert load_experiment(turned).fingerprint() == load_experiment(tree).fingerprint()
