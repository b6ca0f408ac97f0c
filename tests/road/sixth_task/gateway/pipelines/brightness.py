"""How bright an image is."""

from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.models.brightness import BrightnessSpec
from gateway.pipelines.images import LoadedImage
from gateway.pipelines.resources import Resources

_NETWORK = Role("brightness", inputs={"image": ("UINT8", 4)}, outputs={"brightness": ("FP32", 2)})
BRIGHTNESS = Family("brightness", "brightness", (_NETWORK,), BrightnessSpec.from_parameters)


class BrightnessMeter:
    """The brightness network in front of Triton."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def measure(self, image: LoadedImage, model: Variant[BrightnessSpec]) -> float:
        """Return the mean brightness of an image, 0 to 1."""
        with stage("preprocess"):
            square = await self._resources.threads.run(model.spec.preprocess, image.pixels)
        tensors = await self._resources.infer(model, _NETWORK, {"image": square[None]})
        return float(tensors["brightness"][0, 0])
