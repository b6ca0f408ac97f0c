"""Hostile HTTP requests, the same for the same seed, and what must be true of their answers.

Each is the bytes that are sent. None of them may be answered with what a model was asked for.
"""

import asyncio
import base64
import contextlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

JSON = b"application/json"
FORM = b"multipart/form-data; boundary=XX"
CANARY = b"Zq7" * 100
"""What nobody may find in an answer."""
MAX_ECHO = 64
PATIENCE_S = 20.0
INCOMPLETE_S = 1.0
"""After so long, what may be half a request is taken for one."""

DETECT, TEXTS, REGIONS = b"/v1/objects:detect", b"/v1/texts:embed", b"/v1/regions:segment"
PATHS = (
    DETECT,
    TEXTS,
    REGIONS,
    b"/v1/images:embed",
    b"/v1/images:classify",
    b"/v1/imagesAndTexts:compare",
    b"/v1/gaze:estimate",
    b"/v1/phrases:segment",
    b"/v1/everything:segment",
    b"/v1/images:encode",
    b"/v1/text:recognize",
)
_HEAD = b"Host: localhost\r\nConnection: close\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A request. statuses: those that it may have; 0 is a connection that is closed without an answer.

    says: what the answer's message must have in it.
    """

    name: str
    data: bytes
    statuses: Sequence[int] = range(400, 500)
    says: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and what HTTP says of it."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(port: int, request: Request) -> Answer | None:
    """Send a request; return the answer, or None if the connection was closed instead.

    Raises TimeoutError if neither comes, and AssertionError for half an answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):  # there may be an answer all the same
                writer.write(request.data)
                await writer.drain()
            if 0 in request.statuses:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INCOMPLETE_S):
                        return await _answer(reader, request)
                writer.write_eof()
            return await _answer(reader, request)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, request: Request) -> Answer | None:
    head = b"HTTP/1.1 100 "
    try:
        while head.startswith(b"HTTP/1.1 100 "):
            head = await reader.readuntil(b"\r\n\r\n")
    except ConnectionError:
        return None
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise AssertionError(f"{request.name}: half a header") from None
        return None
    first, *lines = head.decode("ascii").rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    status = int(first.split()[1])
    if request.data.startswith(b"HEAD "):
        return Answer(status, headers, b"")
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    return Answer(status, headers, body)


def check(request: Request, answer: Answer | None) -> None:
    """Raise AssertionError if an answer is not as it must be."""
    name = request.name
    if answer is None:
        assert 0 in request.statuses, f"{name}: no answer"
        return
    assert answer.status in request.statuses, f"{name}: {answer.status} {answer.body[:300]!r}"
    assert answer.headers["x-request-id"], name
    if answer.status < 400 or request.data.startswith(b"HEAD "):
        return
    assert answer.headers["content-type"] == "application/json", name
    error = json.loads(answer.body)
    assert error["code"] > 0, name
    assert error["message"], name
    assert request.says in error["message"], f"{name}: {error['message']}"
    violations = [each for detail in error["details"] for each in detail.get("field_violations", ())]
    for each in violations:
        assert error["message"] == f"{each['field']}: {each['description']}", name
    assert CANARY[: MAX_ECHO + 1] not in answer.body, f"{name}: echoes what was sent"


def post(
    body: bytes | str,
    path: bytes = DETECT,
    content_type: bytes = JSON,
    more: bytes = b"",
    head: bytes = _HEAD,
) -> bytes:
    body = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return b"POST %b HTTP/1.1\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (
        path,
        head,
        content_type,
        len(body),
        more,
        body,
    )


def get(path: bytes = b"/v1/models", more: bytes = b"", method: bytes = b"GET", head: bytes = _HEAD) -> bytes:
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, path, head, more)


def written() -> Iterator[Request]:
    """Yield the requests that somebody thought of."""
    yield from _protocol()
    yield from _targets_and_headers()
    yield from _json()
    yield from _base64()
    yield from _forms()


