from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser
from skimage import data as skimage_data

from export import face_detection, onnx_file, triton_config
from export.errors import ExportError
from export.half import Precision
from export.weights import Options
from gateway.models.face_detection import OUTPUTS, YuNetSpec

TINY = Options(weights="random", size="tiny")


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_exporter_and_gateway_mean_the_same_outputs() -> None:
    (graph,) = face_detection.prepare(TINY).graphs
    assert tuple(graph.outputs) == OUTPUTS


def test_committed_config_is_that_of_the_default_variant(tmp_path: Path) -> None:
    (placed,) = onnx_file.place(face_detection.prepare(Options(weights="random")), tmp_path)
    template = triton_config.template("face_detection")
    assert (tmp_path / "face_detection" / "config.pbtxt").read_text().startswith(template.read_text())
    assert placed.error < 1e-5


def test_seeded_network_finds_faces_and_not_everywhere(tmp_path: Path) -> None:
    export = face_detection.prepare(TINY)
    (placed,) = onnx_file.place(export, tmp_path)
    detection = YuNetSpec.from_parameters(export.graphs[0].parameters, tmp_path)
    image = skimage_data.astronaut()
    canvas, valid_size = detection.preprocess(image)
    heads = dict(zip(OUTPUTS, session(placed.path).run(OUTPUTS, {"image": canvas[None]}), strict=True))
    faces = detection.postprocess(
        {name: value[0] for name, value in heads.items()},
        valid_size,
        image.shape[:2],
        min_score=0.6,
        nms_iou_threshold=0.3,
        max_faces=1000,
    )
    assert 3 < len(faces) < 300


@pytest.mark.parametrize("name", ["yunet_n_dynamic.onnx", "yunet_n_320_320.onnx"])
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.fp16, Precision.fp16_weights])
def test_yunets_own_file(
    data: Callable[[str], Path], tmp_path: Path, name: str, precision: Precision
) -> None:
    """Any batch and size, also of the file that was written for one image of 320 pixels."""
    path = data(f"face/{name}")
    export = face_detection.prepare(Options(weights=str(path)))
    (placed,) = onnx_file.place(export, tmp_path, precision=precision)
    assert placed.origin == name
    assert placed.error < (1e-6 if precision is Precision.fp32 else 0.05)
    template = triton_config.template("face_detection")
    assert (tmp_path / "face_detection" / "config.pbtxt").read_text().startswith(template.read_text())
    image = cv2.resize(skimage_data.astronaut(), (192, 192), interpolation=cv2.INTER_AREA)
    batch = np.stack([image, image[:, ::-1]])
    ours = dict(zip(OUTPUTS, session(placed.path).run(OUTPUTS, {"image": batch}), strict=True))
    original = session(data("face/yunet_n_dynamic.onnx"))
    planes = batch[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    for output, expected in zip(OUTPUTS, original.run(OUTPUTS, {"input": planes}), strict=True):
        np.testing.assert_allclose(ours[output], expected, atol=1e-5 if precision is Precision.fp32 else 0.2)


OTHER = """
<ir_version: 8, opset_import: ["" : 17]>
other (float[1, 3, 32, 32] input) => (float[1, 3, 32, 32] cls_8)
{
  cls_8 = Relu (input)
}
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(), "download face_detection_yunet_2023mar.onnx"),
        (Options(weights="random", revision="main"), "no hub has the face detector's weights"),
        (Options(weights="random", variant="retina"), "no variant 'retina'; there is yunet_n"),
        (Options(weights="/nowhere.onnx"), "There is no file /nowhere.onnx"),
    ],
)
def test_options_that_cannot_be(options: Options, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        face_detection.prepare(options)


def test_another_network_is_refused(tmp_path: Path) -> None:
    onnx.save(parser.parse_model(OTHER), str(tmp_path / "other.onnx"))
    with pytest.raises(ExportError, match=r"other.onnx is not YuNet's file: .* but this has .* and cls_8"):
        face_detection.prepare(Options(weights=str(tmp_path / "other.onnx")))
