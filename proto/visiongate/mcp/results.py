"""What the tools return: short, with rounded numbers. Each class is the schema of a tool's result."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from visiongate import (
    AnswerInfo,
    ArrayAnswer,
    Detection,
    Detections,
    Face,
    LabelScore,
    Mask,
    Model,
    Page,
    Word,
)
from visiongate.mcp.errors import in_words

Box = Annotated[list[int], Field(description="x_min, y_min, x_max, y_max in pixels of the image")]
Score = Annotated[float, Field(description="0 to 1")]


class Result(BaseModel):
    """What every tool returns."""

    note: Annotated[str | None, Field(description="what else to know about the result")] = None


class OfImage(Result):
    """What every tool about one image returns."""

    width: Annotated[int, Field(description="of the image, in pixels")]
    height: int
    model: Annotated[str, Field(description="the variant that answered")]

    @classmethod
    def about(cls, info: AnswerInfo, **values: Any) -> Self:
        return cls(width=info.image.width, height=info.image.height, model=info.model, **values)


class OfferedModel(BaseModel):
    """A variant of `list_models`."""

    task: str
    family: str
    variant: Annotated[str, Field(description="what `model` arguments take")]
    is_default: bool
    ready: bool
    scripts: Annotated[list[str], Field(description="which scripts a model for text reads")]


class Models(Result):
    """The result of `list_models`."""

    models: list[OfferedModel]

    @classmethod
    def of(cls, models: Sequence[Model]) -> Self:
        offered = [
            OfferedModel(
                task=model.task,
                family=model.family,
                variant=model.variant,
                is_default=model.is_default,
                ready=model.ready,
                scripts=list(model.scripts),
            )
            for model in models
        ]
        return cls(models=offered, note=None if offered else "This server offers no model.")


class FoundObject(BaseModel):
    """An object that words name."""

    phrase: str
    score: Score
    box: Box
    area: Annotated[int | None, Field(description="pixels of the mask, if it was cut out")] = None

    @classmethod
    def of(cls, found: Detection) -> Self:
        return cls(
            phrase=found.phrase,
            score=round(found.score, 3),
            box=_whole(found.box),
            area=None if found.mask is None else found.mask.area,
        )


class FoundObjects(OfImage):
    """The result of `detect_objects` and `segment_objects`."""

    objects: list[FoundObject]

    @classmethod
    def of(cls, found: Detections, max_objects: int) -> Self:
        objects = [FoundObject.of(item) for item in found]
        return cls.about(
            found.info, objects=objects, note=_count_note(len(objects), max_objects, "max_objects")
        )


class Region(OfImage):
    """The result of `segment_at`."""

    box: Box
    area: Annotated[int, Field(description="pixels of the mask")]
    predicted_iou: Annotated[float, Field(description="how sure the model is of the outline, 0 to 1")]

    @classmethod
    def of(cls, mask: Mask, info: AnswerInfo) -> Self:
        return cls.about(
            info, box=_whole(mask.box), area=mask.area, predicted_iou=round(mask.predicted_iou, 3)
        )


class Line(BaseModel):
    """A line of text."""

    text: str
    box: Box

    @classmethod
    def of(cls, words: Sequence[Word]) -> Self:
        corners = np.concatenate([word.quadrilateral for word in words])
        box = np.concatenate([corners.min(0), corners.max(0)])
        return cls(text=" ".join(word.text for word in words), box=_whole(box))


class PageText(OfImage):
    """The result of `read_text`."""

    text: str
    rotation_degrees: Annotated[int, Field(description="the clockwise turn that made the page upright")]
    lines: Annotated[list[Line] | None, Field(description="in reading order, if boxes were asked for")] = None

    @classmethod
    def of(cls, page: Page, info: AnswerInfo, *, with_boxes: bool) -> Self:
        return cls.about(
            info,
            text=page.text,
            rotation_degrees=page.rotation_degrees,
            lines=[Line.of(line) for block in page.blocks for line in block] if with_boxes else None,
            note=None if page.text else "No text was found.",
        )


class Label(BaseModel):
    """A label and how well it fits."""

    label: str
    probability: Annotated[float, Field(description="among the labels given, 0 to 1")]
    similarity: Annotated[float, Field(description="cosine of image and label, -1 to 1")]


class Labels(OfImage):
    """The result of `classify_image`."""

    labels: Annotated[list[Label], Field(description="the best label first")]

    @classmethod
    def of(cls, scores: Sequence[LabelScore], info: AnswerInfo) -> Self:
        labels = [
            Label(
                label=score.label,
                probability=round(score.probability, 3),
                similarity=round(score.similarity, 3),
            )
            for score in scores
        ]
        return cls.about(info, labels=labels)


class RankedImage(BaseModel):
    """An image and how similar it is."""

    index: Annotated[int, Field(description="of the image in the argument `images`, from 0")]
    similarity: Annotated[float | None, Field(description="cosine, -1 to 1")] = None
    error: Annotated[str | None, Field(description="why the image could not be used")] = None


class Ranking(Result):
    """The result of `rank_images`."""

    model: str
    images: Annotated[list[RankedImage], Field(description="the most similar image first")]

    @classmethod
    def of(cls, cosines: ArrayAnswer) -> Self:
        order = sorted(set(range(len(cosines))) - cosines.errors.keys(), key=lambda index: -cosines[index])
        ranked = [RankedImage(index=index, similarity=round(float(cosines[index]), 3)) for index in order]
        failed = [RankedImage(index=index, error=in_words(error)) for index, error in cosines.errors.items()]
        return cls(model=cosines.info.model, images=[*ranked, *failed])


class Gaze(BaseModel):
    """A face and where it looks."""

    box: Box
    score: Annotated[float | None, Field(description="that it is a face, 0 to 1")] = None
    yaw_degrees: Annotated[int, Field(description="positive towards the left edge of the image")]
    pitch_degrees: Annotated[int, Field(description="positive upwards")]

    @classmethod
    def of(cls, face: Face) -> Self:
        return cls(
            box=_whole(face.box),
            score=None if face.score is None else round(face.score, 3),
            yaw_degrees=round(math.degrees(face.yaw)),
            pitch_degrees=round(math.degrees(face.pitch)),
        )


class Gazes(OfImage):
    """The result of `estimate_gaze`."""

    faces: list[Gaze]

    @classmethod
    def of(cls, faces: Sequence[Face], info: AnswerInfo, max_faces: int) -> Self:
        return cls.about(
            info,
            faces=[Gaze.of(face) for face in faces],
            note=_count_note(len(faces), max_faces, "max_faces"),
        )


def _whole(box: NDArray[Any]) -> list[int]:
    return [round(float(value)) for value in box]


def _count_note(count: int, limit: int, argument: str) -> str | None:
    """Say how to find more, if nothing was found or the limit was reached."""
    if not count:
        return "Nothing was found. A lower min_score finds more."
    return f"There may be more: {argument} is {limit}." if count >= limit else None