def damaged(count: int, seed: int) -> Iterator[Request]:
    """Yield so many requests that were cut, flipped and spliced at random."""
    choices = random.Random(seed)
    bodies = [*_bodies()]
    for index in range(count):
        content_type, body = choices.choice(bodies)
        text = bytearray(body)
        for _ in range(choices.choice((1, 1, 2, 5))):
            choices.choice(_DAMAGES)(choices, text)
        data = post(bytes(text), choices.choice(PATHS), content_type)
        statuses: Sequence[int] = range(400, 500)
        if choices.random() < 0.2:
            # The header as well. It may say anything then; that no model is asked holds all the same.
            end = data.index(b"\r\n\r\n")
            header = bytearray(data[:end])
            choices.choice(_DAMAGES)(choices, header)
            data, statuses = bytes(header) + data[end:], (0, *range(400, 500))
        yield Request(f"damaged {index} of seed {seed}", data, statuses)


_CHUNKED = _HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


def _protocol() -> Iterator[Request]:
    """Yield what breaks HTTP's own rules, and what others might read as two requests."""
    two = b"POST /v1/objects:detect HTTP/1.1\r\n"
    rules = "breaks the rules of HTTP/1.1"
    for name, data in {
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "unknown method": get(method=b"BREW"),
        "method in lower case": get(method=b"get"),
        "bare line feeds": get().replace(b"\r\n", b"\n"),
        "a bare line feed": get(more=b"a: b\nc: d\r\n"),
        "folded header": get(more=b"a: b\r\n c\r\n"),
        "NUL in a name": get(more=b"a\0b: c\r\n"),
        "NUL in a value": get(more=b"a: b\0c\r\n"),
        "carriage return in a value": get(more=b"a: b\rc\r\n"),
        "header without a colon": get(more=b"abc\r\n"),
        "header without a name": get(more=b": abc\r\n"),
        "space in a name": get(more=b"a b: c\r\n"),
        "space before a colon": get(more=b"Transfer-Encoding : chunked\r\n"),
        "two lengths": two + _HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "two different lengths": two + _HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "a list of lengths": two + _HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
        "length with a sign": two + _HEAD + b"Content-Length: +2\r\n\r\n{}",
        "negative length": two + _HEAD + b"Content-Length: -2\r\n\r\n{}",
        "length in hexadecimal": two + _HEAD + b"Content-Length: 0x2\r\n\r\n{}",
        "length of 40 digits": two + _HEAD + b"Content-Length: %b\r\n\r\n{}" % (b"9" * 40),
        "length and chunks": two + _CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
        "chunks and length": two
        + _HEAD
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "unknown transfer coding": two + _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "chunked is not last": two + _HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "size of a chunk": two + _CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
        "negative size of a chunk": two + _CHUNKED + b"\r\n-1\r\n{}\r\n0\r\n\r\n",
        "huge size of a chunk": two + _CHUNKED + b"\r\nffffffffffffffff1\r\n{}\r\n0\r\n\r\n",
        "chunk without its end": two + _CHUNKED + b"\r\n2\r\n{}}}\r\n0\r\n\r\n",
        "target that is no path": get(b"models"),
        "target that is not ASCII": get("/v1/módels".encode()),
        "target with NUL": get(b"/v1/mo\0dels"),
    }.items():
        yield Request(name, data, (400,), rules)
    for method, target in (
        (b"CONNECT", b"localhost:443"),
        (b"CONNECT", b"/v1/models"),
        (b"GET", b"http://x"),
    ):
        yield Request(f"{method!r} {target!r}", get(target, method=method), (400,), "is no path")
    yield Request("HTTP/0.9", b"GET /v1/models\r\n\r\n", (400, 403))
    yield Request(
        "header of 1 MB", get(more=b"a: %b\r\n" % (b"b" * (1 << 20))), (0, 400), "is over 65536 bytes"
    )
    yield Request("target of 1 MB", get(b"/" + CANARY * 3000), (0, 400), "is over 65536 bytes")
    yield Request(
        "endless trailers", two + _CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 100_000, (0, 400)
    )
    trailers = b"\r\n2\r\n{}\r\n0\r\nHost: evil.example\r\nAuthorization: Bearer %b\r\n\r\n" % CANARY
    yield Request("trailers are no headers", two + _CHUNKED + trailers, (400,), "query")
    yield Request(
        "huge extension of a chunk",
        two + _CHUNKED + b"\r\n2;" + b"e" * 200_000 + b"\r\n{}\r\n0\r\n\r\n",
        (0, 400),
    )
    yield Request("garbage behind a request", get(head=b"Host: localhost\r\n") + b"garbage\r\n\r\n", (0, 200))
    yield Request("two requests, one answer each", post("[]", head=b"Host: localhost\r\n") + get(), (400,))
    web_socket = b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    upgrade = b"Host: localhost\r\nConnection: Upgrade\r\n" + web_socket
    yield Request("WebSocket", get(b"/v1/ws", head=upgrade), (404,))
    yield Request("WebSocket to a method", get(DETECT, head=upgrade), (405,))
    yield Request("upgrade with a body", post("[]", head=upgrade), (400,), "must be an object")


