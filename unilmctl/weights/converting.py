"""A checkpoint in any supported form to a model folder, with a report of what became of every tensor."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import torch

from unilmctl import __version__
from unilmctl.errors import ModelError, UsageError
from unilmctl.files import beside_of, publish_folder, verify_manifest, write_errors
from unilmctl.model import Encoder, ModelConfig
from unilmctl.tokens import Tokenizer, content_of
from unilmctl.weights.adapting import Resized, rebuilt, with_positions, with_segments, with_vocabulary
from unilmctl.weights.assembling import Assembly, HeadState, Missing, assemble
from unilmctl.weights.averaging import average
from unilmctl.weights.card import CARD, ModelCard, read_card
from unilmctl.weights.cutting import cut
from unilmctl.weights.dialects import Leftover
from unilmctl.weights.families import family_of
from unilmctl.weights.folder import check_segments, default_card, default_segments, save_model
from unilmctl.weights.reading import read_json
from unilmctl.weights.sources import TOKENIZER_FILES, Source, locate, read_tensors, refuse_outside


@dataclass(frozen=True)
class ConvertOptions:
    """What the converted model shall have other than its source; None leaves as it is.

    `config`, `tokenizer`, `architecture` say what cannot be found beside the weights. `keep_vocabulary` is a file with
    a token a line. The weights become the mean of the source's and those of `average`, checkpoints of the same shape.
    """

    config: Path | None = None
    tokenizer: Path | None = None
    architecture: str | None = None
    positions: int | None = None
    segments: int | None = None
    keep_vocabulary: Path | None = None
    objective: str | None = None
    source_segment: int | None = None
    target_segment: int | None = None
    average: tuple[str, ...] = ()


@dataclass
class ConvertReport:
    """What became of a checkpoint. `loaded` counts tensors of the file that are in the model, `parameters` numbers.

    `head`: whether the language-model head was there and looks trained.
    """

    source: str
    destination: Path
    config: ModelConfig
    card: ModelCard
    loaded: int
    parameters: int
    head: HeadState
    resized: list[Resized] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    left_over: list[Leftover] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert(source: str, destination: Path, options: ConvertOptions | None = None) -> ConvertReport:
    """Convert `source` (folder, weight file, or `hf:NAME`) to a model folder at `destination`, published as a whole.

    Raises ModelError for a checkpoint that is broken, unsafe or does not fit together, UsageError for options that make
    no sense, WriteError when the system refuses.
    """
    options = options or ConvertOptions()
    _refuse_taken(destination)
    found = locate(source, options.config)
    raw = read_json(found.config)
    assembly = assemble(read_tensors(found.weights), raw, str(found.weights), options.architecture)
    _refuse_broken_numbers(assembly.encoder, found.weights)
    encoder, notes = assembly.encoder, list(assembly.notes)
    tokenizer = _tokenizer(found, options)
    card = _known_card(found) or default_card(raw, assembly)
    if options.average:
        average(assembly, (_alike(other, card, tokenizer, source) for other in options.average), source)
        notes.append(f"the weights are the mean with {', '.join(options.average)}")
    encoder, tokenizer, resized = _resized(encoder, tokenizer, options, notes)
    card = _adjusted(card, encoder.config, options, keep_segments="source_type_id" in raw)
    check_segments(card, encoder.config, source)
    _publish(destination, encoder, card, tokenizer)
    return ConvertReport(
        source,
        destination,
        encoder.config,
        card,
        loaded=assembly.loaded,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        head=assembly.head,
        resized=resized,
        missing=assembly.missing,
        left_over=assembly.left_over,
        notes=notes,
    )


def _refuse_taken(destination: Path) -> None:
    """Only an empty place, or an intact model folder with nothing else in it, may be overwritten."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not (destination / CARD).is_file() or verify_manifest(destination):
        raise UsageError(
            f"{destination}: exists, and is not an intact model folder", "remove it, or choose another destination"
        )


def _refuse_broken_numbers(encoder: Encoder, weights: Path) -> None:
    for name, tensor in encoder.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{weights}: '{name}' holds numbers that are not finite", "the checkpoint is broken")


def _known_card(found: Source) -> ModelCard | None:
    card = read_card(found.folder)
    return None if card is None else replace(card, version=__version__)


def _alike(source: str, card: ModelCard, tokenizer: Tokenizer, first: str) -> tuple[str, Assembly]:
    """A checkpoint that is used and numbers its tokens as the first one, by its name; ModelError if it does not."""
    found = locate(source)
    other = _known_card(found)
    for key in ("objective", "source_segment", "target_segment", "separator_in"):
        mine, theirs = getattr(card, key), getattr(other or card, key)
        if mine != theirs:
            raise ModelError(f"{source}: {key} is {theirs!r}, in {first} it is {mine!r}", "their mean would be neither")
    if found.tokenizer is not None and Tokenizer.load(found.tokenizer).fingerprint() != tokenizer.fingerprint():
        raise ModelError(f"{source}: its vocabulary is not that of {first}", "their mean would be neither")
    assembly = assemble(read_tensors(found.weights), read_json(found.config), str(found.weights))
    _refuse_broken_numbers(assembly.encoder, found.weights)
    return source, assembly


