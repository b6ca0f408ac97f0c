import torch
from transformers import GroundingDinoImageProcessorPil

from export.pictures import noise, noise_images
from export.pixels import Normalise, NormaliseValid, normalised


def test_normalises_as_the_reference_processor() -> None:
    inputs = noise_images(0, 64, 96, [(64, 96), (40, 96), (64, 51)])
    processor = GroundingDinoImageProcessorPil(do_resize=False)
    images = [
        image[:height, :width]
        for image, (height, width) in zip(inputs["image"], inputs["valid_size"], strict=True)
    ]
    expected = processor(images, return_tensors="pt")
    for pixels, mask in (
        NormaliseValid()(*[torch.from_numpy(value) for value in inputs.values()]),
        normalised(**inputs),
    ):
        torch.testing.assert_close(pixels, expected["pixel_values"].float(), rtol=0, atol=1e-6)
        assert torch.equal(mask.long(), expected["pixel_mask"])


def test_images_without_padding_are_all_valid() -> None:
    image = torch.from_numpy(noise(0, 2, 64, 96))
    pixels, _ = NormaliseValid()(image, torch.tensor([[64, 96]] * 2))
    torch.testing.assert_close(Normalise()(image), pixels, rtol=0, atol=0)
