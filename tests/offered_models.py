"""Models as a Triton offers them to the gateway, for `fake_triton.Offering`."""

from gateway.pipelines.detection import GROUNDING_DINO
from gateway.pipelines.gaze import FACE_DETECTION, GAZE
from gateway.pipelines.segmentation import SAM, SAM2
from gateway.triton import ModelConfig

Models = dict[str, ModelConfig]

SIZES = {"image_size": "1024", "mask_size": "256"}


def sam(variant: str = "vit_b", suffix: str = "", **parameters: str) -> Models:
    parameters = SIZES | {"variant": variant} | parameters
    return {role.name + suffix: ModelConfig(role.inputs, role.outputs, parameters) for role in SAM.roles}


def sam2(variant: str = "hiera_tiny", suffix: str = "") -> Models:
    parameters = SIZES | {"variant": variant, "fit": "stretch"}
    return {role.name + suffix: ModelConfig(role.inputs, role.outputs, parameters, 4) for role in SAM2.roles}


def gaze(variant: str = "resnet50", suffix: str = "") -> Models:
    (role,) = GAZE.roles
    parameters = {"variant": variant, "face_size": "448", "crop_size": "448"}
    return {role.name + suffix: ModelConfig(role.inputs, role.outputs, parameters)}


def face_detection() -> Models:
    (role,) = FACE_DETECTION.roles
    parameters = {"variant": "yunet_n", "canvas": "320", "small_faces_canvas": "640"}
    return {role.name: ModelConfig(role.inputs, role.outputs, parameters)}


def grounding_dino() -> Models:
    """One that has everything but its tokenizer.json."""
    (role,) = GROUNDING_DINO.roles
    parameters = {
        "shortest_edge": "800",
        "longest_edge": "1333",
        "canvases": "800x1344,1344x800",
        "text_lengths": "16,256",
    }
    return {role.name: ModelConfig(role.inputs, role.outputs, parameters)}
