"""`saesweep pretokenize`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from saesweep.cli.command import DONE, echo, new_parser

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep pretokenize --tokenizer_name gpt2 --dataset_path NeelNanda/c4-10k --context_size 256 --save_path data/c4-gpt2
  saesweep pretokenize --tokenizer_name builtin:tiny-lm --dataset_path builtin:python-docs --save_path data/docs
  saesweep pretokenize --tokenizer_name gpt2 --dataset_path my/texts.jsonl --seed 1 --save_path data/t --hf_repo_id me/t

The fields are those of SAELens' PretokenizeRunnerConfig. The folder is a dataset that saesweep and SAELens train from
(`dataset_path: data/c4-gpt2`), with SAELens' sae_lens.json in it. The same command again resumes where an interrupted
one stopped; the result is the same.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "pretokenize",
        summary="tokenise and pack a dataset once, for saesweep and SAELens",
        examples=_EXAMPLES,
    )
    parser.set_defaults(execute=execute)
    parse = parser.parse_known_args

    def parse_with_fields(*args: Any, **kwargs: Any) -> Any:
        _add_fields(parser)
        return parse(*args, **kwargs)

    # The fields come from pydantic, which is too slow to import at every start of every command.
    parser.parse_known_args = parse_with_fields  # type: ignore[method-assign]


def _add_fields(parser: argparse.ArgumentParser) -> None:
    from saesweep.specs.pretokenize import PretokenizeSpec

    for name, field in PretokenizeSpec.model_fields.items():
        default = "" if field.default in (None, "") else f" (default: {_shown(field.default)})"
        options: dict[str, Any] = {"help": f"{(field.description or '').replace('%', '%%')}{default}", "dest": name}
        if field.annotation is bool:
            options |= {"nargs": "?", "const": "true", "metavar": "true|false"}
        elif name == "data_files":
            options |= {"nargs": "+", "metavar": "FILE"}
        else:
            options |= {"metavar": "VALUE"}
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, **options)


def _field_names() -> tuple[str, ...]:
    from saesweep.specs.pretokenize import PretokenizeSpec

    return tuple(PretokenizeSpec.model_fields)


def execute(args: argparse.Namespace) -> int:
    """Write the dataset."""
    spec = _spec({name: value for name, value in vars(args).items() if name in _field_names()})

    from saesweep.activations.pretokenize import PretokenizeProgress, pretokenize
    from saesweep.cli.progress_line import ProgressLine

    line = ProgressLine("documents")

    def show(progress: PretokenizeProgress) -> None:
        line.update(progress.documents, progress.total_documents)

    try:
        done = pretokenize(spec, on_progress=show)
    finally:
        line.close()
    echo(f"{done.path}: {done.rows} rows of {spec.context_size} tokens ({done.tokens}) from {done.documents} documents")
    for note in done.notes:
        echo(f"warning: {note}")
    if done.skipped:
        echo(f"warning: {done.skipped} documents could not be used (empty, or not text) and were left out")
    return DONE


def _spec(given: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from saesweep.errors import UserError
    from saesweep.experiment.document import dotted
    from saesweep.experiment.explain import explain, no_keys
    from saesweep.experiment.yaml_text import scalar_or_text
    from saesweep.specs.pretokenize import PretokenizeSpec

    values: dict[str, Any] = {}
    for name, text in given.items():
        # A name is text even where it looks like a number.
        is_text = PretokenizeSpec.model_fields[name].annotation in (str, str | None)
        values[name] = text if is_text or isinstance(text, list) else scalar_or_text(text)
    try:
        return PretokenizeSpec.model_validate(values)
    except ValidationError as error:
        raise UserError(
            "\n".join(f"--{dotted(place)}: {message}" for place, message in explain(error, values, no_keys))
        ) from None


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
