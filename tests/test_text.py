"""Words with relevance: joined, printed, drawn and saved without losing or hiding any of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from text_models import expected, text_model

import lrpfast
from lrpfast import InputError, NonFiniteError, OutputError
from lrpfast.pieces import PADDING, SCHEMES, find_scheme
from lrpfast.text import TokenRelevance, token_relevance
from lrpfast.text_drawing import Drawing, columns, letters_on, wanted_colors
from lrpfast.text_image import missing_letters

TOKENS = ["[CLS]", "the", "act", "##ing", "was", "<b>", "&", "[SEP]", "[PAD]", "[PAD]"]
RELEVANCE = np.array([0.1, -0.2, 1.0, 0.5, 0.0, -2.0, 0.3, 0.05, 0.01, -0.03])


@pytest.fixture
def words() -> TokenRelevance:
    return token_relevance(TOKENS, RELEVANCE)


# --- tokens and words ---


def test_an_explanation_of_an_embedding_gives_each_token_its_contribution() -> None:
    network = lrpfast.load(text_model(6))
    ids = [[4, 6, 7, 8, 0, 0], [5, 5, 6, 9, 10, 13]]
    explanation = lrpfast.explain(network, ids, 1, "epsilon_plus", dtype=np.float64)
    for index, row in enumerate(ids):
        found = explanation.text(["a"] * 4 + ["[PAD]"] * 2, index)
        np.testing.assert_allclose(found.relevance, expected(row, 1), rtol=1e-4)
        assert found.left_out == pytest.approx(expected(row, 1)[4:].sum(), rel=1e-4)


def test_axes_behind_the_tokens_are_summed() -> None:
    found = token_relevance(["a", "b"], [[1, 2], [3, -5]])
    np.testing.assert_array_equal(found.relevance, [3, -2])


@pytest.mark.parametrize(
    ("tokens", "scheme", "words"),
    [
        ("[CLS] un ##believ ##able ! [SEP]", "wordpiece", ["[CLS]", "unbelievable", "!", "[SEP]"]),
        (
            "Hel lo Ġwor ld Ġ Ċ <|endoftext|> x",
            "bytelevel",
            ["Hello", "world", "␣", "⏎", "<|endoftext|>", "x"],
        ),
        ("Ġcaf Ã ©", "bytelevel", ["café"]),
        ("<s> ▁Hel lo , ▁w <0xC3> <0xB6> rld </s>", "sentencepiece", ["<s>", "Hello,", "wörld", "</s>"]),
        ("h i <0x20> <0xC3> <0xA4> <0x0A>", "bytes", ["hi", "ä", "⏎"]),
        ("a plain list", "words", ["a", "plain", "list"]),
    ],
)
def test_pieces_make_words(tokens: str, scheme: str, words: list[str]) -> None:
    listed = tokens.split(" ")
    assert find_scheme(listed) == scheme
    relevance = np.arange(1.0, len(listed) + 1)
    joined = token_relevance(listed, relevance).words()
    assert list(joined.tokens) == words
    assert joined.total == relevance.sum()


def test_joining_adds_relevance_up(words: TokenRelevance) -> None:
    joined = words.words()
    assert dict(zip(joined.tokens, joined.relevance.tolist(), strict=True))["acting"] == 1.5
    assert joined.top(2) == [("<b>", -2.0), ("acting", 1.5)]
    assert joined.left_out == pytest.approx(words.left_out)


@given(
    st.lists(st.sampled_from(["a", "##b", "Ġc", "▁d", "<0xE4>", "[PAD]", "</s>", " ", "##"]), min_size=1),
    st.sampled_from(sorted(SCHEMES)), st.integers(0, 99),
)  # fmt: skip
def test_joining_loses_no_relevance(tokens: list[str], scheme: str, seed: int) -> None:
    relevance = np.random.default_rng(seed).normal(size=len(tokens))
    found = token_relevance(tokens, relevance, scheme=scheme)
    joined = found.words()
    assert joined.total == pytest.approx(found.total)
    assert joined.left_out == pytest.approx(found.left_out)
    assert joined.padding.sum() == sum(token in PADDING for token in tokens)
    assert all(joined.tokens)


def test_top_is_sorted_by_magnitude_without_padding(words: TokenRelevance) -> None:
    assert words.top(3) == [("<b>", -2.0), ("act", 1.0), ("##ing", 0.5)]
    assert len(words.top(99)) == 8
    assert token_relevance(TOKENS, RELEVANCE, padding={"<b>"}).top(1) == [("act", 1.0)]
    mask = np.arange(10) < 6
    assert token_relevance(TOKENS, RELEVANCE, padding=mask).top(1) == [("&", 0.3)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: token_relevance(["a"], [1, 2]),
            "there are 1 tokens, but relevance of shape (2,) has 2 places",
        ),
        (lambda: token_relevance([], []), "there are 0 tokens"),
        (lambda: token_relevance(["a"], 1.0), "no axis"),
        (lambda: token_relevance("ab", [1, 2]), "tokens have to be strings"),
        (lambda: token_relevance(["a", 3], [1, 2]), "got 3 among them"),
        (lambda: token_relevance(["a"], [1], scheme="bpe"), "unknown scheme 'bpe'"),
        (lambda: token_relevance(["a"], [1], padding=np.ones(2, bool)), "padding has shape (2,)"),
        (lambda: token_relevance(["a"], [1]).top(0), "k is 0"),
        (lambda: token_relevance(["a"], [1]).ansi(0), "width is 0"),
        (lambda: token_relevance(["a"], [1]).ansi(colors="many"), "colors is 'many'"),
        (lambda: token_relevance(["a"], [1]).ansi(level=0.0), "level is 0.0"),
        (lambda: token_relevance(["a"], [1]).image(width=3), "width is 3"),
        (lambda: token_relevance(["a"], [1]).image(font=__file__), "cannot read the font"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        call()


def test_nan_is_refused() -> None:
    with pytest.raises(NonFiniteError):
        token_relevance(["a"], [np.nan])


# --- colours ---


def test_colours_are_monotone_in_relevance() -> None:
    relevance = np.linspace(-1, 1, 41)
    cells = Drawing.of(token_relevance(["x"] * 41, relevance)).cells
    warmth = [cell.background[0] - cell.background[2] for cell in cells]
    assert all(warmth[i] > 0 for i in range(22, 41))
    assert all(warmth[i] < 0 for i in range(19))
    darkness = [-sum(cell.background) for cell in cells]
    assert darkness[20:] == sorted(darkness[20:])
    assert darkness[:21] == sorted(darkness[:21], reverse=True)
    for cell in cells:
        assert contrast(cell.background, cell.letters) >= 4.5


def contrast(*colors: tuple[int, int, int]) -> float:
    """As WCAG 2 defines it."""

    def luminance(color: tuple[int, int, int]) -> float:
        parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted(luminance(color) for color in colors)
    return (high + 0.05) / (low + 0.05)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_letters_can_be_read_on_every_colour(background: tuple[int, int, int]) -> None:
    assert contrast(background, letters_on(background)) >= 4.5


def test_level_is_shared_between_texts() -> None:
    one, other = (token_relevance(["x", "y"], r) for r in ([1, 0.5], [2, 0.5]))
    colors = [Drawing.of(words, level=2.0).cells[1].background for words in (one, other)]
    assert colors[0] == colors[1]
    assert Drawing.of(one).cells[0].background == Drawing.of(other).cells[0].background


# --- the terminal ---

PAINTED = re.compile(r"\x1b\[38;([\d;]+);48;([\d;]+)m(.*?)\x1b\[0m")


def test_ansi_paints_what_is_relevant(words: TokenRelevance) -> None:
    text = words.ansi(80, "truecolor")
    painted = {token: background for _, background, token in PAINTED.findall(text)}
    assert list(painted) == ["[CLS]", "the", "act", "ing", "<b>", "&"]  # 0 and 0.05 of 2 are too faint
    red, green, blue = (int(part) for part in painted["act"].split(";")[1:])
    assert red > green > blue
    red, green, blue = (int(part) for part in painted["<b>"].split(";")[1:])
    assert red < green < blue
    plain = PAINTED.sub(r"\3", text).splitlines()
    assert plain[0] == "[CLS] the acting was <b> & [SEP]"
    assert "full colour at ±2" in plain[2]
    assert plain[3] == "not shown: 2 padding tokens with -0.02 in sum"


def test_256_colours_are_reds_for_and_blues_against(words: TokenRelevance) -> None:
    painted = {token: background for _, background, token in PAINTED.findall(words.ansi(80, "256"))}
    assert painted["<b>"] == "5;18"
    assert painted["act"] == "5;203"
    assert painted["&"] == "5;217"


@pytest.mark.parametrize("colors", ["truecolor", "256", "none"])
@pytest.mark.parametrize("width", [7, 20, 80])
def test_lines_are_no_wider_than_the_terminal(words: TokenRelevance, width: int, colors: str) -> None:
    text = PAINTED.sub(r"\3", words.ansi(width, colors))
    lines = text.split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == "[CLS]theactingwas<b>&[SEP]"


def test_wide_letters_take_two_columns() -> None:
    assert [columns(text) for text in ("a", "中文", "é", "e\u0301")] == [1, 4, 1, 1]
    found = token_relevance(["中文", "中文"], [1.0, -1.0]).ansi(7, "none")
    assert found.startswith("中文\n中文\n")


def test_without_colours_the_strongest_tokens_are_listed(words: TokenRelevance) -> None:
    lines = words.ansi(60, "none", k=3).splitlines()
    assert lines[0] == "[CLS] the acting was <b> & [SEP]"
    assert [line.split() for line in lines[2:6]] == [
        ["<b>", "-2", "-" * 39], ["act", "+1", "+" * 20], ["##ing", "+0.5", "+" * 10],
        ["5", "others:", "+0.25", "in", "sum"],
    ]  # fmt: skip
    assert lines[-1] == "not shown: 2 padding tokens with -0.02 in sum"
    assert "all sums to -0.27" in lines[-2]


@pytest.mark.parametrize(
    ("environment", "terminal", "colors"),
    [
        ({}, True, "256"), ({}, False, "none"), ({"NO_COLOR": "1"}, True, "none"), ({"NO_COLOR": ""}, True, "256"),
        ({"TERM": "dumb"}, True, "none"), ({"COLORTERM": "truecolor"}, True, "truecolor"),
        ({"COLORTERM": "24bit"}, True, "truecolor"), ({"COLORTERM": "truecolor"}, False, "none"),
    ],
)  # fmt: skip
def test_environment_decides_on_colours(environment: dict[str, str], terminal: bool, colors: str) -> None:
    assert wanted_colors(environment, terminal) == colors


def test_no_color_reaches_the_output(words: TokenRelevance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in words.ansi(80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in words.ansi(80)
    assert str(words) == words.ansi(colors="none")


def test_control_characters_do_not_reach_the_terminal() -> None:
    for colors in ("truecolor", "none"):
        text = token_relevance(["\x1b[2J", "\x07"], [1.0, -1.0]).ansi(80, colors)
        assert "\x1b[2J" not in text and "\x07" not in text
        assert "\\x1b[2J" in text


# --- HTML ---


class Reader(HTMLParser):
    """Collects texts, titles and tags, and sees that all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_escapes_and_says_numbers(words: TokenRelevance) -> None:
    document = words.html('A & B <script>"')
    read = Reader(document)
    assert "script" not in read.tags and "b" not in read.tags
    assert read.titles == ["[CLS]: +0.1", "the: -0.2", "act: +1", "##ing: +0.5", "was: +0", "<b>: -2", "&: +0.3",
                           "[SEP]: +0.05"]  # fmt: skip
    assert 'A & B <script>"' in read.text
    assert "not shown: 2 padding tokens with -0.02 in sum" in read.text
    assert "http" not in document and "url(" not in document  # needs no other file
    assert re.findall(r"<td>([^<]*)</td>", document)[2:4] == ["the", "-0.2"]