def _targets_and_headers() -> Iterator[Request]:
    for path in (
        b"/v1/../v1/models",
        b"//v1/models",
        b"/v1/models/",
        b"/v1/models;x",
        b"/v1/models%00",
        b"/v1/models%ff",
        b"/v1/models%0d%0aa:b",
        b"/V1/models",
        b"/v1/models%20",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/v1//models",
        b"//evil.example/%2e%2e",
        b"/" + CANARY,
        b"*",
        b"/v1",
        b"/v1/objects%3Adetect%2F",
        b"/visiongate.v1.DetectionService/DetectObjects",
        b"/.git/config",
        b"/metrics",
    ):
        yield Request(f"path {path[:40]!r}", get(path), (404,))
    yield Request("path with a host of its own", get(b"http://evil.example/v1/none"), (404,))
    for method in (b"TRACE", b"PATCH", b"PUT", b"DELETE", b"OPTIONS", b"PROPFIND", b"GET", b"HEAD"):
        yield Request(f"{method!r} for a POST", get(DETECT, method=method), (405,), "this path takes POST")
    yield Request("POST for a GET", post("{}", b"/v1/models"), (405,), "this path takes")
    yield Request("OPTIONS *", get(b"*", method=b"OPTIONS"), (404, 405))
    for host in (
        b"",
        b"Host: \r\n",
        b"Host: evil.example\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"Host: a b\r\n",
        b"Host: [::1\r\n",
        b"Host: localhost@evil.example\r\n",
        b"Host: \xff.x\r\n",
    ):
        yield Request(f"host {host!r}", get(head=b"Connection: close\r\n" + host), (403,), "host: ")
    for origin in (
        b"null",
        b"http://evil.example",
        b"\xff",
        b"http://localhost:99999999",
        b"http://[::1",
        b"http://localhost, http://b",
        b"",
        CANARY,
    ):
        yield Request(
            f"origin {origin[:40]!r}", post("{}", more=b"Origin: %b\r\n" % origin), (403,), "origin: "
        )
    for kind in (
        b"",
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"application/jsonx",
        b"application/grpc",
        b"application/json, text/plain",
        b"*/*",
        b"\xff",
        CANARY,
    ):
        yield Request(f"content-type {kind[:40]!r}", post("{}", content_type=kind), (415,), "content-type: ")
    yield Request(
        "no content-type", b"POST %b HTTP/1.1\r\n%bContent-Length: 2\r\n\r\n{}" % (DETECT, _HEAD), (415,)
    )
    for kind in (
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=" + CANARY,
        b"multipart/form-data; boundary",
        b"multipart/form-data;" * 100,
    ):
        yield Request(
            f"content-type {kind[:50]!r}", post("--\r\n", content_type=kind), (400,), "content-type: "
        )
    bad = _image("")
    for name, value, status in (
        (b"content-encoding", b"gzip", 415),
        (b"content-encoding", b"br", 415),
        (b"content-encoding", b"identity, gzip", 415),
        (b"accept", b"text/html", 406),
        (b"accept", b";;,,q=", 406),
        (b"accept", b"*/*;q=nan", 406),
        (b"accept", b"*/*;q=0", 406),
        (b"accept", b"a/b," * 10_000, 406),
        (b"accept", CANARY, 406),
        (b"x-timeout-s", b"nan", 400),
        (b"x-timeout-s", b"-1", 400),
        (b"x-timeout-s", b"0", 400),
        (b"x-timeout-s", b"inf", 400),
        (b"x-timeout-s", b"2s", 400),
        (b"x-timeout-s", b"9" * 5000, 400),
        (b"x-timeout-s", CANARY, 400),
        (b"authorization", CANARY * 100, 400),
    ):
        more = b"%b: %b\r\n" % (name, value)
        yield Request(f"{name!r}: {value[:30]!r}", post(bad, more=more), (status,), f"{name.decode()}: ")
    for name, value in (
        (b"x-timeout-s", b"1e300"),
        (b"x-request-id", CANARY * 30),
        (b"x-request-id", b"a\tb"),
        (b"x-request-id", b"\xff"),
        (b"x-visiongate-loopback", b"abc"),
        (b"x-visiongate-peer", b"ipv4:1.2.3.4:5"),
        (b"grpc-timeout", b"1n"),
        (b"authorization", b"Bearer \xe9\xff"),
        (b"authorization", b"a\tb"),
        (b"x-api-key", b"\x80"),
        (b"traceparent", b"\xff"),
        (b"tracestate", "é".encode()),
        (b"te", b"trailers"),
        (b"cookie", CANARY * 100),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"traceparent", b"00-zz"),
        (b"expect", b"bananas"),
        (b"expect", b"100-continue"),
        (b"range", b"bytes=0-"),
        (b"grpc-encoding", b"gzip"),
    ):
        yield Request(
            f"{name!r}: {value[:30]!r}", post(bad, more=b"%b: %b\r\n" % (name, value)), (400,), "image"
        )


