"""Text to tokens: sources, tokenizer, train/eval split, shards with a manifest."""

from __future__ import annotations

from raymix.corpus.prepare import default_cache, prepare
from raymix.corpus.records import Document
from raymix.corpus.shards import Corpus, CorpusError, open_corpus
from raymix.corpus.sources import documents

__all__ = ["Corpus", "CorpusError", "Document", "default_cache", "documents", "open_corpus", "prepare"]
