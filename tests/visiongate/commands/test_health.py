import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2
from typer.testing import CliRunner, Result

from client_server import Served, serving
from visiongate.cli import app
from visiongate.v1 import detection_service_pb2

CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
DETECTION = detection_service_pb2.DESCRIPTOR.services_by_name["DetectionService"].full_name
# Of the API, sorted: all are asked about, and then the whole.
SERVICES = [
    f"visiongate.v1.{name}Service"
    for name in ("Detection", "Embedding", "Gaze", "Model", "Segmentation", "Stream", "Text")
]


def states(known: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """A health service that answers these, one after another where there are several."""

    def check(request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in known:
            context.abort(grpc.StatusCode.NOT_FOUND, "the server has no such service")
        status = known[request.service]
        return health_pb2.HealthCheckResponse(status=status.pop(0) if isinstance(status, list) else status)

    return {CHECK: check}


def health(server: Served, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["health", *arguments, "--server", server.address])


@pytest.mark.parametrize(("whole", "code"), [(SERVING, 0), (NOT_SERVING, 1)])
def test_all_services_are_listed_and_the_whole_decides(whole: Any, code: int) -> None:
    known = {**dict.fromkeys(SERVICES, SERVING), DETECTION: NOT_SERVING, "": whole}
    del known["visiongate.v1.GazeService"]  # an older server
    with serving(answers=states(known)) as server:
        shown, as_json = health(server), health(server, "--json")
    assert (shown.exit_code, as_json.exit_code) == (code, code)
    ready = {name: known.get(name) == SERVING for name in [*SERVICES, ""]}
    assert json.loads(as_json.stdout) == [{"service": name, "ready": is_so} for name, is_so in ready.items()]
    cells = [
        [cell.strip() for cell in line.split("│")[1:3]] for line in shown.stdout.splitlines() if "│" in line
    ]
    assert cells[:3] == [
        [DETECTION, "not ready"],
        [SERVICES[1], "ready"],
        [SERVICES[2], "the server does not have it"],
    ]
    assert cells[-1] == ["the server as a whole", "ready" if code == 0 else "not ready"]


@pytest.mark.parametrize("name", [DETECTION, "DetectionService"])
@pytest.mark.parametrize(("state", "code"), [(SERVING, 0), (NOT_SERVING, 1)])
def test_one_service_decides_alone(name: str, state: Any, code: int) -> None:
    with serving(answers=states({DETECTION: state, "": SERVING if code else NOT_SERVING})) as server:
        result = health(server, name, "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == [{"service": DETECTION, "ready": code == 0}]


def test_a_server_that_cannot_be_asked_is_another_exit_code() -> None:
    with serving(answers=states({"": SERVING})) as server:
        unknown = health(server, "DetectService")
    assert unknown.exit_code == 2
    assert (
        "has no service visiongate.v1.DetectService; this client knows DetectionService, Emb"
        in unknown.stderr
    )
    absent = health(server)
    assert absent.exit_code == 2
    assert "nothing answers at" in absent.stderr
    with serving() as other:
        foreign = health(other)
    assert foreign.exit_code == 2
    assert "does not know /grpc.health.v1.Health/Check" in foreign.stderr
    wrong = CliRunner().invoke(app, ["health", "--server", "http://localhost"])
    assert wrong.exit_code == 2
    assert "gRPC has no http://" in wrong.stderr
    assert not any(result.stdout for result in (unknown, absent, foreign, wrong))


def test_it_waits_until_ready() -> None:
    with serving(answers=states({DETECTION: [NOT_SERVING, NOT_SERVING, SERVING]})) as server:
        assert health(server, "DetectionService", "--wait", "60").exit_code == 0
    with serving(answers=states({DETECTION: NOT_SERVING})) as server:
        assert health(server, "DetectionService", "--wait", "0.01").exit_code == 1
    absent = health(server, "--wait", "0.01")
    assert absent.exit_code == 2


def test_over_tls(tmp_path: Any) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    key, chain = issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(key, chain)])
    with serving(answers=states({DETECTION: SERVING}), credentials=credentials) as server:
        address = f"localhost:{server.port}"
        arguments = ["health", "DetectionService", "--server", address, "--ca", str(tmp_path / "ca.pem")]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert CliRunner().invoke(app, arguments[:-2]).exit_code == 2
