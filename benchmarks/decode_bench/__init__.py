"""The engines that `decode_speed.py` compares, each run in a process of its own.

work          what is decoded, and by which engine; no library is loaded for it
process       an engine's process, seen from the benchmark
child         the same, seen from inside
ours          unilmctl, through its own classes
twin          the same model decoded as s2s-ft does it: the slow twin
hugging_face  GPT-2 by transformers' generate
ctranslate    GPT-2 and encoder-decoders by CTranslate2
roofline      the matrix products of a decoding alone
goals         what is compared with what, and the ratios that are asked for
measuring     the engines interleaved, medians, rows
"""