_LONG = '"' + "Zq7" * 700


def _json() -> Iterator[Request]:
    """Yield bodies that are no JSON, or not what the message asks for."""
    no_json, nested = "request: is not JSON", "request: is nested too deeply"
    for name, body, says in (
        ("empty", "", no_json),
        ("spaces", "  ", no_json),
        ("null", "null", "request: must be an object"),
        ("string", '"a"', "request: must be an object"),
        ("list", "[]", "request: must be an object"),
        ("long string", _LONG + '"', "request: must be an object"),
        ("BOM", "\ufeff{}", no_json),
        ("UTF-16", "{}".encode("utf-16"), no_json),
        ("UTF-32", "{}".encode("utf-32"), no_json),
        ("half a character", '{"model": "\\ud800"}', "model: has half a character"),
        (
            "half a character in a long text",
            '{"model": ' + _LONG + '\\ud800"}',
            "model: has half a character",
        ),
        ("half a character in bytes", '{"model": "\ud800"}', no_json),
        (
            "half a character as a name",
            '{"\\ud800": 1}',
            "request: has a field whose name has half a character",
        ),
        ("NUL in a name", '{"mod\\u0000el": 1}', "'mod\\x00el': is not a field"),
        ("line break in a name", '{"a\\nb code=OK": 1}', "'a\\nb code=OK': is not a field"),
        ("no name", '{"": 1}', "'': is not a field"),
        ("NUL", '{"model": "\0"}', no_json),
        ("long name", "{" + _LONG + '": 1}', "request: has a field whose name is very long"),
        (
            "long name within",
            '{"query": {' + _LONG + '": 1}}',
            "request: has a field whose name is very long",
        ),
        ("name of 1000", '{"' + "Zq7" * 300 + '": 1}', "is not a field"),
        ("not a number", '{"query": {"min_score": NaN}}', "request: has the number NaN"),
        ("infinity", '{"query": {"min_score": Infinity}}', "request: has the number Infinity"),
        ("negative infinity", '{"query": {"min_score": -Infinity}}', "request: has the number -Infinity"),
        ("1e400", '{"query": {"min_score": 1e400}}', "query.min_score: is too large"),
        (
            "a number of 5000 digits",
            '{"query": {"min_score": 1' + "0" * 5000 + "}}",
            "request: has a number that is too long",
        ),
        (
            "a number of 4000 digits",
            '{"query": {"min_score": 1' + "0" * 4000 + "}}",
            "query.min_score: is too large",
        ),
        (
            "an integer of 4000 digits",
            '{"query": {"max_detections": 1' + "0" * 4000 + "}}",
            "query.max_detections: must be 0 to",
        ),
        (
            "500 KB of digits",
            '{"query": {"max_detections": ' + "1" * 500_000 + "}}",
            "request: has a number that is too long",
        ),
        ("true as a number", '{"query": {"min_score": true}}', "query.min_score: must be a number"),
        ("text as a number", '{"query": {"min_score": "0.5"}}', "query.min_score: must be a number"),
        ("half an integer", '{"query": {"max_detections": 1.5}}', "query.max_detections: must be an integer"),
        ("negative integer", '{"query": {"max_detections": -1}}', "query.max_detections: must be 0 to"),
        ("leading zero", '{"query": {"min_score": 01}}', no_json),
        ("plus", '{"query": {"min_score": +1}}', no_json),
        ("hexadecimal", '{"query": {"min_score": 0x1}}', no_json),
        ("comment", "{/*a*/}", no_json),
        ("single quotes", "{'model': 1}", no_json),
        ("trailing comma", '{"model": "a",}', no_json),
        ("trailing data", "{} x", no_json),
        ("two documents", "{}{}", no_json),
        ("lines", "{}\n{}", no_json),
        ("open object", "{", no_json),
        ("open list", "[", no_json),
        ("open string", '{"model": "a', no_json),
        ("open long string", '{"model": ' + _LONG, no_json),
        ("open escape", '{"model": ' + _LONG + '\\"', no_json),
        ("bad escape", '{"model": "\\x"}', no_json),
        ("bad escape, long", '{"model": ' + _LONG + '\\x"}', "model: is not a string of JSON"),
        ("line break, long", '{"model": ' + _LONG + '\n"}', "model: is not a string of JSON"),
        ("not UTF-8", b'{"model": "\xff"}', no_json),
        ("not UTF-8, long", b'{"model": "\xff' + CANARY * 4 + b'"}', "model: is not a string of JSON"),
        (
            "long string for a number",
            '{"query": {"min_score": ' + _LONG + '"}}',
            "query.min_score: must be a number",
        ),
        ("long string for a message", '{"image": ' + _LONG + '"}', "image: must be an object"),
        (
            "long string for a list",
            '{"query": {"phrases": {"values": ' + _LONG + '"}}}',
            "query.phrases.values: must be a list",
        ),
        ("name twice", '{"model": "a", "model": "b"}', "request: has the field model twice"),
        (
            "name twice, two ways",
            '{"query": {"minScore": 1, "min_score": 1}}',
            "query.min_score: is there twice",
        ),
        (
            "one of 40,000 names twice",
            "{" + ",".join(f'"{n:05}": 0' for n in range(40_000)) + ',"39999": 0}',
            "request: has the field 39999 twice",
        ),
        ("two of a choice", '{"image": {"encoded": "", "uri": "x"}}', "image.uri: is one too many"),
        ("null for a field", '{"image": null}', "image: must be an object, and is null"),
        (
            "enum of a caller's own",
            '{"image": {"raw": {"format": "' + "Zq7" * 50 + '"}}}',
            "image.raw.format: must be one of",
        ),
        ("enum as a number", '{"image": {"raw": {"format": 1}}}', "image.raw.format: must be one of"),
        ("lists in lists", "[" * 100_000, nested),
        ("lists in lists, closed", "[" * 100_000 + "]" * 100_000, nested),
        ("objects in objects", '{"a":' * 80_000, nested),
        ("objects and lists", '{"a":[' * 50_000, nested),
        ("deep, with a long string", "[" * 600 + _LONG + '"' + "]" * 600, nested),
        (
            "deep where a text should be",
            '{"model": ' + "[" * 800 + "]" * 800 + "}",
            "model: must be a string",
        ),
        (
            "600 KB of empty objects",
            '{"query": [' + "{}," * 200_000 + "{}]}",
            "request: has over 524288 bytes",
        ),
        ("500 KB of empty objects", '{"query": [' + "{}," * 170_000 + "{}]}", "query: must be an object"),
        ("1 MB of spaces", " " * (1 << 20) + "{}", "request: has over 524288 bytes"),
        ("1 MB of quotes", '"' * (1 << 20), "request: has over 524288 bytes"),
        ("3 MB of backslashes", '{"model": "' + "\\" * (3 << 20) + '"}', "model: has over 524288 bytes"),
        (
            "3 MB of escaped quotes",
            '{"model": "' + '\\"' * (3 << 19) + '"}',
            "request: has over 524288 bytes",
        ),
        ("600 KB of text", '{"model": "' + "Zq7" * 200_000 + '"}', "model: has over 524288 bytes"),
    ):
        yield Request(f"JSON: {name}", post(body), (400,), says)
    for length in (1023, 1024, 1025, 1026):
        start = '{"image": {"encoded": ""}, "query": {"caption": "a"}, "model": "'
        yield Request(
            f"JSON: text of {length}", post(start + ("Zq7" * 400)[:length] + '"}'), (400,), "model: "
        )
    prompts = '{"image": {"encoded": ""}, "prompts": [' + "{}," * 150_000 + "{}]}"
    yield Request("JSON: 150,001 prompts", post(prompts, REGIONS), (400,), "prompts")
    texts = '{"texts": [' + f'{_LONG}",' * 300 + '""], "strict": true}'
    yield Request("JSON: 300 long texts", post(texts, TEXTS), (400,), "request: has")


