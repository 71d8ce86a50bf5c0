"""What each option is called and says; `signatures` tells which command takes which.

Options of the search have no default here: what is not given keeps what the recipe and the model folder say. The
usual value stands in brackets.
"""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

Format = Literal["auto", "text", "jsonl", "tsv", "csv"]
BadLine = Literal["fail", "skip", "replace"]
Objective = Literal["pseudo", "masked", "causal"]
Written = Literal[
    "pseudo", "masked", "causal", "bidirectional", "partial", "permuted", "permuted-compensated", "infilling",
    "infilling-in-place", "block-diffusion",
]  # fmt: skip
Orders = Literal["surest", "left-to-right", "gaps", "at-once"]
Number = Literal["auto", "float32", "bfloat16", "int8"]
Kind = Literal["beam", "greedy", "sample", "contrastive", "s2s-ft"]
Divisor = Literal["penalty", "average", "none"]
Texts = list[str] | None

# Recipes
RecipeName = Annotated[str, Argument(metavar="RECIPE", help="A recipe file, or the name of a built-in one.")]
Settings = Annotated[Texts, Option("--set", metavar="KEY=VALUE", help="Overrides a key: finetune.steps=9. Repeatable.")]
CopyTo = Annotated[Path, Argument(metavar="DEST", help="File or folder; nothing is overwritten.")]
Replay = Annotated[
    int | None, Option("--replay", min=1, metavar="STEP", help="Learns nothing: shows which example made it skip STEP.")
]
Fresh = Annotated[bool, Option("--fresh", help="Starts over instead of going on where it stopped.")]

# Lines in, lines out
Input = Annotated[str, Argument(metavar="INPUT", help="File of lines or JSON lines; - is standard input.")]
InputFormat = Annotated[Format, Option("--input-format", help="Format of the input.")]
OnBadLine = Annotated[BadLine, Option("--on-bad-line", help="What a line that cannot be read does.")]
Output = Annotated[Path | None, Option("--output", metavar="FILE", help="Output file. [standard output]")]
Json = Annotated[bool, Option("--json", help="JSON instead of text.")]
ModelFolder = Annotated[
    Path | None, Option("--model", metavar="FOLDER", help="Model folder, or run folder (its best model). [runs/latest]")
]
Models = Annotated[
    list[Path] | None,
    Option("--model", metavar="FOLDER", help="Model or run folder; several write together. [runs/latest]"),
]
ObjectiveName = Annotated[Objective | None, Option("--objective", help="How the model predicts. [the model's own]")]
HowWritten = Annotated[
    Written | None, Option("--objective", help="How the model predicts, or fills gaps. [the model's own]")
]
Fill = Annotated[bool, Option("--fill", help="Fills gaps: every mask token of a line, such as [MASK].")]
Order = Annotated[Orders | None, Option("--order", help="With --fill: what is chosen first. [surest, if it can]")]
Prefix = Annotated[str | None, Option("--prefix", metavar="TEXT", help="Every output begins with this.")]
FromRecipe = Annotated[str | None, Option("--recipe", metavar="RECIPE", help="Takes its generate section.")]
Dtype = Annotated[Number | None, Option("--dtype", help="Number format of the weights. [auto]")]
Device = Annotated[str | None, Option("--device", metavar="NAME", help="cpu, cuda, cuda:N. [a GPU if there is one]")]
BatchTokens = Annotated[int | None, Option("--batch-tokens", min=16, metavar="N", help="Tokens worked on at a time.")]
Workers = Annotated[
    int | None, Option("--workers", min=1, metavar="N", help="Processes that share the work. [one per core if it pays]")
]
Shard = Annotated[
    str | None,
    Option("--shard", metavar="I/N", help="Answers lines I, I+N, ...: 1/4 to 4/4. The last one merges into --output."),
]
TaskName = Annotated[
    str | None, Option("--task", metavar="NAME", help="Head that labels each line, or generate. [the model's own]")
]

# Checkpoints
Checkpoint = Annotated[str, Argument(metavar="SOURCE", help="Checkpoint file or folder, or hf:NAME.")]
NewFolder = Annotated[Path, Argument(metavar="DEST", help="Model folder to write; it must not exist.")]
Config = Annotated[Path | None, Option("--config", metavar="FILE", help="config.json, when it is not beside SOURCE.")]
VocabularyOf = Annotated[Path | None, Option("--tokenizer", metavar="PATH", help="Folder or file of the vocabulary.")]
Architecture = Annotated[str | None, Option("--architecture", metavar="NAME", help="Family, when nothing tells it.")]
Positions = Annotated[int | None, Option("--positions", min=4, metavar="N", help="Positions, grown by tiling.")]
Segments = Annotated[int | None, Option("--segments", min=1, metavar="N", help="Segment types, grown by copying.")]
KeepVocabulary = Annotated[
    Path | None, Option("--keep-vocabulary", metavar="FILE", help="Tokens to keep, one a line; the others go.")
]
SourceSegment = Annotated[int | None, Option("--source-segment", min=0, metavar="N", help="Segment id of sources.")]
TargetSegment = Annotated[int | None, Option("--target-segment", min=0, metavar="N", help="Segment id of targets.")]

Average = Annotated[
    Texts, Option("--average", metavar="CHECKPOINT", help="The weights become the mean with these. Repeatable.")
]

