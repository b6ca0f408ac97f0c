"""Everything that can be set, in one place: flags, over the environment, over a TOML file, over defaults."""

import difflib
import math
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gateway import address
from gateway.places import default_repository

MEBIBYTE = 1 << 20

PREFIX = "VISIONGATE_"
CONFIG_VARIABLE = "VISIONGATE_CONFIG"
"""The environment variable that names the TOML file of settings."""
CACHE_VARIABLE = PREFIX + "CACHE_DIR"
"""The environment variable, no setting, of the folder where Triton from pip is prepared."""

Source = Literal["default", "file", "environment", "flag"]


class Settings(BaseModel):
    """Settings of the gateway. Defaults suit one machine with one Triton.

    The constructor takes values and looks nowhere else; `load` gathers them.
    """

    # Infinity as a text: JSON has no such number.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on, such as ::1 or localhost; 0.0.0.0 or :: for every interface.",
    )
    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    processes: PositiveInt = Field(
        1, description="Processes that share the port. Limits, caches and threads are those of each."
    )
    repository: Path = Field(
        default_repository(),
        description="Triton's model repository, or a copy of its small files (tokenizer.json).",
    )
    health_interval_s: PositiveFloat = Field(2, description="Seconds between two looks at Triton's health.")
    drain_s: float = Field(
        0,
        ge=0,
        description="Seconds after SIGTERM in which new calls are still answered, while health says "
        "NOT_SERVING: as long as load balancers take to look away.",
    )
    grace_s: float = Field(
        20, ge=0, description="Seconds that calls in flight may then still take, before they are cut off."
    )
    max_call_s: PositiveFloat = Field(
        300, description="Most seconds of a call, whatever its own deadline says, or if it has none."
    )
    max_receive_s: PositiveFloat = Field(
        30, description="Most seconds from the start of a call until its request has arrived."
    )
    max_connection_age_s: PositiveFloat = Field(
        math.inf,
        description="Seconds after which clients are asked to connect anew, and find new servers and show "
        "certificates that are still valid; calls in flight go on. inf: never.",
    )

    triton: str = Field(
        "127.0.0.1:8001",
        description="Triton's gRPC address: host:port, several after commas, or a name such as "
        "dns:///triton:8001 that stands for several. Calls go round them, and never through a proxy.",
    )
    triton_wait_s: float = Field(
        math.inf,
        ge=0,
        description="How long to wait at start for Triton, in seconds; inf: as long as it takes.",
    )
    triton_attempts: PositiveInt = Field(
        4, description="How often a request is sent to Triton, at most, while that is unavailable."
    )

    tls_certificate: Path | None = Field(
        None, description="The server's certificate chain, PEM. With tls_key: calls must use TLS."
    )
    tls_key: Path | None = Field(None, description="The private key of tls_certificate, PEM.")
    tls_client_ca: Path | None = Field(
        None, description="Certificate authorities, PEM, of which a client must have a certificate."
    )
    api_keys: Path | None = Field(
        None, description="File of API keys that `visiongate keys` writes; calls then need one of them."
    )

    max_message_bytes: PositiveInt = Field(64 * MEBIBYTE, description="Largest request message.")
    max_concurrent_calls: PositiveInt = Field(
        64, description="Most calls of a process at once; what is more is refused at once."
    )
    max_bytes_in_flight: PositiveInt = Field(
        2048 * MEBIBYTE,
        description="Most bytes that the calls of a process hold at once: requests and decoded images. "
        "Images being decoded take at most as much again.",
    )
    max_image_bytes: PositiveInt = Field(32 * MEBIBYTE, description="Largest image file.")
    max_image_pixels: PositiveInt = Field(64_000_000, description="Most pixels of an image, width x height.")
    max_images: PositiveInt = Field(64, description="Most images of an embedding or classification request.")
    max_pages: PositiveInt = Field(32, description="Most images of a RecognizeText request.")
    max_texts: PositiveInt = Field(1024, description="Most texts or labels of such a request.")
    max_phrases: PositiveInt = Field(
        256, description="Most phrases to detect; more can never fit a model's 256 tokens."
    )
    max_text_length: PositiveInt = Field(
        10_000, description="Most characters of a text, or of all phrases of a request together."
    )
    max_prompts: PositiveInt = Field(1000, description="Most prompts of a SegmentRegions request.")
    max_detections: PositiveInt = Field(1000, description="Most detections that a request may ask for.")
    max_faces: PositiveInt = Field(1000, description="Most faces that a request may ask for.")
    max_grid_points: PositiveInt = Field(
        25_000, description="Most points of a SegmentEverything request, those of all its crops together."
    )
    max_mask_pixels: PositiveInt = Field(
        2_000_000_000,
        description="Most pixels of all masks of an answer, image size x masks.",
    )

    uri_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts that image.uri may name, after commas: example.com, example.com:8443 for another "
        "port than 443, .example.com for all below example.com. Without one, image.uri is refused.",
    )
    uri_timeout_s: PositiveFloat = Field(10, description="Most seconds to fetch the image of a URI.")
    uri_max_redirects: int = Field(3, ge=0, description="Most redirects of a URI, each checked like the URI.")

    image_cache_bytes: int = Field(256 * MEBIBYTE, ge=0, description="Decoded images kept.")
    sam_embedding_cache_bytes: int = Field(
        512 * MEBIBYTE, ge=0, description="SAM's image embeddings kept (4 MiB each)."
    )
    clip_text_cache_bytes: int = Field(
        32 * MEBIBYTE, ge=0, description="CLIP's text embeddings kept (about 2 KB each)."
    )
    clip_image_cache_bytes: int = Field(
        32 * MEBIBYTE, ge=0, description="CLIP's image embeddings kept (about 2 KB each)."
    )
    decoder_batch: PositiveInt = Field(
        32,
        description="Prompts that SAM's decoder is given at once: more is faster until Triton's memory "
        "is full (about 35 MB a prompt).",
    )
    recognition_batch: PositiveInt = Field(
        64,
        description="Words that docTR's recognition network is given at once, in requests that Triton joins; "
        "never more than its max_batch_size there.",
    )
    batches_in_flight: PositiveInt = Field(
        2,
        description="Requests that one call may have at Triton at a time: more keeps a large GPU busy, and "
        "holds more memory.",
    )
    pages_in_flight: PositiveInt = Field(
        4, description="Pages of one RecognizeText request that are worked on at a time."
    )
    threads: PositiveInt = Field(
        os.cpu_count() or 1, description="Threads that decode, resize and write masks."
    )

    metrics_host: str = Field(
        "127.0.0.1", description="Address of /metrics, /livez and /readyz; 0.0.0.0 or :: for every interface."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of /metrics, /livez and /readyz; without one they are off."
    )
    otlp_endpoint: str | None = Field(
        None,
        description="OTLP/gRPC address that traces go to (http://collector:4317), by the environment's proxy "
        "unless it is this machine's; without one none.",
    )
    log_format: Literal["text", "json"] = Field("text", description="text for people, json for machines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @field_validator("uri_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        from gateway.fetch import AllowedHosts  # noqa: PLC0415 - its HTTP client takes a second

        AllowedHosts(hosts)
        return hosts

    @field_validator("repository")
    @classmethod
    def _is_absolute(cls, path: Path) -> Path:
        return path.absolute()

    @field_validator("host", "metrics_host")
    @classmethod
    def _is_host(cls, host: str) -> str:
        return address.checked_host(host)

    @field_validator("triton")
    @classmethod
    def _are_addresses(cls, addresses: str) -> str:
        return ",".join(address.target(part.strip()) for part in addresses.split(","))

    @field_validator("otlp_endpoint")
    @classmethod
    def _has_scheme(cls, endpoint: str | None) -> str | None:
        # OpenTelemetry would take an address without one for TLS, and keep trying.
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError("it must start with http:// (without TLS) or https://")
        return endpoint

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: object, info: ValidationInfo) -> object:
        """What environment and flags can write too: lists with commas, and nothing as the empty text."""
        name = info.field_name or ""
        kind = _schema(name)
        if isinstance(value, str) and kind.get("type") == "array":
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if value == "" and kind.get("optional"):
            return None
        # Path("") would be the working directory, and True the number 1.
        if value == "" or (isinstance(value, bool) and kind.get("type") != "boolean"):
            raise PydanticCustomError("not_allowed", "must be {allowed}", {"allowed": allowed(name)})
        return value

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port and (self.host, self.port) == (self.metrics_host, self.metrics_port):
            raise ValueError(f"port and metrics_port are both {self.port}: each needs one of its own")
        return self


