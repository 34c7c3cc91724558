"""Training data: corpora, archives, splits, tokenizer, token arrays, mixtures."""
