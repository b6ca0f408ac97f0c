"""L2CS-Net, where a face looks: what can be exported, and the sizes of its networks."""

from export.family import ExporterFamily, extra_of_ready_onnx

# The bins of an angle: -180, -176, … 176 degrees.
BINS, BIN_DEGREES, FIRST_BIN_DEGREES = 90, 4, -180
# The sides, in pixels, of the faces that the networks see.
FACE_SIZE, TINY_FACE_SIZE = 448, 64
# The side, in pixels, that the authors' pipeline shrinks crops to before it enlarges them. Their training
# images were made in the same way.
CROP_SIZE = 224
# The sizes of the network that `export.demo.train_gaze` trains.
DEMO_LAYERS, DEMO_WIDTH = [1, 1, 1, 1], 12
DEMO_FACE_SIZE = 96

FAMILY = ExporterFamily(
    name="gaze",
    variants=("resnet50",),
    other_variants="with a ready ONNX file, any name for it",
    weights=(
        "L2CSNet_gaze360.pkl by the link in the README of Ahmednull/L2CS-Net on GitHub, or an ONNX file of "
        "its kind (yakhyo/gaze-estimation)"
    ),
    licence="MIT (the code; the authors do not state terms for the weights)",
    module="export.gaze",
    extra=extra_of_ready_onnx,
    weights_file="L2CSNET.pkl",
)
