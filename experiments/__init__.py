"""The paper's claims, tried at a scale that two CPU cores can run: a package a claim, and the lab they share."""
