"""Data, tokenizer, model, training and evaluation: the only home of torch, lightning and datasets."""