def _tokenizer(found: Source, options: ConvertOptions) -> Tokenizer:
    """The tokenizer of the checkpoint, or the one that the user names: a folder, or a vocabulary file."""
    place = options.tokenizer or found.tokenizer
    if place is None:
        raise ModelError(f"{found.weights}: no tokenizer beside it", "say where it is with --tokenizer FOLDER")
    if not place.exists():
        raise ModelError(f"{place}: no such tokenizer")
    if place.is_file():
        with TemporaryDirectory() as folder:
            (Path(folder) / "vocab.txt").write_bytes(content_of(place))
            return Tokenizer.load(Path(folder))
    for name in (*TOKENIZER_FILES, "config.json"):
        if (place / name).exists():
            refuse_outside(place, place / name)
    return Tokenizer.load(place)


def _resized(
    encoder: Encoder, tokenizer: Tokenizer, options: ConvertOptions, notes: list[str]
) -> tuple[Encoder, Tokenizer, list[Resized]]:
    """The encoder and tokenizer with the tables that the options ask for."""
    vocabulary = encoder.config.vocabulary
    if tokenizer.size > vocabulary:
        raise ModelError(
            f"the tokenizer has {tokenizer.size} tokens, the model only {vocabulary}",
            "the tokenizer belongs to another checkpoint",
        )
    changes: list[Resized | None] = []
    if options.keep_vocabulary is not None:
        tokenizer, ids = cut(tokenizer, _listed(options.keep_vocabulary, tokenizer, notes))
        encoder = with_vocabulary(encoder, torch.tensor(ids), tokenizer.roles.pad)
        changes.append(Resized("vocabulary", vocabulary, len(ids), f"kept the tokens of {options.keep_vocabulary}"))
    elif tokenizer.size < vocabulary:
        notes.append(f"the last {vocabulary - tokenizer.size} of {vocabulary} word embeddings have no token")
    if encoder.config.pad != tokenizer.roles.pad:
        encoder = rebuilt(replace(encoder.config, pad=tokenizer.roles.pad), dict(encoder.state_dict()), encoder)
    if options.positions is not None:
        encoder, change = with_positions(encoder, options.positions)
        changes.append(change)
    has_segments = "segment" in family_of(encoder.config.family).embeddings
    segments = options.segments or (1 if has_segments and encoder.config.segments == 0 else None)
    if segments is not None:
        encoder, change = with_segments(encoder, segments)
        changes.append(change)
    return encoder, tokenizer, [change for change in changes if change is not None]


def _listed(file: Path, tokenizer: Tokenizer, notes: list[str]) -> set[str]:
    """The tokens in a file, one a line; unknown ones become a note."""
    try:
        lines = content_of(file).decode().split("\n")
    except (ModelError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read as a list of tokens ({error})") from error
    listed = {line.removesuffix("\r") for line in lines} - {""}
    unknown = sorted(token for token in listed if tokenizer.token_id(token) is None)
    if len(unknown) == len(listed):
        raise UsageError(f"{file}: none of its {len(listed)} tokens is in the vocabulary", "write one token a line")
    if unknown:
        some = ", ".join([*unknown[:3], *(["..."] if len(unknown) > 3 else [])])
        notes.append(f"{len(unknown)} of the tokens in {file} are not in the vocabulary ({some})")
    return listed


def _adjusted(card: ModelCard, config: ModelConfig, options: ConvertOptions, *, keep_segments: bool) -> ModelCard:
    """The card with what the options say; the segments follow the table where nobody has said which they are."""
    if options.segments is not None and not keep_segments:
        source, target = default_segments(config.segments)
        card = replace(card, source_segment=source, target_segment=target)
    if options.source_segment is not None:
        card = replace(card, source_segment=options.source_segment)
    if options.target_segment is not None:
        card = replace(card, target_segment=options.target_segment)
    return card if options.objective is None else replace(card, objective=options.objective)


def _publish(destination: Path, encoder: Encoder, card: ModelCard, tokenizer: Tokenizer) -> None:
    temporary = beside_of(destination)
    with write_errors(destination):
        temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_model(temporary, encoder, card, tokenizer)
        if Tokenizer.load(temporary).fingerprint() != tokenizer.fingerprint():
            raise ModelError(
                "the tokenizer would number its tokens otherwise in the new folder",
                "give the tokenizer a tokenizer_config.json that names its tokenizer_class",
            )
        publish_folder(temporary, destination)
    finally:
        rmtree(temporary, ignore_errors=True)
