import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from export import clip_tokenizer
from gateway.models import clip
from gateway.models.clip import ClipSpec
from gateway.models.tokenizer import TextTooLongError

PARAMETERS = {
    "image_size": "224",
    "resize_mode": "shortest",
    "interpolation": "bicubic",
    "fill_color": "0",
    "context_length": "77",
    "logit_scale": "100",
    "embedding_size": "512",
}
REFERENCE = SimpleTokenizer()
Noise = Callable[[int, int], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer.from_vocabulary(clip_tokenizer.own_vocabulary())
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> ClipSpec:
    return ClipSpec.from_parameters(PARAMETERS, folder)


def expected_pixels(image: Image.Image, parameters: dict[str, str]) -> NDArray[np.uint8]:
    """open_clip's own transform without its last step, which normalises colours."""
    transform = image_transform_v2(
        PreprocessCfg(
            size=int(parameters["image_size"]),
            interpolation=parameters["interpolation"],
            resize_mode=parameters["resize_mode"],
            fill_color=int(parameters["fill_color"]),
        ),
        is_train=False,
    )
    *steps, _to_tensor, _normalise = transform.transforms
    for step in steps:
        image = step(image)
    return np.asarray(image)


SIZES = [
    *[(224, 224), (224, 300), (300, 224), (225, 224), (480, 640), (333, 500), (501, 333), (1, 1), (2, 3)],
    *[(7, 311), (311, 7), (50, 50), (1200, 1800), (223, 225), (1, 64), (640, 10), (17, 1000), (97, 251)],
]


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", ["224", "65"])
def test_pixels_equal_open_clip(
    folder: Path, noise: Noise, resize_mode: str, interpolation: str, size: str
) -> None:
    parameters = PARAMETERS | {
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "image_size": size,
        "fill_color": "93",
    }
    model = ClipSpec.from_parameters(parameters, folder)
    for height, width in SIZES:
        if resize_mode == "longest" and max(height, width) > 2 * int(size) * min(height, width):
            continue  # open_clip fails where a side rounds to nothing
        image = noise(height, width)
        actual = model.preprocess(image)
        assert actual.dtype == np.uint8
        np.testing.assert_array_equal(
            actual, expected_pixels(Image.fromarray(image), parameters), f"{height}x{width}"
        )


@pytest.mark.parametrize("name", ["truck.jpg", "skimage_astronaut.png", "cat_dog.jpeg", "skimage_page.png"])
def test_pixels_of_photos_equal_open_clip(
    model: ClipSpec, photo: Callable[[str], NDArray[np.uint8]], name: str
) -> None:
    pixels = photo(name)
    expected = expected_pixels(Image.fromarray(pixels), PARAMETERS)
    np.testing.assert_array_equal(model.preprocess(pixels), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_pixels_of_other_modes_equal_open_clip(model: ClipSpec, noise: Noise, mode: str) -> None:
    """open_clip resizes in the image's own mode, and gets the same where that has no transparency."""
    image = Image.fromarray(noise(333, 421)).convert("L" if mode == "L" else "RGB").convert(mode)
    actual = model.preprocess(np.asarray(image.convert("RGB"))).astype(int)
    # The three inks of CMYK are rounded once more on their way.
    tolerance = 1 if mode == "CMYK" else 0
    assert np.abs(actual - expected_pixels(image, PARAMETERS)).max() <= tolerance


@pytest.mark.parametrize(("height", "width"), [(1, 200), (300, 2), (3, 1001)])
def test_slivers_show_their_middle(folder: Path, height: int, width: int) -> None:
    parameters = PARAMETERS | {"image_size": "32"}
    model = ClipSpec.from_parameters(parameters, folder)
    ramp = np.linspace(0, 255, max(height, width)).astype(np.uint8)
    grey = ramp[None] if width > height else ramp[:, None]
    image = np.broadcast_to(grey[..., None], (height, width, 3)).copy()
    expected = expected_pixels(Image.fromarray(image), parameters)
    np.testing.assert_allclose(model.preprocess(image).astype(int), expected, atol=2)


def test_a_sliver_of_any_length_is_cheap(model: ClipSpec) -> None:
    """As open_clip has it, this would be resized to 224 x 2,240,000,000 pixels."""
    assert model.preprocess(np.full((1, 10_000_000, 3), 77, np.uint8)).tolist() == [[[77] * 3] * 224] * 224


TEXTS = [
    "a photo of a cat.",
    "A  Photo\tof\na CAT ",
    "don't can't we'll I'M they've she'd it's 'S 'sst x'RE",
    "3.14159 + 2,718 = $5.86 & 100% in 2024",
    "Café crème, naïve façade; Ångström, ﬁ ligature, ½, İstanbul, ẞß, Ωmega, ǅ",
    "日本語のテキスト、中文 한국어 ไทย العربية עברית हिन्दी",
    "emoji 🙂👩‍👩‍👧 🇩🇪 and \u200b zero\u200dwidth \ufeff",
    "&amp; &lt;b&gt; &amp;lt;i&amp;gt; &eacute; &#128512; &notanentity; &copy",
    "mojibake: cafÃ© â€œquotedâ€\x9d â€™",
    "control \x00\x07\x1b[31mred\x1b[0m\x1c\x1d\x85\u2028\u2029\u00a0\u3000end",
    "under_score __init__ a.b.c !!! ??!? --- '' '''",
    "<|startoftext|>a dog<|endoftext|>",
    "x" * 60,
    "“curly” ‘quotes’ … – — ｆｕｌｌｗｉｄｔｈ",
    "Ⅷ ① ² ₃ ¼ ٣ 五 ᛭",
    "a\u0301 e\u0345 ͅ \u0345x 1\u0345!",
    "it\u017f 'ſt '\u017f x'ſ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_open_clip(model: ClipSpec, text: str) -> None:
    assert model.encode(text, truncate=True).tolist() == REFERENCE([text])[0].tolist()


def characters(text: str) -> bool:
    """Whether Python's Unicode knows all characters: the libraries have newer ones, each its own."""
    return all(unicodedata.category(character) not in {"Cn", "Cs"} for character in clip.clean(text))


pieces = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(max_codepoint=0x250), max_size=12),
    st.text(st.characters(categories=["L", "N", "M", "Z", "P", "S"]), max_size=8),
    st.sampled_from([*TEXTS, "'s", "'LL", " ", "\n", "&amp;", "&#x27;s", "Ã©", "1", "ſ", "</w>", "Ġ"]),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces, max_size=6).map("".join).filter(characters))
