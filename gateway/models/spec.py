"""What the specs of all models have in common."""

from typing import Protocol


class ModelSpec(Protocol):
    """The constants of one model variant.

    Every spec has a classmethod `from_parameters(parameters, folder)`. It reads the parameters of the Triton
    config and, if it needs them, files in the model's folder in the repository.
    """

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
