"""The gateway's settings: names, defaults, allowed values and meanings."""

import math
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, PositiveFloat, PositiveInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from gateway import settings_words
from gateway.cpus import available_cpus
from gateway.places import default_repository
from gateway.settings_checks import Checks
from gateway.settings_fields import schema_of, setting

MEBIBYTE = 1 << 20


class Settings(Checks):
    """Settings of the gateway. The defaults suit one machine with one Triton.

    The constructor looks at its arguments alone; `settings_sources.load` gathers values from everywhere.
    """

    # JSON has no infinity: it is written as a string.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    host: str = setting(
        "Serving",
        "127.0.0.1",
        "Address to listen on, such as ::1 or localhost; 0.0.0.0 or :: for every interface.",
    )
    port: int = setting("Serving", 50051, "Port to listen on; 0 picks a free one.", ge=0, le=65535)
    processes: PositiveInt = setting(
        "Serving", 1, "Processes that share the port. Each has limits, caches and threads of its own."
    )
    repository: Path = setting(
        "Serving",
        default_repository(),
        "Triton's model repository, or a copy of its small files (tokenizer.json).",
    )
    health_interval_s: PositiveFloat = setting("Serving", 2, "Seconds between two checks of Triton's health.")
    required_services: tuple[str, ...] = setting(
        "Serving",
        (),
        "Services without which the server is not ready: DetectionService,TextService. Empty: any will do.",
    )
    drain_s: float = setting(
        "Serving",
        0,
        "Seconds after SIGTERM in which new calls are still answered: load balancers need them to look away.",
        ge=0,
    )
    grace_s: float = setting(
        "Serving", 20, "Seconds after drain_s that calls in flight may take. Then they are cut off.", ge=0
    )
    max_call_s: PositiveFloat = setting(
        "Serving", 300, "Most seconds that a call may take, even if its own deadline is later or it has none."
    )
    max_receive_s: PositiveFloat = setting(
        "Serving", 30, "Most seconds from the start of a call until its request has arrived."
    )
    max_send_s: PositiveFloat = setting(
        "Serving", 60, "Most seconds that a caller may take to receive an answer, or it is disconnected."
    )
    max_connection_age_s: PositiveFloat = setting(
        "Serving",
        math.inf,
        "Seconds after which a client is asked to connect again. It then finds new servers, and shows a "
        "certificate that is still valid. Calls in flight go on. inf: never.",
    )

    http_host: str = setting(
        "HTTP", "127.0.0.1", "Address to answer HTTP on; 0.0.0.0 or :: for every interface."
    )
    http_port: int | None = setting(
        "HTTP",
        None,
        "Port of the same tasks over HTTP, for curl and browsers; 0 picks a free one. Without one it is off.",
        ge=0,
        le=65535,
    )
    http_hosts: tuple[str, ...] = setting(
        "HTTP",
        (),
        "Names that requests may call this server by in the header Host: vision.example.com, or .example.com "
        "for all below it; * for any. IP addresses, localhost and names without a dot always work.",
    )
    http_origins: tuple[str, ...] = setting(
        "HTTP",
        (),
        "Origins of other pages that may use this server: https://app.example.com; * for any page at all.",
    )
    inference_sdk_routes: bool = setting(
        "HTTP", False, "Also answer the HTTP routes that the package inference-sdk calls."
    )

    triton: str = setting(
        "Triton",
        "127.0.0.1:8001",
        "Triton's gRPC address: host:port, several separated by commas, or a name such as dns:///triton:8001 "
        "that stands for several. Calls go to each in turn, and never through a proxy.",
    )
    triton_wait_s: float = setting(
        "Triton", math.inf, "Seconds to wait for Triton at the start; inf: as long as it takes.", ge=0
    )
    triton_attempts: PositiveInt = setting(
        "Triton", 4, "Most times that a request is sent to Triton while Triton is unavailable."
    )

    triton_shared_memory: Literal["auto", "on", "off"] = setting(
        "Triton",
        "auto",
        "Whether a Triton on this host reads SAM's embeddings in shared memory, or gets them with each "
        "prompt. auto: where it can; on: a Triton that cannot is not used; off: all tensors are sent.",
    )

    tls_certificate: Path | None = setting(
        "Who may call", None, "The server's certificate chain, PEM. With tls_key: calls must use TLS."
    )
    tls_key: Path | None = setting(
        "Who may call", None, "The private key of tls_certificate, PEM, unencrypted."
    )
    tls_client_ca: Path | None = setting(
        "Who may call",
        None,
        "Certificate authorities, PEM. A client must show a certificate of one of them.",
    )
    api_keys: Path | None = setting(
        "Who may call", None, "File of API keys that `visiongate keys` writes. Calls then need one of them."
    )
    image_id_secret: Path | None = setting(
        "Who may call",
        None,
        "File of 32 or more random bytes. Servers with the same one know each other's image ids.",
    )

    trusted_proxies: tuple[str, ...] = setting(
        "Who may call",
        (),
        "Addresses or networks (10.0.0.0/8) of proxies whose X-Forwarded-For is believed: limits and log are "
        "then about the address that it names.",
    )

    # Receiving a larger one would delay all other calls by more than 50 milliseconds.
    max_message_bytes: PositiveInt = setting("Limits", 36 * MEBIBYTE, "Largest request message, in bytes.")
    max_response_bytes: PositiveInt = setting("Limits", 32 * MEBIBYTE, "Largest answer, in bytes.")
    max_concurrent_calls: PositiveInt = setting(
        "Limits", 64, "Most calls that a process answers at a time. More are refused immediately."
    )
    stream_window: PositiveInt = setting(
        "Limits",
        32,
        "Most items of a stream that are worked on, or answered and not taken yet. Then the server reads no "
        "further.",
    )
    max_bytes_in_flight: PositiveInt = setting(
        "Limits",
        2048 * MEBIBYTE,
        "Most bytes that the calls of a process hold at a time: requests, decoded images, answers. Requests "
        "that arrive, and work under way (decoding, tensors, masks), may take half as much again each.",
    )
    max_caller_share: float = setting(
        "Limits",
        0.75,
        "How much of these calls and bytes one of several callers may have. A caller is an API key, or, if "
        "there are none, an address. 1: all.",
        ge=0.01,
        le=1,
    )
    max_connections_per_peer: int = setting(
        "Limits",
        1000,
        "Most connections of one address. Of more, the youngest without calls are closed. 0: no limit.",
        ge=0,
    )
    max_image_bytes: PositiveInt = setting("Limits", 32 * MEBIBYTE, "Largest image file, in bytes.")
    max_image_pixels: PositiveInt = setting("Limits", 64_000_000, "Most pixels of an image, width x height.")
    max_images: PositiveInt = setting(
        "Limits", 64, "Most images of a request with a list, other than RecognizeText."
    )
    max_pages: PositiveInt = setting("Limits", 32, "Most images of a RecognizeText request.")
    max_texts: PositiveInt = setting(
        "Limits", 1024, "Most texts or labels of an embedding or classification request."
    )
    max_phrases: PositiveInt = setting(
        "Limits", 256, "Most phrases to detect. More never fit into a model's 256 tokens."
    )
    max_text_length: PositiveInt = setting(
        "Limits", 10_000, "Most characters of a text, or of all phrases of a request together."
    )
    max_prompts: PositiveInt = setting("Limits", 1000, "Most prompts of a SegmentRegions request.")
    max_detections: PositiveInt = setting("Limits", 1000, "Most detections that a request may ask for.")
    max_faces: PositiveInt = setting("Limits", 1000, "Most faces that a request may ask for.")
    max_grid_points: PositiveInt = setting(
        "Limits",
        25_000,
        "Most points of a SegmentEverything request, those of all its images and crops together.",
    )
    max_mask_pixels: PositiveInt = setting(
        "Limits", 2_000_000_000, "Most pixels of all masks of an answer, image size x number of masks."
    )

    uri_hosts: tuple[str, ...] = setting(
        "Images by URI",
        (),
        "Hosts that image.uri may name, separated by commas: example.com, example.com:8443 for another port "
        "than 443, .example.com for all hosts below example.com. If empty, image.uri is refused.",
    )
    uri_timeout_s: PositiveFloat = setting(
        "Images by URI", 10, "Most seconds to fetch the image of a URI, with all redirects."
    )
    uri_max_redirects: int = setting(
        "Images by URI", 3, "Most redirects of a URI. Each is checked like the URI.", ge=0
    )

    image_cache_bytes: int = setting(
        "Caches, batches, threads", 256 * MEBIBYTE, "Bytes of decoded images to keep.", ge=0
    )
    sam_embedding_cache_bytes: int = setting(
        "Caches, batches, threads",
        512 * MEBIBYTE,
        "Bytes of SAM's image embeddings to keep (4 MiB or more each).",
        ge=0,
    )
    clip_text_cache_bytes: int = setting(
        "Caches, batches, threads",
        32 * MEBIBYTE,
        "Bytes of CLIP's text embeddings to keep (about 2 KB each).",
        ge=0,
    )
    clip_image_cache_bytes: int = setting(
        "Caches, batches, threads",
        32 * MEBIBYTE,
        "Bytes of CLIP's image embeddings to keep (about 2 KB each).",
        ge=0,
    )
    decoder_batch: PositiveInt = setting(
        "Caches, batches, threads",
        32,
        "Prompts in one request to SAM's decoder. More is faster until Triton's memory is full (about 35 MB "
        "a prompt).",
    )
    recognition_batch: PositiveInt = setting(
        "Caches, batches, threads",
        64,
        "Words, or lines of the least width, in one request to the text recognition network; at most the "
        "model's max_batch_size in Triton. Triton joins requests.",
    )
    batches_in_flight: PositiveInt = setting(
        "Caches, batches, threads",
        2,
        "Full batches that one call may have at Triton at a time. More keep a large GPU busy.",
    )
    images_in_flight: PositiveInt = setting(
        "Caches, batches, threads",
        8,
        "Images of one list that detection, segmentation and gaze work on at a time. More fill larger "
        "batches, and take more memory.",
    )
    pages_in_flight: PositiveInt = setting(
        "Caches, batches, threads", 4, "Pages of one RecognizeText request that are worked on at a time."
    )
    threads: PositiveInt = setting(
        "Caches, batches, threads",
        available_cpus(),
        "Threads that decode, resize and write masks. By default as many as the process may use processors.",
    )

    scaled_decoding: bool = setting(
        "Caches, batches, threads",
        True,
        "Decode large JPEGs at a half or a quarter of their size for models whose input is much smaller "
        "still: twice to four times faster, and inputs differ by 0.25 grey levels in the mean.",
    )

    metrics_host: str = setting(
        "Metrics, traces, log",
        "127.0.0.1",
        "Address of /metrics, /livez and /readyz; 0.0.0.0 or :: for every interface.",
    )
    metrics_port: int | None = setting(
        "Metrics, traces, log",
        None,
        "Port of /metrics, /livez and /readyz. Without a port they are off.",
        ge=0,
        le=65535,
    )
    otlp_endpoint: str | None = setting(
        "Metrics, traces, log",
        None,
        "OTLP/gRPC address that traces are sent to, such as http://collector:4317. They go through the "
        "environment's proxy unless the address is on this machine. Without an address none are sent.",
    )
    log_format: Literal["text", "json"] = setting(
        "Metrics, traces, log", "text", "text for people, json for programs."
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "Metrics, traces, log", "info", "Lowest level that is logged."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: object, info: ValidationInfo) -> object:
        """Read the text of an environment variable or a flag: a list has commas, an empty text is None."""
        name = info.field_name or ""
        schema = schema_of(cls, name)
        if isinstance(value, str) and schema.get("type") == "array":
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if value == "" and schema.get("optional"):
            return None
        # Path("") would be the working directory, and True the number 1.
        if value == "" or (isinstance(value, bool) and schema.get("type") != "boolean"):
            raise PydanticCustomError("not_allowed", "must be {allowed}", {"allowed": allowed(name)})
        return value


def group(name: str) -> str:
    """Return the group that a setting belongs to."""
    return str(schema_of(Settings, name)["group"])


def allowed(name: str) -> str:
    """Say in words which values a setting can have."""
    return settings_words.allowed(schema_of(Settings, name))


def metavar(name: str) -> str:
    """Return the placeholder of a setting's value in help."""
    return settings_words.metavar(schema_of(Settings, name))
