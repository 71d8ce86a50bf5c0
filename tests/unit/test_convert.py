"""convert: every kind of source, its options, its report, and what it refuses."""

import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import WORDS, on_disk, same, tiny, write_config, write_vocabulary

from unilmctl.cli import run as command_line
from unilmctl.commands import convert as command
from unilmctl.errors import ModelError, UsageError, UserError
from unilmctl.files import verify_manifest
from unilmctl.model import Encoder
from unilmctl.tokens import Tokenizer
from unilmctl.weights import ConvertOptions, ConvertReport, convert, load_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A Hugging Face folder of a tiny BERT."""
    return hugging_face(tmp_path / "source", tiny(pair_head=True))


def hugging_face(folder: Path, encoder: Encoder) -> Path:
    folder.mkdir()
    save_file(on_disk(encoder), folder / "model.safetensors")
    write_config(folder, encoder.config)
    write_vocabulary(folder)
    return folder


def converted(source: Path | str, folder: Path, **options: Any) -> tuple[ConvertReport, Encoder]:
    report = convert(str(source), folder, ConvertOptions(**options))
    assert verify_manifest(folder) == []
    return report, load_model(folder).encoder


def test_a_hugging_face_folder_comes_through_bit_equal(source: Path, tmp_path: Path) -> None:
    report, encoder = converted(source, tmp_path / "out")
    assert same(encoder, tiny(pair_head=True))
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (report.resized, report.missing, report.left_over, report.notes) == ([], [], [], [])
    assert (report.loaded, report.head) == (len(before), "trained")
    assert report.parameters == sum(tensor.numel() for tensor in before.values())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "MANIFEST.json",
        "config.json",
        "model.safetensors",
        "unilmctl.json",
        "vocab.txt",
    ]


@pytest.mark.parametrize("ending", ["safetensors", "bin", "pt"])
@pytest.mark.parametrize("naming", ["config.json", "weights-config.json", "weights.json", "bert_config.json"])
def test_a_single_file_with_its_configuration_beside_it(ending: str, naming: str, tmp_path: Path) -> None:
    encoder = tiny()
    write_config(tmp_path, encoder.config).rename(tmp_path / naming)
    (tmp_path / "weights-vocab.txt").write_text("\n".join(WORDS))
    path = tmp_path / f"weights.{ending}"
    save_file(on_disk(encoder), path) if ending == "safetensors" else torch.save(on_disk(encoder), path)
    assert same(converted(path, tmp_path / "out")[1], encoder)
    assert Tokenizer.load(tmp_path / "out").size == len(WORDS)


def test_configuration_and_tokenizer_from_elsewhere(source: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    weights = (source / "model.safetensors").rename(tmp_path / "bare" / "x.safetensors")
    _, encoder = converted(weights, tmp_path / "out", config=source / "config.json", tokenizer=source)
    assert same(encoder, tiny(pair_head=True))
    converted(weights, tmp_path / "two", config=source / "config.json", tokenizer=source / "vocab.txt")


def test_weights_in_parts(tmp_path: Path) -> None:
    encoder = tiny()
    write_config(tmp_path, encoder.config)
    write_vocabulary(tmp_path)
    tensors = on_disk(encoder)
    names = sorted(tensors)
    where = {name: f"pytorch_model-{index % 2}.bin" for index, name in enumerate(names)}
    for part in set(where.values()):
        torch.save({name: tensors[name] for name in names if where[name] == part}, tmp_path / part)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    assert same(converted(tmp_path, tmp_path / "out")[1], encoder)


def test_a_checkpoint_of_s2s_ft(tmp_path: Path) -> None:
    folder, encoder = tmp_path / "ckpt-32", tiny(pooler=False, relative_buckets=8)
    folder.mkdir()
    tensors = on_disk(encoder)
    tensors["cls.predictions.decoder_weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["crit_mask_lm_smoothed.one_hot"] = torch.zeros(1, len(WORDS))
    torch.save(tensors, folder / "pytorch_model.bin")
    torch.save({"state": {}}, folder / "optimizer.bin")
    write_config(
        folder,
        encoder.config,
        architectures=None,
        source_type_id=1,
        target_type_id=0,
        label_smoothing=0.1,
        model_type=None,
    )
    with pytest.raises(ModelError, match="no tokenizer beside it") as caught:
        convert(str(folder), tmp_path / "out")
    assert caught.value.hint == "say where it is with --tokenizer FOLDER"
    write_vocabulary(tmp_path)
    report, found = converted(folder, tmp_path / "out", tokenizer=tmp_path)
    assert same(found, encoder)
    assert {one.name for one in report.left_over} == {"cls.predictions.decoder_weight", "crit_mask_lm_smoothed.one_hot"}
    assert (report.card.source_segment, report.card.target_segment) == (1, 0)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "electra"])
def test_other_families_come_through_bit_equal(family: str, tmp_path: Path) -> None:
    encoder = tiny(family=family, segments=1, pooler=False, embedding=4 if family == "electra" else None)
    report, found = converted(hugging_face(tmp_path / "source", encoder), tmp_path / "out")
    assert same(found, encoder)
    assert (report.card.source_segment, report.card.target_segment) == (0, 0)
    before, after = load_file(tmp_path / "source/model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def piece_model(folder: Path, **options: Any) -> Path:
    """A folder with a SentencePiece model and nothing else."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f"] * 5),
        model_writer=model,
        vocab_size=24,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    folder.mkdir()
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    return folder