def _image(text: str) -> str:
    return '{"image": {"encoded": "' + text + '"}, "query": {"caption": "a"}}'


def _base64() -> Iterator[Request]:
    large = base64.b64encode(CANARY * 10).decode()
    for name, text in {
        "line break": "AA\\nAA",
        "space": "AA AA",
        "padding within": "AA==AA==",
        "one letter": "A",
        "five letters": "AAAAA",
        "too much padding": "AAA==",
        "padding alone": "====",
        "not ASCII": "é",
        "URI without base64": "data:,abc",
        "URI without a comma": "data:" + "a" * 300,
        "URI of a URI": "data:;base64,data:;base64,AAAA",
        "asterisk": "AAA*",
        "long, lines": "\\r\\n".join(large[i : i + 76] for i in range(0, len(large), 76)),
        "long, space": large + " ",
        "long, padding within": large[:1000] + "==" + large[1000:],
        "long, escape": large + "\\u0041",
        "long, one more": large + "A",
        "long, backslash": large + "\\\\\\\\",
        "long, not ASCII": large + "éé",
    }.items():
        yield Request(f"base64: {name}", post(_image(text)), (400,), "image.encoded: is ")
    for name, text in {
        "no image": "AAAA",
        "no image, URL-safe": "-_-_",
        "no image, no padding": "AAA",
        "URI": "data:image/png;base64,AAAA",
        "URI in capitals": "DATA:;BASE64,AAAA",
        "empty": "",
        "empty URI": "data:;base64,",
        "slashes": "AAAA\\/\\/\\/\\/",
        "long": large,
    }.items():
        yield Request(
            f"base64: {name}",
            post(_image(text)),
            (400,),
            "image",
        )


