"""Real small stand-ins: a two-layer LLM with random weights, a byte-level tokenizer, utterances with word timings.

Nothing here imitates an interface: these are the classes a run uses, small enough for a test.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from salad.interleave.batch import Batch, collate
from salad.interleave.builder import SequenceBuilder
from salad.interleave.sequence import MixedSequence
from salad.interleave.utterances import Utterance, feature_lookup
from salad.model.speech_lm import SpeechLM
from salad.recipe import AdapterSettings, LoraSettings, ModelSettings, SequenceSettings
from salad.speech.prepared import TimedWord

WORDS = (
    "the a of and to in it is was that he she they we you with for on at by from or as be this had not are but one all "
    "water river mountain small quiet evening reader listens, speaks; understanding language's tone café naïve 3.5 —"
).split()
VOCABULARY = 300
SPEECH_TOKEN_ID = VOCABULARY  # behind the LLM's table, as the processor has it
ENCODER_DIM = 8
ENCODER_HZ = 50.0
FRAMES_PER_POSITION = 4
POSITION_HZ = ENCODER_HZ / FRAMES_PER_POSITION


def fresh_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


tokenizer = cache(fresh_tokenizer)


def mark() -> int:
    """The id of the document mark."""
    return tokenizer().convert_tokens_to_ids("<|endoftext|>")


def llm(seed: int = 0, tied: bool = True, vocabulary: int = VOCABULARY, dropout: float = 0.0) -> LlamaForCausalLM:
    """A two-layer Llama with random weights, wide enough apart that its predictions are not uniform."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        initializer_range=0.15,
        attention_dropout=dropout,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def save_llm(folder: Path, **kwargs: Any) -> Path:
    """A folder in Hugging Face layout with `llm` and the tokenizer."""
    llm(**kwargs).save_pretrained(folder)
    fresh_tokenizer().save_pretrained(folder)
    return folder


def model_settings(train_llm: str = "lora", name: str = "tiny", **adapter: Any) -> ModelSettings:
    """Settings for the tiny LLM."""
    defaults: dict[str, Any] = {
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "frames_per_position": FRAMES_PER_POSITION,
    }
    return ModelSettings(
        llm=name,
        encoder="tiny",
        train_llm=train_llm,
        lora=LoraSettings(rank=4, alpha=8.0),
        adapter=AdapterSettings(**{**defaults, **adapter}),
    )


def student(train_llm: str = "lora", seed: int = 0, base: LlamaForCausalLM | None = None, **adapter: Any) -> SpeechLM:
    """An untrained speech LLM around the tiny LLM."""
    settings = model_settings(train_llm, **adapter)
    return SpeechLM.around(base or llm(), settings, ENCODER_DIM, ENCODER_HZ, SPEECH_TOKEN_ID, seed)


def move(model: SpeechLM, seed: int = 1, by: float = 0.1) -> SpeechLM:
    """Add noise to everything that is trained, as if it had been."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn_like(parameter)
    return model


def utterance(name: str, num_words: int, seed: int = 0, partial_frames: int = 1) -> Utterance:
    """Random words of 0.1-0.5 s with short pauses, and random frames that outlast them."""
    rng = np.random.default_rng([seed, num_words, *name.encode()])
    words, now_s = [], 0.1
    for _ in range(num_words):
        end_s = now_s + rng.uniform(0.1, 0.5)
        words.append(TimedWord(WORDS[rng.integers(len(WORDS))], now_s, end_s))
        now_s = end_s + rng.choice([0.0, 0.08])
    num_frames = int((now_s + 0.2) * POSITION_HZ) * FRAMES_PER_POSITION + partial_frames
    return Utterance(name, tuple(words), rng.standard_normal((num_frames, ENCODER_DIM)).astype(np.float16))


def utterances(num: int, num_words: int = 8, seed: int = 0) -> list[Utterance]:
    """Utterances u0, u1, … of `num_words` to `num_words` + 4 words."""
    return [utterance(f"u{i}", num_words + i % 5, seed) for i in range(num)]


def builder(seed: int = 0, **sequence: Any) -> SequenceBuilder:
    """A builder for the tiny model; `speech_prefix` unless told."""
    settings = SequenceSettings(**{"policy": "speech_prefix", **sequence})
    return SequenceBuilder(tokenizer(), mark(), settings, POSITION_HZ, FRAMES_PER_POSITION, seed)


def batch_of(spoken: list[Utterance], texts: list[str] = (), **sequence: Any) -> Batch:  # type: ignore[assignment]
    """One batch of utterances and texts."""
    build = builder(**sequence)
    sequences = [build.mixed(item) for item in spoken] + [build.text(f"t{i}", text) for i, text in enumerate(texts)]
    return collated(sequences, spoken)


def collated(sequences: list[MixedSequence], spoken: list[Utterance]) -> Batch:
    """A batch of sequences whose speech is that of `spoken`."""
    return collate(sequences, feature_lookup(spoken), FRAMES_PER_POSITION, SPEECH_TOKEN_ID)
