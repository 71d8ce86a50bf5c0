"""The engines that `train_speed.py` compares, each run in a process of its own.

work          examples and engines; no library is loaded for it
process       an engine's process: both sides (with `beside`)
ours          unilmctl: its own loop, feed and optimiser
twin          the same model trained as s2s-ft does it: the slow twin
hugging_face  transformers' BertLMHeadModel, next token
products      the matrix products of a step alone
"""