# The first setting of each group, as help shows them.
GROUPS: Mapping[str, str] = {
    "host": "Serving",
    "triton": "Triton",
    "tls_certificate": "Who may call",
    "max_message_bytes": "Limits",
    "uri_hosts": "Images by URI",
    "image_cache_bytes": "Caches, batches, threads",
    "metrics_host": "Watching",
}


class SettingsError(ValueError):
    """Settings that cannot be: a sentence a line for each thing that is wrong."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force, and where each comes from."""

    settings: Settings
    sources: Mapping[str, Source]


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that somebody wrote, and where."""

    name: str
    value: object
    source: Source
    place: str


def load(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None,
    other_variables: Collection[str] = (),
) -> Loaded:
    """Gather the settings: flags by setting name, variables VISIONGATE_…, and a TOML file of plain keys.

    other_variables: those named VISIONGATE_… that are something else, such as a command's option.
    Raises SettingsError.
    """
    given: dict[str, _Given] = {}
    problems = []
    for item in (*_from_file(file), *_from_environment(environment, other_variables), *_from_flags(flags)):
        if item.name in Settings.model_fields:
            given[item.name] = item
        else:
            problems.append(_unknown(item, other_variables))
    try:
        settings = Settings.model_validate({item.name: item.value for item in given.values()})
    except ValidationError as error:
        # A list can be wrong in many places: one sentence a setting.
        faults = {str(fault["loc"][0]) if fault["loc"] else "": fault for fault in error.errors()}
        problems += [_sentence(given.get(name), fault) for name, fault in faults.items()]
    if problems:
        raise SettingsError("\n".join(problems))
    sources: dict[str, Source] = dict.fromkeys(Settings.model_fields, "default")
    return Loaded(settings, sources | {item.name: item.source for item in given.values()})


def find_repository(asked: str | None = None) -> Path:
    """The model repository in force, absolute, for commands that have no other settings.

    As asked for on the command line, or else by VISIONGATE_REPOSITORY, by the file that VISIONGATE_CONFIG
    names, or the default. Raises SettingsError.
    """
    flags = {} if asked is None else {"repository": asked}
    name = variable("repository")
    environment = {name: os.environ[name]} if name in os.environ else {}
    file = os.environ.get(CONFIG_VARIABLE)
    return load(flags, environment, Path(file) if file else None).settings.repository


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The command line option of a setting."""
    return "--" + name.replace("_", "-")


