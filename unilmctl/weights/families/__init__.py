"""How the files of each family name weights and settings: one table of families, one module for those that are akin.

family   what a family is
bert     BERT, RoBERTa, XLM-R, ELECTRA
"""

from unilmctl.errors import ModelError
from unilmctl.weights.families.bert import BERT, ELECTRA, ROBERTA, XLM_ROBERTA
from unilmctl.weights.families.family import Family, Rule, module

__all__ = ["FAMILIES", "Family", "Rule", "family_of", "module"]

FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "electra": ELECTRA,
}
"""By the `model_type` of config.json."""


def family_of(name: str) -> Family:
    """The family's naming; ModelError when there is none."""
    if name not in FAMILIES:
        raise ModelError(f"model family '{name}' is not supported", f"supported: {', '.join(FAMILIES)}")
    return FAMILIES[name]
