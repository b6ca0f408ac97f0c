"""What int8 gains CLIP on this CPU: `python tests/bench/int8.py`, two minutes, 3 GB.

ViT-B/32's image tower at its true size with seeded weights, one thread, a batch of 4. It prints CPU seconds
an image in float32 and in int8, their ratio, the least cosine between the answers, and whether the CPU has
VNNI, the instructions for products of bytes.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from export import clip, onnx_writing
from export.half import Precision
from export.pictures import noise
from export.weights import Options

BATCH, ROUNDS = 4, 8


def main() -> None:
    """Print the figures."""
    image = clip.prepare(Options(weights="random")).graphs[0]
    pictures = {"image": noise(1, BATCH, 224, 224)}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for precision in (Precision.fp32, Precision.int8):
            path = Path(folder) / precision / "model.onnx"
            path.parent.mkdir()
            onnx_writing.write(image, path, precision=precision)
            print(f"{precision}: {path.stat().st_size / 1e6:.0f} MB")
            sessions[precision] = _session(path)
        answers = {precision: session.run(None, pictures)[0] for precision, session in sessions.items()}
        # In turns, and the best of them: other work on this machine disturbs both alike.
        rounds = {precision: [_seconds(session, pictures)] for precision, session in sessions.items()}
        for _ in range(ROUNDS - 1):
            for precision, session in sessions.items():
                rounds[precision].append(_seconds(session, pictures))
    best = {precision: min(times) for precision, times in rounds.items()}
    for precision, seconds in best.items():
        print(f"{precision}: {seconds:.4f} CPU seconds an image")
    one, other = (rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in answers.values())
    print(f"int8 is {best[Precision.fp32] / best[Precision.int8]:.2f} times as fast")
    print(f"least cosine: {(one * other).sum(-1).min():.5f}")
    print(f"VNNI: {'yes' if 'vnni' in Path('/proc/cpuinfo').read_text() else 'no'}")


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _seconds(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> float:
    start = time.process_time()
    session.run(None, inputs)
    return (time.process_time() - start) / BATCH


if __name__ == "__main__":
    main()
