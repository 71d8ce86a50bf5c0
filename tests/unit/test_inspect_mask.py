"""unilmctl inspect mask."""

import json
import runpy
from pathlib import Path

import pytest

from unilmctl.commands.inspect.mask import LONGEST, PAIRS, run
from unilmctl.errors import ModelError, RecipeError, UsageError, WriteError
from unilmctl.objectives import OBJECTIVES


def test_a_pair_in_characters():
    report = run(objective="causal", source="the film was 电影", target="good fun")
    assert report.text == (
        "causal: 9 tokens, 3 predicted\n"
        "               012345678\n"
        "  0 [CLS]    0 ██████···\n"
        "  1 the      0 ██████···\n"
        "  2 film     0 ██████···\n"
        "  3 was      0 ██████···\n"
        "  4 电       0 ██████···\n"
        "  5 影       0 ██████···\n"
        "  6 [SEP]    1 ███████··  > good\n"
        "  7 good     2 ████████·  > fun\n"
        "  8 fun      3 █████████  > [SEP]\n"
    )


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_is_drawn(objective: str):
    report = run(objective=objective, source="a b c 电 影", target="d e f")
    assert report.text.startswith(f"{objective}: {len(report.row)} tokens")
    assert len(report.text.splitlines()) == len(report.row) + (2 if len(report.row) <= 10 else 3)
    assert " > " in report.text


@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - set(PAIRS)))
def test_objectives_on_one_text(objective: str):
    text = run(objective=objective, text="a b c d e f", rate=0.5)
    assert run(objective=objective, source="a b c d e f", rate=0.5).text == text.text
    assert text.picture.predicts


def test_the_seed_draws_and_the_rate_sets_the_share():
    def drawn(seed: int, rate: float | None = None) -> str:
        return run(objective="bidirectional", text="a b c d e f g h i j", seed=seed, rate=rate).text

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(10)}) > 1
    assert drawn(1, rate=1).count(" > ") == 10


def test_json():
    report = run(objective="pseudo", source="x 电", target="y", json_output=True)
    assert report.text.count("\n") == 1
    found = json.loads(report.text)
    assert set(found) == {"objective", "tokens", "positions", "segments", "time", "until", "predicts", "sees"}
    assert found["objective"] == "pseudo"
    assert found["tokens"][:4] == ["[CLS]", "x", "电", "[SEP]"]
    assert found["time"] == [0, 0, 0, 0, 2, 4, 1, 3]
    assert found["until"] == [None] * 6 + [2, 4]
    assert found["predicts"] == [{"slot": 6, "token": "y"}, {"slot": 7, "token": "[SEP]"}]
    assert found["sees"][0] == [0, 1, 2, 3]
    assert found["sees"][7] == [0, 1, 2, 3, 4, 7]


def test_segments_are_those_of_unilm_v1():
    assert set(run(objective="left-to-right", text="a b").row.segments.tolist()) == {2}
    assert set(run(objective="seq2seq", source="a", target="b").row.segments.tolist()) == {4, 5}


