"""What the peers have in common: their options, and CLIP on ONNX Runtime. Nothing of the gateway."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from clip_preprocessing import preprocess as preprocess_photo


@dataclass(frozen=True)
class Options:
    """port: to listen on. model: the ONNX file. size: side of its input. threads: how many may compute.

    scaled: let the JPEG decoder shrink a photo while it decodes, to no less than three times the input.
    """

    port: int
    model: str
    size: int
    threads: int
    scaled: bool

    @classmethod
    def of_command_line(cls) -> "Options":
        parser = argparse.ArgumentParser()
        parser.add_argument("--port", type=int, required=True)
        parser.add_argument("--model", required=True)
        parser.add_argument("--size", type=int, required=True)
        parser.add_argument("--threads", type=int, required=True)
        parser.add_argument("--scaled", action="store_true")
        return cls(**vars(parser.parse_args()))


def preprocess(content: bytes, options: Options) -> Any:
    return preprocess_photo(content, options.size, scaled=options.scaled)


def session(options: Options, intra_op_threads: int = 1) -> onnxruntime.InferenceSession:
    """Open the model. With one thread, several runs at the same time share the processors best."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = intra_op_threads
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])


def embed(model: onnxruntime.InferenceSession, images: Sequence[Any]) -> Any:
    """Return the embeddings float32 [N,D] of preprocessed images, scaled to length 1."""
    (rows,) = model.run(["image_embedding"], {"image": np.stack(images)})
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
