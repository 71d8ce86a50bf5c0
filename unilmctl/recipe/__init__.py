"""Recipes: one YAML file per task, checked whole before any work begins. Nothing here imports torch."""

from unilmctl.recipe.decoding import Evaluate, Generate
from unilmctl.recipe.loading import dump_yaml, load
from unilmctl.recipe.mistakes import walk
from unilmctl.recipe.pretraining import Entry, Pretrain
from unilmctl.recipe.schema import (
    Data,
    Lesson,
    Model,
    Recipe,
    Shape,
    Split,
    Tokens,
    TrainTokens,
)
from unilmctl.recipe.section import Section
from unilmctl.recipe.shelf import (
    Listed,
    find_recipe,
    list_recipes,
    missing_files,
    require_files,
    shelf,
    splits_of,
    write_generated,
)
from unilmctl.recipe.training import Finetune, Training

__all__ = [
    "Data",
    "Entry",
    "Evaluate",
    "Finetune",
    "Generate",
    "Lesson",
    "Listed",
    "Model",
    "Pretrain",
    "Recipe",
    "Section",
    "Shape",
    "Split",
    "Tokens",
    "TrainTokens",
    "Training",
    "dump_yaml",
    "find_recipe",
    "list_recipes",
    "load",
    "missing_files",
    "require_files",
    "shelf",
    "splits_of",
    "walk",
    "write_generated",
]
