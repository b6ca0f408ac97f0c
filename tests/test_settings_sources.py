import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.settings_sources import SettingsError, find_repository, load, shown, variable


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "visiongate.toml"
    file.write_text(text)
    return file


def refused(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    other_variables: tuple[str, ...] = (),
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(flags or {}, environment or {}, file, other_variables)
    return str(caught.value)


def test_flags_go_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "port = 1\nmax_images = 1\nprocesses = 1\n")
    environment = {"VISIONGATE_PORT": "2", "VISIONGATE_MAX_IMAGES": "2", "HOME": "/", "PORT": "9"}
    loaded = load({"port": "3"}, environment, file)
    assert (loaded.settings.port, loaded.settings.max_images, loaded.settings.processes) == (3, 2, 1)
    assert loaded.settings.max_pages == Settings().max_pages
    sources = loaded.sources
    assert set(sources) == set(Settings.model_fields)
    assert [sources[name] for name in ("port", "max_images", "processes", "max_pages")] == [
        "flag",
        "environment",
        "file",
        "default",
    ]


@pytest.mark.parametrize("value", ["a.com,.b.com:8443", " a.com , .b.com:8443,", ["a.com", ".b.com:8443"]])
def test_lists(tmp_path: Path, value: str | list[str]) -> None:
    expected = ("a.com", ".b.com:8443")
    assert load({}, {}, written(tmp_path, f"uri_hosts = {json.dumps(value)}")).settings.uri_hosts == expected
    if isinstance(value, str):
        assert load({}, {"VISIONGATE_URI_HOSTS": value}, None).settings.uri_hosts == expected
        assert load({"uri_hosts": value}, {}, None).settings.uri_hosts == expected


def test_empty_is_none(tmp_path: Path) -> None:
    file = written(tmp_path, 'metrics_port = 9090\nuri_hosts = ["a.com"]\ntls_key = "key.pem"\n')
    environment = {"VISIONGATE_METRICS_PORT": "", "VISIONGATE_URI_HOSTS": "", "VISIONGATE_TLS_KEY": ""}
    settings = load({}, environment, file).settings
    assert (settings.metrics_port, settings.uri_hosts, settings.tls_key) == (None, (), None)


TEXT_LIST = "it must be a list of texts (with commas between them)"
LISTED = "`visiongate settings` lists all settings"