def test_ids_equal_open_clip_on_any_text(model: ClipSpec, text: str) -> None:
    expected = REFERENCE([text])[0].tolist()
    if expected[1] == model.end:
        with pytest.raises(clip.NoWordsError):
            model.encode(text)
    else:
        assert model.encode(text, truncate=True).tolist() == expected


def test_ids_equal_open_clip_on_every_word_of_the_vocabulary(model: ClipSpec) -> None:
    words = [token.removesuffix("</w>") for token in REFERENCE.encoder]
    # Bytes alone are no text; those of most words stand for themselves.
    printable = [word for word in words if word.isascii() and word.strip()][:-2]
    assert len(printable) > 40_000
    for word in printable[::7]:
        assert model.encode(word, truncate=True).tolist() == REFERENCE([word])[0].tolist(), word


def test_ids_equal_hugging_face(model: ClipSpec, data: Callable[[str], Path]) -> None:
    from tokenizers import Tokenizer

    other = Tokenizer.from_file(str(data("clip/hf_clip_tokenizer.json")))
    for text in ("a photo of a cat.", "Café crème & 3 trucks!", "don't   stop", "日本語 🙂"):
        ids = other.encode(text).ids
        assert model.encode(text)[: len(ids)].tolist() == ids


def test_control_tokens_are_only_words(model: ClipSpec) -> None:
    ids = model.encode("a cat <end_of_text> a dog <start_of_text>").tolist()
    assert ids.count(model.end) == ids.count(model.start) == 1
    assert ids.index(model.end) > 10


def test_long_texts(model: ClipSpec) -> None:
    fits, long = "word " * 75, "word " * 76
    np.testing.assert_array_equal(model.encode(fits), REFERENCE([fits])[0])
    assert model.encode(fits)[-1] == model.end
    with pytest.raises(TextTooLongError, match="has 78 tokens, start and end counted; the limit is 77"):
        model.encode(long)
    np.testing.assert_array_equal(model.encode(long, truncate=True), REFERENCE([long])[0])


def test_another_context_length(folder: Path) -> None:
    short = ClipSpec.from_parameters(PARAMETERS | {"context_length": "32"}, folder)
    text = "many words " * 40
    expected = SimpleTokenizer(context_length=32)([text])[0]
    np.testing.assert_array_equal(short.encode(text, truncate=True), expected)


@pytest.mark.parametrize("text", ["", "  ", "\ufeff", "\x00", "\x1b[31m", "&nbsp;"])
def test_texts_without_words(model: ClipSpec, text: str) -> None:
    assert REFERENCE([text])[0][1] == model.end
    with pytest.raises(clip.NoWordsError):
        model.encode(text)


def test_arithmetic_equals_torch(model: ClipSpec) -> None:
    rng = np.random.default_rng(0)
    images, texts = (rng.normal(0, 9, (count, 512)).astype(np.float32) for count in (3, 7))
    one, other = (torch.nn.functional.normalize(torch.from_numpy(rows), dim=-1) for rows in (images, texts))
    np.testing.assert_allclose(clip.normalise(images), one, atol=1e-6)
    cosines = clip.cosines(images, texts)
    np.testing.assert_allclose(cosines, one @ other.T, atol=1e-6)
    np.testing.assert_allclose(model.probabilities(cosines), (100 * one @ other.T).softmax(-1), atol=1e-5)


def test_arithmetic_of_odd_values(model: ClipSpec) -> None:
    assert clip.normalise(np.zeros((1, 4), np.float32)).tolist() == [[0] * 4]
    row = np.full((1, 3), 0.1, np.float32)
    assert clip.cosines(row, row).max() <= 1
    np.testing.assert_allclose(model.probabilities(np.array([[0.3]], np.float32)), [[1]])
    np.testing.assert_allclose(model.probabilities(np.array([[1, -1, 1]], np.float32)), [[0.5, 0, 0.5]])


def test_real_embeddings_have_meaning(model: ClipSpec, data: Callable[[str], Path]) -> None:
    """CLIP's embeddings of "a {name}" for COCO's names, in its order: the nearest of some are known."""
    rows = np.load(data("clip/detic_coco_clip_a+cname.npy")).astype(np.float32)
    place = {"bus": 5, "truck": 7, "cat": 15, "dog": 16, "fork": 42, "knife": 43, "pizza": 53}
    cosines = clip.cosines(rows, rows)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-6)
    for one, other, far in [("bus", "truck", "pizza"), ("cat", "dog", "fork"), ("fork", "knife", "bus")]:
        assert cosines[place[one], place[other]] > cosines[place[one], place[far]]
    probabilities = model.probabilities(cosines[[place["cat"]]][:, [place["dog"], place["pizza"]]])
    assert probabilities[0, 0] > 0.9
