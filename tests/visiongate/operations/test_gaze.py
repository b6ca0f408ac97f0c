"""What the client sends for faces, and what it makes of an answer."""

import json
import math
from typing import Any

import numpy as np

from visiongate.operations import gaze
from visiongate.v1 import gaze_service_pb2, geometry_pb2

PIXELS = np.zeros((2, 4, 3), np.uint8)


def test_only_what_was_asked_is_sent() -> None:
    request: Any = gaze.estimate_gaze(PIXELS).request
    assert not request.query.HasField("min_score")
    assert not request.query.HasField("max_faces")
    assert request.WhichOneof("faces") == "query"
    request = gaze.estimate_gaze(PIXELS, min_score=0.0, max_faces=3, small_faces=True, gaze_model="m").request
    assert (request.query.HasField("min_score"), request.query.min_score) == (True, 0)
    assert (request.query.max_faces, request.query.small_faces, request.gaze_model) == (3, True, "m")


def test_given_faces_go_without_a_query() -> None:
    request: Any = gaze.estimate_gaze(PIXELS, boxes=[[0, 0, 1, 2], [1, 0, 4, 2]]).request
    assert request.WhichOneof("faces") == "boxes"
    assert [(box.x_min, box.y_max) for box in request.boxes.boxes] == [(0, 2), (1, 2)]


def test_an_empty_list_of_faces_is_no_search() -> None:
    request: Any = gaze.estimate_gaze(PIXELS, boxes=[]).request
    assert (request.WhichOneof("faces"), len(request.boxes.boxes)) == ("boxes", 0)


def test_an_answer_is_read_and_written() -> None:
    # Zeros are values too: a landmark in the corner is a landmark.
    landmarks = gaze_service_pb2.FaceLandmarks(
        right_eye=geometry_pb2.Point(),
        left_eye=geometry_pb2.Point(x=2, y=1),
        nose_tip=geometry_pb2.Point(x=1, y=2),
        right_mouth_corner=geometry_pb2.Point(x=0, y=3),
        left_mouth_corner=geometry_pb2.Point(x=2, y=3),
    )
    look = gaze_service_pb2.Gaze(
        yaw=math.pi / 2, pitch=0, direction=gaze_service_pb2.Direction(x=-1, y=0, z=0)
    )
    box = geometry_pb2.Box(x_min=0, y_min=0, x_max=4, y_max=2)
    response = gaze_service_pb2.EstimateGazeResponse(
        faces=[
            gaze_service_pb2.Face(box=box, score=0.75, landmarks=landmarks, gaze=look),
            gaze_service_pb2.Face(box=box, gaze=look),
        ],
        gaze_model="g",
        face_detection_model="f",
    )
    answer = gaze.estimate_gaze(PIXELS).parse(response, "")
    assert (answer.info.model, answer.info.detection_model) == ("g", "f")
    found, given = answer
    assert found.landmarks is not None
    assert list(found.landmarks) == [
        "right_eye",
        "left_eye",
        "nose_tip",
        "right_mouth_corner",
        "left_mouth_corner",
    ]
    assert found.landmarks["right_eye"].tolist() == [0, 0]
    entry = json.loads(json.dumps(found.as_dict()))
    assert entry["score"] == 0.75
    assert entry["yaw_degrees"] == 90
    assert entry["direction"] == [-1, 0, 0]
    assert entry["landmarks"]["left_eye"] == [2, 1]
    assert (given.score, given.landmarks, given.as_dict()["landmarks"]) == (None, None, None)