def test_a_bert_with_the_tokenizer_of_xlm_r(tmp_path: Path) -> None:
    """Multilingual MiniLM: only the other model's config.json says how the ids are numbered."""
    xlm_r = piece_model(tmp_path / "xlm-r")
    (xlm_r / "config.json").write_text('{"model_type": "xlm-roberta"}')
    folder = hugging_face(tmp_path / "source", tiny(pad=0))
    (folder / "vocab.txt").unlink()
    report, _ = converted(folder, tmp_path / "out", tokenizer=xlm_r)
    assert (report.config.family, report.config.pad) == ("bert", 1)
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.fingerprint() == Tokenizer.load(xlm_r).fingerprint()
    assert (tokenizer.roles.start, tokenizer.roles.pad, tokenizer.roles.mask) == (0, 1, tokenizer.size - 1)
    said = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert said == {"tokenizer_class": "XLMRobertaTokenizer"}


def test_a_tokenizer_that_the_new_folder_would_number_otherwise_is_refused(tmp_path: Path) -> None:
    plain = piece_model(tmp_path / "plain", control_symbols=["[PAD]", "[CLS]", "[SEP]", "[MASK]"])
    folder = hugging_face(tmp_path / "source", tiny(family="xlm-roberta", segments=1))
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelError, match="would number its tokens otherwise in the new folder"):
        convert(str(folder), tmp_path / "bad", ConvertOptions(tokenizer=plain))
    assert not (tmp_path / "bad").exists()


def test_positions_and_segments_grow(source: Path, tmp_path: Path) -> None:
    report, encoder = converted(source, tmp_path / "out", positions=24, segments=6)
    assert (encoder.config.positions, encoder.config.segments) == (24, 6)
    assert [tuple(one)[:3] for one in report.resized] == [("positions", 10, 24), ("segments", 2, 6)]
    assert report.resized[1].how == "copied: 2 from 0, 3 from 0, 4 from 0, 5 from 1"
    assert (report.card.source_segment, report.card.target_segment) == (4, 5)


def test_a_model_without_segments_gets_one_of_zeros(tmp_path: Path) -> None:
    report, encoder = converted(hugging_face(tmp_path / "source", tiny(segments=0)), tmp_path / "out")
    assert encoder.config.segments == 1
    assert [tuple(one) for one in report.resized] == [("segments", 0, 1, "zeros")]


def test_the_card_says_what_the_options_say(source: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "out", objective="causal", source_segment=1, target_segment=0)
    card = load_model(tmp_path / "out").card
    assert (card.objective, card.source_segment, card.target_segment) == ("causal", 1, 0)
    again = convert(str(tmp_path / "out"), tmp_path / "again").card
    assert again == card


def test_a_segment_beyond_the_table_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the target segment is 5, but the model has 2 segments"):
        convert(str(source), tmp_path / "out", ConvertOptions(target_segment=5))


def test_the_vocabulary_is_cut_to_a_list(source: Path, tmp_path: Path) -> None:
    listed = tmp_path / "keep.txt"
    listed.write_text("c\n##d\nzebra\n")
    report, encoder = converted(source, tmp_path / "out", keep_vocabulary=listed)
    assert tuple(report.resized[0]) == ("vocabulary", 27, 7, f"kept the tokens of {listed}")
    assert report.notes == [f"1 of the tokens in {listed} are not in the vocabulary (zebra)"]
    assert Tokenizer.load(tmp_path / "out").tokens(range(7)) == [*WORDS[:5], "c", "##d"]
    ids = [*range(5), WORDS.index("c"), WORDS.index("##d")]
    assert torch.equal(encoder.embeddings.word.weight, tiny(pair_head=True).embeddings.word.weight[ids])
    assert torch.equal(encoder.head.bias, tiny(pair_head=True).head.bias[ids])


