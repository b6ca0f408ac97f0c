"""Gaze through gRPC, gateway and Triton against OpenCV's face detector and the authors' steps in PyTorch."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from PIL import Image
from skimage import data as skimage_data
from torchvision import transforms  # type: ignore[import-untyped]

from export import face_detection, face_detection_network, gaze, gaze_network, graph, onnx_file
from export.weights import Options
from gateway.embedded import EmbeddedTriton
from gateway.models.face_detection import LANDMARKS, OUTPUTS
from gateway.server import Gateway
from gateway.settings import Settings
from http_front import serving as serving_http
from inference_counts import InferenceCounts
from recorded_calls import png
from visiongate import AsyncClient, Face, VisiongateError
from visiongate.operations import Operation
from visiongate.operations.gaze import estimate_gaze
from wire import assert_refused, changed

Pixels = NDArray[np.uint8]
TINY = Options(weights="random", size="tiny")
PHOTO = skimage_data.coffee()  # 600 x 400
GAZE_SERVICE = "visiongate.v1.GazeService"
Angles = Callable[[Pixels], NDArray[np.float64]]


@dataclass(frozen=True)
class Reference:
    """The pipeline of L2CS-Net's authors, with YuNet in OpenCV for its face detector."""

    yunet: Path
    canvas: int
    angles: Angles
    """Yaw and pitch, radians, of the crop of a face."""

    def find(self, image: Pixels, *, small_faces: bool = False, min_score: float) -> NDArray[np.float32]:
        """OpenCV's rows in pixels of the image: x, y, width, height, five points, score."""
        side = self.canvas * (2 if small_faces else 1)
        factor = min(1, side / max(image.shape[:2]))
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        small = Image.fromarray(image)
        if (height, width) != image.shape[:2]:
            small = small.resize((width, height), Image.Resampling.BILINEAR)
        padded = np.pad(np.asarray(small), ((0, side - height), (0, side - width), (0, 0)))
        detector: Any = cv2.FaceDetectorYN.create(str(self.yunet), "", (side, side), min_score, 0.3, 5000)
        _, rows = detector.detect(np.ascontiguousarray(padded[:, :, ::-1]))
        rows = np.zeros((0, 15), np.float32) if rows is None else rows
        scale = np.array([image.shape[1] / width, image.shape[0] / height] * 7 + [1], np.float32)
        rows = rows[np.argsort(-rows[:, 14], kind="stable")] * scale
        # Of no use to a caller: faces that a random network sees in the padding.
        inside = (rows[:, 0] < image.shape[1]) & (rows[:, 1] < image.shape[0])
        return np.asarray(rows[inside & (rows[:, :2] + rows[:, 2:4] > 0).all(1)])

    def look(self, image: Pixels, box: NDArray[np.float32]) -> NDArray[np.float64]:
        left, top, right, bottom = (int(value) for value in box)
        left, top = min(max(left, 0), image.shape[1] - 1), min(max(top, 0), image.shape[0] - 1)
        face = image[top : max(bottom, top + 1), left : max(right, left + 1)]
        return self.angles(np.ascontiguousarray(face))


def assert_same_faces(
    found: list[Face], rows: NDArray[np.float32], reference: Reference, image: Pixels
) -> None:
    assert len(found) == len(rows)
    limit = [image.shape[1], image.shape[0]] * 2
    for face, row in zip(found, rows, strict=True):
        corners = np.concatenate([row[:2], row[:2] + row[2:4]])
        np.testing.assert_allclose(face.box, corners.clip(0, limit), atol=0.02)
        assert face.score == pytest.approx(row[14], abs=1e-4)
        assert face.landmarks is not None
        assert tuple(face.landmarks) == LANDMARKS
        points = np.stack(list(face.landmarks.values()))
        np.testing.assert_allclose(points.ravel(), row[4:14], atol=0.02)
        assert_same_gaze(face, reference.look(image, face.box))


