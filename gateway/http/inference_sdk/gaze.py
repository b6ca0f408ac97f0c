"""Where faces look. Yaw and pitch have the API's signs: both are those of L2CS-Net."""

from typing import Any

from gateway.http.inference_sdk.asked import Asked, check_count, image_names
from gateway.http.inference_sdk.boxes import centred_box
from gateway.http.json_text import Tree

MAX_IMAGES = 32
"""Each image is a call of its own."""
_VERSION = "gaze_version_id"
# The first of their landmarks, and those which both have.
_LANDMARKS = ("right_eye", "left_eye", "nose_tip")


async def detect(asked: Asked) -> Tree:
    """Find faces and their gaze in one image, or several. Without a search, an image is a face."""
    images = asked.images()
    check_count(len(images.trees), "image", MAX_IMAGES)
    is_searching = asked.flag("do_run_face_detection", default=True)
    model = asked.version(_VERSION, "l2cs")
    answers = []
    for image, path in zip(images.trees, images.paths, strict=True):
        names = {**image_names("image", path), "gaze_model": _VERSION}
        request: dict[str, Tree] = {"image": image, "gaze_model": model}
        if not is_searching:
            # With no face to look at, the answer has the image's size, and comes at once.
            size = (await asked.call("EstimateGaze", {**request, "boxes": {}}, names)).image
            whole = {"x_min": 0, "y_min": 0, "x_max": size.width, "y_max": size.height}
            request["boxes"] = {"boxes": [whole]}
        response = await asked.call("EstimateGaze", request, names)
        answers.append(
            {"predictions": [_prediction(face) for face in response.faces], "time": asked.seconds()}
        )
    return answers


def _prediction(face: Any) -> Tree:
    points = [getattr(face.landmarks, name) for name in _LANDMARKS] if face.HasField("landmarks") else []
    return {
        "face": {
            **centred_box(face.box),
            "confidence": face.score if face.HasField("score") else 1.0,
            "class": "face",
            "class_id": 0,
            "landmarks": [{"x": point.x, "y": point.y} for point in points],
        },
        "yaw": face.gaze.yaw,
        "pitch": face.gaze.pitch,
    }