@pytest.mark.parametrize(
    ("flags", "environment", "file", "says"),
    [
        ({"port": "x"}, {}, "", "--port is 'x': it must be a whole number from 0 to 65535"),
        (
            {"metrics_port": "70000"},
            {},
            "",
            "--metrics-port is '70000': it must be a whole number from 0 to 65535, or empty for none",
        ),
        ({"max_images": "0"}, {}, "", "--max-images is '0': it must be a whole number above 0"),
        ({"grace_s": "nan"}, {}, "", "--grace-s is 'nan': it must be a number of at least 0"),
        ({"repository": ""}, {}, "", "--repository is '': it must be a path"),
        ({"port": ""}, {}, "", "--port is '': it must be a whole number from 0 to 65535"),
        ({"host": ""}, {}, "", "--host is '': it must be a text"),
        ({"log_level": ""}, {}, "", "--log-level is '': it must be one of debug, info, warning, error"),
        (
            {},
            {"VISIONGATE_LOG_FORMAT": "xml"},
            "",
            "the environment variable VISIONGATE_LOG_FORMAT is 'xml': it must be one of text, json",
        ),
        (
            {"uri_hosts": "https://a.com"},
            {},
            "",
            "--uri-hosts is 'https://a.com': 'https://a.com' is not a host (example.com), host:port, "
            "or domain (.example.com)",
        ),
        (
            {"otlp_endpoint": "collector:4317"},
            {},
            "",
            "--otlp-endpoint is 'collector:4317': it must start with http:// (without TLS) or https://",
        ),
        (
            {"port": "7", "metrics_port": "7"},
            {},
            "",
            "port and metrics_port are both 7: each needs one of its own",
        ),
        ({}, {}, "host = 5", "host in FILE is 5: it must be a text"),
        ({}, {}, "processes = true", "processes in FILE is true: it must be a whole number above 0"),
        ({}, {}, "uri_hosts = [1, 2]", f"uri_hosts in FILE is 1,2: {TEXT_LIST}"),
        ({}, {}, "max_imags = 1", "max_imags in FILE is not a setting: did you mean max_images?"),
        ({}, {}, "max-images = 1", "max-images in FILE is not a setting: did you mean max_images?"),
        ({}, {}, "[table]\nport = 1", f"table in FILE is not a setting: {LISTED}"),
        (
            {},
            {"VISIONGATE_PROT": "1"},
            "",
            "the environment variable VISIONGATE_PROT is not a setting: did you mean VISIONGATE_PORT?",
        ),
        # Names of variables have a case.
        (
            {},
            {"visiongate_port": "1"},
            "",
            "the environment variable visiongate_port is not a setting: did you mean VISIONGATE_PORT?",
        ),
        (
            {},
            {"VISIONGATE_QQQ": "1"},
            "",
            f"the environment variable VISIONGATE_QQQ is not a setting: {LISTED}",
        ),
        (
            {},
            {"VISIONGATE_SERVR": ""},
            "",
            "the environment variable VISIONGATE_SERVR is not a setting: did you mean VISIONGATE_SERVER?",
        ),
    ],
)
def test_a_fault_is_one_sentence(
    tmp_path: Path, flags: Mapping[str, str], environment: Mapping[str, str], file: str, says: str
) -> None:
    path = written(tmp_path, file)
    assert refused(flags, environment, path, ("VISIONGATE_SERVER",)) == says.replace("FILE", str(path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert refused(file=tmp_path / "none.toml") == (
        f"cannot read the settings in {tmp_path}/none.toml: No such file or directory"
    )
    assert "is not a TOML file" in refused(file=written(tmp_path, "port: 1"))
    (tmp_path / "latin.toml").write_bytes(b'host = "\xe9"')
    assert "is not a TOML file" in refused(file=tmp_path / "latin.toml")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    message = refused(
        {"port": "x"}, {"VISIONGATE_PROCESSES": "0", "VISIONGATE_X": "1"}, written(tmp_path, "host = 1")
    )
    assert len(message.splitlines()) == 4


def test_variables_of_commands_are_passed_over() -> None:
    others = ("VISIONGATE_SERVER",)
    assert load({}, {"VISIONGATE_SERVER": "there:1"}, None, others).settings == Settings()


def test_what_kubernetes_sets_for_a_service_is_no_setting() -> None:
    service = {
        "VISIONGATE_SERVICE_HOST": "10.0.0.7",
        "VISIONGATE_SERVICE_PORT": "50051",
        "VISIONGATE_SERVICE_PORT_GRPC": "50051",
        "VISIONGATE_PORT": "tcp://10.0.0.7:50051",
        "VISIONGATE_PORT_50051_TCP": "tcp://10.0.0.7:50051",
        "VISIONGATE_PORT_50051_TCP_PROTO": "tcp",
        "VISIONGATE_PORT_50051_TCP_PORT": "50051",
        "VISIONGATE_PORT_50051_TCP_ADDR": "10.0.0.7",
        "VISIONGATE_METRICS_PORT": "tcp://10.0.0.8:9090",
    }
    loaded = load({}, service, None)
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    # A real setting is never taken for one of them.
    for name in Settings.model_fields:
        message = refused(environment={variable(name): ""} | {"VISIONGATE_QQQ": ""})
        assert "VISIONGATE_QQQ" in message
        assert (
            load({}, {variable(name): shown(getattr(Settings(), name))}, None).sources[name] == "environment"
        )


def test_passwords_are_hidden() -> None:
    assert shown("http://user:p@ss/w@collector:4317") == "http://***@collector:4317"
    assert shown("http://collector:4317") == "http://collector:4317"
    message = refused({"triton_attempts": "http://user:pass@host"})
    assert "pass" not in message


def test_what_is_shown_can_be_written() -> None:
    settings = Settings(uri_hosts=("a.com", "b.com"), metrics_port=0)
    values = {name: shown(getattr(settings, name)) for name in Settings.model_fields}
    assert values["triton_wait_s"] == "inf"
    assert load(values, {}, None).settings == settings


def test_commands_without_settings_find_the_same_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VISIONGATE_REPOSITORY", "VISIONGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    assert find_repository() == Settings().repository
    monkeypatch.setenv("VISIONGATE_CONFIG", "")
    assert find_repository() == Settings().repository
    monkeypatch.setenv("VISIONGATE_CONFIG", str(written(tmp_path, 'repository = "/of/the/file"')))
    assert find_repository() == Path("/of/the/file")
    monkeypatch.setenv("VISIONGATE_REPOSITORY", "/of/the/environment")
    assert find_repository() == Path("/of/the/environment")
    assert find_repository("/asked/for") == Path("/asked/for")
    # Other settings are none of its business.
    monkeypatch.setenv("VISIONGATE_PORT", "wrong")
    assert find_repository() == Path("/of/the/environment")
    with pytest.raises(SettingsError, match="--repository is '': it must be a path"):
        find_repository("")
