"""TextService: protobuf in, `Reader`, protobuf out."""

from collections.abc import Mapping

from gateway.admission import weigh
from gateway.errors import InputError, InvalidArgumentError
from gateway.pipelines.resources import Resources
from gateway.pipelines.text import DOCTR, Page, Reader, TextQuery, Word
from gateway.services.messages.checks import FRACTION, check_count, optional
from gateway.services.messages.fields import field, item_error
from gateway.services.messages.geometry import point_message
from gateway.services.messages.images import image_message, image_paths, image_sources
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from visiongate.v1 import text_service_pb2, text_service_pb2_grpc

# A call counts as one for each so many.
PAGES_OF_A_PLACE = 4

_BY_COLUMNS: Mapping[text_service_pb2.ReadingOrder.ValueType, bool | None] = {
    text_service_pb2.READING_ORDER_UNSPECIFIED: None,
    text_service_pb2.READING_ORDER_ROWS: False,
    text_service_pb2.READING_ORDER_COLUMNS: True,
}


class TextService(text_service_pb2_grpc.TextServiceServicer):
    """The text of pages."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._reader = Reader(resources)

    async def RecognizeText(  # noqa: N802
        self, request: text_service_pb2.RecognizeTextRequest, context: Context
    ) -> text_service_pb2.RecognizeTextResponse:
        resources = self._resources
        query = _query(request)
        with field("model"):
            model = resources.catalog.choose(DOCTR, request.model)
        check_count(len(request.images), resources.settings.max_pages, "images", "images")
        weigh(len(request.images), PAGES_OF_A_PLACE)
        sources = image_sources(request.images, resources.settings)
        path = image_paths(request.images, "images")
        with field(path):
            pages = await self._reader.read(sources, query, model, strict=request.strict)

        def response() -> text_service_pb2.RecognizeTextResponse:
            return text_service_pb2.RecognizeTextResponse(
                results=[_result(page, path(index)) for index, page in enumerate(pages)],
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        # In a thread: a page may have thousands of words, each of which is six messages.
        return await resources.threads.run(response)


SERVICE = Service(
    text_service_pb2.DESCRIPTOR,
    TextService,
    text_service_pb2_grpc.add_TextServiceServicer_to_server,
    (DOCTR,),
)


def _query(request: text_service_pb2.RecognizeTextRequest) -> TextQuery:
    group_lines = request.group_lines if request.HasField("group_lines") else True
    if request.reading_order not in _BY_COLUMNS:
        raise InvalidArgumentError("reading_order", f"{request.reading_order} is not a known order")
    for name in ("group_blocks", "reading_order"):
        if getattr(request, name) and not group_lines:
            raise InvalidArgumentError(name, "needs lines: leave group_lines true")
    return TextQuery(
        rotated_words=request.rotated_words,
        min_pixel_score=optional(request, "min_pixel_score", FRACTION),
        min_word_score=optional(request, "min_word_score", FRACTION),
        min_confidence=optional(request, "min_confidence", FRACTION),
        group_lines=group_lines,
        group_blocks=request.group_blocks,
        by_columns=_BY_COLUMNS[request.reading_order],
        detect_orientation=request.detect_orientation,
    )


def _result(page: Page | InputError, path: str) -> text_service_pb2.RecognizeTextResult:
    if isinstance(page, InputError):
        return text_service_pb2.RecognizeTextResult(error=item_error(page, path))
    return text_service_pb2.RecognizeTextResult(page=_page_message(page))


def _page_message(page: Page) -> text_service_pb2.Page:
    return text_service_pb2.Page(
        blocks=[
            text_service_pb2.Block(
                lines=[text_service_pb2.Line(words=map(_word_message, words)) for words in lines]
            )
            for lines in page.blocks
        ],
        text="\n\n".join(
            "\n".join(" ".join(word.text for word in words) for words in lines) for lines in page.blocks
        ),
        image=image_message(page.image),
        rotation_degrees=90 * page.turns,
    )


def _word_message(word: Word) -> text_service_pb2.Word:
    return text_service_pb2.Word(
        text=word.text,
        confidence=word.confidence,
        quadrilateral=text_service_pb2.Quadrilateral(corners=map(point_message, word.quadrilateral)),
        detection_score=word.detection_score,
    )
