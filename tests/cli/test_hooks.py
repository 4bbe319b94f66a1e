"""`saesweep hooks`."""

import json

import pytest

from saesweep.cli import main


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