def assert_same_gaze(face: Face, expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose([face.yaw, face.pitch], expected, atol=2e-4)
    yaw, pitch = expected
    direction = [-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)]
    np.testing.assert_allclose(face.direction, direction, atol=3e-4)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The toys' weights: the detector's as a file that OpenCV reads, the gaze network in PyTorch."""
    path = tmp_path_factory.mktemp("opencv") / "yunet.onnx"
    with warnings.catch_warnings():
        # PyTorch's older exporter warns of itself.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            face_detection_network.build(TINY),
            (torch.zeros(1, 3, 160, 160),),
            str(path),
            input_names=["input"],
            output_names=list(OUTPUTS),
            dynamic_axes={"input": {2: "height", 3: "width"}},
            dynamo=False,
            opset_version=17,
        )
    network = gaze_network.build(TINY)
    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Resize(64),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    @torch.no_grad()
    def angles(face: Pixels) -> NDArray[np.float64]:
        yaw, pitch = network(transform(cv2.resize(face, (32, 32)))[None])
        return radians(yaw.numpy(), pitch.numpy())

    return Reference(path, 160, angles)


def radians(yaw: NDArray[np.float32], pitch: NDArray[np.float32]) -> NDArray[np.float64]:
    """The authors' decoding of logits [1,90], whose first is what they call pitch."""
    powers = np.exp(np.concatenate([yaw, pitch]).astype(np.float64))
    expected = (powers / powers.sum(1, keepdims=True) * np.arange(90)).sum(1)
    return np.asarray((expected * 4 - 180) * np.pi / 180)


def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        pytest.param(skimage_data.astronaut(), id="astronaut"),
        pytest.param(PHOTO, id="coffee"),
        pytest.param(skimage_data.chelsea()[:97], id="wide"),
        pytest.param(skimage_data.chelsea()[:, :60], id="tall"),
        pytest.param(rng.integers(0, 256, (11, 24, 3), np.uint8), id="smaller than a cell"),
        pytest.param(rng.integers(0, 256, (1, 1, 3), np.uint8), id="one pixel"),
    ]


@pytest.mark.parametrize("image", pictures())
async def test_faces_equal_the_reference(client: AsyncClient, reference: Reference, image: Pixels) -> None:
    found = await client.estimate_gaze(image, min_score=0.55, max_faces=1000)
    rows = reference.find(image, min_score=0.55)
    if min(image.shape[:2]) > 50:
        assert len(rows) > 3
    assert_same_faces(found, rows, reference, image)


async def test_small_faces_are_searched_for_at_twice_the_size(
    client: AsyncClient, reference: Reference
) -> None:
    found = await client.estimate_gaze(PHOTO, min_score=0.55, max_faces=1000, small_faces=True)
    rows = reference.find(PHOTO, min_score=0.55, small_faces=True)
    assert len(rows) > len(reference.find(PHOTO, min_score=0.55)) > 0
    assert_same_faces(found, rows, reference, PHOTO)


async def test_given_faces_equal_the_reference(client: AsyncClient, reference: Reference) -> None:
    boxes = np.array(
        [
            [100.7, 50.2, 260.9, 250.1],
            [0, 0, 600, 400],
            [590.5, 380, 600, 400],
            [599.2, 399.5, 600, 400],
            [30, 40, 31.5, 300],
        ],
        np.float32,
    )
    faces = await client.estimate_gaze(PHOTO, boxes=boxes)
    assert len(faces) == len(boxes)
    for face, box in zip(faces, boxes, strict=True):
        np.testing.assert_array_equal(face.box, box)
        assert face.score is None
        assert face.landmarks is None
        assert_same_gaze(face, reference.look(PHOTO, box))


async def test_many_faces_are_a_few_calls_of_the_network_and_none_of_the_detector(
    client: AsyncClient, counts: InferenceCounts
) -> None:
    corners = np.random.default_rng(3).uniform(0, (500, 300), (40, 2))
    boxes = np.hstack([corners, corners + np.random.default_rng(4).uniform(5, 90, (40, 2))])
    looked, searched = [await counts.settled_soon(model) for model in ("gaze", "face_detection")]
    faces = await client.estimate_gaze(PHOTO, boxes=boxes)
    # By sixteens: 40 faces are 3 chunks, which Triton may join.
    after = await counts.settled_soon("gaze", looked.inferences + 40)
    assert after.inferences - looked.inferences == 40
    assert 1 <= after.executions - looked.executions <= 3
    assert await counts.settled_soon("face_detection") == searched
    for index in (0, 15, 16, 39):
        (alone,) = await client.estimate_gaze(PHOTO, boxes=boxes[[index]])
        assert alone.yaw == pytest.approx(faces[index].yaw, abs=1e-5)


