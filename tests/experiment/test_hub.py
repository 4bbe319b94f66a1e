"""A Hub that does not answer is found out within seconds, and the libraries are not left to try again and again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from saesweep import hub
from saesweep.errors import UserError
from saesweep.models.inspection import inspect_model
from saesweep.specs import BaseRun


@pytest.fixture
def fresh() -> Iterator[None]:
    hub._answers.cache_clear()
    yield
    hub._answers.cache_clear()


@pytest.fixture
def silent(fresh: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that takes connections and says nothing: as bad a network as there is."""
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        yield endpoint


def test_a_server_that_answers_is_reachable_whatever_it_answers(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert hub._answers(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_a_name_that_does_not_resolve_is_not_reachable(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", _refuse)
    assert not hub._answers("https://huggingface.co")


def test_the_libraries_look_in_their_caches_alone_meanwhile(silent: str) -> None:
    from huggingface_hub import constants

    assert not constants.HF_HUB_OFFLINE
    with hub.offline_where_unreachable():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.filterwarnings("default")
def test_a_model_of_an_unreachable_hub_is_one_message_within_seconds(silent: str) -> None:
    import transformers  # noqa: F401  # importing it is not what is timed

    run = BaseRun.model_validate(
        {
            "model_name": "nobody/no-such-model",
            "hook_name": "model.layers.0",
            "dataset_path": "builtin:python-docs",
            "sae": {},
        }
    )
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        inspect_model(run, ["model.layers.0"])
    assert time.monotonic() - began < 10
    assert str(caught.value) == (
        "base.model_name: the configuration of 'nobody/no-such-model' is not on this machine, and the Hub "
        f"({silent}) does not answer; check the network, or give a local folder"
    )


def _refuse(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
