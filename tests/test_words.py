"""A text's tokens word by word: what the tokenizer's own call gives, whether its words are looked up or not."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import tiny
from salad.interleave import words as words_module
from salad.interleave.words import tokenize_words
from salad.model.llm import load_tokenizer

QWEN_2, LLAMA_3 = words_module._CUTS
GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES_ALONE = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def bpe(pre_tokenizer, normalizer=None, **model):
    """A BPE of 400 tokens, trained on the words of the tests."""
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(tiny.WORDS), "it's don't 1999 12 345,678 e.g. (naïve) …"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def sequence(*steps):
    return pre_tokenizers.Sequence(list(steps))


CUT_AT_SPACES = {
    "GPT-2": bpe(GPT_2),
    "SmolLM2": bpe(sequence(pre_tokenizers.Digits(individual_digits=True), GPT_2)),
    "Qwen 2": bpe(sequence(split(QWEN_2), BYTES_ALONE), normalizers.NFC()),
    "Llama 3": bpe(sequence(split(LLAMA_3), BYTES_ALONE)),
}
READ_WHOLE = {
    "prefix space": bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "bytes alone": bpe(BYTES_ALONE),
    "another cut": bpe(sequence(split(r"\p{L}+ ?"), BYTES_ALONE)),
    "cut removed": bpe(sequence(pre_tokenizers.Split(Regex(QWEN_2), "removed"), BYTES_ALONE)),
    "metaspace": bpe(pre_tokenizers.Metaspace()),
    "another normalizer": bpe(GPT_2, normalizers.NFKC()),
    "lower case": bpe(GPT_2, normalizers.Lowercase()),
    "dropout": bpe(GPT_2, dropout=0.0001),
}


def by_its_call(tokenizer, text):
    """The reference: transformers' own call, and a token is the word's that its last character is in."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    last_characters = [end - 1 for _, end in encoded["offset_mapping"]]
    ends, cursor = [], 0
    for word in text.split():
        cursor = text.index(word, cursor) + len(word)
        ends.append(sum(character < cursor for character in last_characters))
    return encoded["input_ids"], ends


characters = st.characters(exclude_categories=["Cs"])
any_words = st.lists(
    st.one_of(
        st.sampled_from(
            [*tiny.WORDS, "'s", "'RE", "1999", "3.5", "“", "…", "<|endoftext|>", "x<|endoftext|>y", "\u0301a"]
        ),
        st.text(characters, min_size=1, max_size=6).filter(lambda word: word.split() == [word]),
        st.from_regex(r"[a-zA-Z0-9'.,:;!?-]{1,8}", fullmatch=True),
    ),
    max_size=9,
)


@pytest.mark.parametrize("name", CUT_AT_SPACES)
@given(any_words)
@example(["don't", "'s", "12", "it's", "!"])
@settings(deadline=None, max_examples=150)
def test_words_that_are_looked_up_are_those_of_the_whole_text(name, words):
    tokenizer = CUT_AT_SPACES[name]
    assert words_module._words_of(tokenizer) is not None
    text = " ".join(words)
    if name != "Qwen 2" or tokenizer.backend_tokenizer.normalizer.normalize_str(text) == text:
        assert tokenize_words(tokenizer, text) == by_its_call(tokenizer, text)
    assert tokenize_words(tokenizer, text)[0] == by_its_call(tokenizer, text)[0]


@pytest.mark.parametrize("tokenizer", [tiny.tokenizer(), READ_WHOLE["another normalizer"]])
@given(st.text(characters, max_size=60))
@settings(deadline=None, max_examples=150)
def test_any_text_is_tokenized_as_the_tokenizers_own_call_does(tokenizer, text):
    ids, ends = tokenize_words(tokenizer, text)
    assert (ids, ends) == by_its_call(tokenizer, text)
    assert len(ends) == len(text.split())


@pytest.mark.parametrize("name", READ_WHOLE)
def test_a_tokenizer_that_may_join_words_reads_the_whole_text(name):
    tokenizer = READ_WHOLE[name]
    assert words_module._words_of(tokenizer) is None
    text = "the quiet river listens 12 times"
    if name not in ("bytes alone", "another cut"):  # these join words, and say so
        assert tokenize_words(tokenizer, text)[0] == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.assets
def test_the_words_of_the_real_tokenizer():
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    assert words_module._words_of(tokenizer) is not None
    text = (
        "It's 3.5 km — naïve “quotes”, co-operate; “Ünïcödé” 𝛼β don't’ve e.g. (see §2): https://x.y/z?q=1 … 1,234 end."
    )
    for part in (text, text.upper(), " ".join(reversed(text.split())), text.replace(" ", "  ")):
        assert tokenize_words(tokenizer, part) == by_its_call(tokenizer, part)


@pytest.mark.parametrize(
    "added", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"content": "of the"}], ids=str
)
def test_a_token_that_reaches_over_spaces_ends_the_looking_up(added):
    tokenizer = tiny.fresh_tokenizer()
    text = "all of the <x> water"
    before = tokenize_words(tokenizer, text)
    assert words_module._words_of(tokenizer)
    tokenizer.add_tokens([AddedToken(**{"content": "<x>", **added})])
    assert words_module._words_of(tokenizer) is None
    if added != {"content": "of the"}:  # that one joins two words, and is refused
        assert tokenize_words(tokenizer, text) == by_its_call(tokenizer, text) != before


def test_a_new_token_is_seen():
    tokenizer = tiny.fresh_tokenizer()
    before = tokenize_words(tokenizer, "the quiet river")
    tokenizer.add_tokens(["quiet"])
    assert tokenize_words(tokenizer, "the quiet river") == by_its_call(tokenizer, "the quiet river") != before


def test_no_more_words_are_kept_than_fit(monkeypatch):
    monkeypatch.setattr(words_module, "MAX_WORDS_KEPT", 5)
    tokenizer = tiny.fresh_tokenizer()
    text = " ".join(tiny.WORDS)
    assert tokenize_words(tokenizer, text) == by_its_call(tokenizer, text)
    assert len(words_module._words_of(tokenizer)) == 5
    assert tokenize_words(tokenizer, text) == by_its_call(tokenizer, text)


def test_a_tokenizer_that_cuts_and_pads_does_neither_here():
    tokenizer = tiny.fresh_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    for text in ("the quiet river and the small mountain", "the  quiet  river  and  the  small  mountain"):
        assert tokenize_words(tokenizer, text) == tokenize_words(tiny.tokenizer(), text)


def test_a_text_without_words_has_no_ends():
    assert tokenize_words(tiny.tokenizer(), "") == ([], [])
    assert tokenize_words(tiny.tokenizer(), " \n")[1] == []
    assert re.search(r"\S", tiny.tokenizer().decode(tokenize_words(tiny.tokenizer(), " \n")[0])) is None