async def test_concurrent_calls_equal_the_same_calls_alone(client: AsyncClient) -> None:
    photos = [skimage_data.astronaut(), PHOTO, skimage_data.chelsea(), skimage_data.rocket()]
    calls = [photo[: 200 + 30 * step] for step in range(3) for photo in photos]

    async def ask(photo: Pixels) -> list[dict[str, Any]]:
        return [face.as_dict() for face in await client.estimate_gaze(photo, min_score=0.55)]

    together = await asyncio.gather(*map(ask, calls))
    for photo, answer in zip(calls, together, strict=True):
        alone = await ask(photo)
        assert len(alone) == len(answer) > 0
        for one, other in zip(alone, answer, strict=True):
            np.testing.assert_allclose(one["box"], other["box"], atol=0.05)
            np.testing.assert_allclose(one["direction"], other["direction"], atol=1e-3)


async def test_limits_and_nothing_found(client: AsyncClient, counts: InferenceCounts) -> None:
    faces = await client.estimate_gaze(PHOTO, min_score=0.3, max_faces=5)
    scores = [face.score or 0 for face in faces]
    assert len(faces) == 5
    assert scores == sorted(scores, reverse=True)
    everything = await client.estimate_gaze(PHOTO, min_score=0.5, nms_iou_threshold=1, max_faces=1000)
    assert len(everything) > len(await client.estimate_gaze(PHOTO, min_score=0.5, max_faces=1000))
    before = await counts.settled_soon("gaze")
    assert await client.estimate_gaze(PHOTO, min_score=1) == []
    assert await counts.settled_soon("gaze") == before


BOX: Any = [10.0, 10.0, 50.0, 50.0]
SEARCH = estimate_gaze(PHOTO)


@pytest.mark.parametrize(
    ("operation", "field", "says"),
    [
        (estimate_gaze(b"not an image"), "image.encoded", "image"),
        (changed(SEARCH, {"query.min_score": 1.5}), "query.min_score", "0 to 1"),
        (changed(SEARCH, {"query.min_score": float("nan")}), "query.min_score", "0 to 1"),
        (changed(SEARCH, {"query.nms_iou_threshold": -0.1}), "query.nms_iou_threshold", "0 to 1"),
        (changed(SEARCH, {"query.max_faces": 0}), "query.max_faces", "1 to 1000"),
        (changed(SEARCH, {"query.max_faces": 1001}), "query.max_faces", "1 to 1000"),
        (estimate_gaze(PHOTO, boxes=[BOX] * 1001), "boxes.boxes", "1000"),
        (estimate_gaze(PHOTO, boxes=[BOX, [10, 10, 601, 50]]), "boxes.boxes[1].x_max", "600"),
        (estimate_gaze(PHOTO, boxes=[[10, -1, 60, 50]]), "boxes.boxes[0].y_min", "400"),
        (estimate_gaze(PHOTO, boxes=[[10, 10, 10, 50]]), "boxes.boxes[0]", "less than"),
        (estimate_gaze(PHOTO, gaze_model="giant"), "gaze_model", "tiny"),
        (estimate_gaze(PHOTO, boxes=[BOX], gaze_model="giant"), "gaze_model", "tiny"),
        (estimate_gaze(PHOTO, face_detection_model="x"), "face_detection_model", "tiny"),
    ],
)  # fmt: skip
async def test_bad_requests_name_the_field(
    client: AsyncClient, operation: Operation[Any], field: str, says: str
) -> None:
    await assert_refused(client, operation, field, says)


async def test_timings_where_asked_for(gateway: Gateway) -> None:
    from visiongate.v1 import gaze_service_pb2, gaze_service_pb2_grpc

    request: Any = estimate_gaze(PHOTO, min_score=0.55).request
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = gaze_service_pb2_grpc.GazeServiceStub(channel)
        request.include_timings = False
        assert not (await stub.EstimateGaze(request)).HasField("timings")
        request.include_timings = True
        response: gaze_service_pb2.EstimateGazeResponse = await stub.EstimateGaze(request)
    assert (response.image.width, response.image.height) == (600, 400)
    assert response.timings.inference_ms > 0
    assert response.timings.postprocess_ms > 0