def part(content: bytes, disposition: bytes = b'form-data; name="model"', more: bytes = b"") -> bytes:
    return b"--XX\r\nContent-Disposition: %b\r\n%b\r\n%b\r\n" % (disposition, more, content)


def _forms() -> Iterator[Request]:
    end, no_form = b"--XX--\r\n", "request: is not a form"
    file = b'form-data; name="image"; filename="a.png"'
    for name, body, says in (
        ("empty", b"", no_form),
        ("preamble", b"hello\r\n" + part(b"a") + end, no_form),
        ("no last boundary", part(b"a"), no_form),
        ("line feeds alone", (part(b"a") + end).replace(b"\r\n", b"\n"), no_form),
        ("another boundary", (part(b"a") + end).replace(b"XX", b"YY"), no_form),
        ("part without a name", part(b"a", b"form-data") + end, "request: has a part without"),
        (
            "part of another kind",
            part(b"a", b'attachment; name="model"') + end,
            "request: has a part without",
        ),
        ("part without a header", b"--XX\r\n\r\na\r\n" + end, "request: has a part without"),
        (
            "two dispositions",
            part(b"a", more=b'Content-Disposition: form-data; name="image"\r\n') + end,
            "request: has a part with two headers",
        ),
        (
            "transfer encoding",
            part(b"YQ==", more=b"Content-Transfer-Encoding: base64\r\n") + end,
            "request: has a part with a content-transfer-encoding",
        ),
        ("header of 100 KB", part(b"a", more=b"a: %b\r\n" % (CANARY * 300)) + end, no_form),
        ("20 headers", part(b"a", more=b"".join(b"a%d: b\r\n" % n for n in range(20))) + end, no_form),
        ("header that is none", part(b"a", more=b"a\r\n") + end, no_form),
        ("long name", part(b"a", b'form-data; name="%b"' % CANARY) + end, "is not a field"),
        ("name that is not UTF-8", part(b"a", b'form-data; name="\xff\xfe"') + end, "is not a field"),
        ("name for a terminal", part(b"a", b'form-data; name="\x1b[31m code=OK"') + end, "is not a field"),
        ("name with quotes", part(b"a", b'form-data; name="a\\"b"') + end, "is not a field"),
        ("text that is not UTF-8", part(b"\xff") + end, "model: is not text in UTF-8"),
        ("text of 600 KB", part(CANARY * 2000) + end, "request: has over 524288 bytes beside its files"),
        (
            "text of 600 KB as a file",
            part(CANARY * 2000, b'form-data; name="model"; filename="a"') + end,
            "model: has over 524288 bytes",
        ),
        ("5000 parts", part(b"a", b'form-data; name="phrases"') * 5000 + end, "request: has over 4096 parts"),
        ("field twice", part(b"a") * 2 + end, "model: is there twice"),
        ("image that is text", part(b"a", b'form-data; name="image"') + end, "image: must be a file"),
        (
            "image by an encoded name",
            part(b"a", b"form-data; name=\"image\"; filename*=UTF-8''a.png") + end,
            "image: must be a file",
        ),
        ("two images", part(b"a", file) * 2 + end, "image: is there twice"),
        (
            "image and id",
            part(b"a", file) + part(b"a", b'form-data; name="image_id"') + end,
            "image_id: is one too many",
        ),
        (
            "boolean",
            part(b"yes", b'form-data; name="include_timings"') + end,
            "include_timings: must be true or false",
        ),
        ("number", part(CANARY, b'form-data; name="min_score"') + end, "min_score: must be a number"),
        ("NaN", part(b"nan", b'form-data; name="min_score"') + end, "min_score: is too large"),
        (
            "number by two names",
            part(b"1", b'form-data; name="min_score"')
            + part(b"1", b'form-data; name="query.min_score"')
            + end,
            "query.min_score: is there twice",
        ),
        (
            "nested",
            part(b"--YY\r\n\r\na\r\n--YY--", file, b"Content-Type: multipart/mixed; boundary=YY\r\n") + end,
            "query",
        ),
        ("boundary within", part(b"a\r\n--XXb", file) + end, "query"),
        ("a million line ends", part(b"\r" * 1_000_000, file) + end, "query"),
        ("nearly boundaries", part(b"\r\n--X" * 100_000, file) + end, "query"),
        ("behind the end", end + part(b"a"), "query"),
        ("file that nobody chose", part(b"", b'form-data; name="image"; filename=""') + end, "query"),
    ):
        yield Request(f"form: {name}", post(body, content_type=FORM), (400,), says)
    for name, content, says in (
        ("no JSON", b"{", "prompts: is not JSON"),
        ("deep", b"[" * 2000, "prompts: is nested too deeply"),
        ("wrong", b'[{"box": 1}]', "prompts[0].box: must be an object"),
        ("not UTF-8", b"\xff", "prompts: is not text"),
        ("many", b"[" + b"{}," * 100_000 + b"{}]", "prompts"),
    ):
        body = part(content, b'form-data; name="prompts"') + part(b"a", file) + end
        yield Request(f"form: prompts, {name}", post(body, REGIONS, FORM), (400,), says)


