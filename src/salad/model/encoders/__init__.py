"""Frozen speech encoders, one module a family; `salad.model.encoder` finds them by name."""