@pytest.mark.parametrize("content", [b"zebra\nyak\n", b"", b"\xff\xfe"])
def test_a_list_that_keeps_nothing_is_refused(content: bytes, source: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"keep.txt: (none of its \d tokens is in the vocabulary|cannot be read)"):
        convert(str(source), tmp_path / "out", ConvertOptions(keep_vocabulary=tmp_path / "keep.txt"))


def test_a_vocabulary_file_or_a_list_of_any_size_is_refused(source: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelError, match=r"large\.txt: 1099511627776 bytes are too many for a file of a tokenizer"):
        convert(str(source), tmp_path / "out", ConvertOptions(tokenizer=large))
    with pytest.raises(UsageError, match=r"large\.txt: cannot be read as a list of tokens .*too many"):
        convert(str(source), tmp_path / "out", ConvertOptions(keep_vocabulary=large))


def test_rows_without_a_token_are_noted(tmp_path: Path) -> None:
    report, _ = converted(hugging_face(tmp_path / "source", tiny(vocabulary=32)), tmp_path / "out")
    assert report.notes == ["the last 5 of 32 word embeddings have no token"]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "source", tiny(vocabulary=20))
    with pytest.raises(ModelError, match="the tokenizer has 27 tokens, the model only 20"):
        convert(str(folder), tmp_path / "out")


def test_padding_is_where_the_tokenizer_has_it(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "source", tiny())
    (folder / "vocab.txt").write_text("\n".join(["[CLS]", "[PAD]", *WORDS[1:2], *WORDS[3:]]))
    assert converted(folder, tmp_path / "out")[1].config.pad == 1


def test_an_intact_model_folder_is_replaced_and_nothing_else(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    converted(source, out)
    converted(source, out, positions=20)
    assert load_model(out).encoder.config.positions == 20
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="out: exists, and is not an intact model folder") as caught:
        convert(str(source), out)
    assert caught.value.hint == "remove it, or choose another destination"
    assert (out / "notes.txt").exists()
    with pytest.raises(UsageError):
        convert(str(source), source)
    with pytest.raises(UsageError):
        convert(str(source), source / "config.json")


def test_a_failed_conversion_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    (source / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ModelError, match="has no"):
        convert(str(source), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ([], "no weights here", "looked for model.safetensors, "),
        (["a.bin", "b.bin"], "has several weight files", "name one of them: "),
        (["a.ckpt.index", "b.ckpt.index"], "has several weight files", "name one of them: "),
        (["model.ckpt.index", "model.ckpt.meta"], "no config.json", "say where it is with --config FILE"),
        (["model.safetensors"], "no config.json", "say where it is with --config FILE"),
    ],
)
def test_folders_that_hold_no_checkpoint(files: list[str], message: str, hint: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=message) as caught:
        convert(str(tmp_path), tmp_path / "out")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    cases = {
        "nowhere": "no such file or folder",
        "model.h5": "this format is not read",
        "model.ckpt.meta": "this format is not read",
        "model.ckpt.index": "no configuration beside it",
        "model.txt": "neither a folder nor a .safetensors, .bin, .pt or .index file",
        "model.bin": "no configuration beside it",
    }
    for name, message in cases.items():
        if name != "nowhere":
            (tmp_path / name).touch()
        with pytest.raises(ModelError, match=message):
            convert(str(tmp_path / name), tmp_path / "out")


def test_the_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="hf:some/model: fetching models needs huggingface_hub") as caught:
        convert("hf:some/model", tmp_path / "out")
    assert caught.value.exit_code == 1
    assert caught.value.hint == "pip install 'unilmctl[hub]', or convert a local folder"


def hub(monkeypatch: pytest.MonkeyPatch, snapshot_download: Any) -> None:
    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_the_hub_gives_a_folder(monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path) -> None:
    asked = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(source)

    hub(monkeypatch, snapshot_download)
    converted("hf:some/model", tmp_path / "out")
    ((name, patterns),) = asked
    assert name == "some/model"
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in patterns)


def test_a_refusing_hub_is_a_model_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        raise ConnectionError("no route to host\nlong story")

    hub(monkeypatch, snapshot_download)
    with pytest.raises(ModelError, match=r"hf:some/model: cannot be fetched \(no route to host\)") as caught:
        convert("hf:some/model", tmp_path / "out")
    assert caught.value.hint == "check the name and the network"


