import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2

from gateway.bench.chart import Bar, draw
from gateway.bench.generator import HttpSender
from gateway.bench.load import Load
from gateway.bench.photos import groups, jpeg, numbered
from gateway.bench.recorder import Passed, waves
from gateway.bench.tasks import TASKS, Subject, tasks
from gateway.bench.tensors import read_request
from gateway.commands.bench import TASKS as NAMES
from visiongate.v1 import embedding_service_pb2, segmentation_service_pb2


def test_a_load_is_read_as_it_was_written(tmp_path: Path) -> None:
    load = Load("grpc", "127.0.0.1:1", 2, [[[("/a", b"one"), ("/b", b"")], [("/c", b"two")]]], {"threads": 2})
    assert Load.read(load.write(tmp_path, "load")) == load


def test_numbered_photos_differ_and_show_the_same() -> None:
    photo = jpeg(Image.radial_gradient("L"), (64, 48))
    other = numbered(photo, 7)
    assert other != numbered(photo, 8)
    with Image.open(io.BytesIO(photo)) as one, Image.open(io.BytesIO(other)) as two:
        assert one.size == (64, 48)
        assert np.array_equal(np.asarray(one), np.asarray(two))
    flat = [each for group in groups([photo, other], 3, 4) for each in group]
    assert len(flat) == len(set(flat)) == 12


def test_requests_that_were_under_way_together_are_one_wave() -> None:
    passed = [Passed(b"c", 3, 4), Passed(b"a", 0, 2), Passed(b"b", 1, 3), Passed(b"d", 3.5, 5)]
    assert [[content for _, content in wave] for wave in waves(passed)] == [[b"a", b"b"], [b"c", b"d"]]
    assert waves([]) == []


def test_the_tensors_of_a_request_are_read() -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.outputs.add(name="y")
    with pytest.raises(ValueError, match="shared memory"):
        read_request(request.SerializeToString())
    request.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    read = read_request(request.SerializeToString())
    assert (read.model, read.outputs) == ("m", ("y",))
    assert read.inputs["x"].tolist() == [[1, 2]]


def test_no_two_calls_of_a_task_ask_the_same() -> None:
    assert tuple(TASKS) == NAMES
    photo = jpeg(Image.radial_gradient("L"), (64, 48))
    found = tasks(NAMES, Subject([photo], ["cup"], (0.5, 0.25)), [1, 3], 4)
    assert [(task.key, task.items) for task in found] == [
        *(("embed-images", 1), ("embed-images", 3), ("embed-texts", 1), ("embed-texts", 3)),
        *(("detect", 1), ("click", 1), ("words", 1), ("read", 1), ("read", 3), ("gaze", 1)),
    ]
    for task in found:
        contents = {call[0][0][1] for call in task.calls}
        assert len(contents) == len(task.calls) == 2 * task.in_flight
    assert [task.in_flight for task in found][:2] == [4, 2]
    texts = embedding_service_pb2.EmbedTextsRequest.FromString(found[3].calls[0][0][0][1]).texts
    assert len(set(texts)) == 3
    click = segmentation_service_pb2.SegmentRegionsRequest.FromString(found[5].calls[0][0][0][1])
    assert (click.prompts[0].points[0].point.x, click.prompts[0].points[0].point.y) == (32, 12)


async def test_http_keeps_its_connection_and_tells_what_a_server_refuses() -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r")[0]))
            status = b"200 OK" if body != b"bad" else b"422 No"
            if body == b"chunked":
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        calls = [[[("/", content)]] for content in (b"one", b"chunked", b"bad")]
        sender = HttpSender(Load("http", f"127.0.0.1:{port}", 1, calls))
        assert [await sender.send(index) for index in (0, 1, 3)] == [[b"ok"], [b"ab"], [b"ok"]]
        with pytest.raises(RuntimeError, match="422"):
            await sender.send(2)
        assert connections == 1
        await sender.close()


def test_a_chart_has_a_bar_for_each() -> None:
    chart = draw(
        "title", [("a", [Bar("ours", 2.0), Bar("theirs", 1.0), Bar("nobody", float("nan"))])], "foot"
    )
    colours = [colour for _, colour in chart.getcolors(1 << 20) or []]
    assert (0x1F, 0x6F, 0xEB) in colours
    assert (0xB6, 0xC2, 0xCF) in colours
