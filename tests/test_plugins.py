"""Modules that add to saesweep: named by the user or installed, measured, told of events, recorded, and kept from doing harm."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep import plugins
from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.evaluation import HeldOutEvaluator, register_metric
from saesweep.events import Activity, BlockProgress, Note, RunEnded
from saesweep.experiment import dump_yaml
from saesweep.specs import METRICS
from saesweep.specs.architectures import spec_class
from saesweep.tracking import register_tracker
from tests.sweep.studies import small_sweep

METRIC = """
import saesweep

@saesweep.register_metric("max_latent", better="minimize", unit="activation units", description="largest latent")
class MaxLatent:
    def __init__(self, sae):
        self.value, self.width = 0.0, sae.d_sae

    def update(self, x_ND, recon_ND, acts_NF):
        assert x_ND.shape == recon_ND.shape and acts_NF.shape == (len(x_ND), self.width)
        self.value = max(self.value, float(acts_NF.max()))

    def compute(self):
        return self.value
"""


pytestmark = pytest.mark.usefixtures("clean_registries")


def quick_sweep(**changes: Any) -> dict[str, Any]:
    tree = small_sweep()
    tree["base"]["training_tokens"] = 2560
    tree["cohort"]["kernels"] = "reference"  # nothing to measure at the start
    return {**tree, "search": {"trials": 2, "pruner": "none"}, **changes}


def test_a_metric_is_an_objective_a_limit_a_column_and_in_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("max_latent.py").write_text(METRIC)
    objective = {"minimize": "max_latent", "subject_to": {"l0": {"max": 1000}}}
    Path("e.yaml").write_text(dump_yaml(quick_sweep(objective=objective)))
    assert main(["validate", "e.yaml"]) == 2
    assert "unknown metric 'max_latent'" in capsys.readouterr().err
    assert main(["run", "e.yaml", "--plugin", "max_latent.py", "--display", "plain"]) == 0
    assert "max_latent" in capsys.readouterr().out
    board = json.loads(Path("runs/tiny/leaderboard.json").read_text())
    values = [row["metrics"]["max_latent"] for row in board["rows"]]
    assert values == sorted(values)
    assert values[0] > 0
    origin = json.loads(Path("runs/tiny/best/provenance.json").read_text())
    assert origin["test_metrics"]["max_latent"] > 0
    assert origin["plugins"]["max_latent.py"].startswith("sha256 ")
    assert main(["eval", "runs/tiny/best", "--json", "--plugin", "max_latent.py"]) == 0
    evaluated = json.loads(capsys.readouterr().out)["saes"][0]["metrics"]["max_latent"]
    assert evaluated == pytest.approx(values[0])
    assert main(["eval", "runs/tiny/best", "--plugin", "max_latent.py"]) == 0
    assert "max_latent" in capsys.readouterr().out


ARCHITECTURE = """
from typing import Literal
from saesweep.saes import register_architecture
from saesweep.saes.standard import Standard
from saesweep.specs.architectures import StandardSpec, register_spec

@register_spec("doubled")
class DoubledSpec(StandardSpec):
    architecture: Literal["doubled"] = "doubled"
    times: float = 2.0

@register_architecture("doubled")
class Doubled(Standard):
    def penalties(self, state):
        return {"l1_loss": self.spec.times * super().penalties(state)["l1_loss"]}
"""


def test_an_architecture_has_flags_and_trains_by_its_own_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("doubled.py").write_text(ARCHITECTURE)
    words = "train --model_name null --dataset_path builtin:synthetic --d_sae 64 --training_tokens 2560 --l1_warm_up_steps 5%"
    words += " --train_batch_size_tokens 256 --set evaluation.select_tokens=512 --set evaluation.test_tokens=512 --display none"
    assert main([*words.split(), "--architecture", "standard", "--l1_coefficient", "6.0", "--run-dir", "plain"]) == 0
    own = ["--architecture", "doubled", "--l1_coefficient", "2.0", "--times", "3", "--run-dir", "own"]
    assert main([*words.split(), *own, "--plugin", "doubled.py"]) == 0
    assert "there is no sparse kernel for architecture 'doubled'" in Path("own/events.jsonl").read_text()
    losses = [
        [
            json.loads(line)["losses/l1_loss"]
            for line in Path(run, "trials/0000/metrics.jsonl").read_text().splitlines()
            if "l1_loss" in line
        ]
        for run in ("plain", "own")
    ]
    assert losses[0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


SKIP = """
from typing import Literal
import torch
from saesweep.saes import register_architecture
from saesweep.saes.standard import Standard
from saesweep.specs.architectures import StandardSpec, register_spec

