"""Restaurant descriptions (E2E NLG) as examples for reading: a tag for every word, and questions about the text.

    python benchmarks/slots.py data/e2e FOLDER

Reads train.jsonl and dev.jsonl as recipes/e2e.yaml names them, and writes tags-SPLIT.jsonl and asked-SPLIT.jsonl. One
in fifty meaning representations of the training data is for validation; dev.jsonl is the test set. What a
representation says, as `food[French]`, is an answer where the description says it with the same words, in any case;
what is said otherwise has neither tag nor question. Of the questions, one in eight has no answer: the representation
does not speak of it.

tags-dictionary.txt is what a dictionary of the tagged words of the training data says of the test set, for comparison.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

SLOT = re.compile(r"(\w[\w ]*)\[(.*?)\]")
WORD = re.compile(r"\w+|[^\w\s]")
ASKED = ("name", "food", "near", "customer rating", "area", "eatType", "priceRange")
"""What a representation may speak of with the description's words; `familyFriendly[yes]` never is."""

Tagged = dict[str, list[str]]
"""`text`, the words, and `tags`."""


def places(said: dict[str, str], text: str) -> dict[str, tuple[int, int]]:
    """Where the text says what was to be said, by slot: the first place, in characters. No two of them overlap."""
    found: dict[str, tuple[int, int]] = {}
    for slot in sorted(said, key=lambda slot: -len(said[slot])):
        for match in re.finditer(rf"(?<!\w){re.escape(said[slot])}(?!\w)", text, re.IGNORECASE):
            if all(match.end() <= start or end <= match.start() for start, end in found.values()):
                found[slot] = match.span()
                break
    return found


def tagged(text: str, found: dict[str, tuple[int, int]]) -> Tagged:
    """The words of the text, each with `O`, or `B-slot` or `I-slot`."""
    words, tags = [], []
    for match in WORD.finditer(text):
        slot = next((slot for slot, (start, end) in found.items() if start <= match.start() < end), None)
        first = slot is not None and found[slot][0] == match.start()
        words.append(match.group())
        tags.append("O" if slot is None else f"{'B' if first else 'I'}-{slot.replace(' ', '_')}")
    return {"text": words, "tags": tags}


def asked(said: dict[str, str], text: str, found: dict[str, tuple[int, int]], number: int) -> dict[str, object] | None:
    """A question about the text and its answer; None where there is none to ask."""
    silent = [slot for slot in ASKED if slot not in said]
    known = [slot for slot in ASKED if slot in found]
    slots = silent if number % 8 == 0 else known
    if not slots:
        return None
    slot = slots[number // 8 % len(slots)]
    answers = [{"text": text[slice(*found[slot])], "start": found[slot][0]}] if slot in found else []
    return {"question": slot, "context": text, "answers": answers}


def dictionary(lines: Iterable[Tagged]) -> dict[tuple[str, ...], str]:
    """The slot that words, in lower case, mostly stand for where they have tags."""
    seen: dict[tuple[str, ...], Counter[str]] = {}
    for line in lines:
        words = [word.lower() for word in line["text"]]
        starts = [place for place, tag in enumerate(line["tags"]) if tag.startswith("B-")]
        for start in starts:
            slot = line["tags"][start][2:]
            end = start + 1
            while line["tags"][end : end + 1] == [f"I-{slot}"]:
                end += 1
            seen.setdefault(tuple(words[start:end]), Counter())[slot] += 1
    return {words: slots.most_common(1)[0][0] for words, slots in seen.items()}


def looked_up(words: list[str], known: dict[tuple[str, ...], str]) -> list[str]:
    """The tags that a dictionary gives: from the left, the longest words that it knows."""
    words, tags = [word.lower() for word in words], []
    while len(tags) < len(words):
        here = len(tags)
        ends = (end for end in range(len(words), here, -1) if tuple(words[here:end]) in known)
        if (end := next(ends, None)) is None:
            tags.append("O")
        else:
            slot = known[tuple(words[here:end])]
            tags += [f"B-{slot}", *[f"I-{slot}"] * (end - here - 1)]
    return tags


def descriptions(file: Path) -> Iterator[tuple[str, str]]:
    """Meaning representation and description, line by line, all of a line with several."""
    for line in file.read_text("utf-8").splitlines():
        one = json.loads(line)
        for text in one.get("refs") or [one["tgt"]]:
            yield one["src"], text


def main(source: Path, folder: Path) -> None:
    """Writes the files of all splits."""
    made: dict[str, list[Any]] = {}
    for split in ("train", "dev"):
        for number, (meaning, text) in enumerate(descriptions(source / f"{split}.jsonl")):
            name = "test" if split == "dev" else "valid" if crc32(meaning.encode()) % 50 == 0 else "train"
            meant = dict(SLOT.findall(meaning))
            found = places({slot: value for slot, value in meant.items() if slot in ASKED}, text)
            made.setdefault(f"tags-{name}", []).append(tagged(text, found))
            if question := asked(meant, text, found, number):
                made.setdefault(f"asked-{name}", []).append(question)
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in made.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
        print(f"{name}: {len(lines):,} lines")
    known = dictionary(made["tags-train"])
    said = "".join(" ".join(looked_up(line["text"], known)) + "\n" for line in made["tags-test"])
    (folder / "tags-dictionary.txt").write_text(said, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
