"""Tags, answers, vectors and several tasks at once, through the commands: learning, saying, scoring, refusing."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from unilmctl.commands import evaluate, finetune, generate, preprocess
from unilmctl.errors import DataError, RecipeError
from unilmctl.fitting import RunReport
from unilmctl.runs import RunFolder
from unilmctl.weights import load_model

NAMES, PLACES, VERBS = ("anna", "bob", "carl"), ("rome", "oslo", "lima"), ("saw", "left", "liked")

RECIPE = """
run: run
data:
  train: {files: [tags.jsonl], source: text, target: tags}
  valid: {files: [tags.jsonl], source: text, target: tags}
model: {architecture: bert, layers: 1, hidden: 32, heads: 2, feedforward: 64, positions: 48, dropout: 0.0,
  attention_dropout: 0.0}
tokens: {max_source: 16, max_target: 10, stride: 4, train: {kind: wordpiece, size: 70}}
finetune: {task: tag, batch_tokens: 320, steps: 40, learning_rate: 8e-3, warmup: 4, precision: float32, log_every: 10,
  evaluate_every: 40, save_every: 40, keep_best_by: tag_f1, threads: 1, label_smoothing: 0.0}
generate: {beam: 1}
"""
LARGE = ("finetune.steps=80", "finetune.batch_tokens=640", "finetune.evaluate_every=80", "finetune.save_every=80")
SPAN = "source: question, second: context, target: answers"


def tagged(number: int, times: int | None = None) -> dict[str, Any]:
    drawn = random.Random(number)
    known = [(word, tag) for words, tag in ((NAMES, "B-PER"), (VERBS, "O"), (PLACES, "B-LOC")) for word in words]
    chosen = [drawn.choice(known) for _ in range(times or 3 + number % 10)]
    return {"text": [word for word, _ in chosen], "tags": [tag for _, tag in chosen]}


def asked(number: int, empty: bool = False) -> dict[str, Any]:
    """A long text with one name and one place in it, and a question that asks for one of them."""
    name, place = NAMES[number % 3], PLACES[number // 3 % 3]
    where = number % 2 == 0
    known = {"who": name, "where": place if not (empty and number % 4 == 0) else ""}
    words = ["it"] * (number % 7) + [name, "saw", "it"] + ["it"] * (number % 3) + [known["where"]] + ["it"] * 3
    context = " ".join(words)
    answer = known["where" if where else "who"]
    answers = [{"text": answer, "start": context.index(answer)}] if answer else []
    return {"question": "where" if where else "who", "context": context, "answers": answers}


def pair(number: int) -> dict[str, Any]:
    name, place = NAMES[number % 3], PLACES[number // 3 % 3]
    return {"src": f"{name} saw {place}", "tgt": f"{place} {name}"}


def write(name: str, lines: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in lines))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data of all tasks and a recipe, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    write("tags.jsonl", [tagged(number) for number in range(27)])
    write("asked.jsonl", [asked(number) for number in range(60)])
    write("pairs.jsonl", [pair(number) for number in range(9)])
    Path("recipe.yaml").write_text(RECIPE)
    return tmp_path


def train(*settings: str, text: str = RECIPE) -> RunReport:
    Path("recipe.yaml").write_text(text)
    return finetune.run(recipe="recipe.yaml", settings=settings)


def spans(text: str = RECIPE) -> str:
    return text.replace("[tags.jsonl], source: text, target: tags", f"[asked.jsonl], {SPAN}").replace("tag_f1", "loss")


def answers(source: str, **options: Any) -> list[str]:
    generate.run(source=source, model=Path("run"), output=Path("out.txt"), **options)
    return Path("out.txt").read_text().splitlines()


def test_words_are_tagged_however_many_there_are() -> None:
    report = train()
    assert report.best is not None
    assert report.best.value == 100
    assert answers("tags.jsonl") == [" ".join(tagged(number)["tags"]) for number in range(27)]
    write("long.jsonl", [{"text": tagged(1, 40)["text"]}])
    assert answers("long.jsonl") == [" ".join(tagged(1, 40)["tags"])]
    Path("plain.txt").write_text("anna left oslo\n\n")
    assert answers("plain.txt") == ["B-PER O B-LOC", ""]
    answers("tags.jsonl", as_json=True)
    scored = evaluate.evaluate(evaluate.Files(Path("out.txt"), [Path("tags.jsonl")]), ["tag_f1"])
    assert scored.rows[0].value == 100


def test_answers_are_found_in_long_texts() -> None:
    train("finetune.task=span", *LARGE, "finetune.keep_best_by=squad_em", text=spans())
    wanted = [one["answers"][0] for one in map(asked, range(60))]
    said = answers("asked.jsonl")
    assert sum(text == one["text"] for text, one in zip(said, wanted, strict=True)) >= 57
    found = [json.loads(line) for line in answers("asked.jsonl", as_json=True)]
    assert all(
        one["answer"] == asked(n)["context"][one["start"] :][: len(one["answer"])] for n, one in enumerate(found)
    )
    assert sum(one["start"] == true["start"] for one, true in zip(found, wanted, strict=True)) >= 57
    scored = evaluate.evaluate(evaluate.Files(Path("out.txt"), [Path("asked.jsonl")]), ["squad_em"])
    assert scored.rows[0].value >= 95
    assert max(len(asked(number)["context"].split()) for number in range(60)) > 16 - 4


def test_questions_without_an_answer_are_learnt() -> None:
    write("asked.jsonl", [asked(number, empty=True) for number in range(60)])
    train("finetune.task=span", *LARGE, text=spans())
    assert load_model(Path("run/checkpoints/step-80")).card.tasks["span"]["empty"]
    said = answers("asked.jsonl")
    right = [text == ([a["text"] for a in asked(n, empty=True)["answers"]] or [""])[0] for n, text in enumerate(said)]
    assert sum(right) >= 55
    assert said.count("") >= 12


def test_one_model_writes_and_reads() -> None:
    text = RECIPE.replace("[tags.jsonl], source: text, target: tags", "[pairs.jsonl]").replace("tag_f1", "exact_match")
    text += f"""
