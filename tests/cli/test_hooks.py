"""`saesweep hooks`."""

import json
from pathlib import Path

import pytest

from saesweep.cli import main
from tests.models.tiny import save_mixtral, save_t5


def test_prints_names_shapes_and_counterparts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hooks", "builtin:tiny-lm", "--match", "model.layers.1*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model.layers.1", "[context,", "token,", "128]", "=", "blocks.1.hook_resid_post"]
    assert not any(":input" in line for line in lines)
    assert main(["hooks", "builtin:tiny-lm", "--match", "*.1.mlp.down_proj:input", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "name": "model.layers.1.mlp.down_proj:input",
        "axes": ["context", "token", "384"],
        "counterpart": None,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["builtin:tiny-lm", "--match", "nothing*"], "no hook of builtin:tiny-lm has such a name"),
        (["./no/such/folder"], "does not exist"),
        (["builtin:tiny-lm", "--model-class-name", "AutoModelForCausalML"], "nearest: AutoModelForCausalLM"),
    ],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hooks", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_float32_mixture_of_experts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_mixtral(tmp_path)
    capfd.readouterr()
    assert main(["hooks", str(tmp_path), "--match", "model.layers.0"]) == 0
    out, err = capfd.readouterr()
    assert out.split()[:4] == ["model.layers.0", "[context,", "token,", "32]"]
    assert err == ""


def test_a_decoder_that_gets_no_tokens_is_one_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_t5(tmp_path)
    capfd.readouterr()
    assert main(["hooks", str(tmp_path), "--model-class-name", "AutoModelForSeq2SeqLM"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "only the encoder gets tokens here: choose a hook of the encoder" in err


def test_loading_arguments_that_are_no_mapping(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["hooks", "builtin:tiny-lm", "--model-from-pretrained-kwargs", "gguf_file"]) == 2
    assert "is no mapping; write '{name: value}'" in capfd.readouterr().err
