"""The results of `gpu.py` as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Found = dict[str, Any]
OURS = ("saesweep", "saesweep autocast")
WITH_AUTOCAST = ("saelens autocast", "saelens_multi autocast")
WITHOUT = ("saelens", "saelens_multi")


def table(results: Found) -> str:
    """Return every section that was measured, with what was not said so."""
    makers: dict[str, Callable[[dict[str, Found]], list[str]]] = {
        "steps": steps,
        "launches": launches,
        "memory": memory,
        "exactness": exactness,
        "end_to_end": end_to_end,
        "tests": tests,
    }
    lines = []
    for side, about in results["about"].items():
        lines.append(f"{side}: {about}")
    for section, cases in results["sections"].items():
        lines += ["", f"## {section}", "", *makers[section](cases)]
    return "\n".join(lines)


def steps(cases: dict[str, Found]) -> list[str]:
    """Milliseconds per SAE and step; the ratio is of SAELens' best to our best."""
    names = (*OURS, *WITH_AUTOCAST, *WITHOUT, "dictionary_learning")
    rows = []
    for case, found in cases.items():
        mine, theirs = (best(found, group) for group in (OURS, (*WITH_AUTOCAST, *WITHOUT)))
        ratio = "-" if mine is None or theirs is None else f"{theirs / mine:.2f}x"
        goal, is_met = found.get("goal"), ""
        if goal and mine is not None and theirs is not None:
            is_met = ", reached" if theirs / mine >= goal else ", missed"
        cells = [_ms(found.get(name)) for name in names]
        rows.append([case, *cells, ratio, f"{goal:g}x{is_met}" if goal else "-", found.get("late", "")])
    return grid(["case", *(f"{name}, ms" for name in names), "ratio", "goal", ""], rows)


def best(found: Found, names: tuple[str, ...]) -> float | None:
    """Return the least ms of some subjects; None where none was measured."""
    measured = [found[name]["ms"] for name in names if "ms" in found.get(name, {})]
    return min(measured) if measured else None


def _ms(found: Found | None) -> str:
    if found is None:
        return "-"
    return f"{found['ms']:.2f}" if "ms" in found else str(found.get("error", "-"))[:60]


def launches(cases: dict[str, Found]) -> list[str]:
    """What one SAE's step starts and reads, what all do, and how well the GPU is used."""
    rows = []
    for case, found in cases.items():
        counted = {key: value for key, value in found.items() if key.startswith(("operators", "reads", "waits"))}
        text = ", ".join(f"{key.replace('_', ' of ')}: {value}" for key, value in counted.items())
        busy = f"{found['busy']:.0%}" if "busy" in found else found.get("profile_not_measured", "-")
        kernels = f"{found['kernels_per_step']:.0f}" if "kernels_per_step" in found else "-"
        floor = f"{found['ms']:.2f}" if "ms" in found else "-"
        rows.append([case, text, kernels, busy, floor, _problem(found)])
    return grid(["case", "counted", "kernels a step", "busy", "floor, ms per SAE", ""], rows)


def memory(cases: dict[str, Found]) -> list[str]:
    """Planned bytes against the peak."""
    rows = []
    for case, found in cases.items():
        numbers = ["-", "-", "-"]
        if "peak" in found:
            numbers = [f"{found['planned'] / 2**20:.0f}", f"{found['peak'] / 2**20:.0f}", f"{found['off']:+.1%}"]
        rows.append([case, *numbers, _problem(found)])
    return grid(["case", "planned, MiB", "peak, MiB", "off (goal 10%)", ""], rows)


def exactness(cases: dict[str, Found]) -> list[str]:
    """Errors against float64."""
    rows = []
    for case, found in cases.items():
        errors = [
            f"{found[kind]:.1e} ({found[f'{kind}_other_latents']} latents left out)" if kind in found else "-"
            for kind in ("float32", "bfloat16")
        ]
        rows.append([case, *errors, str(found.get("same_bits", "-")), _problem(found)])
    return grid(["case", "float32 (goal 1e-5)", "autocast (goal 1e-2)", "two runs, same bits", ""], rows)


def end_to_end(cases: dict[str, Found]) -> list[str]:
    """Speeds of the whole."""
    rows = []
    for side, found in cases.items():
        speeds = [f"{found[key]:,.0f}" if key in found else "-" for key in ("tokens_per_s", "sae_tokens_per_s")]
        share = f"{found['lm_share']:.0%}" if "lm_share" in found else "-"
        rows.append([side, *speeds, share, _problem(found)])
    return grid(["side", "tokens/s", "SAE-tokens/s", "language model's share", ""], rows)


def tests(cases: dict[str, Found]) -> list[str]:
    """The last line of pytest, and what failed."""
    lines = []
    for case, found in cases.items():
        lines += [f"{case}: {found.get('summary', '')} {found.get('late', '')}", *found.get("failed", [])]
    return lines


def _problem(found: Found) -> str:
    texts = [str(value).strip().splitlines()[-1] for key, value in found.items() if key.endswith(("error", "late"))]
    return "; ".join(texts)[:200]


def grid(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table without the columns that are empty in every row."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] not in ("", "-") for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line[i] for i in kept) + " |" for line in lines]
