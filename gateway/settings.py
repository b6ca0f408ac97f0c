"""Everything that can be set, in one place: environment variables named VISIONGATE_…, or flags."""

import math
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1 << 20


class Settings(BaseSettings):
    """Settings of the gateway. Defaults suit one machine with one Triton."""

    model_config = SettingsConfigDict(env_prefix="VISIONGATE_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    workers: PositiveInt = Field(1, description="Processes that share the port.")
    repository: Path = Field(
        Path("model_repository"),
        description="Triton's model repository, or a copy of its small files (tokenizer.json).",
    )
    health_interval_s: PositiveFloat = Field(2, description="Seconds between two looks at Triton's health.")
    grace_s: float = Field(20, ge=0, description="Seconds that calls may still take after SIGTERM.")
    max_call_s: PositiveFloat = Field(
        300, description="Most seconds of a call, whatever its own deadline says, or if it has none."
    )

    triton: str = Field(
        "127.0.0.1:8001",
        description="Triton's gRPC address: host:port, several after commas, or a name such as "
        "dns:///triton:8001 that stands for several. Calls go round them.",
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
        512 * MEBIBYTE, description="Most bytes of the requests that a process answers at once."
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
    max_grid_points: PositiveInt = Field(
        25_000, description="Most points of a SegmentEverything request, those of all its crops together."
    )
    max_mask_pixels: PositiveInt = Field(
        2_000_000_000,
        description="Most pixels of all masks of an answer, image size x masks.",
    )

    uri_hosts: tuple[str, ...] = Field(
        (), description="Hosts that image.uri may name, and their subdomains after a dot (.example.com)."
    )
    uri_timeout_s: PositiveFloat = Field(10, description="Most seconds to fetch the image of a URI.")
    uri_max_redirects: int = Field(3, ge=0, description="Most redirects of a URI, each checked like the URI.")

    image_cache_bytes: int = Field(256 * MEBIBYTE, ge=0, description="Decoded images kept.")
    embedding_cache_bytes: int = Field(512 * MEBIBYTE, ge=0, description="Image embeddings kept.")
    text_cache_bytes: int = Field(
        32 * MEBIBYTE, ge=0, description="CLIP's text embeddings kept (about 2 KB each)."
    )
    image_vector_cache_bytes: int = Field(
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
    worker_threads: PositiveInt = Field(
        os.cpu_count() or 1, description="Threads that decode, resize and write masks."
    )

    metrics_host: str = Field(
        "127.0.0.1", description="Address of /metrics, /livez and /readyz; 0.0.0.0 for every interface."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of /metrics, /livez and /readyz; without one they are off."
    )
    otlp_endpoint: str | None = Field(
        None, description="OTLP/gRPC address that traces go to (http://collector:4317); without one none."
    )
    log_format: Literal["text", "json"] = Field("text", description="text for people, json for machines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
