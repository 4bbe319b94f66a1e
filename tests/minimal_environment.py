"""The package where nothing but its declared dependencies is installed, each at its lower bound: `make minimal` runs this there.

Fails where anything else is installed, where an import, a command or a small sweep fails, and where a sweep over synthetic
activations loads a library that only other work needs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution, distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PINNED = {"torch"}
"""Not at its lower bound: `constraints.txt` names the release, of which a build for CPUs is at hand."""
LATE = (
    "transformers",
    "transformer_lens",
    "datasets",
    "wandb",
    "plotly",
    "jinja2",
    "pandas",
    "pyarrow",
    "ray",
    "sklearn",
)
"""Imported by what needs them: a language model, a dataset, a tracker, a report, a data frame, an extra."""
MAX_IMPORT_SECONDS = 0.5
SMALL = {
    "synthetic": ["search.trials=4", "base.training_tokens=40k"],
    "quickstart": [
        "search={trials: 2, seed: 0, pruner: none}",
        "base.training_tokens=20k",
        "base.train_batch_size_tokens=1024",
        "base.sae.d_sae=256",
        "evaluation={select_tokens: 2k, test_tokens: 2k}",
    ],
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(name: str, extra: str = "") -> list[Requirement]:
    """What a distribution requires on this machine, with one of its extras or without."""
    found = [Requirement(text) for text in distribution(name).requires or ()]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def closure(name: str) -> set[str]:
    """A distribution and all that it requires, with what that requires in turn."""
    found: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        name, extra = waiting.pop()
        if (canonical(name), extra) not in found:
            found.add((canonical(name), extra))
            waiting += [(each.name, one) for each in declared(name, extra) for one in ("", *each.extras)]
    return {name for name, _ in found}


def check_environment() -> None:
    others = {canonical(str(each.metadata["Name"])) for each in distributions()} - closure("saesweep")
    assert not others, f"installed, and not required: {', '.join(sorted(others))}"
    for each in declared("saesweep"):
        found = Version(version(each.name))
        (bound,) = each.specifier
        is_lowest = found.release[: len(Version(bound.version).release)] == Version(bound.version).release
        assert bound.operator == ">="
        assert is_lowest or each.name in PINNED, f"{each.name} {found} is installed, and {each} declared"
        print(f"  {each.name} {found}")


def saesweep(*arguments: str, folder: Path) -> None:
    """Run a command of the command line."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:saesweep", "-m", "saesweep", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    print(f"  saesweep {' '.join(arguments)}: {time.monotonic() - began:.1f} s")


def python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()[-1]


def check_imports(folder: Path) -> None:
    """Measure the import, and list what a sweep over synthetic activations has loaded at its end."""
    timed = "import time; began = time.perf_counter(); import saesweep; print(time.perf_counter() - began)"
    seconds = min(float(python(timed, folder)) for _ in range(5))
    assert seconds < MAX_IMPORT_SECONDS, f"import saesweep takes {seconds:.2f} s"
    print(f"  import saesweep: {seconds:.3f} s")
    words = ["run", str(ROOT / "experiments/synthetic.yaml"), "--run-dir", "run", "--display", "none"]
    words += [word for setting in SMALL["synthetic"] for word in ("--set", setting)]
    code = f"import json, sys; from saesweep.cli import main; code = main({words!r})"
    loaded = json.loads(
        python(f"{code}; assert code == 0; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))", folder)
    )
    early = sorted(set(LATE) & set(loaded))
    assert not early, f"a sweep over synthetic activations has loaded {', '.join(early)}"
    print(f"  a sweep over synthetic activations loads none of {', '.join(LATE)}")


def main() -> None:
    print("dependencies:")
    check_environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("imports:")
        check_imports(folder)
        print("commands:")
        saesweep("--help", folder=folder)
        saesweep("validate", *(str(ROOT / f"experiments/{name}.yaml") for name in SMALL), folder=folder)
        saesweep("leaderboard", "run", folder=folder)
        saesweep("report", "run", "--no-png", folder=folder)
        saesweep("export", "run", "--to", "sae", folder=folder)
        settings = [word for setting in SMALL["quickstart"] for word in ("--set", setting)]
        command = ["run", str(ROOT / "experiments/quickstart.yaml"), "--run-dir", "lm", "--display", "none", *settings]
        saesweep(*command, folder=folder)
    print("ok")


if __name__ == "__main__":
    main()