@register_spec("skipping{suffix}")
class SkippingSpec{suffix}(StandardSpec):
    architecture: Literal["skipping{suffix}"] = "skipping{suffix}"
{count}

@register_architecture("skipping{suffix}")
class Skipping{suffix}(Standard):
    def init(self, generator, *, dtype=torch.float32, device="cpu"):
        params = super().init(generator, dtype=dtype, device=device)
        return {{**params, "W_skip": torch.zeros(self.spec.d_in, self.spec.d_in, dtype=dtype, device=device)}}

    def decode(self, params, feature_acts_BF):
        return super().decode(params, feature_acts_BF) + 0 * params["W_skip"].sum()

    def fold(self, tensors, normalizer, threshold):
        return super().fold({{k: v for k, v in tensors.items() if k != "W_skip"}}, normalizer, threshold)
"""
COUNT = """
    def n_parameters(self):
        return super().n_parameters() + self.d_in**2
"""


def test_memory_is_planned_for_the_weights_that_an_architecture_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "train --model_name null --dataset_path builtin:synthetic --d_in 64 --d_sae 64 --training_tokens 2560"
    words += " --train_batch_size_tokens 256 --set evaluation.select_tokens=512 --set evaluation.test_tokens=512"
    for suffix, count, code in (("", COUNT, 0), ("Uncounted", "    pass", 2)):
        Path(f"skipping{suffix}.py").write_text(SKIP.format(suffix=suffix, count=count))
        own = ["--architecture", f"skipping{suffix}", "--plugin", f"skipping{suffix}.py", "--run-dir", f"run{suffix}"]
        assert main([*words.split(), *own, "--display", "plain"]) == code, capsys.readouterr()
    spec = spec_class("skipping").model_validate({"d_in": 64, "d_sae": 64})
    assert spec.n_parameters() == 3 * 64 * 64 + 2 * 64
    assert "`init` makes 12416 weights, but memory was planned for 8320" in capsys.readouterr().err


def test_each_sae_and_each_measurement_has_a_metric_of_its_own(tmp_path: Path) -> None:
    made: list[Any] = []

    @register_metric("rows_seen", better="maximize", unit="tokens", description="tokens added")
    class RowsSeen:
        def __init__(self, sae: Any) -> None:
            made.append(sae)
            self.rows = 0

        def update(self, x_ND: Any, recon_ND: Any, acts_NF: Any) -> None:
            self.rows += len(x_ND)

        def compute(self) -> float:
            return self.rows

    from saesweep.activations import open_source

    experiment = saesweep.load_experiment(quick_sweep())
    result = saesweep.run(experiment, run_dir=tmp_path / "run")
    source = open_source(experiment.base_run(), experiment.spec.evaluation, experiment.hook_names())
    saes = [saesweep.load_sae_folder(tmp_path / "run" / f"trials/000{n}/sae") for n in (0, 1)]
    made.clear()
    found = HeldOutEvaluator(source.select, None).measure(saes, result.rows[0].hook, with_model=False)
    assert [values["rows_seen"] for values in found] == [source.select.n_tokens] * 2
    assert made == saes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def compute(self): return None", "metric 'm': compute() returned None, which is not one number"),
        ("def compute(self): return [1, 2]", "metric 'm': compute() returned [1, 2], which is not one number"),
        ("def compute(self): return 10**400", "which is not one number"),
        (
            "def compute(self): return self.lost",
            "plugin failing.py: AttributeError: 'M' object has no attribute 'lost' (failing.py:6)",
        ),
        ("def __init__(self): pass", "metric 'm': it is made with one argument, the exported SAE: "),
        ("update = property()", "metric 'm': it has no method update and no compute"),
    ],
)
def test_a_metric_that_fails_is_one_message(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("failing.py").write_text(
        "import saesweep\n"
        "@saesweep.register_metric('m', better='minimize', unit='x', description='y')\n"
        "class M:\n"
        "    def __init__(self, sae): pass\n"
        "    def update(self, *batch): pass\n"
        f"    {body}\n"
    )
    Path("e.yaml").write_text(dump_yaml(quick_sweep()))
    assert main(["run", "e.yaml", "--plugin", "failing.py", "--display", "none"]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("name", ["l0", "two words"])
def test_a_metric_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=r"is defined already, by saesweep|a name is letters"):
        register_metric(name, better="minimize", unit="", description="")(lambda sae: sae)
    assert METRICS["l0"].description == "mean number of active latents"


def test_a_tracker_gets_every_event_of_its_run(tmp_path: Path) -> None:
    seen: list[Any] = []

    @register_tracker
    def make(experiment: Any, run_dir: Path) -> Any:
        seen.append((experiment.spec.name, run_dir))
        return seen.append

    @register_tracker
    def uninterested(experiment: Any, run_dir: Path) -> None:
        return None

    heard: list[Any] = []
    saesweep.run(quick_sweep(), run_dir=tmp_path / "run", listeners=[heard.append])
    assert seen[0] == ("tiny", tmp_path / "run")
    assert seen[1:] == [event for event in heard if not isinstance(event, (Activity, BlockProgress))]
    assert isinstance(seen[-1], RunEnded)


def test_a_failing_tracker_is_left_out_and_training_continues(tmp_path: Path) -> None:
    calls: list[Any] = []

    @register_tracker
    def make(experiment: Any, run_dir: Path) -> Any:
        def listen(event: Any) -> None:
            calls.append(event)
            raise ConnectionError("no route")

        return listen

    heard: list[Any] = []
    result = saesweep.run(quick_sweep(), run_dir=tmp_path / "run", listeners=[heard.append])
    assert result.status == "complete"
    assert len(calls) == 1
    (note,) = (e for e in heard if isinstance(e, Note) and e.level == "warning")
    assert "failed on RunStarted (ConnectionError: no route at test_plugins.py:" in note.message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.py", None, "plugin missing.py: no such file"),
        ("no_such_module_at_all", None, "plugin 'no_such_module_at_all': no module of that name can be imported"),
        (
            "broken.py",
            "x = 1\n1 / 0\n",
            "plugin broken.py: cannot be imported: ZeroDivisionError: division by zero (broken.py:2)",
        ),
        ("json.py", "", "plugin json.py: a module 'json' is imported already; give the file another name"),
        ("needs.py", "import no_such_module_at_all\n", "plugin needs.py: cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_cannot_be_had(
    name: str,
    text: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_text(text)
    Path("e.yaml").write_text(dump_yaml(quick_sweep()))
    assert main(["validate", "e.yaml", "--plugin", name]) == 2
    assert capsys.readouterr().err.startswith(said)
    assert "broken" not in sys.modules


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, text: str) -> None:
    """Make a package with an entry point, as pip leaves it."""
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{module} = {module}\n")
    (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    plugins.load_installed_plugins.cache_clear()


def test_an_installed_plugin_needs_no_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "saesweep_max_latent", METRIC)
    experiment = saesweep.load_experiment(
        quick_sweep(objective={"minimize": "max_latent", "subject_to": {"l0": {"max": 9}}})
    )
    assert experiment.spec.objective.metric_names() == ("max_latent", "l0")
    assert plugins.loaded_plugins() == {"saesweep_max_latent": "saesweep_max_latent 1.2"}


def test_a_broken_installed_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "saesweep_broken", "raise RuntimeError('too old')\n")
    with pytest.raises(
        UserError, match=r"plugin saesweep_broken, of the installed package saesweep_broken: .* too old"
    ):
        saesweep.load_experiment(quick_sweep())


def test_an_experiment_file_cannot_name_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(UserError, match="plugins: unknown key"):
        saesweep.load_experiment({**quick_sweep(), "plugins": [str(tmp_path / "evil.py")]})


def test_the_command_to_resume_names_the_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saesweep.driver import runner
    from saesweep.runs import RunDirectory

    (tmp_path / "max_latent.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    saesweep.load_plugin("max_latent.py")
    saesweep.load_plugin("max_latent.py")
    command = runner._resume_command("e.yaml", (), RunDirectory(tmp_path / "run"))
    assert command.count("--plugin max_latent.py") == 1
