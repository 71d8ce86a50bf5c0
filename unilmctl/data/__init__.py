"""Data on its way to the model: text files to records, records to token stores, stores to batches.

    streams    files -> blocks of lines (no torch)
    reading    files -> records; every error names file and line (no torch)
    parsing    one line -> one record (no torch)
    store      token ids on disk, memory-mapped
    encoding   lines -> token ids cut to their limits, on all cores (no torch)
    documents  blocks of raw text -> documents of token ids, put together across blocks (no torch)
    words      where words begin among them: a segmenter's, or given (no torch)
    passages   a store of documents -> passages of bounded length
    settings   what these rooms need to be told
    batching   which examples share a batch, and in which order: a function of (seed, epoch)

Import the modules themselves: this package imports none of them, so that reading stays light.
"""
