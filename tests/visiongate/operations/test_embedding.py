"""What the client sends, and what it refuses to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.rpc import status_pb2
from PIL import Image

from visiongate import ImageHandle, ImageId, InvalidArgumentError, LabelScore, Text
from visiongate.operations import embedding
from visiongate.v1 import embedding_service_pb2, image_pb2

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
LONE = [PIXELS, PIXELS[..., 0], b"file", "photo.jpg", Path("photo.jpg"), Image.fromarray(PIXELS)]


@pytest.mark.parametrize("image", [*LONE, ImageHandle(ImageId("a"), 1, 1)])
def test_a_lone_image_is_not_a_list_of_images(image: Any) -> None:
    with pytest.raises(TypeError, match="images is a list"):
        embedding.embed_images(image)
    with pytest.raises(TypeError, match="images is a list"):
        embedding.classify(image, ["cat"])


def test_a_lone_string_is_not_a_list_of_texts() -> None:
    with pytest.raises(TypeError, match="texts is a list"):
        embedding.embed_texts("a cat")
    with pytest.raises(TypeError, match="labels is a list"):
        embedding.classify([PIXELS], "cat")


def test_an_array_of_images_is_one_image_each() -> None:
    request: Any = embedding.embed_images(np.stack([PIXELS, PIXELS])).request
    assert [image.raw.width for image in request.images] == [4, 4]


def test_a_string_is_a_path_and_a_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"file")
    request: Any = embedding.compare(Text("a cat"), [str(path), Text("a dog"), PIXELS]).request
    assert request.subject.text == "a cat"
    assert request.candidates[0].image.encoded == b"file"
    assert request.candidates[1].text == "a dog"
    assert request.candidates[2].image.raw.width == 4


def test_defaults_are_the_servers() -> None:
    request: Any = embedding.classify([PIXELS], ["cat"]).request
    assert not request.HasField("prompt_template")
    assert not request.HasField("top_k")
    assert not request.truncate


def test_defaults_are_what_most_callers_want() -> None:
    request: Any = embedding.embed_images([PIXELS]).request
    assert (request.normalize, request.strict) == (True, True)
    assert request.embedding_format == embedding_service_pb2.EMBEDDING_FORMAT_FLOAT32
    request = embedding.embed_texts(["a"], normalize=False, strict=False).request
    assert request.HasField("normalize")
    assert (request.normalize, request.strict) == (False, False)
    assert request.embedding_format == embedding_service_pb2.EMBEDDING_FORMAT_FLOAT32


BAD = status_pb2.Status(code=3, message="bad")
INFO = image_pb2.ImageInfo(image_id="abc", width=4, height=2)


def packed(*values: float) -> embedding_service_pb2.Embedding:
    return embedding_service_pb2.Embedding(packed=np.array(values, "<f4").tobytes())


def test_embeddings_are_arrays() -> None:
    response = embedding_service_pb2.EmbedTextsResponse(
        results=[embedding_service_pb2.EmbedTextsResult(embedding=packed(*row)) for row in ([1, 2], [3, 4])],
        dimensions=2,
    )
    rows = embedding.embed_texts(["a", "b"]).parse(response, "")
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert rows.flags.writeable
    assert rows.tolist() == [[1, 2], [3, 4]]
    assert (rows.info.images, rows.errors) == ((), {})
    nothing = embedding_service_pb2.EmbedTextsResponse(dimensions=2)
    assert embedding.embed_texts([]).parse(nothing, "").shape == (0, 2)


def test_the_row_of_an_error_is_nan() -> None:
    response = embedding_service_pb2.EmbedImagesResponse(
        results=[
            embedding_service_pb2.EmbedImagesResult(embedding=packed(1, 2), image=INFO),
            embedding_service_pb2.EmbedImagesResult(error=BAD),
            embedding_service_pb2.EmbedImagesResult(embedding=packed(3, 4), image=INFO),
        ],
        dimensions=2,
    )
    rows = embedding.embed_images([PIXELS] * 3, strict=False).parse(response, "call")
    assert rows[[0, 2]].tolist() == [[1, 2], [3, 4]]
    assert np.isnan(rows[1]).all()
    assert [type(error) for error in rows.errors.values()] == [InvalidArgumentError]
    assert (list(rows.errors), rows.errors[1].request_id) == ([1], "call")
    assert [image and image.image_id for image in rows.info.images] == ["abc", None, "abc"]


def test_comparisons_belong_to_the_candidates() -> None:
    result = embedding_service_pb2.CompareImagesAndTextsResult
    response = embedding_service_pb2.CompareImagesAndTextsResponse(
        results=[result(similarity=0), result(error=BAD), result(similarity=0.5, image=INFO)],
        subject_image=image_pb2.ImageInfo(image_id="subject"),
    )
    cosines = embedding.compare(PIXELS, [], strict=False).parse(response, "")
    np.testing.assert_array_equal(cosines, np.array([0, np.nan, 0.5], np.float32))
    assert list(cosines.errors) == [1]
    assert [image and image.image_id for image in cosines.info.images] == [None, None, "abc"]
    assert cosines.info.subject_image is not None
    assert cosines.info.subject_image.image_id == "subject"
    response.ClearField("subject_image")
    assert embedding.compare(Text("a"), []).parse(response, "").info.subject_image is None


def test_the_labels_of_an_error_are_none() -> None:
    label = embedding_service_pb2.LabelScore(label="cat", label_index=1, probability=0.75, similarity=0.5)
    classification = embedding_service_pb2.Classification(labels=[label], image=INFO)
    response = embedding_service_pb2.ClassifyImagesResponse(
        results=[
            embedding_service_pb2.ClassifyImagesResult(error=BAD),
            embedding_service_pb2.ClassifyImagesResult(classification=classification),
        ]
    )
    answer = embedding.classify([PIXELS] * 2, ["dog", "cat"], strict=False).parse(response, "")
    assert answer == [[], [LabelScore("cat", 1, 0.75, 0.5)]]
    assert list(answer.errors) == [0]
    assert [image and image.image_id for image in answer.info.images] == [None, "abc"]
