"""A model's card: what it was made of, under which licences, and what was measured of it."""
