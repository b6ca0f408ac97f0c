"""L2CS-Net, where a face looks: what can be exported."""

from export.family import ExporterFamily

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
    weights_file="L2CSNET.pkl",
)