def test_html_keeps_the_spaces_of_the_text(words: TokenRelevance) -> None:
    paragraph = re.search(r'<p class="lrp".*?</p>', words.html())
    assert paragraph
    assert "".join(Reader(paragraph[0]).text) == "[CLS] the acting was <b> & [SEP]"


def test_notebooks_get_a_fragment(words: TokenRelevance) -> None:
    read = Reader(words._repr_html_())
    assert "html" not in read.tags and "span" in read.tags


def test_quotes_cannot_leave_an_attribute() -> None:
    document = token_relevance(['" onmouseover="x'], [1.0]).html()
    assert Reader(document).titles == ['"␣onmouseover="x: +1']


# --- pictures ---


def test_image_has_the_colours_in_it(words: TokenRelevance) -> None:
    picture = words.image(title="a title", width=400)
    assert picture.mode == "RGB" and picture.width == 400
    found = {color for _, color in picture.getcolors(1 << 20) or ()}
    for cell in Drawing.of(words).cells:
        assert cell.background in found
    assert (255, 255, 255) in found


def test_image_is_as_high_as_its_lines(words: TokenRelevance) -> None:
    heights = [words.image(width=width).height for width in (900, 300, 150)]
    assert heights == sorted(heights) and heights[0] < heights[-1]
    assert words.image(title="x").height > words.image().height


