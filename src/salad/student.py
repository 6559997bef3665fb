"""The student's life around its training: how it is made, warmed up, and saved. Both stages need all of it.

Every function is called on all ranks; the main one writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from salad.card.bill import Bill, data_bill, read_bill
from salad.card.page import write_card
from salad.distill.checkpoint_folder import verified
from salad.distill.parallel import whole
from salad.distill.tensor_files import read_into, stored_tensors
from salad.errors import CheckpointError
from salad.files import folder_atomic, read_json, read_jsonl, write_json, write_jsonl
from salad.interleave.utterances import Utterance
from salad.model.llm import load_tokenizer
from salad.model.processor import SpeechFeatureExtractor, SpeechLMProcessor
from salad.model.saved import PRE_DECAY_BILL_NAME, PRE_DECAY_NAME, WEIGHTS_NAME, before_decay_place, check_weights
from salad.model.speech_lm import SpeechLM
from salad.model.warm_start import WarmStartReport, not_taught, warm_start
from salad.model.warm_starts.words import Clip
from salad.randomness import generator, torch_seed
from salad.ranks import ALONE, Ranks
from salad.recipe import Recipe, WarmStartSettings, parse_recipe
from salad.run import Progress
from salad.speech.prepared import Rejected

WARM_START_UTTERANCES = 20_000  # some 60 hours; far more than its steps come to


def new_student(recipe: Recipe, encoder_dim: int, encoder_hz: float) -> SpeechLM:
    """The text LLM with a random adapter and a LoRA that does nothing yet."""
    seed = torch_seed(recipe.seed, "student")
    mark = new_processor(recipe).speech_token_id
    return SpeechLM.from_llm(recipe.model, encoder_dim, encoder_hz, mark, seed)


def warm_start_once(
    student: SpeechLM,
    recipe: Recipe,
    speech: Sequence[Sequence[Utterance]],
    settings: WarmStartSettings,
    purpose: str,
    out: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> list[Rejected]:
    """Stage 0 (ours): the warm start of the adapter; a finished one is loaded from `out` instead of done again.

    The main rank does it, all load what came of it. A source with more than `WARM_START_UTTERANCES` lends that many,
    drawn at random. Returns the utterances among them that the warm start could make nothing of.
    """
    if settings.steps == 0:
        return []
    if ranks.is_main and not (out / "reports.json").is_file():
        clips: list[Clip] = []
        for number, source in enumerate(speech):
            rng = generator(recipe.seed, "warm_start utterances", purpose, number)
            drawn = sorted(rng.permutation(len(source))[:WARM_START_UTTERANCES])
            clips += [Clip(spoken.id, spoken.words, spoken.features_FE) for spoken in map(source.__getitem__, drawn)]

        def tell(report: WarmStartReport) -> None:
            progress(report.step, settings.steps, f"warm start ({settings.kind}): {report.right_frac:.0%} right")

        tokenizer = load_tokenizer(recipe.model.llm)
        student.to(ranks.device)  # type: ignore[arg-type]  # transformers' wrapper of nn.Module.to
        reports = warm_start(student, tokenizer, clips, settings, recipe.seed, purpose, tell)
        student.to("cpu")  # type: ignore[arg-type]  # FSDP2 takes it to the GPUs in shards
        left_out = not_taught(clips, settings, recipe.model.adapter.frames_per_position)
        student.save_pretrained(out)
        write_jsonl(out / "left_out.jsonl", [asdict(row) for row in left_out])
        write_json(out / "reports.json", [asdict(report) for report in reports])
    ranks.barrier()
    student.load_trained_state(load_file(out / WEIGHTS_NAME), str(out))
    return [Rejected(**row) for row in read_jsonl(out / "left_out.jsonl")]


def warm_start_curve(out: Path) -> list[dict[str, float]]:
    """The reports of a warm start, every tenth; empty where there was none."""
    path = out / "reports.json"
    return list(read_json(path))[9::10] if path.is_file() else []


def save_model(
    student: SpeechLM, recipe: Recipe, stage: str, out: Path, ranks: Ranks = ALONE, training: Sequence[Bill] = ()
) -> None:
    """A folder that AutoModel and AutoProcessor load, with the recipe that made it and its card; whole or not there.

    Collective. `training` is what it was trained on (`stage_bill`; the main rank's counts); empty for an untrained one.

    Raises:
        CheckpointError: the disk takes no more.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in student.trained_state().items():
        gathered = whole(tensor)  # all ranks gather each, the main one keeps it
        if ranks.is_main:
            state[name] = gathered.detach().cpu()
    if not ranks.is_main:
        return
    try:
        with folder_atomic(out) as fresh:
            student.save_pretrained(fresh, state_dict=state)
            new_processor(recipe).save_pretrained(fresh)
            write_json(fresh / "salad.json", {"stage": stage, "recipe": recipe.model_dump(mode="json")})
            write_card(fresh, data_bill(recipe, stage, training))
    except OSError as error:
        raise CheckpointError(f"{out} could not be written ({error}); free space and run again to go on.") from error


def new_processor(recipe: Recipe) -> SpeechLMProcessor:
    """The processor of the recipe's encoder and LLM."""
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(recipe.model.llm)
    extractor = SpeechFeatureExtractor(recipe.model.encoder, recipe.model.adapter.frames_per_position, recipe.threads)
    return SpeechLMProcessor(extractor, tokenizer)


def before_decay(model: Path) -> tuple[dict[str, Tensor], Bill] | None:
    """A model's weights from before Stage I's learning rate decayed, where Stage II starts, and their bill.

    None where there are none (`before_decay_place`).

    Raises:
        CheckpointError: they are damaged.
    """
    place = before_decay_place(model)
    if place is None:
        return None
    if place.is_file():
        check_weights(model, PRE_DECAY_NAME)
        return load_file(place), dict(read_json(model / PRE_DECAY_BILL_NAME))
    verified(place, ALONE)
    state = {name: torch.empty(size, dtype=kind) for name, (size, kind) in stored_tensors(place, "weights").items()}
    read_into(state, place)
    return state, read_bill(place)


def recipe_of(model: Path) -> Recipe:
    """The recipe that made a model."""
    return parse_recipe(read_json(model / "salad.json")["recipe"], str(model / "salad.json"))
