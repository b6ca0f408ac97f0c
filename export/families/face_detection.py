"""YuNet, the face detector: what can be exported, and the sizes of its networks."""

from export.family import ExporterFamily, extra_of_ready_onnx

STRIDES = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""The outputs of every stride, and the number of their values in each cell."""

# Sides of the gateway's square canvases, in pixels. YuNet finds faces from about 10 pixels on. On the first
# canvas that is a 64th of the image's longer side. The second costs four times as much, and finds faces of
# half that size.
SIZES = {"canvas": "640", "small_faces_canvas": "1280"}
TINY_SIZES = {"canvas": "160", "small_faces_canvas": "320"}
# The sizes of the network that `export.demo.train_face_detection` trains.
DEMO_CHANNELS, DEMO_BLOCKS = 32, 1
DEMO_SIZES = {"canvas": "320", "small_faces_canvas": "640"}

FAMILY = ExporterFamily(
    name="face_detection",
    variants=("yunet_n",),
    weights=(
        "face_detection_yunet_2023mar.onnx of OpenCV's model zoo (opencv/opencv_zoo on GitHub, "
        "models/face_detection_yunet)"
    ),
    licence="MIT",
    module="export.face_detection",
    extra=extra_of_ready_onnx,
    weights_file="YUNET.onnx",
)
