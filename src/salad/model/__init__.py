"""Frozen speech encoder → trained adapter → text LLM, as one transformers model that reads speech and text mixed."""
