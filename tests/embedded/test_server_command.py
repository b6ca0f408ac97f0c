from pathlib import Path

import pytest

from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.listening import Listening
from gateway.embedded.server_command import ServerCommand


def arguments(*extra: str) -> list[str]:
    return ServerCommand(
        environment=Path("/environment"),
        backends=Path("/backends"),
        name="visiongate_1_0123abcd",
        repository=Path("/models"),
        model_control="explicit",
        listening=Listening("127.0.0.1", (1, 2, 3)),
        is_complete=False,
        extra_arguments=extra,
    ).arguments()


def test_further_arguments_come_last_as_they_are() -> None:
    extra = ["--load-model=a", "--load-model", "b", "--backend-config=python,grpc-timeout-milliseconds=1"]
    assert arguments(*extra) == [*arguments(), *extra]
    assert {"--grpc-port=1", "--http-port=2", "--metrics-port=3"} < set(arguments())


@pytest.mark.parametrize(
    ("extra", "refused"),
    [
        (["--grpc-port=9"], "--grpc-port"),
        (["--log-verbose=1", "--model-repository", "/other", "--id=x"], "--model-repository, --id"),
    ],
)
def test_what_visiongate_sets_itself_is_refused(extra: list[str], refused: str) -> None:
    with pytest.raises(EmbeddedTritonError, match=f"^{refused}: .*visiongate triton --help"):
        arguments(*extra)


@pytest.mark.parametrize(
    "extra",
    [
        ["--model-config-name=tensorrt"],
        ["--log-verbose=1", "--model-config-name", "onnxruntime-tensorrt"],
    ],
)
def test_configs_for_tensorrt_are_refused(extra: list[str]) -> None:
    with pytest.raises(EmbeddedTritonError, match=r"has no TensorRT: leave --model-config-name out"):
        arguments(*extra)


def test_configs_of_other_names_are_an_operators_own() -> None:
    assert arguments("--model-config-name=mine")[-1] == "--model-config-name=mine"
