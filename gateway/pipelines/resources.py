"""What every pipeline works with: Triton, the catalog of models, threads, images, settings."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from gateway.call import stage
from gateway.catalog import Catalog, Role, Variant
from gateway.pipelines.images import ImageLoader
from gateway.pipelines.threads import Threads
from gateway.settings import Settings
from gateway.triton import Triton


class Resources:
    """One instance a process, used from one event loop.

    Cancelling a call is how deadlines, and callers that hang up, reach everything below: the awaited Triton
    request is cancelled with it, and no later stage starts.
    """

    def __init__(
        self, triton: Triton, catalog: Catalog, settings: Settings, threads: Threads, images: ImageLoader
    ) -> None:
        self.triton = triton
        self.catalog = catalog
        self.settings = settings
        self.threads = threads
        self.images = images

    @classmethod
    def create(cls, triton: Triton, catalog: Catalog, settings: Settings) -> Self:
        """Make the threads and the image loader that the settings ask for."""
        threads = Threads(settings.threads)
        return cls(triton, catalog, settings, threads, ImageLoader(settings, threads))

    def close(self) -> None:
        """Drop the work that has not started."""
        self.threads.close()

    async def infer(
        self,
        variant: Variant[Any],
        role: Role,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        """Run one of a variant's models, as the stage "inference". Return its outputs by name.

        `tensors` has the role's inputs, batch dimension included, and may have others. `outputs` are those
        wanted, by default all of the role's. Raises StatusError, as Triton's client does.
        """
        with stage("inference"):
            return await self.triton.infer(
                variant.triton_models[role.name],
                {name: tensors[name] for name in role.inputs},
                tuple(outputs or role.outputs),
            )
