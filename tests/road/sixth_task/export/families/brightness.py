"""The mean brightness of an image: what can be exported."""

from export.family import ExporterFamily

FAMILY = ExporterFamily(
    name="brightness",
    variants=("mean",),
    weights="none: it is arithmetic",
    licence="Apache-2.0",
    module="export.brightness",
)