def _bodies() -> Iterator[tuple[bytes, bytes]]:
    """Yield content types and bodies that are well formed, but ask for nothing: their image is none."""
    image = {"encoded": base64.b64encode(CANARY).decode()}
    box = {"x_min": 1.5, "y_min": 2, "x_max": 30, "y_max": 40}
    messages: list[dict[str, Any]] = [
        {
            "image": image,
            "query": {"phrases": {"values": ["cat", "dog"]}, "min_score": 0.25, "max_detections": 7},
        },
        {
            "image": image,
            "prompts": [{"box": box}, {"points": [{"point": {"x": 1, "y": 2}}]}],
            "multimask": True,
        },
        {"images": [image] * 3, "strict": True, "embedding_format": "EMBEDDING_FORMAT_FLOAT16"},
        {"subject": {"image": image}, "candidates": [{"image": image}] * 2, "strict": True},
        {"image": {"encoded": image["encoded"] * 8}, "points_per_side": 4, "mask_format": "MASK_FORMAT_RLE"},
    ]
    for message in messages:
        yield JSON, json.dumps(message).encode()
        yield JSON, json.dumps(message, indent=1, ensure_ascii=False).encode()
    file = b'form-data; name="image"; filename="a.png"'
    text = part(b"cat", b'form-data; name="phrases"') + part(b"0.25", b'form-data; name="min_score"')
    yield FORM, part(CANARY, file, b"Content-Type: image/png\r\n") + text + b"--XX--\r\n"
    prompts = part(json.dumps([{"box": box}]).encode(), b'form-data; name="prompts"')
    yield FORM, part(CANARY, file) + prompts + b"--XX--\r\n"


