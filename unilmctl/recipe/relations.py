"""What must hold between the keys of a recipe, each relation a small function.

A relation yields the keys that take part (the first names the mistake) and a sentence. The relations run
on a recipe from which wrong values were taken out, and one that touches such a value stays silent.
"""

from collections.abc import Iterator, Sequence

from unilmctl.recipe.broken import SPLITS, Broken, written_otherwise
from unilmctl.recipe.pretraining import ALLOWED, WITH_WINDOW, Entry, Pretrain
from unilmctl.recipe.schema import BASE_SHAPE, Recipe
from unilmctl.recipe.task_relations import task_relations
from unilmctl.recipe.training import Training

OF_PAIRS = ("target_files", "source", "target", "references")
OF_TEXT = ("documents", "field", "segmenter")


def check(recipe: Recipe, written: set[tuple[str, ...]]) -> Iterator[Broken]:
    """All broken relations; `written` holds the paths that the recipe itself mentions."""
    yield from _splits(recipe)
    yield from _model_source(recipe, written)
    yield from _shape(recipe)
    yield from _vocabulary(recipe)
    if recipe.pretrain is None:
        yield from _finetuning(recipe, written)
        yield from _training(recipe.finetune, "finetune")
        yield from _adapting(recipe)
        yield from _pairs(recipe)
        yield from task_relations(recipe, written)
    else:
        yield from _training(recipe.pretrain, "pretrain")
        yield from _stages(recipe.pretrain)
        yield from _heads(recipe.pretrain)
        yield from _generator(recipe.pretrain)
        for number, stage in enumerate(recipe.pretrain.plan):
            where = _place(recipe.pretrain, number)
            yield from _mix(stage.mix, where)
            yield from _units(recipe, stage.mix, where)
            yield from _rows(recipe, stage.mix, where)
        yield from _text(recipe, written)
    yield from _row_names(recipe)
    yield from _decoding(recipe)


def _splits(recipe: Recipe) -> Iterator[Broken]:
    for name in SPLITS:
        split = getattr(recipe.data, name)
        if split is None:
            continue
        if recipe.data.generated is not None and (len(split.files) > 1 or split.target_files is not None):
            text = "built-in data is one JSON-lines file a split"
            yield Broken(f"data.{name}.files data.{name}.target_files data.generated", text)
        if split.target_files is None:
            continue
        targets = f"data.{name}.target_files"
        if len(split.target_files) != len(split.files):
            text = f"{len(split.target_files)} target files for {len(split.files)} files; parallel text needs as many"
            yield Broken(f"{targets} data.{name}.files", text)
        if split.format not in ("auto", "text"):
            text = f"parallel files are plain text, but format is '{split.format}'"
            yield Broken(f"{targets} data.{name}.format", text)


def _model_source(recipe: Recipe, written: set[tuple[str, ...]]) -> Iterator[Broken]:
    init, architecture = recipe.model.init, recipe.model.architecture
    if init is None and architecture is None:
        text = "needs init (a model folder) or architecture (from scratch)"
        yield Broken("model model.init model.architecture", text)
    if init is not None and architecture is not None:
        text = "init and architecture exclude each other; set one of them to null"
        yield Broken("model.architecture model.init", text)
    if init is not None and architecture is None:
        for key in BASE_SHAPE:
            if ("model", key) in written and getattr(recipe.model, key) is not None:
                text = "a size of a model from scratch, but model.init brings its own"
                yield Broken(f"model.{key} model.init", text)


def _shape(recipe: Recipe) -> Iterator[Broken]:
    shape = recipe.model.shape
    if shape is None:
        return
    if shape.hidden % shape.heads:
        yield Broken("model.heads model.hidden", f"{shape.heads} heads do not divide hidden: {shape.hidden}")
    if shape.embedding is not None and shape.architecture == "bert":
        yield Broken("model.embedding model.architecture", "BERT's word vectors are as wide as hidden")
    if recipe.pretrain is None:
        keys, what = "tokens.max_source tokens.max_target", "tokens.max_source + tokens.max_target"
        longest = recipe.tokens.max_source + recipe.tokens.max_target
        if not recipe.learnt & {"generate", "similar"}:
            keys, what, longest = "tokens.max_source", "tokens.max_source", recipe.tokens.max_source
    else:
        keys = what = "tokens.max_length"
        longest = recipe.tokens.max_length
    if longest > shape.positions:
        yield Broken(f"model.positions {keys}", f"{shape.positions} positions are too few: {what} is {longest}")


def _vocabulary(recipe: Recipe) -> Iterator[Broken]:
    train, folder = recipe.tokens.train, recipe.tokens.tokenizer
    if train is not None and folder is not None:
        text = "train and tokenizer exclude each other; set one of them to null"
        yield Broken("tokens.train tokens.tokenizer", text)
    if train is not None and recipe.model.init is not None:
        text = "model.init brings its vocabulary; a new one is for a model from scratch"
        yield Broken("tokens.train model.init", text)
    if recipe.model.architecture is not None and recipe.model.init is None and train is None and folder is None:
        text = "a model from scratch needs tokens.train (a new vocabulary) or tokens.tokenizer (a folder)"
        yield Broken("tokens tokens.train tokens.tokenizer model.architecture model.init", text)


