"""Evaluate a model on the evaluation sets of every skill; read Hugging Face checkpoints."""
