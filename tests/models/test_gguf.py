"""Models in GGUF files: one file holds configuration, weights and tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.models import inspect_model, list_hooks, load_model, names_of_hook, saelens_pair
from tests.models.tiny import BOS, D_VOCAB, HIDDEN, run_of, save_llama, save_tokenizer

pytest.importorskip("gguf", reason="needs the package gguf, which the extras gguf, test and dev install")

FILE = "tiny.gguf"


@pytest.fixture(scope="module")
def folder(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GGUF file and nothing else."""
    from tests.models.gguf import save_gguf

    return save_gguf(llama, tmp_path_factory.mktemp("gguf") / FILE).parent


def gguf_run(folder: Path, file: Any = FILE, **fields: Any) -> Any:
    return run_of(**{"model_name": str(folder), "model_from_pretrained_kwargs": {"gguf_file": file}, **fields})


def message(run: Any) -> str:
    with pytest.raises(UserError) as caught:
        inspect_model(run, ["model.layers.1"])
    return str(caught.value)


def test_it_computes_what_the_folder_that_it_was_made_of_computes(
    folder: Path, llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = load_model(run_of(model_name=str(llama)))
    found = load_model(gguf_run(folder))
    assert capfd.readouterr() == ("", "")  # no progress bar
    tokens_NT = torch.arange(3, 23).reshape(2, 10)
    torch.testing.assert_close(found.logits(tokens_NT), expected.logits(tokens_NT))
    assert found.tokenizer("w1 w17")["input_ids"] == [BOS, 17, 33]


@pytest.mark.parametrize(
    ("class_name", "hook"),
    [("AutoModelForCausalLM", "model.layers.1"), ("TransformerBridge", "blocks.1.hook_resid_post")],
)
def test_both_libraries_inspect_and_load_it(folder: Path, class_name: str, hook: str) -> None:
    run = gguf_run(folder, model_class_name=class_name, hook_name=hook)
    facts = inspect_model(run, [hook])
    assert facts.hooks == {hook: HIDDEN}
    assert facts.n_token_ids == D_VOCAB
    assert hook in {point.name for point in list_hooks(run)}
    acts = load_model(run).activations(torch.arange(12).reshape(2, 6), [hook])
    assert acts[hook].shape == (2, 6, HIDDEN)


def test_names_and_metadata_know_its_family_and_keep_the_argument(folder: Path) -> None:
    run = gguf_run(folder)
    assert names_of_hook(run, run.hook_name).transformer_lens == "blocks.1.hook_resid_post"
    assert saelens_pair(run).model_from_pretrained_kwargs == {"gguf_file": FILE}


def test_a_run_and_the_list_of_hooks_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kwargs = f"{{gguf_file: {FILE}}}"
    assert main(["hooks", str(folder), "--model-from-pretrained-kwargs", kwargs, "--match", "model.layers.1"]) == 0
    assert capsys.readouterr().out.split()[0] == "model.layers.1"
    text = tmp_path / "words.txt"
    text.write_text("\n".join(" ".join(f"w{(17 * i + j) % 90}" for j in range(40)) for i in range(200)))
    file = tmp_path / "experiment.yaml"
    file.write_text(
        f"name: gguf\n"
        f"base: {{model_name: {folder}, model_from_pretrained_kwargs: {kwargs}, hook_name: model.layers.1, "
        f"dataset_path: {text}, context_size: 16, training_tokens: 1024, train_batch_size_tokens: 128, device: cpu, "
        f"sae: {{architecture: topk, d_sae: 64, k: 4}}}}\n"
        "space: {}\nevaluation: {select_tokens: 256, test_tokens: 256}\n"
    )
    assert main(["validate", str(file)]) == 0
    assert main(["run", str(file), "--run-dir", str(tmp_path / "run"), "--display", "none"]) == 0
    metadata = json.loads((tmp_path / "run" / "best" / "cfg.json").read_text())["metadata"]
    assert metadata["model_from_pretrained_kwargs"] == {"gguf_file": FILE}


def test_a_file_in_a_subfolder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "q8").mkdir()
    (tmp_path / "q8" / FILE).hardlink_to(folder / FILE)
    run = run_of(model_name=str(tmp_path), model_from_pretrained_kwargs={"gguf_file": FILE, "subfolder": "q8"})
    assert inspect_model(run, ["model.layers.1"]).hooks == {"model.layers.1": HIDDEN}


def test_a_model_in_a_subfolder(tmp_path: Path) -> None:
    """The sibling: a folder in Hugging Face format is checked where it is read."""
    (tmp_path / "inner").mkdir()
    save_llama(tmp_path / "inner")
    run = run_of(model_name=str(tmp_path), model_from_pretrained_kwargs={"subfolder": "inner"})
    assert inspect_model(run, ["model.layers.1"]).hooks == {"model.layers.1": HIDDEN}
    assert load_model(run).d_vocab == D_VOCAB
    assert "has no config.json" in message(run_of(model_name=str(tmp_path)))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("other.gguf", "has no file 'other.gguf'; GGUF files there: tiny.gguf"),
        (3, "gguf_file: 3 is no file name"),
    ],
)
def test_a_file_that_is_not_there(folder: Path, file: Any, said: str) -> None:
    assert said in message(gguf_run(folder, file))


def test_a_folder_without_the_argument_names_it(folder: Path, tmp_path: Path) -> None:
    assert "set base.model_from_pretrained_kwargs: {gguf_file: tiny.gguf}" in message(run_of(model_name=str(folder)))
    assert "give the folder that holds it, and base.model_from_pretrained_kwargs: {gguf_file: tiny.gguf}" in message(
        run_of(model_name=str(folder / FILE))
    )
    save_tokenizer(tmp_path)
    assert "there is no GGUF file in it" in message(gguf_run(tmp_path))


@pytest.mark.parametrize("length", [3, 40, 700, 20_000])
def test_a_damaged_file_is_one_message(folder: Path, tmp_path: Path, length: int) -> None:
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes()[:length])
    with pytest.raises(UserError, match=r"gguf_file: .* of 'tiny.gguf' in .* cannot be read"):
        load_model(gguf_run(tmp_path))


def test_without_the_package_the_message_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.modeling_gguf_pytorch_utils as reader
    import transformers.utils as utils

    monkeypatch.setattr(reader, "is_gguf_available", lambda: False)
    monkeypatch.setattr(utils, "is_gguf_available", lambda: False)
    assert "takes the package gguf; install it with: pip install 'saesweep[gguf]'" in message(gguf_run(folder))
