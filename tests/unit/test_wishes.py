"""Phrases that outputs must and must not hold, from the options and from lines."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_writer import model_folder, sentences, tiny_encoder, tiny_generator, tiny_tokenizer

from unilmctl.commands import generate
from unilmctl.data.parsing import Record
from unilmctl.errors import DataError, UsageError
from unilmctl.generation import GenerateOptions, Generator, Tally, generate_stream
from unilmctl.generation.wishes import spellings
from unilmctl.search import holds
from unilmctl.tokens import train
from unilmctl.weights import ModelCard


def record(text: str, **wishes: Any) -> Record:
    return Record(text, None, [], None, "x:1", **wishes)


@pytest.mark.parametrize("objective", ["pseudo", "causal"])
def test_every_output_holds_what_it_must_and_nothing_it_must_not(tmp_path: Path, objective: str) -> None:
    sources = sentences(12)
    plain = tiny_generator(tmp_path, objective=objective, beam=4, nbest=2)
    encode = plain.tokenizer.encode
    written = next(h.ids for hs in plain.generate(sources) for h in hs if len(h.ids) > 2)
    unwanted = plain.tokenizer.decode(written[:2])
    options = {"must": ("a b", "c"), "forbid_phrase": (unwanted,)}
    found = tiny_generator(tmp_path, objective=objective, beam=4, nbest=2, **options).generate(sources)
    assert all(len(hs) == 2 for hs in found)
    for hypothesis in [h for hs in found for h in hs]:
        assert holds(hypothesis.ids, [encode("a b")])
        assert holds(hypothesis.ids, [encode("c")])
        assert not holds(hypothesis.ids, [encode(unwanted)])


def test_forbidden_phrases_bind_every_search_that_knows_them(tmp_path: Path) -> None:
    sources = sentences(12)
    for search in ("greedy", "sample", "beam"):
        plain = tiny_generator(tmp_path, search=search)
        written = [hs[0].ids for hs in plain.generate(sources)]
        words = {(one, two) for ids in written for one, two in pairwise(ids) if one < 21 and two < 21}
        unwanted = tuple(plain.tokenizer.decode(pair) for pair in sorted(words))
        banned = [plain.tokenizer.encode(text) for text in unwanted]
        assert banned
        found = tiny_generator(tmp_path, search=search, forbid_phrase=unwanted).generate(sources)
        assert [hs[0].ids for hs in found] != written
        assert not any(holds(h.ids, banned) for hs in found for h in hs)


def test_a_beam_of_one_holds_phrases_too(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path, beam=1, must=("a b",))
    assert all(holds(hs[0].ids, [generator.tokenizer.encode("a b")]) for hs in generator.generate(sentences(5)))


def test_each_line_has_its_own_phrases(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    lines = [{"src": "a b"}, {"src": "a b", "phrases": ["d e", "p"]}, {"src": "a b", "phrases": ["f"], "prefix": "c"}]
    source, output = tmp_path / "in.jsonl", tmp_path / "out"
    source.write_text("\n".join(map(json.dumps, lines)))
    generate.run(source=str(source), model=model, output=output)
    first, second, third = output.read_text().splitlines()
    assert "d e" in second
    assert "p" in second
    assert third.startswith("c")
    assert "f" in third
    plain = tmp_path / "plain"
    plain.write_text("a b\n")
    generate.run(source=str(plain), model=model, output=output)
    assert output.read_text().splitlines() == [first]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"must": ("zebra",)}, "must: the phrase '[UNK]' has words that are not in the vocabulary"),
        ({"must": (" ",)}, "must: a phrase that must appear is empty"),
        ({"must": ("a b",), "forbid": ("b",)}, "must: the phrase 'a b' must appear, and a part of it is forbidden"),
        (
            {"must": ("a b c",), "forbid_phrase": ("b c",)},
            "must: the phrase 'a b c' must appear, and a part of it is forbidden",
        ),
        (
            {"must": ("a b c d e f g h i j",)},
            "must: the phrase 'a b c d e f g h i j' takes 10 tokens, for which there is no room below max_length 10",
        ),
        (
            {"must": ("a b c d e f", "g h i j", "b c")},
            "must: the phrases 'a b c d e f', 'g h i j' take together 10 tokens, for which there is no room "
            "below max_length 10",
        ),
        ({"forbid_phrase": ("",)}, "forbid_phrase: a phrase is empty"),
        ({"forbid_phrase": ("zebra",)}, "forbid_phrase: 'zebra' has words that are not in the vocabulary"),
        ({"must": ("a",), "search": "greedy"}, "must has no meaning for greedy search"),
        ({"forbid_phrase": ("a",), "search": "s2s-ft"}, "forbid_phrase has no meaning for s2s-ft search"),
        (
            {"must": ("a",), "beam": 4, "beam_groups": 2, "diversity": 1.0},
            "groups of a beam know no phrases that must appear",
        ),
    ],
)
def test_phrases_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        tiny_generator(tmp_path, **options)
    assert caught.value.message == message


def test_the_room_is_what_a_beginning_leaves(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path)
    held = generator.generate([[5]], prefixes=[[5, 6]], phrases=[[[[5, 6]], [[7] * 7]]])[0][0]
    assert held.ids == [5, 6, *[7] * 7]
    with pytest.raises(DataError) as caught:
        generator.generate([[5]], prefixes=[[5, 6]], phrases=[[[[6, 5]], [[7] * 6]]])
    assert caught.value.message == (
        "the phrases 'c c c c c c', 'b a' take together 8 tokens after a beginning of 2, for which there is no room "
        "below max_length 10"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "sample"}, "sample search knows no phrases that must appear"),
        ({"search": "s2s-ft"}, "s2s-ft search knows no phrases that must appear"),
        ({"beam": 4, "beam_groups": 2, "diversity": 1.0}, "groups of a beam know no phrases that must appear"),
    ],
)
def test_phrases_of_a_line_need_a_search_that_knows_them(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(generate_stream(tiny_generator(tmp_path, **options), [record("a", phrases=["b"])], Tally()))
    assert caught.value.message == message


def test_a_line_whose_phrases_do_not_fit_is_named_or_counts_as_bad(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path)
    records = [record("a"), record("b", phrases=["a " * 10]), record("c", phrases=["d"])]
    with pytest.raises(DataError, match="x:1: the phrase 'a a a a a a a a a a' takes 10 tokens, for which"):
        list(generate_stream(generator, records, Tally()))
    with pytest.raises(DataError, match="x:1: .* after a beginning of 9, for which"):
        list(generate_stream(generator, records[2:], Tally(), prefix="a " * 9))
    tally = Tally()
    groups = list(generate_stream(generator, records, tally, forgiving=True))
    assert [bool(answer.hypotheses) for group in groups for answer in group] == [True, False, True]
    assert tally == Tally(records=3, bad=1)


def test_a_word_after_a_blank_is_the_word_where_they_are_other_tokens(tmp_path: Path) -> None:
    tokenizer = train(["the river and the eagle by the river", "river eagle"] * 9, kind="bpe", size=290)
    ways = spellings(tokenizer, "river ")
    assert [tokenizer.decode(way) for way in ways] == ["river", " river"]
    assert spellings(tokenizer, " ") == []
    assert spellings(tiny_tokenizer(tmp_path), "a b") == [tiny_tokenizer(tmp_path).encode("a b")]
    encoder, card = tiny_encoder(vocabulary=290), ModelCard()
    found = [
        Generator(encoder, card, tokenizer, GenerateOptions(max_length=24, beam=4, **wish)).generate(
            sentences(5), prefixes=[tokenizer.encode("the")] * 5
        )
        for wish in ({"must": ("river",)}, {"forbid_phrase": ("river",)})
    ]
    assert all(holds(hs[0].ids, ways) for hs in found[0])
    assert not any(holds(hs[0].ids, ways) for hs in found[1])