def _training(section: Training, name: str) -> Iterator[Broken]:
    if section.warmup > section.steps:
        yield Broken(
            f"{name}.warmup {name}.steps", f"{section.warmup} steps of warm-up in {section.steps} steps of training"
        )
    if section.average_last > section.keep_last:
        yield Broken(
            f"{name}.average_last {name}.keep_last",
            f"{section.average_last} checkpoints to average, but keep_last is {section.keep_last}",
        )


def _finetuning(recipe: Recipe, written: set[tuple[str, ...]]) -> Iterator[Broken]:
    finetune = recipe.finetune
    if finetune.random + finetune.keep > 1:
        text = f"random and keep are shares of one whole, together they are {finetune.random + finetune.keep:g}"
        yield Broken("finetune.random finetune.keep", text)
    if finetune.row is not None:
        yield from _own_row(recipe, finetune.row, written)
    if finetune.keep_best_by != "loss" and recipe.data.valid is None:
        yield Broken(
            "finetune.keep_best_by data.valid",
            f"'{finetune.keep_best_by}' is measured on data.valid, which is absent",
        )


def _own_row(recipe: Recipe, name: str, written: set[tuple[str, ...]]) -> Iterator[Broken]:
    if name not in [row.name for row in recipe.rows or ()]:
        yield Broken("finetune.row rows", f"there is no '{name}' among rows")
    if "generate" not in recipe.learnt:
        yield Broken("finetune.row finetune.task tasks", "a row of your own is for the task 'generate'")
    if ("finetune", "objective") not in written:
        text = f"say as well how a model that learnt '{name}' writes"
        yield Broken("finetune.objective finetune.row", text)
    if recipe.finetune.source_mask:
        yield Broken("finetune.source_mask finetune.row", f"what is masked is said by the parts of '{name}'")


def _pairs(recipe: Recipe) -> Iterator[Broken]:
    for name, key in written_otherwise(recipe, OF_TEXT):
        yield Broken(f"data.{name}.{key} pretrain", "a key for text, but there is no section pretrain")


def _text(recipe: Recipe, written: set[tuple[str, ...]]) -> Iterator[Broken]:
    for section in ("finetune", "evaluate"):
        if (section,) in written:
            yield Broken(f"{section} pretrain", "a recipe that pre-trains has no such section; make it two recipes")
    if recipe.data.generated is not None:
        yield Broken("data.generated pretrain", "built-in data is pairs; pretrain reads text")
    for name, key in written_otherwise(recipe, OF_PAIRS):
        yield Broken(f"data.{name}.{key} pretrain", "a key for pairs, but pretrain reads text")
    for name in SPLITS:
        split = getattr(recipe.data, name)
        if split is not None and split.format in ("tsv", "csv"):
            yield Broken(f"data.{name}.format pretrain", f"'{split.format}' is for pairs, but pretrain reads text")


def _units(recipe: Recipe, mix: Sequence[Entry], where: str) -> Iterator[Broken]:
    for number, entry in enumerate(mix):
        if entry.units == "given" and recipe.data.train.segmenter != "given":
            text = "units of the data need data.train.segmenter: given"
            yield Broken(f"{where}.{number}.units data.train.segmenter", text)


def _rows(recipe: Recipe, mix: Sequence[Entry], where: str) -> Iterator[Broken]:
    known = {row.name: row for row in recipe.rows or ()}
    for number, entry in enumerate(mix):
        keys = f"{where}.{number}.row {where}.{number}.objective"
        if (entry.row is None) == (entry.objective == "custom"):
            yield Broken(keys, "the objective 'custom' and the name of a row belong together")
        elif entry.row is not None and entry.row not in known:
            yield Broken(f"{keys} rows", f"there is no '{entry.row}' among rows")
        elif entry.row is not None and known[entry.row].of_pairs and entry.pairing != "adjacent":
            text = f"'{entry.row}' is made of a source and a target: pair must be adjacent"
            yield Broken(f"{where}.{number}.pair {keys} rows", text)


def _row_names(recipe: Recipe) -> Iterator[Broken]:
    names = [row.name for row in recipe.rows or ()]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Broken(f"rows.{number}.name", f"a second '{name}'; give each a name of its own")
    if names and recipe.pretrain is None and recipe.finetune.row is None:
        yield Broken("rows pretrain finetune.row", "there is neither a mix nor finetune.row to use them")


def _stages(section: Pretrain) -> Iterator[Broken]:
    if section.stages is None:
        return
    if section.mix is not None:
        yield Broken("pretrain.mix pretrain.stages", "mix and stages exclude each other; each stage has a mix")
    together = sum(stage.steps for stage in section.stages)
    if together != section.steps:
        yield Broken("pretrain.steps pretrain.stages", f"{section.steps} steps, but the stages have {together}")