def _cut(choices: random.Random, data: bytearray) -> None:
    del data[choices.randrange(len(data) + 1) :]


def _flip(choices: random.Random, data: bytearray) -> None:
    for _ in range(choices.choice((1, 2, 8)) if data else 0):
        data[choices.randrange(len(data))] ^= 1 << choices.randrange(8)


def _overwrite(choices: random.Random, data: bytearray) -> None:
    place = choices.randrange(len(data) + 1)
    noise = choices.randbytes(choices.randrange(1, 16))
    data[place : place + len(noise)] = noise


def _repeat(choices: random.Random, data: bytearray) -> None:
    place = choices.randrange(len(data) + 1)
    data[place:place] = data[place : place + choices.randrange(1, 40)] * choices.choice((1, 2, 300))


def _insert(choices: random.Random, data: bytearray) -> None:
    place = choices.randrange(len(data) + 1)
    data[place:place] = choices.choice(_SPICES)


_SPICES = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\0",
    b"\xff",
    b"\r\n",
    b"--XX",
    b"\r\n--XX\r\n",
    b"--XX--",
    b"1e999",
    b"-0",
    b"null",
    b"NaN",
    b"\\ud800",
    b"\\u0000",
    b'"":',
    b"[" * 2000,
    b'{"a":' * 2000,
    CANARY * 4,
    b"=",
    b" ",
    b"\xef\xbb\xbf",
    b"9" * 400,
)
_DAMAGES = (_cut, _flip, _overwrite, _repeat, _insert)


async def besiege(port: int, requests: Iterator[Request], at_once: int) -> Counter[int]:
    """Send requests, several at a time, and check the answers. Return how many had each status."""
    statuses: Counter[int] = Counter()

    async def send() -> None:
        for request in requests:
            answer = await ask(port, request)
            check(request, answer)
            statuses[answer.status if answer else 0] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(send())
    return statuses
