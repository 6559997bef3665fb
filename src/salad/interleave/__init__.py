"""One utterance → one mixed sequence of text and speech, with the checked map of student to teacher positions."""