def shown(value: object) -> str:
    """A value as one would write it, but for the user and password of a URL."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return re.sub(r"(?<=://)\S*(?=@)", "***", text)


def allowed(name: str) -> str:
    """What values a setting can have, in words."""
    kind = _schema(name)
    if "enum" in kind:
        return "one of " + ", ".join(kind["enum"])
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "array": "a list of texts (with commas between them)",
        "string": "a path" if kind.get("format") == "path" else "a text",
    }[kind["type"]]
    if "minimum" in kind and "maximum" in kind:
        words += f" from {kind['minimum']} to {kind['maximum']}"
    elif "minimum" in kind:
        words += f" of at least {kind['minimum']}"
    elif "exclusiveMinimum" in kind:
        words += f" above {kind['exclusiveMinimum']}"
    return words + (", or empty for none" if kind.get("optional") else "")


def group(name: str) -> str:
    """The group that a setting belongs to."""
    names = list(Settings.model_fields)
    until = names[: names.index(name) + 1]
    return next(GROUPS[before] for before in reversed(until) if before in GROUPS)


def metavar(name: str) -> str:
    """What stands for a setting's value in help."""
    kind = _schema(name)
    if "enum" in kind:
        return "|".join(kind["enum"])
    if kind["type"] == "array":
        return "A,B,…"
    return (
        "PATH" if kind.get("format") == "path" else {"string": "TEXT"}.get(kind["type"], kind["type"].upper())
    )


def _schema(name: str) -> dict[str, Any]:
    """A setting's JSON schema; `optional` where it may be None."""
    schema: dict[str, Any] = _SCHEMA["properties"][name]
    choices = [choice for choice in schema.get("anyOf", ()) if choice["type"] != "null"]
    return {**choices[0], "optional": True} if choices else schema


_SCHEMA = Settings.model_json_schema()


def _from_file(file: Path | None) -> Iterator[_Given]:
    if file is None:
        return
    try:
        with file.open("rb") as opened:
            values = tomllib.load(opened)
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {file}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{file} is not a TOML file: {error}") from error
    for name, value in values.items():
        yield _Given(name, value, "file", f"{name} in {file}")


def _from_environment(environment: Mapping[str, str], others: Collection[str]) -> Iterator[_Given]:
    names = {variable(name): name for name in Settings.model_fields}
    for key, value in environment.items():
        is_other = key in others and key not in names
        if key.upper().startswith(PREFIX) and not is_other and not _is_service_link(key, value):
            yield _Given(names.get(key, key), value, "environment", f"the environment variable {key}")


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        yield _Given(name, value, "flag", flag(name))


def _is_service_link(key: str, value: str) -> bool:
    """Whether Kubernetes set it: a Service named visiongate gives VISIONGATE_PORT=tcp://… to every pod."""
    if re.search(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$", key):
        return True
    return key.endswith("_PORT") and re.match("(tcp|udp|sctp)://", value) is not None


def _unknown(item: _Given, other_variables: Collection[str]) -> str:
    notation = variable if item.source == "environment" else str
    known = [*map(notation, Settings.model_fields)]
    if item.source == "environment":
        known += other_variables
    # Without the prefix: it would make any two alike.
    names = {key.removeprefix(PREFIX): key for key in known}
    asked = item.name.upper().removeprefix(PREFIX) if item.source == "environment" else item.name
    close = difflib.get_close_matches(asked, names, 1)
    hint = f"did you mean {names[close[0]]}?" if close else "`visiongate settings` lists them"
    return f"{item.place} is no setting: {hint}"


def _sentence(item: _Given | None, fault: Any) -> str:
    own_words = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else ""
    if item is None:
        return own_words
    value = repr(shown(item.value)) if isinstance(item.value, str) else shown(item.value)
    return f"{item.place} is {value}: " + (own_words or f"it must be {allowed(item.name)}")
