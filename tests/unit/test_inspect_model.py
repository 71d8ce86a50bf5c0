"""inspect model: shapes, totals, checksums, the manifest, the card."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from tiny_checkpoints import on_disk, tiny, write_config

from unilmctl.commands.inspect import model
from unilmctl.errors import ModelError
from unilmctl.files import publish_folder
from unilmctl.weights import ModelCard, save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "new", tiny(), ModelCard("causal", max_source=9), None)
    publish_folder(tmp_path / "new", tmp_path / "model")
    return tmp_path / "model"


def test_tensors_are_listed_with_their_shapes(folder: Path) -> None:
    report = model.run(folder=folder)
    expected = {name: (tuple(tensor.shape), "F32") for name, tensor in on_disk(tiny()).items()}
    assert {one.name: (one.shape, one.dtype) for one in report.tensors} == expected
    assert report.parameters == sum(parameter.numel() for parameter in tiny().parameters())


def test_checksums_are_those_of_the_files(folder: Path) -> None:
    files = {one.name: one for one in model.run(folder=folder).files}
    assert files.keys() == {"MANIFEST.json", "config.json", "model.safetensors", "unilmctl.json"}
    for name, one in files.items():
        content = (folder / name).read_bytes()
        assert (one.size, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_tables_name_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.run(folder=folder)
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["bert.encoder.layer.1.intermediate.dense.weight", "12", "x", "8", "F32", "96"] in lines
    assert ["objective", '"causal"'] in lines
    assert "total of" in out
    assert "every file is as MANIFEST.json says" in err


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = model.run(folder=folder, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["parameters"] == report.parameters == sum(one["parameters"] for one in shown["tensors"])
    assert shown["card"]["max_source"] == 9
    assert shown["manifest"] == {"problems": []}


def test_settings_are_the_sizes_and_what_is_not_as_in_bert(tmp_path: Path) -> None:
    save_model(tmp_path, tiny(family="albert", layer_groups=1, embedding=4), ModelCard(), None)
    settings = model.inspect(tmp_path).settings
    sizes = {"vocabulary": 27, "hidden": 8, "layers": 2, "heads": 2, "feedforward": 12, "positions": 10, "segments": 2}
    assert settings == {"family": "albert", **sizes, "embedding": 4, "layer_groups": 1}
    save_model(tmp_path, tiny(), ModelCard(), None)
    assert model.inspect(tmp_path).settings == {"family": "bert", **sizes}


def test_a_changed_file_is_shown_and_then_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="config.json: has 2 bytes, the manifest says") as caught:
        model.run(folder=folder)
    assert caught.value.hint == "the folder was changed after it was written, or is damaged"
    out = capsys.readouterr().out
    assert "total of" in out
    assert "neither config.json nor the tensors' names tell the architecture" in out


def test_a_plain_folder_has_neither_card_nor_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(on_disk(tiny()), tmp_path / "model.safetensors")
    write_config(tmp_path, tiny().config)
    report = model.run(folder=tmp_path)
    assert (report.card, report.problems) == (None, None)
    assert "no MANIFEST.json" in capsys.readouterr().err


def test_a_run_folder_means_its_best_checkpoint(folder: Path, tmp_path: Path) -> None:
    best = tmp_path / "run" / "checkpoints" / "step-3"
    best.parent.mkdir(parents=True)
    folder.rename(best)
    (tmp_path / "run" / "best").write_text("step-3\n")
    report = model.run(folder=tmp_path / "run")
    assert (report.folder, report.problems) == (best, [])


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, tiny().config)
    with pytest.raises(ModelError, match="'model.safetensors' is missing"):
        model.run(folder=tmp_path)
