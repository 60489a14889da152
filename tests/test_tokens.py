"""Tokenizers: the ids that texts become, against the package tokenizers and by hand."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from text_models import PLAIN, WORDS, write_vocabularies

from lrpfast import InputError, MissingPackageError, tokens
from lrpfast.text import token_relevance


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_vocabularies(tmp_path)
    return tmp_path


def test_vocabulary_numbers_words_by_their_lines(folder: Path) -> None:
    tokenizer = tokens.read(folder / "vocab.txt")
    found = tokenizer.encode("The film, was GOOD!\n")
    assert found.tokens == ("the", "film", ",", "was", "good", "!")
    assert found.ids == tuple(PLAIN.index(word) for word in found.tokens)
    assert (found.cut, found.unknown, tokenizer.pad_id) == (0, (), 0)
    assert tokenizer.token(8) == "good"
    assert tokenizer.token(999) == "<999>"


def test_unknown_words_are_named(folder: Path) -> None:
    found = tokens.read(folder / "vocab.txt").encode("a fine & fine film")
    assert found.tokens == ("a", "[UNK]", "[UNK]", "[UNK]", "film")
    assert found.unknown == ("fine", "&")
    (folder / "small.txt").write_text("a\nfilm\n")
    with pytest.raises(InputError, match=re.escape("small.txt' has no number for 'fine', '&', and no token")):
        tokens.read(folder / "small.txt").encode("a fine & film")


def test_case_is_kept_where_the_vocabulary_has_it(folder: Path) -> None:
    (folder / "cased.txt").write_text("<pad>\n<unk>\nFilm\nfilm\n")
    assert tokens.read(folder / "cased.txt").encode("Film film FILM").ids == (2, 3, 1)


def test_vocabulary_may_be_a_json_object(folder: Path) -> None:
    (folder / "index.json").write_text(json.dumps({"good": 4, "film": 9, "<pad>": 0}))
    tokenizer = tokens.read(folder / "index.json")
    assert tokenizer.encode("good film").ids == (4, 9)
    assert tokenizer.pad_id == 0


def test_bytes_are_their_own_numbers() -> None:
    tokenizer = tokens.read("bytes")
    found = tokenizer.encode("aä\n")
    assert found.ids == (97, 0xC3, 0xA4, 10)
    assert found.tokens == ("a", "<0xC3>", "<0xA4>", "<0x0A>")
    assert tokenizer.encode(b"\xff\x00", 1).cut == 1
    assert tokenizer.token(256) == "<256>"
    assert token_relevance(found, [1.0, 2, 3, 4]).words().tokens == ("aä", "⏎")


def test_tokenizer_json_is_read_as_the_library_reads_it(folder: Path) -> None:
    tokenizer = tokens.read(folder / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "The acting was good, not bad!"
    theirs.no_padding()
    theirs.no_truncation()
    assert tokenizer.encode(text).ids == tuple(theirs.encode(text).ids)
    assert (tokenizer.pad_id, tokenizer.max_length, tokenizer.scheme) == (0, 9, "wordpiece")
    cut = tokenizer.encode(text, 6)
    theirs.enable_truncation(6)
    assert cut.ids == tuple(theirs.encode(text).ids)
    assert (cut.cut, cut.tokens[-1]) == (5, "[SEP]")
    theirs.enable_padding(length=12)
    assert tokenizer.fit(tokenizer.encode("good"), 12).ids == tuple(theirs.encode("good").ids)
    assert tokenizer.encode("a fine film").unknown == ("fine",)
    assert tokenizer.token(len(WORDS)) == f"<{len(WORDS)}>"


def test_pieces_in_a_vocabulary_are_berts(folder: Path) -> None:
    text = "The actor was not GOOD."
    assert tokens.read(folder / "bert.txt").encode(text) == tokens.read(folder / "tokenizer.json").encode(
        text
    )
    assert tokens.read(folder / "bert.txt").encode("acting").tokens == ("[CLS]", "act", "##ing", "[SEP]")
    (folder / "odd.txt").write_text("[UNK]\nact\n##ing\n")
    with pytest.raises(
        InputError, match=re.escape("odd.txt' holds pieces such as '##ing', but not [CLS], [SEP]")
    ):
        tokens.read(folder / "odd.txt")


@pytest.mark.parametrize(
    ("decoder", "scheme"),
    [(tokenizers.decoders.ByteLevel(), "bytelevel"), (tokenizers.decoders.Metaspace(), "sentencepiece"),
     (None, "words")],
)  # fmt: skip
def test_scheme_is_that_of_the_decoder(tmp_path: Path, decoder: object, scheme: str) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "##b": 1}, []))
    if decoder is not None:
        made.decoder = decoder
    made.save(str(tmp_path / "t.json"))
    assert tokens.read(tmp_path / "t.json").scheme == scheme


def test_fit_fills_up_on_the_side_that_the_tokenizer_says(folder: Path) -> None:
    text = tokens.read(folder / "vocab.txt").encode("good film")
    filled = tokens.read(folder / "vocab.txt").fit(text, 4)
    assert filled.tokens == ("good", "film", "[PAD]", "[PAD]")
    assert filled.padding == (False, False, True, True)
    np.testing.assert_array_equal(filled.array(), [8, 6, 0, 0])
    found = token_relevance(filled, [1.0, 2, 3, 4])
    assert (found.top(9), found.left_out) == ([("film", 2.0), ("good", 1.0)], 7.0)
    left = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    left.enable_padding(direction="left", pad_id=0, pad_token="[PAD]")
    left.save(str(folder / "left.json"))
    tokenizer = tokens.read(folder / "left.json")
    assert tokenizer.fit(tokenizer.encode("good"), 5).tokens == ("[PAD]", "[PAD]", "[CLS]", "good", "[SEP]")
    assert tokens.read("bytes").fit(tokens.read("bytes").encode("a"), 2, 7).ids == (97, 7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.txt", None, "cannot read the tokens"),
        ("empty.txt", "\n", "is empty"),
        ("twice.txt", "a\nb\na\n", "'a' in lines 1 and 3"),
        ("bad.json", "{", "no JSON"),
        ("list.json", "[1]", "neither a tokenizer.json nor"),
        ("odd.json", '{"model": {"type": "?"}}', "cannot read the tokenizer"),
    ],
)
def test_files_of_another_form_are_refused(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        tokens.read(tmp_path / name)


def test_texts_that_do_not_fit_are_refused(folder: Path) -> None:
    tokenizer = tokens.read(folder / "tokenizer.json")
    with pytest.raises(InputError, match="max_length is 2, of which special tokens take 2"):
        tokenizer.encode("good film", 2)
    with pytest.raises(InputError, match="has 4 tokens, but the network reads 3; cut it"):
        tokenizer.fit(tokenizer.encode("good film"), 3)
    with pytest.raises(InputError, match="the network reads 3; say by which number"):
        tokens.read("bytes").fit(tokens.read("bytes").encode("a"), 3)
    with pytest.raises(InputError, match="the text is not UTF-8"):
        tokenizer.encode(b"\xff")


def test_a_missing_package_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name == "tokenizers":
            raise ModuleNotFoundError("No module named 'tokenizers'", name="tokenizers")
        return real(name, package)

    monkeypatch.setattr("lrpfast.extras.import_module", without)
    for file in ("tokenizer.json", "bert.txt"):
        with pytest.raises(
            MissingPackageError, match=re.escape('not installed; pip install "lrpfast[text]"')
        ):
            tokens.read(folder / file)
    assert tokens.read(folder / "vocab.txt").encode("good").ids == (8,)
