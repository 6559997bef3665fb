"""What the verbs that take folders do, over the same functions as the steps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from salad.distill.teacher import teacher_for
from salad.errors import DataError
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import SpeechCorpus, feature_lookup
from salad.measure.misalignment import forgetting_by_item, hearing, hears, misalignment_by_item, per_token
from salad.model.llm import document_mark, load_tokenizer
from salad.model.processor import SPEECH_TOKEN, SpeechLMProcessor
from salad.model.speech_lm import SpeechLM
from salad.recipe import parse_recipe
from salad.speech.audio import load_audio
from salad.speech.prepared import read_info
from salad.student import model_folder, recipe_of

BOOTSTRAP = 2000


def measure_folder(
    model: Path, speech: Path, policy: str | None, limit: int | None, seed: int, threads: int
) -> dict[str, Any]:
    """F, M and hearing of a model on a prepared, aligned and encoded folder, with what M may be compared within.

    Raises:
        DataError: no utterance the policy can use.
    """
    torch.set_num_threads(threads)
    model = model_folder(model)
    recipe = recipe_of(model)
    settings = recipe.sequence
    if policy is not None:
        tree = recipe.model_dump(mode="json")
        tree["sequence"]["policy"] = policy
        settings = parse_recipe(tree, f"--policy {policy}").sequence
    student = SpeechLM.from_pretrained(model, device_map="auto")
    teacher = teacher_for(student)
    builder = SequenceBuilder.of(student, load_tokenizer(student.config.llm), settings, seed)
    usable, rejected = builder.usable(SpeechCorpus(speech, student.config.encoder))
    usable = usable[:limit]
    if len(usable) < 2:
        raise DataError(f"{speech}: {len(usable)} utterances can be measured under {settings.policy}; 2 are needed.")
    sequences = [builder.mixed(utterance) for utterance in usable]
    texts = [builder.text(utterance.id, utterance.text) for utterance in usable]
    batch = recipe.measure.batch_positions
    rows = misalignment_by_item(student, sequences, feature_lookup(usable), batch, seed)
    heard = hearing(rows, seed, "verb", BOOTSTRAP)
    forgotten = forgetting_by_item(teacher, student, texts, batch)
    return {
        "model": str(model),
        "speech": str(speech),
        "corpus": read_info(speech).get("corpus", "unknown"),
        "policy": settings.policy,
        "seed": seed,
        "misalignment_nats": per_token(rows.heard, seed, "verb", BOOTSTRAP).as_json(),
        "misalignment_swapped_nats": per_token(rows.swapped, seed, "verb", BOOTSTRAP).as_json(),
        "hearing_nats": heard.as_json(),
        "forgetting_nats": per_token(forgotten, seed, "verb", BOOTSTRAP).as_json(),
        "hears": hears(heard),
        "not_measured": len(rejected),
    }


def answer(model: Path, audio: Path, prompt: str, max_tokens: int, sample: bool, seed: int, continue_text: bool) -> str:
    """What the model says to a spoken question; a base LLM (or `continue_text`) continues what was said."""
    model = model_folder(model)
    samples, rate_hz = load_audio(audio)
    # Any: transformers types generate's self as its own classes
    student: Any = SpeechLM.from_pretrained(model, device_map="auto")
    processor = SpeechLMProcessor.from_pretrained(model)
    tokenizer = processor.tokenizer
    after = f" {prompt}" if prompt else ""
    if tokenizer.chat_template and not continue_text:
        turn = [{"role": "user", "content": f"{SPEECH_TOKEN}{after}"}]
        text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    else:
        text = f"{tokenizer.convert_ids_to_tokens(document_mark(tokenizer))}{SPEECH_TOKEN}{after}"
    inputs = processor(text, samples, sampling_rate=rate_hz).to(student.device)
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "top_k": 250, "temperature": 0.7} if sample else {"do_sample": False}
    generated = student.generate(
        **inputs, max_new_tokens=max_tokens, pad_token_id=tokenizer.pad_token_id or document_mark(tokenizer), **sampling
    )
    new = generated[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True)).strip()
