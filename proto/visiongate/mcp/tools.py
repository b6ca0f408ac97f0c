"""The tools: what an assistant may ask. The docstrings and the fields' descriptions are written for it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from mcp_types import CallToolResult
from pydantic import Field

from visiongate import AsyncClient, Text
from visiongate.draw import Item
from visiongate.drawn_answers import face_items, label_items, word_items
from visiongate.mcp import results
from visiongate.mcp.answers import content, with_drawing
from visiongate.mcp.images import Images

Tool = Callable[..., Awaitable[CallToolResult]]

MAX_OBJECTS = 100
MAX_RANKED = 64

ImageArgument = Annotated[str, Field(description="The image.")]
Phrases = Annotated[
    list[str],
    Field(
        min_length=1,
        description='What to look for: a short English phrase for each kind of thing, such as "red car".',
    ),
]
MinScore = Annotated[
    float | None,
    Field(ge=0, le=1, description="Least score, 0 to 1; lower finds more. By default the model's own."),
]
MaxObjects = Annotated[int, Field(ge=1, le=MAX_OBJECTS, description="At most this many, best first.")]
Model = Annotated[
    str, Field(description="A variant that list_models names for the task. By default the server's.")
]
WithPicture = Annotated[
    bool, Field(description="Also return the image, scaled down, with the result drawn on it.")
]
Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class Tools:
    """The tools, with the client that they ask and the images that they may read."""

    def __init__(self, client: AsyncClient, images: Images) -> None:
        self._client = client
        self._images = images

    def all(self) -> Sequence[Tool]:
        return (
            self.detect_objects,
            self.segment_objects,
            self.segment_at,
            self.read_text,
            self.classify_image,
            self.rank_images,
            self.estimate_gaze,
            self.list_models,
        )

    async def detect_objects(
        self,
        image: ImageArgument,
        phrases: Phrases,
        min_score: MinScore = None,
        max_objects: MaxObjects = 20,
        model: Model = "",
        with_picture: WithPicture = True,
    ) -> Annotated[CallToolResult, results.FoundObjects]:
        """Find and count the objects that words name in an image, with a box around each.

        Use it for "where is", "how many" and "is there" questions: its boxes are more exact than what you
        see yourself. For outlines or areas use segment_objects.
        """
        photo = await self._images.read(image)
        found = await self._client.detect(
            photo.content, phrases, min_score=min_score, max_detections=max_objects, model=model
        )
        result = results.FoundObjects.of(found, max_objects)
        return await with_drawing(result, photo if with_picture else None, found.drawn)

    async def segment_objects(
        self,
        image: ImageArgument,
        phrases: Phrases,
        min_score: MinScore = None,
        max_objects: MaxObjects = 20,
        detection_model: Model = "",
        segmentation_model: Model = "",
        with_picture: WithPicture = True,
    ) -> Annotated[CallToolResult, results.FoundObjects]:
        """Find the objects that words name in an image and cut each out: its box, area and outline.

        Use it if shapes or areas matter, such as how much of an image something covers. The outlines are in
        the picture. It takes longer than detect_objects.
        """
        photo = await self._images.read(image)
        found = await self._client.segment_phrases(
            photo.content,
            phrases,
            min_score=min_score,
            max_detections=max_objects,
            detection_model=detection_model,
            segmentation_model=segmentation_model,
        )
        result = results.FoundObjects.of(found, max_objects)
        return await with_drawing(result, photo if with_picture else None, found.drawn)

    async def segment_at(
        self,
        image: ImageArgument,
        points: Annotated[
            list[Point] | None, Field(description="Points x, y on the object, in pixels of the image.")
        ] = None,
        background_points: Annotated[
            list[Point] | None, Field(description="Points x, y that are not on the object.")
        ] = None,
        box: Annotated[
            list[float] | None,
            Field(
                min_length=4,
                max_length=4,
                description="A box around the object: x_min, y_min, x_max, y_max in pixels of the image.",
            ),
        ] = None,
        model: Model = "",
        with_picture: WithPicture = True,
    ) -> Annotated[CallToolResult, results.Region]:
        """Cut out the one object of an image that points or a box point at.

        Use it if a place is known but no words, or to refine a box of detect_objects. Coordinates are pixels
        of the image itself, and not of a picture that was scaled down.
        """
        on_object, off_object = points or [], background_points or []
        if not on_object and box is None:
            raise ValueError("points or box: give one of them, or both, to say where the object is")
        places = np.array([*on_object, *off_object], np.float32).reshape(-1, 2)
        labels = np.repeat([1, 0], [len(on_object), len(off_object)])
        photo = await self._images.read(image)
        answer = await self._client.segment(
            photo.content,
            boxes=None if box is None else [box],
            points=[places] if len(places) else None,
            labels=[labels] if len(places) else None,
            model=model,
        )
        [[mask]] = answer
        result = results.Region.of(mask, answer.info)

        def drawn() -> list[Item]:
            outline = None if box is None else np.array(box)
            return [Item(0, box=outline, mask=mask.pixels, points=places, labels=labels)]

        return await with_drawing(result, photo if with_picture else None, drawn)

    async def read_text(
        self,
        image: ImageArgument,
        with_boxes: Annotated[bool, Field(description="Also return each line with its box.")] = False,
        detect_orientation: Annotated[
            bool,
            Field(description="For pages that lie on their side or upside down; takes four times as long."),
        ] = False,
        reading_order: Annotated[
            Literal["rows", "columns"] | None,
            Field(description="rows: down the page, for receipts and tables. columns: each to its end."),
        ] = None,
        model: Model = "",
        with_picture: WithPicture = True,
    ) -> Annotated[CallToolResult, results.PageText]:
        """Read the text of an image: a scan, a receipt, a screenshot, a sign (OCR).

        Use it for text that must be exact, small or long. It reads what is written and does not translate.
        """
        photo = await self._images.read(image)
        answer = await self._client.recognize_text(
            [photo.content], detect_orientation=detect_orientation, reading_order=reading_order, model=model
        )
        [page] = answer
        result = results.PageText.of(page, answer.info, with_boxes=with_boxes)
        return await with_drawing(result, photo if with_picture else None, lambda: list(word_items(page)))

    async def classify_image(
        self,
        image: ImageArgument,
        labels: Annotated[
            list[str],
            Field(min_length=1, description="What the image as a whole may show, as short English phrases."),
        ],
        model: Model = "",
        with_picture: WithPicture = True,
    ) -> Annotated[CallToolResult, results.Labels]:
        """Say which of some labels fits an image as a whole, with a probability for each.

        Use it to sort images. The probabilities are among the labels given: add one for "something else". To
        find things within an image use detect_objects.
        """
        photo = await self._images.read(image)
        answer = await self._client.classify([photo.content], labels, model=model)
        [scores] = answer
        result = results.Labels.of(scores, answer.info)
        return await with_drawing(result, photo if with_picture else None, lambda: list(label_items(scores)))

    async def rank_images(
        self,
        images: Annotated[
            list[str], Field(min_length=1, max_length=MAX_RANKED, description="The images to rank.")
        ],
        text: Annotated[str | None, Field(description="What to look for, in English.")] = None,
        image: Annotated[str | None, Field(description="An image to look for the like of.")] = None,
        model: Model = "",
    ) -> Annotated[CallToolResult, results.Ranking]:
        """Rank images by how well they fit a text, or by how much they are like another image.

        Use it to find the photo that shows something among many, or near copies of a photo. Similarities to
        a text are mostly 0.1 to 0.4: compare them with each other.
        """
        if (text is None) == (image is None):
            raise ValueError("text, image: give one of them, to say what the images are compared with")
        contents = [
            (await self._images.read(each, f"images[{index}]")).content for index, each in enumerate(images)
        ]
        if image is not None:
            subject: Text | str | bytes = (await self._images.read(image)).content
        else:
            subject = Text(text or "")
        cosines = await self._client.compare(subject, contents, model=model, strict=False)
        return content(results.Ranking.of(cosines))

    async def estimate_gaze(
        self,
        image: ImageArgument,
        min_score: MinScore = None,
        max_faces: MaxObjects = 20,
        small_faces: Annotated[
            bool, Field(description="Also find very small faces, in a crowd; not for portraits.")
        ] = False,
        gaze_model: Model = "",
        face_detection_model: Model = "",
        with_picture: WithPicture = True,
    ) -> Annotated[CallToolResult, results.Gazes]:
        """Find the faces in an image and tell where each looks. It does not tell who they are.

        Use it to count faces, or to ask who looks into the camera, aside or down.

        Yaw is positive towards the left edge of the image, pitch is positive upwards, and both are zero for
        a look into the camera.
        """
        photo = await self._images.read(image)
        faces = await self._client.estimate_gaze(
            photo.content,
            min_score=min_score,
            max_faces=max_faces,
            small_faces=small_faces,
            gaze_model=gaze_model,
            face_detection_model=face_detection_model,
        )
        result = results.Gazes.of(faces, faces.info, max_faces)
        return await with_drawing(result, photo if with_picture else None, lambda: list(face_items(faces)))

    async def list_models(self) -> Annotated[CallToolResult, results.Models]:
        """List the models of the server: which tasks it can do, and what the `model` arguments take.

        Other tools choose a model themselves. Use this one if a tool says that there is no model, or to try
        another variant.
        """
        return content(results.Models.of(await self._client.list_models()))