# The search
Search = Annotated[Kind | None, Option("--search", help="Kind of search. [beam]")]
Beam = Annotated[int | None, Option("--beam", min=1, metavar="N", help="Hypotheses that are kept. [5]")]
Nbest = Annotated[int | None, Option("--nbest", min=1, metavar="N", help="Hypotheses that are given out. [1]")]
BeamGroups = Annotated[
    int | None, Option("--beam-groups", min=1, metavar="N", help="Groups of the beam that differ from each other. [1]")
]
Diversity = Annotated[
    float | None, Option("--diversity", min=0, metavar="X", help="What a token costs that another group chose. [0]")
]
LengthPenalty = Annotated[
    float | None, Option("--length-penalty", metavar="A", help="Scores are divided by ((5+n)/6)^A. [0]")
]
LengthNormalization = Annotated[Divisor | None, Option("--length-normalization", help="What divides scores. [penalty]")]
CoveragePenalty = Annotated[
    float | None, Option("--coverage-penalty", min=0, metavar="B", help="Lowers outputs that skip source words. [0]")
]
MinLength = Annotated[int | None, Option("--min-length", min=0, metavar="N", help="Fewest tokens. [0]")]
MaxLength = Annotated[int | None, Option("--max-length", min=1, metavar="N", help="Most tokens. [the model's own]")]
Memory = Annotated[
    int | None, Option("--memory", min=1, metavar="N", help="Reads long text in pieces of so many tokens. [as a whole]")
]
NoRepeatNgram = Annotated[
    int | None, Option("--no-repeat-ngram", min=0, metavar="N", help="No n-gram of this size twice. [0: allowed]")
]
NoRepeatIgnore = Annotated[
    Texts, Option("--no-repeat-ignore", metavar="TOKEN", help="May be part of a repeated n-gram. Repeatable.")
]
RepetitionPenalty = Annotated[
    float | None, Option("--repetition-penalty", metavar="X", help="Makes written tokens less likely. [1: does not]")
]
Forbid = Annotated[Texts, Option("--forbid", metavar="TOKEN", help="Is never written. Repeatable.")]
ForbidPhrase = Annotated[Texts, Option("--forbid-phrase", metavar="TEXT", help="Is in no output. Repeatable.")]
Must = Annotated[Texts, Option("--must", metavar="TEXT", help="Is in every output. Repeatable.")]
Drafts = Annotated[
    int | None,
    Option("--drafts", min=0, metavar="N", help="Greedy: tokens guessed ahead; same text, lone lines sooner. [0]"),
]
Temperature = Annotated[float | None, Option("--temperature", metavar="T", help="Sampling: divides logits. [1]")]
TopK = Annotated[
    int | None,
    Option("--top-k", min=1, metavar="K", help="Sampling: only the K likeliest. [all] Contrastive: of K. [4]"),
]
Alpha = Annotated[
    float | None, Option("--alpha", min=0, max=1, metavar="A", help="Contrastive: weight of being new. [0.6]")
]
TopP = Annotated[
    float | None, Option("--top-p", min=0, max=1, metavar="P", help="Sampling: only the likeliest of mass P. [all]")
]
MinP = Annotated[
    float | None,
    Option("--min-p", min=0, max=1, metavar="P", help="Sampling: only those P times as likely as the likeliest. [all]"),
]
TypicalP = Annotated[
    float | None, Option("--typical-p", min=0, max=1, metavar="P", help="Sampling: the most typical of mass P. [all]")
]
Seed = Annotated[int | None, Option("--seed", min=0, metavar="N", help="Sampling: seed. [1]")]
Attention = Annotated[
    bool | None, Option("--attention/--no-attention", help="With --json: source token that each token looks at most.")
]

# Scores
Hypotheses = Annotated[str, Argument(metavar="HYPOTHESES", help="Output of generate; - is standard input.")]
References = Annotated[list[Path], Argument(metavar="REFERENCES...", help="Files of text or JSON lines, line by line.")]
Metric = Annotated[Texts, Option("--metric", metavar="NAME", help="bleu, chrf, rouge, exact_match, ... Repeatable.")]
Task = Annotated[str | None, Option("--task", metavar="NAME", help="Metrics and text as a published table has them.")]
Compare = Annotated[Path | None, Option("--compare", metavar="OTHER", help="Other hypotheses: a paired test.")]
Language = Annotated[str, Option("--language", metavar="CODE", help="Language of the text.")]
Lowercase = Annotated[bool, Option("--lowercase", help="Lower-cases both sides first.")]
Tokenize = Annotated[str | None, Option("--tokenize", metavar="NAME", help="Tokenizer of BLEU, named as in sacrebleu.")]
Sources = Annotated[Path | None, Option("--sources", metavar="FILE", help="Sources, for tasks that group by them.")]
Exceptions = Annotated[Path | None, Option("--exceptions", metavar="FOLDER", help="WordNet .exc files, for rouge155.")]
Confidence = Annotated[bool, Option("--confidence/--no-confidence", help="95 % intervals.")]

# Pictures
Objectives = Annotated[
    str | None, Option("--objective", metavar="NAME", help="Whose row and mask. [pseudo, or the recipe's own row]")
]
MixOf = Annotated[Path | None, Option("--recipe", metavar="FILE", help="The objective is one of this recipe's mix.")]
SourceText = Annotated[str, Argument(metavar="TEXT", help="Source, or the only text of a pre-training objective.")]
TargetText = Annotated[str | None, Argument(metavar="TARGET", help="Target text.")]
Vocabulary = Annotated[Path | None, Option("--model", metavar="FOLDER", help="Cuts the text as this model does.")]
Rate = Annotated[float | None, Option("--rate", min=0, max=1, help="Share of predicted tokens. [the objective's own]")]
PictureFile = Annotated[Path | None, Option("--output", metavar="FILE", help="Picture as well: .svg or .png.")]
Page = Annotated[Path | None, Option("--html", metavar="FILE", help="Writes a page with curves, lengths, outputs.")]
DrawSeed = Annotated[int, Option("--seed", min=0, metavar="N", help="Seed of what the objective draws.")]
