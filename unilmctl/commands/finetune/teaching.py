"""The teacher that a recipe names, and whether it can teach this model."""

from unilmctl.errors import ModelError
from unilmctl.model import Encoder
from unilmctl.recipe import Recipe
from unilmctl.runs import model_folder
from unilmctl.tokens import Tokenizer
from unilmctl.training.distillation import Teacher
from unilmctl.weights import ModelCard, load_model

SEGMENTS = ("source_segment", "target_segment")
READ_ALIKE = ("objective", "separator_in", *SEGMENTS)
"""What the cards of a teacher and of a student that write must agree on; those that give labels, on segments alone."""


def teacher_of(plan: Recipe, encoder: Encoder, card: ModelCard, tokenizer: Tokenizer) -> Teacher | None:
    """The teacher of `encoder`; None for a recipe without one.

    ModelError when its vocabulary is another or its labels are, when it reads rows otherwise, or not such long ones.
    """
    wanted = plan.finetune.distil
    if wanted is None:
        return None
    folder = model_folder(wanted.teacher)
    teacher, known = load_model(folder)
    same = Tokenizer.load(folder).fingerprint() == tokenizer.fingerprint()
    if not same or teacher.config.vocabulary != encoder.config.vocabulary:
        raise ModelError(
            f"finetune.distil.teacher: {folder} has another vocabulary than the model",
            "a teacher and its student share one: train the student with the teacher's (tokens.tokenizer)",
        )
    writes = plan.finetune.task == "generate"
    if not writes:
        _refuse_other_labels(plan.finetune.task, encoder, teacher, str(folder))
    for name in READ_ALIKE if writes else SEGMENTS:
        ours, theirs = getattr(card, name), getattr(known, name)
        if ours != theirs:
            raise ModelError(f"finetune.distil.teacher: {name} of {folder} is {theirs!r}, that of the model {ours!r}")
    longest = plan.tokens.max_source + (plan.tokens.max_target if writes else 0)
    if longest > teacher.config.positions:
        raise ModelError(
            f"finetune.distil.teacher: {folder} reads {teacher.config.positions} tokens, a row may have {longest}",
            "lower tokens.max_source, or convert the teacher with --positions",
        )
    return Teacher(teacher.requires_grad_(requires_grad=False), wanted.weight, wanted.temperature)


def _refuse_other_labels(task: str, encoder: Encoder, teacher: Encoder, folder: str) -> None:
    """ModelError unless the teacher has the student's head for the task, with the same labels in the same order."""
    if encoder.config.head(task) not in teacher.config.heads_extra:
        raise ModelError(
            f"finetune.distil.teacher: {folder} has no head '{task}' with the labels of the training data",
            "a teacher is trained on data with the same labels, for the same task",
        )