async def test_command_line(gateway: Gateway, tmp_path: Path) -> None:
    photo = tmp_path / "coffee.png"
    Image.fromarray(PHOTO).save(photo)

    async def run(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "visiongate"),
            "gaze",
            str(photo),
            *arguments,
            env=os.environ
            | {"VISIONGATE_SERVER": f"127.0.0.1:{gateway.port}", "COLUMNS": "200", "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    code, output, _ = await run("--min-score", "0.55", "--json", "--save", str(tmp_path / "out.png"))
    assert code == 0
    first = json.loads(output)[0]
    assert first.keys() >= {"box", "score", "landmarks", "yaw", "pitch", "yaw_degrees", "direction"}
    assert np.degrees(first["yaw"]) == pytest.approx(first["yaw_degrees"], abs=0.01)
    drawn = np.asarray(Image.open(tmp_path / "out.png"))
    assert drawn.shape == PHOTO.shape
    assert (drawn != PHOTO).any()
    code, output, _ = await run("--box", "100,50,260,250")
    assert (code, "rad" in output, "100, 50, 260, 250" in output) == (0, True, True)
    code, output, said = await run("--min-score", "1")
    assert (code, output) == (0, "")
    assert said == "No face found. A lower --min-score or --small-faces finds more.\n"
    code, _, errors = await run("--box", "1,2,3")
    assert (code, "'1,2,3' is not 4 numbers" in errors) == (1, True)


@asynccontextmanager
async def serving(triton: EmbeddedTriton, repository: Path) -> AsyncIterator[Gateway]:
    settings = Settings(triton=triton.grpc_address, repository=repository, port=0, grace_s=0)
    async with Gateway(settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def real_repository(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real YuNet and, beside the toy, the real MobileOne-S0 gaze network: exported from their files."""
    folder = tmp_path_factory.mktemp("real")
    onnx_file.place(face_detection.prepare(Options(weights=str(data("face/yunet_n_dynamic.onnx")))), folder)
    onnx_file.place(gaze.prepare(TINY), folder)
    mobileone = gaze.prepare(Options(weights=str(data("gaze/mobileone_s0_gaze.onnx"))))
    onnx_file.place(graph.beside(mobileone), folder)
    return folder


@pytest.fixture(scope="module")
def real_triton(real_repository: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(real_repository) as server:
        yield server


@pytest.fixture(scope="module")
async def real_client(real_triton: EmbeddedTriton, real_repository: Path) -> AsyncIterator[AsyncClient]:
    async with (
        serving(real_triton, real_repository) as gateway,
        AsyncClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        yield client


@pytest.fixture(scope="module")
def real_reference(data: Callable[[str], Path]) -> Reference:
    """The two files as they are: OpenCV and ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        str(data("gaze/mobileone_s0_gaze.onnx")), providers=["CPUExecutionProvider"]
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def angles(face: Pixels) -> NDArray[np.float64]:
        pixels = (cv2.resize(face, (448, 448)) / 255 - mean) / std
        yaw, pitch = session.run(
            ["yaw", "pitch"], {"input": pixels.transpose(2, 0, 1)[None].astype(np.float32)}
        )
        return radians(yaw, pitch)

    return Reference(data("face/yunet_n_dynamic.onnx"), 640, angles)


MOBILEONE = "mobileone_s0_gaze"


async def test_a_real_face_equals_the_files_run_directly(
    real_client: AsyncClient, real_reference: Reference, photo: Callable[[str], Pixels]
) -> None:
    image = photo("skimage_astronaut.png")
    found = await real_client.estimate_gaze(image, gaze_model=MOBILEONE)
    assert len(found) == 1
    assert_same_faces(found, real_reference.find(image, min_score=0.6), real_reference, image)
    (face,) = found
    # She faces the camera: a box around her face, and a gaze within a few degrees of it.
    assert face.landmarks is not None
    np.testing.assert_allclose(face.landmarks["right_eye"], [203, 102], atol=4)
    np.testing.assert_allclose(face.landmarks["left_eye"], [247, 103], atol=4)
    assert face.direction[2] < -0.95
    (given,) = await real_client.estimate_gaze(image, boxes=[face.box], gaze_model=MOBILEONE)
    assert (given.yaw, given.pitch) == pytest.approx((face.yaw, face.pitch), abs=1e-5)
    (toy,) = await real_client.estimate_gaze(image, boxes=[face.box])
    assert abs(toy.yaw - face.yaw) > 1e-3


async def test_a_real_crowd_equals_the_files_run_directly(
    real_client: AsyncClient, real_reference: Reference, photo: Callable[[str], Pixels]
) -> None:
    astronaut = photo("skimage_astronaut.png")
    tile = cv2.resize(astronaut[30:230, 130:320], None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    row = np.concatenate([tile, tile[:, ::-1]] * 5, 1)
    # The outermost faces are cut by the border.
    image = np.ascontiguousarray(np.concatenate([row[:, 40:-40]] * 2, 0)[:-45])
    found = await real_client.estimate_gaze(image, gaze_model=MOBILEONE)
    assert len(found) > 16
    assert_same_faces(found, real_reference.find(image, min_score=0.6), real_reference, image)


def turned(image: Pixels, right: float) -> Pixels:
    """Eyes, nose and mouth of the astronaut pulled to one side: as if the head turned there."""
    rows, columns = np.mgrid[:512, :512].astype(np.float32)
    weight = np.exp(-(((columns - 223) / 38) ** 2) - ((rows - 118) / 45) ** 2)
    pulled: Any = cv2.remap(image.copy(), columns - right * weight, rows, cv2.INTER_LINEAR)
    return np.asarray(pulled, np.uint8)


async def test_turned_features_turn_the_gaze(
    real_client: AsyncClient, photo: Callable[[str], Pixels]
) -> None:
    image = photo("skimage_astronaut.png")

    async def look(right: float) -> Face:
        boxes = [[178, 64, 269, 176]]
        (face,) = await real_client.estimate_gaze(turned(image, right), boxes=boxes, gaze_model=MOBILEONE)
        return face

    to_left, to_right = await look(-16), await look(16)
    # Positive yaw, negative x: towards the left edge of the image.
    assert to_left.yaw > 0.1
    assert to_right.yaw < -0.1
    assert to_left.direction[0] < -0.1 < 0.1 < to_right.direction[0]


async def test_the_route_of_inference_sdk_has_the_sign_by_which_its_callers_draw(
    real_triton: EmbeddedTriton, real_repository: Path, photo: Callable[[str], Pixels]
) -> None:
    """They draw an arrow from the face: to the right by -sin(yaw) cos(pitch), down by -sin(pitch)."""
    settings = Settings(
        triton=real_triton.grpc_address,
        repository=real_repository,
        port=0,
        grace_s=0,
        inference_sdk_routes=True,
    )
    image = photo("skimage_astronaut.png")
    async with (
        serving_http(settings) as front,
        httpx.AsyncClient(base_url=front.url) as client,
    ):
        for right in (-16, 16):
            body = {"type": "base64", "value": base64.b64encode(png(turned(image, right))).decode()}
            response = await client.post(
                "/gaze/gaze_detection", json={"image": body, "gaze_version_id": MOBILEONE}
            )
            [[found]] = [each["predictions"] for each in response.json()]
            drawn = -np.sin(found["yaw"]) * np.cos(found["pitch"])
            assert np.sign(drawn) == np.sign(right)
            assert abs(drawn) > 0.05


async def test_the_cat_and_the_cup_have_no_face(
    real_client: AsyncClient, photo: Callable[[str], Pixels]
) -> None:
    assert await real_client.estimate_gaze(photo("skimage_coffee.png"), gaze_model=MOBILEONE) == []


async def test_small_real_faces(real_client: AsyncClient, photo: Callable[[str], Pixels]) -> None:
    face = photo("skimage_astronaut.png")[20:240, 110:340]
    image = np.full((1280, 1280, 3), 128, np.uint8)
    image[600:633, 700:735] = cv2.resize(face, (35, 33), interpolation=cv2.INTER_AREA)
    assert await real_client.estimate_gaze(image, gaze_model=MOBILEONE) == []
    (found,) = await real_client.estimate_gaze(image, small_faces=True, gaze_model=MOBILEONE)
    assert (found.box[:2] > [700, 600]).all()
    assert (found.box[2:] < [735, 633]).all()


async def test_without_a_detector_given_faces_are_answered(tmp_path: Path) -> None:
    onnx_file.place(gaze.prepare(TINY), tmp_path)
    triton = EmbeddedTriton(tmp_path)
    await asyncio.to_thread(triton.start)
    try:
        async with (
            serving(triton, tmp_path) as gateway,
            AsyncClient(f"127.0.0.1:{gateway.port}") as client,
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        ):
            assert len(await client.estimate_gaze(PHOTO, boxes=[BOX])) == 1
            with pytest.raises(VisiongateError, match="finding faces") as caught:
                await client.estimate_gaze(PHOTO)
            assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NO_MODEL")
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service=GAZE_SERVICE))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        await asyncio.to_thread(triton.stop)