def test_letters_that_no_font_has_are_drawn_as_codes() -> None:
    assert missing_letters(["plain"], None) == ""
    assert missing_letters(["\U0010fffe"], None) == "\U0010fffe"
    strange, code = (
        np.asarray(token_relevance([text], [1.0]).image()) for text in ("a\U0010fffe", "a\\U0010fffe")
    )
    np.testing.assert_array_equal(strange, code)


def test_font_can_be_chosen(words: TokenRelevance) -> None:
    font = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"
    assert missing_letters(["é中"], font) == "中"
    assert np.asarray(words.image(font=font)).tobytes() != np.asarray(words.image()).tobytes()


def test_a_font_is_found_that_has_the_letters() -> None:
    assert missing_letters(["Жé"], None) == ""  # Pillow's own has neither


# --- files ---


@pytest.mark.parametrize("suffix", [".html", ".png", ".jpg", ".txt"])
def test_save_writes_what_the_suffix_says(words: TokenRelevance, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"words{suffix}"
    words.save(path, "film.txt: good")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            assert picture.size == words.image("film.txt: good").size
    else:
        text = path.read_text("utf-8")
        assert "film.txt: good" in text and "[CLS]" in text
        assert "\x1b" not in text


def test_save_refuses_other_suffixes(words: TokenRelevance, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"'\.doc' is no format for words"):
        words.save(tmp_path / "words.doc")
    assert not list(tmp_path.iterdir())


def test_nothing_but_padding_can_be_shown() -> None:
    found = token_relevance(["[PAD]"], [0.5])
    assert "1 padding token with +0.5 in sum" in found.ansi(80, "none")
    assert "1 padding token with +0.5 in sum" in found.html()
    found.image()
