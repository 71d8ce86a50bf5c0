"""Text to token ids and back: WordPiece, byte-level BPE and SentencePiece behind one `Tokenizer`.

    tokenizer   Tokenizer and Roles: what the rest of the house sees
    loading     a model folder -> an engine
    training    text -> an engine with a vocabulary of its own
    engines     WordPiece and byte-level BPE, through `tokenizers`
    pieces      SentencePiece, through `sentencepiece`
    memory      words that were met before are not encoded again
    words       WordPiece tokens -> text: `##` glued, no blanks inside Chinese

Text is never control: `[SEP]` or `</s>` typed by a user is encoded as the plain characters it is made of, whatever a
tokenizer.json says, so that no line of data can end a target or open a mask. Who wants those tokens names them in a
list of tokens (`encode_tokens`), which is an explicit wish.

Decoding is exact for byte-level BPE and for SentencePiece models trained here: decode(encode(text)) == text, with every
blank and emoji. Foreign SentencePiece models normalise as they were trained to (XLM-R: NFKC, single blanks). WordPiece
is exact up to its own normalisation: words and punctuation marks joined by one blank, none between CJK characters.
"""

from unilmctl.tokens.loading import content_of
from unilmctl.tokens.memory import Flat, flat, lists
from unilmctl.tokens.tokenizer import Roles, Tokenizer, train

__all__ = ["Flat", "Roles", "Tokenizer", "content_of", "flat", "lists", "train"]
