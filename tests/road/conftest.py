"""What users get: the two wheels, installed into clean environments."""

import pytest

from road.environments import ROOT, Environment, Wheels, make_environment, uv


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Both distributions, built as `make wheels` builds them."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT / "proto", ROOT):
        uv("build", "--quiet", "--wheel", "--out-dir", folder, project)
    (client,) = folder.glob("visiongate-*.whl")
    (server,) = folder.glob("visiongate_server-*.whl")
    return Wheels(client, server)


@pytest.fixture(scope="session")
def client_environment(tmp_path_factory: pytest.TempPathFactory, wheels: Wheels) -> Environment:
    return make_environment(tmp_path_factory.mktemp("client"), wheels.client)


@pytest.fixture(scope="session")
def server_environment(tmp_path_factory: pytest.TempPathFactory, wheels: Wheels) -> Environment:
    return make_environment(tmp_path_factory.mktemp("server"), wheels.client, wheels.server)
