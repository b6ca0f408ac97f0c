"""Everything that can be set, in one place: environment variables named VISIONGATE_…, or flags."""

import os
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1 << 20


class Settings(BaseSettings):
    """Settings of the gateway. Defaults suit one machine with one Triton."""

    model_config = SettingsConfigDict(env_prefix="VISIONGATE_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    triton: str = Field("127.0.0.1:8001", description="Triton's gRPC address.")
    repository: Path = Field(
        Path("model_repository"),
        description="Triton's model repository, or a copy of its small files (tokenizer.json).",
    )
    triton_wait_s: float = Field(60, ge=0, description="How long to wait at start for Triton, in seconds.")
    health_interval_s: PositiveFloat = Field(2, description="Seconds between two looks at Triton's health.")
    grace_s: float = Field(20, ge=0, description="Seconds that calls may still take after SIGTERM.")

    max_message_bytes: PositiveInt = Field(64 * MEBIBYTE, description="Largest request message.")
    max_image_bytes: PositiveInt = Field(32 * MEBIBYTE, description="Largest image file.")
    max_image_pixels: PositiveInt = Field(64_000_000, description="Most pixels of an image, width x height.")
    max_prompts: PositiveInt = Field(1000, description="Most prompts of a SegmentRegions request.")
    max_grid_points: PositiveInt = Field(
        25_000, description="Most points of a SegmentEverything request, those of all its crops together."
    )

    image_cache_bytes: int = Field(256 * MEBIBYTE, ge=0, description="Decoded images kept.")
    embedding_cache_bytes: int = Field(512 * MEBIBYTE, ge=0, description="Image embeddings kept.")
    decoder_batch: PositiveInt = Field(
        32,
        description="Prompts that SAM's decoder is given at once: more is faster until Triton's memory "
        "is full (about 35 MB a prompt).",
    )
    max_pages: PositiveInt = Field(32, description="Most images of a RecognizeText request.")
    recognition_batch: PositiveInt = Field(
        64,
        description="Words that docTR's recognition network is given at once, in requests that Triton joins; "
        "never more than its max_batch_size there.",
    )
    max_images: PositiveInt = Field(64, description="Most images of an embedding or classification request.")
    max_texts: PositiveInt = Field(1024, description="Most texts or labels of such a request.")
    text_cache_bytes: int = Field(
        32 * MEBIBYTE, ge=0, description="CLIP's text embeddings kept (about 2 KB each)."
    )
    image_vector_cache_bytes: int = Field(
        32 * MEBIBYTE, ge=0, description="CLIP's image embeddings kept (about 2 KB each)."
    )
    worker_threads: PositiveInt = Field(
        os.cpu_count() or 1, description="Threads that decode, resize and write masks."
    )
