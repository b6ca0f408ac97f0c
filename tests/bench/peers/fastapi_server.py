"""FastAPI and uvicorn, with ONNX Runtime in the same process.

Its best settings here: uvloop and httptools; a pool of as many threads as processors, in which a photo is
decoded, resized and embedded without a change of threads; one thread of ONNX Runtime for each run, so that as
many runs as processors go on at a time; the raw photo as the body; raw floats as the answer, without JSON. Of
many photos in one request (a form, or framed in a raw body) each is a job of its own, and the batch another.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from clip_model import Options, embed, preprocess, session
from clip_preprocessing import split
from fastapi import FastAPI, Request, Response

options = Options.of_command_line()
model = session(options)
pool = ThreadPoolExecutor(options.threads)
app = FastAPI()


def _one(photo: bytes) -> bytes:
    content: bytes = embed(model, [preprocess(photo, options)]).tobytes()
    return content


async def _many(photos: list[bytes]) -> Response:
    loop = asyncio.get_running_loop()
    images = await asyncio.gather(
        *(loop.run_in_executor(pool, preprocess, photo, options) for photo in photos)
    )
    rows = await loop.run_in_executor(pool, embed, model, images)
    return Response(rows.tobytes())


@app.post("/embed")
async def one(request: Request) -> Response:
    photo = await request.body()
    return Response(await asyncio.get_running_loop().run_in_executor(pool, _one, photo))


@app.post("/framed")
async def framed(request: Request) -> Response:
    return await _many(split(await request.body()))


@app.post("/form")
async def form(request: Request) -> Response:
    async with request.form(max_files=1000) as parts:
        return await _many([await part.read() for part in parts.getlist("images")])  # type: ignore[union-attr]


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
    )
