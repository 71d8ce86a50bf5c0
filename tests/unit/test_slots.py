"""benchmarks/slots.py: tags and questions that a text itself answers."""

import json
from pathlib import Path

import slots

TEXT = "The Eagle Cafe, by Eagle, is a cheap French place: the eagle's cheaper."
SAID = {"name": "Eagle", "near": "The Eagle Cafe", "food": "french", "priceRange": "cheap", "area": "riverside"}


def test_a_slot_is_where_the_text_says_it_and_no_two_overlap() -> None:
    found = slots.places(SAID, TEXT)
    assert {slot: TEXT[start:end] for slot, (start, end) in found.items()} == {
        "near": "The Eagle Cafe",
        "name": "Eagle",
        "food": "French",
        "priceRange": "cheap",
    }
    assert found["name"] == (19, 24)


def test_every_word_has_a_tag() -> None:
    made = slots.tagged("The Eagle Cafe has £20-25 meals", {"near": (0, 14), "customer rating": (19, 25)})
    assert list(zip(made["text"], made["tags"], strict=True)) == [
        ("The", "B-near"),
        ("Eagle", "I-near"),
        ("Cafe", "I-near"),
        ("has", "O"),
        ("£", "B-customer_rating"),
        ("20", "I-customer_rating"),
        ("-", "I-customer_rating"),
        ("25", "I-customer_rating"),
        ("meals", "O"),
    ]


def test_one_question_in_eight_has_no_answer() -> None:
    found = slots.places(SAID, TEXT)
    asked = [slots.asked(SAID, TEXT, found, number) for number in range(16)]
    assert [one is not None and one["answers"] == [] for one in asked] == [number % 8 == 0 for number in range(16)]
    for one in asked:
        assert one is not None
        assert all(TEXT[answer["start"] :].startswith(answer["text"]) for answer in one["answers"])
    assert slots.asked({"name": "x"}, "nothing", {}, 1) is None


def test_a_dictionary_knows_the_longest_words() -> None:
    lines = [
        {"text": ["the", "Blue", "Cafe"], "tags": ["O", "B-name", "I-name"]},
        {"text": ["blue", "food", "Blue"], "tags": ["B-food", "O", "B-food"]},
        {"text": ["Blue"], "tags": ["B-name"]},
    ]
    known = slots.dictionary(lines)
    assert known == {("blue", "cafe"): "name", ("blue",): "food"}
    assert slots.looked_up(["A", "blue", "cafe", "Blue"], known) == ["O", "B-name", "I-name", "B-food"]


def test_files_are_written_for_every_split(tmp_path: Path) -> None:
    train = [{"src": f"name[Blue {number}], food[Thai]", "tgt": f"Blue {number} is Thai."} for number in range(100)]
    dev = [{"src": "name[Red], food[Thai]", "refs": ["Red is Thai.", "Thai food at Red."]}]
    for name, lines in {"train": train, "dev": dev}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    slots.main(tmp_path, tmp_path / "made")
    counts = {file.stem: len(file.read_text().splitlines()) for file in (tmp_path / "made").iterdir()}
    splits = {f"{kind}-{name}" for kind in ("tags", "asked") for name in ("train", "valid", "test")}
    assert counts.keys() == {*splits, "tags-dictionary"}
    assert (tmp_path / "made" / "tags-dictionary.txt").read_text() == "O O B-food O\nB-food O O O O\n"
    assert (counts["tags-test"], counts["tags-train"] + counts["tags-valid"]) == (2, 100)
    assert json.loads((tmp_path / "made" / "tags-test.jsonl").read_text().splitlines()[0]) == {
        "text": ["Red", "is", "Thai", "."],
        "tags": ["B-name", "O", "B-food", "O"],
    }
