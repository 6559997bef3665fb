"""Corpora of text: JSONL and WordNet; and the normalization of written into spoken words."""