def test_a_picture_is_written(tmp_path: Path):
    for name, start in {"mask.svg": b"<svg", "mask.PNG": b"\x89PNG"}.items():
        run(objective="pseudo", source="a", target="b", output=tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.PNG", "mask.svg"]


def test_the_pieces_of_a_model_folder(tmp_path: Path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "影"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    report = run(objective="causal", source="Playing 影", target="play", model=tmp_path)
    assert report.picture.tokens == ["[CLS]", "play", "##ing", "影", "[SEP]", "play"]


def test_a_folder_without_a_tokenizer(tmp_path: Path):
    with pytest.raises(ModelError, match=tmp_path.name):
        run(objective="pseudo", source="a", target="b", model=tmp_path)


def refusal(**options: object) -> tuple[str, str | None]:
    with pytest.raises(UsageError) as caught:
        run(**options)  # type: ignore[arg-type]
    return caught.value.message, caught.value.hint


def test_what_is_refused_and_how(tmp_path: Path):
    pair = {"source": "a", "target": "b"}
    assert refusal(objective="psuedo", **pair) == ("there is no objective 'psuedo'", "did you mean 'pseudo'?")
    assert refusal(objective="xyz", **pair) == ("there is no objective 'xyz'", "one of " + ", ".join(OBJECTIVES))
    assert refusal(objective="pseudo", source="a") == (
        "objective 'pseudo' needs a source and a target",
        "give the target too",
    )
    both = "give one text, or a source and a target"
    assert refusal(objective="partial", text="a", **pair) == ("--text excludes a source and a target", both)
    assert refusal(objective="partial") == ("there is no text to draw", both)
    assert refusal(objective="partial", text="  ") == ("there is no text to draw", both)
    assert refusal(objective="partial", text="a", rate=1.5) == (
        "--rate 1.5: a share of tokens lies between 0 and 1",
        None,
    )
    path = tmp_path / "mask.jpg"
    assert refusal(**pair, output=path) == (f"{path}: a picture ends in .svg or .png", "name the file so")
    long = " ".join(["word"] * LONGEST)
    message, hint = refusal(objective="left-to-right", text=long)
    assert message == f"a row of {LONGEST + 2} tokens is too long to draw (at most {LONGEST})"
    assert hint == "give a shorter text"


def test_a_picture_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"mask\.svg"):
        run(objective="pseudo", source="a", target="b", output=tmp_path / "file" / "mask.svg")


RECIPE = """
data: {train: {files: [a.txt]}}
model: {architecture: bert}
tokens: {train: {kind: bpe}}
rows:
  - name: backwards
    parts: [{take: source, time: 0}, {take: target, time: n-i, predict: next}]
  - name: forwards
    parts: [{take: text, time: i, predict: next}]
pretrain:
  mix:
    - {objective: partial, segments: [7, 8], rate: 0.5}
    - {objective: custom, row: forwards}
    - {objective: custom, row: backwards, pair: adjacent, name: wrong}
"""


def test_the_objectives_of_a_recipe(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    assert run(recipe=recipe, text="a b").text == (
        "custom: 4 tokens, 3 predicted\n"
        "               0123\n"
        "  0 [CLS]    0 █···  > a\n"
        "  1 a        1 ██··  > b\n"
        "  2 b        2 ███·  > [SEP]\n"
        "  3 [SEP]    3 ████\n"
    )
    drawn = run(recipe=recipe, objective="partial", text="a b c d e f")
    assert set(drawn.row.segments.tolist()) == {7}
    assert drawn.text.startswith("partial: ")
    with pytest.raises(RecipeError) as wrong:
        run(recipe=recipe, objective="wrong", source="a", target="b")
    place = f"{recipe}:6:5"
    assert wrong.value.message.startswith(f"{place}: row 'backwards': part 2 (take target): what it predicts at time ")
    with pytest.raises(UsageError) as unknown:
        run(recipe=recipe, objective="partail", text="a b")
    assert (unknown.value.message, unknown.value.hint) == (
        f"the mix of {recipe} has no 'partail'",
        "did you mean 'partial'?",
    )
    recipe.write_text(RECIPE.split("rows:", maxsplit=1)[0])
    with pytest.raises(UsageError, match="has no mix of objectives to draw from"):
        run(recipe=recipe, text="a b")


def test_the_row_that_a_recipe_fine_tunes_on(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    tuned = RECIPE.split("pretrain:", maxsplit=1)[0].replace("n-i", "i+1")
    recipe.write_text(f"{tuned}finetune: {{row: backwards, objective: causal}}\n")
    assert run(recipe=recipe, source="a", target="b").text.startswith("backwards: 5 tokens, 1 predicted\n")
    with pytest.raises(UsageError, match="needs a source and a target"):
        run(recipe=recipe, source="a")
    with pytest.raises(UsageError, match="has no mix of objectives to draw from"):
        run(recipe=recipe, objective="forwards", text="a b")


def test_the_pictures_of_the_documentation_are_current():
    docs = Path(__file__).parents[2] / "docs"
    found = runpy.run_path(str(docs / "masks.py"))
    assert set(found["PICTURES"]) == set(OBJECTIVES)
    assert [path.name for path, drawn in found["drawn"]().items() if path.read_text("utf-8") != drawn] == []
    page = (docs / "masks.md").read_text("utf-8")
    assert [name for name in OBJECTIVES if f"### {name}\n\n![{name}](masks/{name}.svg)\n" not in page] == []
