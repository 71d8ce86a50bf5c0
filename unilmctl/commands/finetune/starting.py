"""The model that fine-tuning starts from, and the card of those it makes."""

from unilmctl.fitting import begun, decoding_defaults, with_dropout
from unilmctl.recipe import Recipe
from unilmctl.tokens import Tokenizer
from unilmctl.weights import Loaded, ModelCard


def starting_model(recipe: Recipe, tokenizer: Tokenizer) -> tuple[Loaded, list[str]]:
    """The encoder and its card as this recipe trains them, and what the user should know about them, a line each."""
    needed = recipe.tokens.max_source + recipe.tokens.max_target
    (encoder, card), notes = begun(recipe, tokenizer, positions=needed)
    return Loaded(encoder, trained_card(recipe, card)), notes


def resumed_model(loaded: Loaded, recipe: Recipe) -> Loaded:
    """A checkpoint's model with what the recipe says about it now."""
    return Loaded(with_dropout(loaded.encoder, recipe.model), trained_card(recipe, loaded.card))


def trained_card(recipe: Recipe, card: ModelCard) -> ModelCard:
    """The card of the models that this recipe makes of one with this card."""
    return ModelCard(
        objective=recipe.finetune.objective,
        source_segment=card.source_segment,
        target_segment=card.target_segment,
        max_source=recipe.tokens.max_source,
        max_target=recipe.tokens.max_target,
        truncate=recipe.tokens.truncate,
        separator_in=recipe.finetune.separator_in,
        generate=decoding_defaults(recipe),
        fills=card.fills,
    )
