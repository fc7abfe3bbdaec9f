"""Text to tokens: sources, tokenizer, train/eval split, shards with a manifest."""

from raymix.corpus.prepare import default_cache, prepare
from raymix.corpus.records import Document
from raymix.corpus.shards import Corpus, CorpusError, open_corpus

__all__ = ["Corpus", "CorpusError", "Document", "default_cache", "open_corpus", "prepare"]
