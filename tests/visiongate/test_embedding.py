"""What the client sends, and what it refuses to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visiongate import EncodedImage, ImageId, Text, operations
from visiongate.v1 import embedding_service_pb2

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
LONE = [PIXELS, PIXELS[..., 0], b"file", "photo.jpg", Path("photo.jpg"), Image.fromarray(PIXELS)]


@pytest.mark.parametrize("image", [*LONE, EncodedImage(ImageId("a"), 1, 1)])
def test_a_lone_image_is_not_a_list_of_images(image: Any) -> None:
    with pytest.raises(TypeError, match="images is a list"):
        operations.embed_images(image)
    with pytest.raises(TypeError, match="images is a list"):
        operations.classify(image, ["cat"])


def test_a_lone_string_is_not_a_list_of_texts() -> None:
    with pytest.raises(TypeError, match="texts is a list"):
        operations.embed_texts("a cat")
    with pytest.raises(TypeError, match="labels is a list"):
        operations.classify([PIXELS], "cat")


def test_an_array_of_images_is_one_image_each() -> None:
    request: Any = operations.embed_images(np.stack([PIXELS, PIXELS])).request
    assert [image.raw.width for image in request.images] == [4, 4]


def test_a_string_is_a_path_and_a_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"file")
    request: Any = operations.compare(Text("a cat"), [str(path), Text("a dog"), PIXELS]).request
    assert request.subject.text == "a cat"
    assert request.candidates[0].image.encoded == b"file"
    assert request.candidates[1].text == "a dog"
    assert request.candidates[2].image.raw.width == 4


def test_defaults_are_the_servers() -> None:
    request: Any = operations.classify([PIXELS], ["cat"]).request
    assert not request.HasField("prompt_template")
    assert not request.HasField("top_k")
    assert not request.truncate


def test_answers_are_arrays() -> None:
    response = embedding_service_pb2.EmbedTextsResponse(
        embeddings=[embedding_service_pb2.Embedding(values=row) for row in ([1, 2], [3, 4])]
    )
    rows = operations.embed_texts(["a", "b"]).parse(response, "")
    assert rows.dtype == np.float32
    assert rows.tolist() == [[1, 2], [3, 4]]
