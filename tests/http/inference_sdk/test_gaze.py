"""The route of gaze against the same question over gRPC; a real face is in tests/e2e/test_gaze.py."""

import base64

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from recorded_calls import answer, png, refusal
from visiongate import AsyncClient


async def test_a_face_and_its_gaze(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes
) -> None:
    [found] = await answer(sdk_http, "gaze", picture)
    [expected] = await demo_client.estimate_gaze(picture)
    [prediction] = found["predictions"]
    assert (prediction["yaw"], prediction["pitch"]) == pytest.approx((expected.yaw, expected.pitch), abs=1e-4)
    face = prediction["face"]
    corners = [face["x"] - face["width"] / 2, face["y"] - face["height"] / 2]
    corners += [face["x"] + face["width"] / 2, face["y"] + face["height"] / 2]
    np.testing.assert_allclose(corners, expected.box, atol=0.01)
    assert face["confidence"] == pytest.approx(expected.score, abs=1e-5)
    assert (face["class"], face["class_id"]) == ("face", 0)
    # Of the six points of theirs, the first three.
    assert expected.landmarks is not None
    for point, name in zip(face["landmarks"], ("right_eye", "left_eye", "nose_tip"), strict=True):
        assert (point["x"], point["y"]) == pytest.approx(tuple(expected.landmarks[name]), abs=0.01)
    assert found["time"] > 0


async def test_without_a_search_the_image_is_the_face(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, scene: NDArray[np.uint8]
) -> None:
    [whole] = await demo_client.estimate_gaze(scene)
    left, top, right, bottom = (int(edge) for edge in whole.box)
    face = png(scene[top:bottom, left:right])
    [found] = await answer(sdk_http, "gaze", face, do_run_face_detection=False)
    [prediction] = found["predictions"]
    box = prediction["face"]
    assert (box["width"], box["height"]) == (right - left, bottom - top)
    assert (box["x"], box["y"]) == ((right - left) / 2, (bottom - top) / 2)
    assert box["landmarks"] == []
    [expected] = await demo_client.estimate_gaze(face, boxes=[[0, 0, right - left, bottom - top]])
    assert (prediction["yaw"], prediction["pitch"]) == pytest.approx((expected.yaw, expected.pitch), abs=1e-4)


async def test_several_images_and_errors(
    sdk_http: httpx.AsyncClient, picture: bytes, scene: NDArray[np.uint8]
) -> None:
    images = [
        {"type": "base64", "value": base64.b64encode(each).decode()}
        for each in (picture, png(scene[300:, :300]))
    ]
    both = await answer(sdk_http, "gaze", picture, image=images)
    assert [len(each["predictions"]) for each in both] == [1, 0]
    status, message = await refusal(sdk_http, "gaze", picture, image=[images[0]] * 33)
    assert (status, message) == (400, "image: has 33 items; the limit is 32")
    broken = {"type": "base64", "value": "AAAA"}
    status, message = await refusal(sdk_http, "gaze", picture, image=[images[1], broken])
    assert (status, message.partition(":")[0]) == (400, "image[1].value")
    assert await answer(sdk_http, "gaze", picture, gaze_version_id="L2CS")
