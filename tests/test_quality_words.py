"""What was said of a text: the error rate, and what was said again and again."""

import pytest

from salad.synthesize.quality_words import character_error_rate, for_comparison, repeated_words


def naive_repeats(text: str, heard: str) -> int:
    said, words = for_comparison(text).split(), for_comparison(heard).split()
    best = 0
    for begin in range(len(words)):
        for end in range(begin + 1, len(words) + 1):
            run = words[begin:end]
            count = sum(words[i : i + len(run)] == run for i in range(len(words)))
            if count > 1 and count > sum(said[i : i + len(run)] == run for i in range(len(said))):
                best = max(best, len(run))
    return best


@pytest.mark.parametrize(
    ("text", "heard", "longest"),
    [
        ("a coating for ceramics", "a coating for ceramics", 0),
        ("a coating for ceramics", "A coating for, a coating for ceramics.", 3),
        ("a coating for ceramics", "a coating for a coating for a coating for ceramics", 6),
        ("no, no, no", "no no no", 0),
        ("to be or not to be", "to be or not to be", 0),
        ("ha", "ha ha ha ha", 3),
        ("the cat of the house", "the house of the cat", 0),
        ("anything", "", 0),
        ("", "um um", 1),
    ],
)
def test_what_is_heard_again_and_not_written_again_counts(text, heard, longest):
    assert repeated_words(text, heard) == longest == naive_repeats(text, heard)


def test_repeats_are_those_of_the_definition_on_any_words():
    import random

    rng = random.Random(0)
    for _ in range(300):
        text, heard = (" ".join(rng.choices("abc", k=rng.randrange(9))) for _ in range(2))
        assert repeated_words(text, heard) == naive_repeats(text, heard), (text, heard)


def test_the_error_rate_counts_letters_not_marks():
    assert character_error_rate("Don't stop, World!", "dont stop world") == 0
    assert character_error_rate("well-known", "well known") == 0
    assert character_error_rate("abcd", "abxd") == 0.25
    assert character_error_rate("ab", "ab and much more") > 1
    assert character_error_rate("", "") == 0
    assert character_error_rate("...", "hum") == 3
