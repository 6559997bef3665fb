"""A sentence-transformers model small enough for a test: two BERT layers with random weights over a few words."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

TOPICS = {
    "sea": "sea ship wave sail harbour tide anchor sailor".split(),
    "food": "bread soup dough oven butter flour salt kitchen".split(),
    "sky": "star moon planet comet orbit telescope night cloud".split(),
    "law": "judge court trial jury lawyer verdict appeal witness".split(),
}
OTHERS = "the a of and in with near under".split()
MAX_TOKENS = 16
DIM = 24


def save(folder: Path, scale: float = 0.05) -> Path:
    """A folder with the model; `scale` of its weights, NaN gives vectors that are not finite."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *OTHERS, *(word for topic in TOPICS.values() for word in topic)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4 * MAX_TOKENS,
        initializer_range=0.05,
        pad_token_id=0,
    )
    inner = folder.parent / f"{folder.name}-bert"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bert = BertModel(config)
    with torch.no_grad():
        bert.embeddings.word_embeddings.weight.mul_(scale / 0.05 * 20)  # words matter more than their places
    bert.save_pretrained(inner)
    fast.save_pretrained(inner)
    word = Transformer(str(inner), max_seq_length=MAX_TOKENS)
    SentenceTransformer(modules=[word, Pooling(DIM)], device="cpu").save(str(folder))
    return folder


def text(number: int) -> tuple[str, str]:
    """A text of 3 to 9 words by its number, and its topic."""
    topic = sorted(TOPICS)[number % len(TOPICS)]
    words = TOPICS[topic]
    length = 3 + number * 7 % 7
    said = [words[(number * 3 + i * (1 + number % 5)) % len(words)] for i in range(length)]
    said.insert(number % 3, OTHERS[number % len(OTHERS)])
    return " ".join(said), topic