def test_the_command_shows_the_report(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {name: tensor for name, tensor in on_disk(tiny()).items() if not name.startswith("cls.")}
    save_file(tensors | {"classifier.weight": torch.zeros(2, 8)}, source / "model.safetensors")
    command.run(source=str(source), destination=tmp_path / "out", positions=20)
    out, err = capsys.readouterr()
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert any(line[0] == "resized" and "10 -> 20" in line[1] for line in lines)
    assert any(
        line[0] == "missing" and "head.norm.weight" in line[1] and "initialised to 1" in line[1] for line in lines
    )
    assert any(line[0] == "left" and "classifier.weight" in line[1] for line in lines)
    assert "no language-model head" in err.replace("\n", " ")


def test_the_command_speaks_json(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = command.run(source=str(source), destination=tmp_path / "out", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(json.dumps(command.to_json(report)))
    assert (shown["head"], shown["loaded"], shown["family"]) == ("trained", report.loaded, "bert")


def test_an_untrained_head_is_warned_about(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = on_disk(tiny())
    tensors["cls.predictions.transform.LayerNorm.weight"].fill_(1)
    for name in ("cls.predictions.transform.LayerNorm.bias", "cls.predictions.bias"):
        tensors[name].zero_()
    save_file(tensors, source / "model.safetensors")
    report = command.run(source=str(source), destination=tmp_path / "out")
    assert (report.head, report.card.head_trained) == ("untrained", False)
    assert "looks as if it had never been trained" in capsys.readouterr().err.replace("\n", " ")


def test_an_objective_that_cannot_generate_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--objective bidirectional: cannot generate") as caught:
        command.run(source=str(source), destination=tmp_path / "out", objective="bidirectional")
    assert caught.value.hint == "choose one of pseudo, masked, causal, next-token, similar"


def shifted(folder: Path, by: float, **changes: Any) -> Path:
    """A tiny BERT all of whose weights are larger by so much."""
    encoder = tiny(pair_head=True, **changes)
    for tensor in encoder.state_dict().values():
        tensor.add_(by)
    return hugging_face(folder, encoder)


def test_the_mean_of_several_checkpoints(source: Path, tmp_path: Path) -> None:
    others = [str(shifted(tmp_path / name, by)) for name, by in (("one", 0.5), ("two", 1.0))]
    report, encoder = converted(source, tmp_path / "out", average=tuple(others))
    plain = tiny(pair_head=True).state_dict()
    for name, tensor in encoder.state_dict().items():
        assert torch.allclose(tensor, plain[name] + 0.5, atol=1e-6), name
    assert report.notes == [f"the weights are the mean with {others[0]}, {others[1]}"]


def test_the_mean_with_itself_is_itself(source: Path, tmp_path: Path) -> None:
    _, encoder = converted(source, tmp_path / "out", average=(str(source),))
    assert same(encoder, tiny(pair_head=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": 12}, "OTHER: 'embeddings.position.weight' is [12, 8], in FIRST it is [10, 8]"),
        ({"layers": 1}, "OTHER: has no 'layers.1.attention.qkv.weight', as FIRST has"),
        ({"activation": "relu"}, "OTHER: activation is 'relu', in FIRST it is 'gelu'"),
        ({"heads": 4}, "OTHER: heads is 4, in FIRST it is 2"),
    ],
)
def test_only_checkpoints_of_one_shape_have_a_mean(
    source: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    other = shifted(tmp_path / "other", 0.5, **changes)
    with pytest.raises(ModelError) as caught:
        convert(str(source), tmp_path / "out", ConvertOptions(average=(str(other),)))
    assert caught.value.message.replace(str(other), "OTHER").replace(str(source), "FIRST") == message
    assert not (tmp_path / "out").exists()


def test_only_checkpoints_that_are_used_alike_have_a_mean(source: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    converted(source, first)
    converted(source, second, objective="causal")
    with pytest.raises(ModelError, match="second: objective is 'causal', in .*first it is 'pseudo'"):
        convert(str(first), third, ConvertOptions(average=(str(second),)))
    words = source / "vocab.txt"
    words.write_text(words.read_text().replace("a\n", "z\n", 1))
    with pytest.raises(ModelError, match="source: its vocabulary is not that of .*first"):
        convert(str(first), third, ConvertOptions(average=(str(source),)))


def test_a_checkpoint_without_a_head_has_no_mean_with_one_that_has_it(source: Path, tmp_path: Path) -> None:
    other = shifted(tmp_path / "other", 0.5)
    tensors = {
        name: tensor for name, tensor in load_file(other / "model.safetensors").items() if "cls.pred" not in name
    }
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(ModelError, match="'head.bias' is in one of .*source and .*other only"):
        convert(str(source), tmp_path / "out", ConvertOptions(average=(str(other),)))


def test_the_command_line_takes_several_to_average(source: Path, tmp_path: Path) -> None:
    others = [str(shifted(tmp_path / name, by)) for name, by in (("one", 0.5), ("two", 1.0))]
    words = ["convert", str(source), str(tmp_path / "out")]
    assert command_line([*words, "--average", others[0], "--average", others[1]]) == 0
    bias = load_model(tmp_path / "out").encoder.head.bias
    assert torch.allclose(bias, tiny().head.bias + 0.5)
