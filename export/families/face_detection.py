"""YuNet, the face detector: what can be exported."""

from export.family import ExporterFamily

FAMILY = ExporterFamily(
    name="face_detection",
    variants=("yunet_n",),
    weights=(
        "face_detection_yunet_2023mar.onnx of OpenCV's model zoo (opencv/opencv_zoo on GitHub, "
        "models/face_detection_yunet)"
    ),
    licence="MIT",
    module="export.face_detection",
    weights_file="YUNET.onnx",
)