tasks:
- {{name: names, task: tag, weight: 0.5, data: {{train: {{files: [tags.jsonl], source: text, target: tags}},
    valid: {{files: [tags.jsonl], source: text, target: tags}}}}}}
- {{name: ask, task: span, weight: 0.3, data: {{train: {{files: [asked.jsonl], {SPAN}}}}}}}
"""
    write("many.jsonl", [pair(number) for number in range(36)])
    text = text.replace("[pairs", "[many", 1)
    prepared = preprocess.run(recipe=_written(text), settings=["finetune.task=generate"], workers=1)
    assert {name: one.examples for name, one in prepared.report.items()} == {
        "train": 36,
        "valid": 9,
        "names train": 27,
        "names valid": 27,
        "ask train": prepared.report["ask train"].examples,
    }
    report = train(
        "finetune.task=generate",
        "finetune.steps=200",
        "finetune.save_every=200",
        "finetune.evaluate_every=200",
        "finetune.batch_tokens=640",
        text=text,
    )
    entries = RunFolder(report.run).read_log()
    evaluation = next(entry for entry in entries if entry["event"] == "evaluation")
    assert evaluation["exact_match"] == 100
    assert evaluation["names.tag_f1"] == 100
    steps = [entry for entry in entries if entry["event"] == "steps"][-1]
    assert steps["parts"].keys() == {"generate/lm", "names/names", "ask/ask"}
    assert answers("pairs.jsonl") == [pair(number)["tgt"] for number in range(9)]
    assert answers("tags.jsonl", task="names")[0] == " ".join(tagged(0)["tags"])
    assert len(answers("asked.jsonl", task="ask")) == 60
    with pytest.raises(DataError, match=r"no 'src'|'src' is missing"):
        answers("tags.jsonl")


def _written(text: str) -> str:
    Path("recipe.yaml").write_text(text)
    return "recipe.yaml"


def test_a_model_paraphrases_and_its_vectors_are_alike() -> None:
    text = RECIPE.replace("[tags.jsonl], source: text, target: tags", "[pairs.jsonl]").replace("tag_f1", "exact_match")
    report = train("finetune.task=similar", "finetune.steps=100", "finetune.evaluate_every=100", text=text)
    assert report.best is not None
    assert report.best.value == 100
    evaluation = next(entry for entry in RunFolder(report.run).read_log() if entry["event"] == "evaluation")
    assert evaluation["parts"]["contrastive"]["accuracy"] == 1
    assert answers("pairs.jsonl") == [pair(number)["tgt"] for number in range(9)]
    vectors = [json.loads(line)["embedding"] for line in answers("pairs.jsonl", task="similar", as_json=True)]
    write("targets.jsonl", [{"src": pair(number)["tgt"]} for number in range(9)])
    others = [json.loads(line)["embedding"] for line in answers("targets.jsonl", task="similar", as_json=True)]
    nearest = [
        max(range(9), key=lambda place: sum(a * b for a, b in zip(vector, others[place], strict=True)))
        for vector in vectors
    ]
    assert nearest == list(range(9))
    assert load_model(report.run / "checkpoints" / "step-100").card.objective == "causal"


@pytest.mark.parametrize(
    ("line", "task", "message"),
    [
        ({"text": ["a", "b"], "tags": ["O"]}, "tag", "line.jsonl:1: 1 tags for 2 words; every word has one tag"),
        ({"text": ["a"], "tags": ["O O"]}, "tag", "line.jsonl:1: 'tags' must be a list of tags"),
        ({"text": "q", "c": "abc", "tags": ["x"]}, "span", "line.jsonl:1: the answer 'x' is not in the text"),
        (
            {"text": "q", "c": "abc", "tags": [{"text": "b", "start": 0}]},
            "span",
            "line.jsonl:1: the answer 'b' is not at character 0 of the text",
        ),
        ({"text": "q", "c": "abc", "tags": [3]}, "span", "line.jsonl:1: 'tags' must be a list of answers"),
    ],
)
def test_bad_labels_are_named(line: dict[str, Any], task: str, message: str) -> None:
    write("line.jsonl", [line])
    second = ["data.train.second=c"] if task == "span" else []
    with pytest.raises(DataError) as caught:
        train(
            f"finetune.task={task}",
            "data.train.files=[line.jsonl]",
            "data.valid=null",
            "finetune.keep_best_by=loss",
            *second,
        )
    assert message.split("; ", maxsplit=1)[0] in caught.value.message


def test_tags_that_training_does_not_know_are_named() -> None:
    write("other.jsonl", [{"text": ["anna"], "tags": ["B-GOD"]}])
    with pytest.raises(DataError, match="other.jsonl:1: the training data has no tag 'B-GOD'"):
        train("data.valid.files=[other.jsonl]")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["finetune.task=span"], "'span' needs the text in which the answer is: second"),
        (["data.train.second=x"], "a second text is not for 'tag'"),
        (["finetune.head_weights.names=2"], "nothing trains this head"),
        (["finetune.task=similar", "finetune.objective=pseudo"], "'similar' writes with the objective causal"),
        (["tasks=[{name: tag, task: tag, data: {train: {files: [a]}}}]"], "give the task a name of its own"),
        (["tasks=[{name: lm, task: tag, data: {train: {files: [a]}}}]"], "give the task a name of its own"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        train(*settings)
    assert message in caught.value.message