def _heads(section: Pretrain) -> Iterator[Broken]:
    trained = dict.fromkeys(("lm", *(head for entry in section.entries for head in entry.heads)))
    for head in section.head_weights:
        if head not in trained:
            text = f"no objective of the mix trains this head; those that are trained: {', '.join(trained)}"
            yield Broken(f"pretrain.head_weights.{head} pretrain.mix", text)


def _place(section: Pretrain, stage: int) -> str:
    """The key of a stage's mix."""
    return f"pretrain.stages.{stage}.mix" if section.stages else "pretrain.mix"


def _generator(section: Pretrain) -> Iterator[Broken]:
    """What ELECTRA's two models leave no room for."""
    if not section.replaces:
        if section.generator_size != Pretrain.model_fields["generator_size"].default:
            yield Broken("pretrain.generator_size pretrain.mix", "a generator is for the objective 'replaced'")
        return
    for stage, part in enumerate(section.plan):
        for number, entry in enumerate(part.mix):
            if entry.objective != "replaced":
                text = "'replaced' is learnt by two models at once, which nothing else can be taught beside"
                yield Broken(f"{_place(section, stage)}.{number}.objective", text)
    if section.sharding == "full":
        yield Broken("pretrain.sharding pretrain.mix", "a model with a generator cannot be shared out")


def _mix(mix: Sequence[Entry], where: str) -> Iterator[Broken]:
    names = [entry.label for entry in mix]
    for number, entry in enumerate(mix):
        if entry.label in names[:number]:
            text = f"a second '{entry.label}'; give each a name of its own"
            yield Broken(f"{where}.{number}.name {where}.{number}.objective", text)
        if entry.random + entry.keep > 1:
            text = f"random and keep are shares of one whole, together they are {entry.random + entry.keep:g}"
            yield Broken(f"{where}.{number}.random {where}.{number}.keep", text)
        allowed = ALLOWED.get(entry.objective, ("none",))
        if entry.pairing not in allowed:
            text = f"'{entry.objective}' reads a passage as {' or '.join(allowed)}"
            yield Broken(f"{where}.{number}.pair {where}.{number}.objective", text)
        if entry.window is not None and entry.objective not in WITH_WINDOW:
            text = f"a window is for {' and '.join(WITH_WINDOW)}"
            yield Broken(f"{where}.{number}.window {where}.{number}.objective", text)


def _adapting(recipe: Recipe) -> Iterator[Broken]:
    finetune = recipe.finetune
    if finetune.lora is not None:
        if recipe.model.init is None:
            yield Broken("finetune.lora model.init", "adapters are for a model that has learnt something: model.init")
        if finetune.freeze or finetune.freeze_embeddings:
            keys = "finetune.freeze finetune.freeze_embeddings finetune.lora"
            yield Broken(keys, "with adapters nothing else is trained anyway")
        if len(set(finetune.lora.targets)) < len(finetune.lora.targets):
            yield Broken("finetune.lora.targets", "a linear layer is named twice")
    if finetune.sharding == "full" and (finetune.lora is not None or finetune.ema is not None):
        text = "a model that is shared out among processes has neither adapters nor averages"
        yield Broken("finetune.sharding finetune.lora finetune.ema", text)


def _decoding(recipe: Recipe) -> Iterator[Broken]:
    generate = recipe.generate
    longest = generate.max_length or recipe.tokens.max_target
    if generate.min_length > longest:
        yield Broken(
            "generate.min_length generate.max_length tokens.max_target",
            f"at least {generate.min_length} tokens, but at most {longest}",
        )
    if generate.search in ("beam", "s2s-ft") and generate.nbest > generate.beam:
        yield Broken(
            "generate.nbest generate.beam generate.search",
            f"{generate.nbest} hypotheses from a beam of {generate.beam}",
        )
    if generate.search in ("greedy", "contrastive") and generate.nbest > 1:
        yield Broken("generate.nbest generate.search", f"{generate.search} search gives one hypothesis")
    if generate.search == "beam":
        yield from _groups(generate.beam, generate.beam_groups, generate.diversity)
    if generate.search == "s2s-ft" and generate.repetition_penalty != 1:
        yield Broken("generate.repetition_penalty generate.search", "s2s-ft search knows no repetition penalty")
    if generate.search == "s2s-ft" and generate.forbid_phrase:
        yield Broken("generate.forbid_phrase generate.search", "s2s-ft search knows no forbidden phrases")
    if generate.must and (generate.search != "beam" or generate.beam_groups > 1):
        who = "groups of a beam know" if generate.search == "beam" else f"{generate.search} search knows"
        text = f"{who} no phrases that must appear"
        yield Broken("generate.must generate.search generate.beam_groups", text)


def _groups(beam: int, groups: int, diversity: float) -> Iterator[Broken]:
    if beam % groups:
        yield Broken("generate.beam_groups generate.beam", f"a beam of {beam} cannot be {groups} groups of one size")
    elif groups > 1 and diversity == 0:
        text = f"{groups} groups without diversity would all write the same"
        yield Broken("generate.diversity generate.beam_groups", text)
    elif groups == 1 and diversity > 0:
        yield Broken("generate.diversity generate.beam_groups", "diversity is between groups, and there is one")
