"""TextService: protobuf in, `Reader`, protobuf out."""

from gateway import messages
from gateway.errors import InvalidArgumentError
from gateway.pipelines import text
from gateway.pipelines.core import Call, Core
from gateway.services.service import Context, Service
from visiongate.v1 import image_pb2, text_service_pb2, text_service_pb2_grpc


class TextService(text_service_pb2_grpc.TextServiceServicer):
    """The text of pages."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._reader = text.Reader(core)

    async def RecognizeText(  # noqa: N802
        self, request: text_service_pb2.RecognizeTextRequest, context: Context
    ) -> text_service_pb2.RecognizeTextResponse:
        call = Call()
        settings = self._core.settings
        query = _query(request)
        model = self._reader.choose(request.model)
        if len(request.images) > settings.max_pages:
            raise InvalidArgumentError(
                "images", f"has {len(request.images)} images; the limit is {settings.max_pages}"
            )
        sources = [
            messages.image_source(image, settings, f"images[{index}]")
            for index, image in enumerate(request.images)
        ]
        pages = await self._reader.read(sources, query, model, call)
        return text_service_pb2.RecognizeTextResponse(
            pages=map(_page, pages),
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
        )


SERVICE = Service(
    text_service_pb2.DESCRIPTOR.services_by_name["TextService"].full_name,
    (text.DOCTR,),
    lambda core, server: text_service_pb2_grpc.add_TextServiceServicer_to_server(TextService(core), server),
)


def _query(request: text_service_pb2.RecognizeTextRequest) -> text.TextQuery:
    if request.skip_lines and request.group_blocks:
        raise InvalidArgumentError("group_blocks", "needs lines: leave skip_lines out")
    return text.TextQuery(
        rotated=request.rotated,
        bin_threshold=_threshold(request, "bin_threshold"),
        box_threshold=_threshold(request, "box_threshold"),
        lines=not request.skip_lines,
        blocks=request.group_blocks,
        find_orientation=request.find_orientation,
    )


def _threshold(request: text_service_pb2.RecognizeTextRequest, field: str) -> float | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    value: float = getattr(request, field)
    return messages.check_fraction(value, field)


def _page(page: text.Page) -> text_service_pb2.Page:
    return text_service_pb2.Page(
        blocks=[
            text_service_pb2.Block(lines=[text_service_pb2.Line(words=map(_word, words)) for words in lines])
            for lines in page.blocks
        ],
        text="\n\n".join(
            "\n".join(" ".join(word.text for word in words) for words in lines) for lines in page.blocks
        ),
        image=messages.image_message(page.image),
        turned_degrees=90 * page.turns,
    )


def _word(word: text.Word) -> text_service_pb2.Word:
    return text_service_pb2.Word(
        text=word.text,
        confidence=word.confidence,
        quadrilateral=text_service_pb2.Quadrilateral(
            corners=[image_pb2.Point(x=x, y=y) for x, y in word.quadrilateral.tolist()]
        ),
        detection_score=word.detection_score,
    )
