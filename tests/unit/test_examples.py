"""The data that the project makes itself: numbers to words."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.errors import UsageError
from unilmctl.examples import LARGEST, SIZES, chinese, english, numbers, split_of, write_missing
from unilmctl.recipe import load
from unilmctl.tokens import train

WORDS = {
    0: ("zero", "零"),
    7: ("seven", "七"),
    10: ("ten", "十"),
    17: ("seventeen", "十七"),
    40: ("forty", "四十"),
    42: ("forty two", "四十二"),
    100: ("one hundred", "一百"),
    101: ("one hundred and one", "一百零一"),
    110: ("one hundred and ten", "一百一十"),
    300: ("three hundred", "三百"),
    1000: ("one thousand", "一千"),
    1001: ("one thousand and one", "一千零一"),
    1010: ("one thousand and ten", "一千零一十"),
    1100: ("one thousand one hundred", "一千一百"),
    4217: ("four thousand two hundred and seventeen", "四千二百一十七"),
    10_000: ("ten thousand", "一万"),
    10_017: ("ten thousand and seventeen", "一万零一十七"),
    10_500: ("ten thousand five hundred", "一万零五百"),
    11_000: ("eleven thousand", "一万一千"),
    20_300: ("twenty thousand three hundred", "二万零三百"),
    99_999: ("ninety nine thousand nine hundred and ninety nine", "九万九千九百九十九"),
}
ENGLISH = {english(number): number for number in [*range(20), *range(20, 100, 10)]}
CHINESE = {"十": 10, "百": 100, "千": 1000, "万": 10_000}


def read_english(text: str) -> int:
    total = group = 0
    for word in text.split():
        if word == "thousand":
            total, group = group * 1000, 0
        elif word == "hundred":
            group *= 100
        elif word != "and":
            group += ENGLISH[word]
    return total + group


def read_chinese(text: str) -> int:
    total, digit = 0, 1 if text.startswith("十") else 0
    for character in text:
        if character in CHINESE:
            total, digit = total + digit * CHINESE[character], 0
        else:
            digit = "零一二三四五六七八九".index(character)
    return total + digit


@pytest.mark.parametrize("number", WORDS)
def test_numbers_are_written_as_people_write_them(number: int) -> None:
    assert (english(number), chinese(number)) == WORDS[number]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, LARGEST))
def test_the_words_read_back_as_the_number(number: int) -> None:
    assert read_english(english(number)) == number
    assert read_chinese(chinese(number)) == number


def test_splits_share_no_number_and_are_what_they_are() -> None:
    sources = {}
    for split, size in SIZES.items():
        lines = list(numbers(split))
        sources[split] = {line["src"] for line in lines}
        assert len(sources[split]) == len(lines) == 2 * size
        asked = [int(line["src"][3:].replace(",", "")) for line in lines]
        assert {split_of(number) for number in asked} == {split}
        assert asked[::2] == asked[1::2], "every number in both languages"
        for line, number in zip(lines, asked, strict=True):
            assert line["tgt"] == (english if line["src"].startswith("en ") else chinese)(number)
    assert not sources["train"] & (sources["valid"] | sources["test"])
    assert not sources["valid"] & sources["test"]
    assert {line["src"] for line in numbers("train")} >= {"en 0", "zh 0"}


def test_the_data_are_the_same_on_every_machine(tmp_path: Path) -> None:
    files = {split: tmp_path / "deep" / f"{split}.jsonl" for split in ("valid", "test")}
    assert write_missing("numbers", files) == list(files.values())
    written = {split: sha256(path.read_bytes()).hexdigest()[:16] for split, path in files.items()}
    assert written == {"valid": "c5f873016d34bef9", "test": "a4329516a95fb47b"}
    first = json.loads(files["test"].read_text(encoding="utf-8").splitlines()[0])
    assert first == {"src": "en 79,441", "tgt": "seventy nine thousand four hundred and forty one"}


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    mine, absent = tmp_path / "valid.jsonl", tmp_path / "test.jsonl"
    mine.write_text("mine")
    assert write_missing("numbers", {"valid": mine, "test": absent}) == [absent]
    assert mine.read_text() == "mine"
    assert write_missing("numbers", {"valid": mine, "test": absent}) == []


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^no built-in data is called 'letters'$") as caught:
        write_missing("letters", {"train": tmp_path / "x"})
    assert caught.value.hint == "there is: numbers"
    with pytest.raises(UsageError, match="^'numbers' has no split 'dev'$"):
        write_missing("numbers", {"dev": tmp_path / "x"})
    assert not (tmp_path / "x").exists()


def test_the_quickstart_vocabulary_keeps_digits_apart_and_the_text_whole() -> None:
    recipe = load("quickstart")
    lines = list(numbers("train"))
    settings_ = recipe.tokens.train
    assert settings_ is not None
    texts = (line[side] for line in lines for side in ("src", "tgt"))
    tokenizer = train(texts, kind=settings_.kind, size=settings_.size, lowercase=settings_.lowercase)
    assert tokenizer.tokens(tokenizer.encode("en 40,217")) == ["en", "4", "##0", ",", "2", "##1", "##7"]
    vocabulary = tokenizer.tokens(range(tokenizer.size))
    assert not [token for token in vocabulary if sum(character.isdigit() for character in token) > 1]
    for line in (*lines[:500], *numbers("test")):
        source, target = tokenizer.encode(line["src"]), tokenizer.encode(line["tgt"])
        assert tokenizer.roles.unknown not in (*source, *target)
        assert tokenizer.decode(target) == line["tgt"]
        assert len(source) <= recipe.tokens.max_source - 2
        assert len(target) <= recipe.tokens.max_target - 1
    assert sum(len(tokenizer.encode(line["tgt"])) for line in lines[:500]) < 500 * 9, "words, not letters"
