"""Pictures of a run's report and feature page, as a browser shows them: the screenshots in docs/.

    saesweep run experiments/quickstart.yaml
    python benchmarks/screenshots.py runs/quickstart --to docs
    python benchmarks/screenshots.py --stories ../shared --to docs --prefix stories260k_
    python benchmarks/screenshots.py --every docs/studies/smollm2_135m_l12/report.html runs/quickstart/*.html --to pictures

Needs Chrome or Chromium. Writes <prefix>report.png and <prefix>features.png; exits 1 where a page is above 5 MB or a picture
above 300 kB. `--stories` first sweeps 12 SAEs on stories260K, a small published language model, and its text. `--every` takes pages
that are there and writes them whole, in light and dark, 1400 and 400 px wide, to be looked at by people; it prints what the tests'
search for clipped, covered and pale text finds, and exits 1 where that is anything.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import saesweep
from saesweep.report import write_report
from saesweep.report.browser import browser_command, find_browser

PAGE_BYTES, PICTURE_BYTES = 5_000_000, 300_000
PIECE, MOST_PIECES = 1400, 8
SIZES = {"report": (1160, 1500), "features": (1160, 1000)}


def stories(shared: Path, run_dir: Path) -> Path:
    """Sweep on stories260K and return the run directory."""
    experiment = {
        "name": "stories260k",
        "base": {
            "model_name": str(shared / "models" / "stories260K"),
            "hook_name": "model.layers.2",
            "dataset_path": str(shared / "text" / "stories_sampled.txt"),
            "context_size": 128,
            "exclude_special_tokens": True,
            "training_tokens": 200_000,
            "train_batch_size_tokens": 2048,
            "lr_warm_up_steps": "2%",
            "lr_decay_steps": "20%",
            "device": "cpu",
            "sae": {"d_sae": 1024, "normalize_activations": "expected_average_only_in"},
        },
        "space": {
            "sae.architecture": {"choice": ["batchtopk", "topk", "standard"]},
            "sae.k": {"int": [8, 64], "log": True},
            "sae.l1_coefficient": {"float": [0.5, 8.0], "log": True},
            "lr": {"float": [5e-4, 3e-3], "log": True},
        },
        "evaluation": {"select_tokens": "20k", "test_tokens": "40k", "ce_tokens": "10k"},
        "search": {"trials": 12, "stratify": "sae.architecture", "rungs": ["12.5%"]},
        "cohort": {"size": 6},
    }
    saesweep.run(experiment, run_dir=run_dir)
    return run_dir


def every_look(pages: list[Path], to: Path) -> int:
    """Write each page in light and dark at two widths, cut into pieces that a screen shows; return how many faults were found."""
    from tests.report.audit import faults_of
    from tests.report.browsing import open_tab

    to.mkdir(parents=True, exist_ok=True)
    n_faults = 0
    with open_tab() as tab:
        for page in pages:
            for width, dark in itertools.product((1400, 400), (False, True)):
                look = f"{page.parent.name}-{page.stem}-{width}-{'dark' if dark else 'light'}"
                tab.open(page.resolve().as_uri(), width=width, dark=dark)
                faults = faults_of(tab)
                n_faults += len(faults)
                pieces = min(MOST_PIECES, -(-tab.ask("document.documentElement.scrollHeight") // PIECE))
                for number in range(pieces):
                    tab.screenshot(to / f"{look}-{number}.png", top=number * PIECE, height=PIECE)
                print(f"{look}: {pieces} pictures; {'; '.join(faults) or 'nothing found'}")
    return n_faults


def main() -> int:
    """Draw and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a finished run directory")
    parser.add_argument(
        "--stories", type=Path, metavar="DIR", help="sweep on models/stories260K and text/ of this folder"
    )
    parser.add_argument("--every", type=Path, nargs="+", metavar="PAGE", help="pages to show in every look")
    parser.add_argument("--to", type=Path, default=Path("docs"), help="where the pictures go (default: docs)")
    parser.add_argument("--prefix", default="", help="what their names begin with")
    args = parser.parse_args()
    if sum(given is not None for given in (args.run, args.stories, args.every)) != 1:
        parser.error("name a run directory, --stories or --every")
    browser = find_browser()
    if browser is None:
        print("no Chrome or Chromium found; SAESWEEP_BROWSER names one", file=sys.stderr)
        return 1
    if args.every is not None:
        return int(every_look(args.every, args.to) > 0)
    is_good = True
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        run = args.run if args.stories is None else stories(args.stories.resolve(), Path(scratch) / "run")
        report = write_report(run, to=Path(scratch) / "pages", pngs=False)
        for name, page in (("report", report.page), ("features", report.features)):
            if page is None:
                print(f"{name}: {'; '.join(report.notes)}")
                continue
            picture = args.to / f"{args.prefix}{name}.png"
            width, height = SIZES[name]
            command = [
                *browser_command(browser, str(Path(scratch) / "profile")),
                "--virtual-time-budget=30000",
                f"--window-size={width},{height}",
                f"--screenshot={picture.resolve()}",
                page.as_uri(),
            ]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            sizes = page.stat().st_size, picture.stat().st_size
            is_good &= sizes[0] < PAGE_BYTES and sizes[1] < PICTURE_BYTES
            print(f"{page.name} {sizes[0]:,} bytes -> {picture} {sizes[1]:,} bytes")
    return int(not is_good)


if __name__ == "__main__":
    sys.exit(main())
