"""How the files of each family name weights and settings: one table of families, one module for those that are akin.

family   what a family is
bert     BERT, RoBERTa, XLM-R, ELECTRA
albert, mpnet, ernie, nezha, roformer, modernbert
"""

from unilmctl.errors import ModelError
from unilmctl.weights.families.albert import ALBERT
from unilmctl.weights.families.bert import BERT, ELECTRA, ROBERTA, XLM_ROBERTA
from unilmctl.weights.families.ernie import ERNIE
from unilmctl.weights.families.family import Family, Rule, module
from unilmctl.weights.families.modernbert import MODERNBERT
from unilmctl.weights.families.mpnet import MPNET
from unilmctl.weights.families.nezha import NEZHA
from unilmctl.weights.families.roformer import ROFORMER

__all__ = ["FAMILIES", "Family", "Rule", "family_of", "module"]

FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "electra": ELECTRA,
    "albert": ALBERT,
    "mpnet": MPNET,
    "ernie": ERNIE,
    "nezha": NEZHA,
    "roformer": ROFORMER,
    "modernbert": MODERNBERT,
}
"""By the `model_type` of config.json."""


def family_of(name: str) -> Family:
    """The family's naming; ModelError when there is none."""
    if name not in FAMILIES:
        raise ModelError(f"model family '{name}' is not supported", f"supported: {', '.join(FAMILIES)}")
    return FAMILIES[name]
