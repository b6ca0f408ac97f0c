"""The route of the first SAM against the same question over gRPC."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest
import supervision

from visiongate import AsyncClient


def body(picture: bytes, **changes: Any) -> dict[str, Any]:
    """As other callers send it: no method of the SDK does."""
    return {
        "image": {"type": "base64", "value": base64.b64encode(picture).decode()},
        "point_coords": [[136, 252], [420.0, 560.0], [0.0, 0.0]],
        "point_labels": [1, 0.0, -1],
        "use_mask_input_cache": True,
        **changes,
    }


async def test_points_become_the_outline_of_one_object(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes
) -> None:
    response = await sdk_http.post("/sam/segment_image", json=body(picture))
    assert response.status_code == 200, response.text
    found = response.json()
    [[expected]] = await demo_client.segment(
        picture, points=[[[136, 252], [420, 560]]], labels=[[1, 0]], include_logits=True
    )
    outline = np.array(found["masks"][0], np.int32)
    drawn = supervision.polygon_to_mask(outline, resolution_wh=(800, 600)).astype(bool)
    assert (drawn & expected.pixels).sum() / (drawn | expected.pixels).sum() > 0.95
    assert expected.logits is not None
    low = np.array(found["low_res_masks"][0], np.int32)
    height, width = expected.logits.shape
    small = supervision.polygon_to_mask(low, resolution_wh=(width, height)).astype(bool)
    assert (small & (expected.logits > 0)).sum() / (small | (expected.logits > 0)).sum() > 0.95
    assert found["time"] > 0


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"point_coords": None}, 400, "point_coords: is missing"),
        ({"point_labels": [1]}, 400, "point_labels: must be a list of as many labels"),
        ({"point_labels": [1, 0, 5]}, 400, "point_labels[2]: must be 1"),
        ({"point_labels": [-1, -1, -1]}, 400, "point_coords[0]: has neither points nor a box"),
        ({"point_coords": [[136, 252], [1], [0, 0]]}, 400, "point_coords[1]: must be two numbers"),
        ({"point_coords": [[136, 252], [1, "a"], [0, 0]]}, 400, "point_coords[1].y: must be a number"),
        ({"point_coords": [[136, 252], [900, 1], [0, 0]]}, 400, "point_coords[1].x: is 900, outside"),
        ({"sam_version_id": "vit_h"}, 400, "sam_version_id: no variant 'vit_h'"),
        ({"embeddings": [[[[0.5]]]]}, 501, "embeddings: are not taken"),
        ({"has_mask_input": True}, 501, "has_mask_input: is not served"),
        ({"format": "binary"}, 501, "format: binary is not served"),
        ({"format": "rle"}, 400, "format: must be json"),
    ],
)
async def test_errors_name_the_callers_fields(
    sdk_http: httpx.AsyncClient, picture: bytes, changes: dict[str, Any], status: int, says: str
) -> None:
    response = await sdk_http.post("/sam/segment_image", json=body(picture, **changes))
    assert response.json().keys() == {"message"}
    assert (response.status_code, response.json()["message"][: len(says)]) == (status, says)
