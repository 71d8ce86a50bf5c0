"""unilmctl turns BERT-type encoders into generators with UniLM attention masks."""

__version__ = "0.1.0"
