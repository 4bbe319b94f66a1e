"""Runs the documentation's Python snippets for SAELens, in SAELens' environment; training runs stop before they begin.

    PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_docs.py runs/quickstart

Configurations are built by SAELens itself, so that a field it does not know fails here. What loads an SAE from the Hub is left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import sae_lens
import sae_lens.multi_sae_training_runner as multi

from tests.documentation import PAGES, blocks


class NoTraining:
    """Takes a configuration and trains nothing."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def run(self) -> None:
        """Do nothing."""


def main(run_dir: Path) -> None:
    """Run every snippet, with `run_dir` as `runs/quickstart`."""
    sae_lens.LanguageModelSAETrainingRunner = NoTraining
    multi.MultiSAETrainingRunner = NoTraining
    run_dir = run_dir.resolve()
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("runs").mkdir()
        Path("runs/quickstart").symlink_to(run_dir)
        for page in PAGES:
            for block in blocks(page, "python"):
                if block.is_for_saelens and "from_pretrained(" not in block.text:
                    exec(compile(block.text, page.name, "exec"), {})
                    done += 1
    print(f"{done} snippets for SAELens {sae_lens.__version__} work")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
