"""The data bill of a trained model against a count by hand, and the card that shows it."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from lhotse import MonoCut

import tiny
from salad.asset_table import ASSETS
from salad.assets import digest_of
from salad.card.bill import data_bill, read_bill, stage_bill
from salad.card.licence import UPSTREAM, terms_of
from salad.card.measured import results_of
from salad.card.page import add_results, model_card
from salad.interleave.utterances import SpeechCorpus
from salad.model.encode import encode_cuts
from salad.recipe import Recipe, parse_recipe
from salad.speech.prepared import write_prepared
from salad.stage_one import stage_one
from salad.stage_two import stage_two
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text, write_texts
from tiny_corpus import spoken_cut
from tiny_speech import Loudness

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, BATCH = 6, 5


def with_licence(cut: MonoCut, licence: str | None) -> MonoCut:
    if licence is not None:
        cut.custom = {**(cut.custom or {}), "licence": licence}
    return cut


def corpus(folder: Path, prefix: str, info: dict[str, Any], licences: list[str | None]) -> SpeechCorpus:
    """A prepared and encoded folder with one cut a licence; None: the cut states none."""
    cuts = [with_licence(spoken_cut(folder, f"{prefix}{i}", 6 + i % 5), licence) for i, licence in enumerate(licences)]
    write_prepared(folder, cuts, [], info)
    encode_cuts(folder, Loudness())
    return SpeechCorpus(folder, Loudness.name)


def recipe_of(llm: Path) -> Recipe:
    stage = {"steps": STEPS, "batch_sequences": BATCH, "micro_batch_positions": 120, "checkpoint_every": 3}
    warm = {"warm_start": {"steps": 2, "batch_positions": 64}}
    return parse_recipe(
        {
            "name": "tiny",
            "seed": 3,
            "threads": 1,
            "model": tiny.model_settings("lora", str(llm)).model_dump(mode="json"),
            "sequence": {"policy": "speech_prefix", "max_positions": 120},
            "stage_one": {**stage, **warm, "decay_frac": 0.5},
            "stage_two": {**stage, **warm, "steps": 2},
            "engine": {"tracker": "none"},
        },
        "tiny.yaml",
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Stage I on two corpora and texts, then Stage II with a third, spoken by a voice."""
    home = tmp_path_factory.mktemp("trained")
    nc, by = "CC BY-NC 4.0", "CC BY 4.0"
    mixed = corpus(home / "mixed", "m", {"corpus": "emilia", "licence": f"{by}; {nc}"}, [nc, by, nc, None, by, nc, by])
    prompts = corpus(
        home / "prompts", "p", {"corpus": "prompts", "licence": "CC-BY-SA-3.0", "source": "a shelf"}, [None] * 5
    )
    drawn = {"gamma": 5.0, "budget": {"amount": 12.0, "unit": "seconds"}}
    voice = {"voice": "piper-joe", "voice_fingerprint": "f" * 64, "selection": drawn}
    chosen = corpus(home / "chosen", "s", {"corpus": "synthesized", **voice}, [None] * 4)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(tiny.WORDS, 5 + i)) for i in range(7)]
    write_texts(
        home / "t.jsonl", [Text(f"t{i}", text, "d", "WordNet 3.0", "WordNet-3.0") for i, text in enumerate(texts)]
    )
    recipe, read = recipe_of(tiny.save_llm(home / "llm")), TextCorpus(home / "t.jsonl")

    def quiet(done: int, total: int, note: str = "") -> None:
        """No progress shown."""

    one, two = home / "stage_one", home / "stage_two"
    stage_one(recipe, [mixed, prompts], read, mixed[:2], 2, Loudness.frame_hz, one, quiet)
    stage_two(recipe, one, [mixed, prompts], chosen, read, mixed[:2], two, quiet)
    return SimpleNamespace(home=home, one=one, two=two, recipe=recipe, sources={"m": mixed, "p": prompts}, texts=read)


def by_hand(trained: SimpleNamespace, steps: range) -> dict[str, list[float]]:
    """Source -> sequences, hours heard, text tokens of Stage I: the model's own batches, span by span, looked up by id.

    The frames of each span are counted in the features themselves.
    """
    from salad.interleave.builder import SequenceBuilder
    from salad.interleave.mix import Mix

    build = SequenceBuilder(
        tiny.tokenizer(), tiny.mark(), trained.recipe.sequence, tiny.POSITION_HZ, tiny.FRAMES_PER_POSITION, 3
    )
    spoken = [build.usable(source)[0] for source in trained.sources.values()]
    sizes = [len(source) for source in spoken]
    share = 1 - trained.recipe.stage_one.text_frac
    weights = [*(share * size / sum(sizes) for size in sizes), trained.recipe.stage_one.text_frac]
    mix = Mix([*sizes, len(trained.texts)], weights, 3, "stage_one")
    found = {name: [0.0, 0.0, 0.0] for name in (*trained.sources, "t")}
    for position in range(steps.start * BATCH, steps.stop * BATCH):
        draw = mix.draw(position)
        if draw.source == len(spoken):
            text = trained.texts[draw.index]
            name, seconds, tokens = "t", 0.0, len(build.text(text.id, text.text).student_ids)
        else:
            utterance = spoken[draw.source][draw.index]
            name, sequence = utterance.id[0], build.mixed(utterance, draw.epoch)
            seconds = sum(len(np.arange(span.start, span.stop)) / tiny.POSITION_HZ for span in sequence.speech)
            tokens = sum(token >= 0 for token in sequence.student_ids)
        found[name] = [a + b for a, b in zip(found[name], (1, seconds / 3600, tokens), strict=True)]
    return found


def test_the_hours_and_tokens_are_those_that_were_drawn(trained: SimpleNamespace) -> None:
    (part,) = read_bill(trained.one / "model")["training"]
    expected = by_hand(trained, range(STEPS))
    assert sum(row[0] for row in expected.values()) == STEPS * BATCH == part["num_sequences"]
    for source, (sequences, hours, tokens) in zip(part["sources"], expected.values(), strict=True):
        assert source["num_sequences"] == sequences > 0
        assert source["hours_heard"] == pytest.approx(hours, rel=1e-12)
        assert source["num_text_positions"] == tokens
        assert source["epochs"] == pytest.approx(sequences / source["num_items"])
    assert part["hours_heard"] == pytest.approx(sum(row[1] for row in expected.values()))
    assert (part["steps"], part["of_steps"], part["seed"]) == (STEPS, STEPS, 3)
    assert part["warm_start"] == {"kind": "word_aligned", "steps": 2, "hours_at_most": 2 * 64 / tiny.POSITION_HZ / 3600}


def test_the_hours_there_are_those_of_the_utterances_by_licence(trained: SimpleNamespace) -> None:
    emilia, prompts, texts = read_bill(trained.one / "model")["training"][0]["sources"]
    lengths = [cut.duration_s for cut in trained.sources["m"].cuts]
    stated = ["nc", "by", "nc", "all", "by", "nc", "by"]
    hours = {kind: sum(s for s, own in zip(lengths, stated, strict=True) if own == kind) / 3600 for kind in stated}
    found = {origin["licence"]: (origin["num_items"], origin["hours"]) for origin in emilia["origins"]}
    assert found.keys() == {"CC BY-NC 4.0", "CC BY 4.0", "CC BY 4.0; CC BY-NC 4.0"}
    assert found["CC BY-NC 4.0"] == (3, pytest.approx(hours["nc"], rel=1e-6))
    assert found["CC BY 4.0"] == (3, pytest.approx(hours["by"], rel=1e-6))
    assert emilia["hours"] == pytest.approx(sum(lengths) / 3600, rel=1e-6)
    assert prompts["origins"][0]["licence"] == "CC-BY-SA-3.0"
    assert texts["origins"] == [{"source": "WordNet 3.0", "licence": "WordNet-3.0", "num_items": 7, "terms": []}]


def hash_without_places(folder: Path) -> str:
    """Of the cuts as they stand in the file, but for the folders that their audio lies in."""
    content = hashlib.sha256()
    for line in gzip.decompress((folder / "cuts.jsonl.gz").read_bytes()).splitlines():
        cut = json.loads(line)
        for audio in cut["recording"]["sources"]:
            audio["source"] = audio["source"].rpartition("/")[2]
        content.update(json.dumps(cut, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return content.hexdigest()


def test_the_hashes_are_those_of_the_files(trained: SimpleNamespace) -> None:
    bill = read_bill(trained.one / "model")
    emilia, _, texts = bill["training"][0]["sources"]
    assert emilia["cuts_sha256"] == hash_without_places(trained.home / "mixed")
    assert emilia["encoder"] == {"name": "a/loudness", "fingerprint": "1"}
    assert texts["sha256"] == digest_of(trained.home / "t.jsonl")
    llm = next(model for model in bill["models"] if model["role"] == "text LLM")
    assert llm["sha256"] == {"model.safetensors": digest_of(trained.home / "llm" / "model.safetensors")}
    assert bill["weights_sha256"] == digest_of(trained.one / "model" / "model.safetensors")


def test_stage_two_is_billed_for_stage_one_up_to_the_decay(trained: SimpleNamespace) -> None:
    before = read_bill(trained.one / "checkpoints" / "pre_decay")["training"]
    first, second = read_bill(trained.two / "model")["training"]
    assert [first] == before
    assert (first["steps"], first["of_steps"]) == (3, STEPS)
    expected = by_hand(trained, range(3))
    assert [source["num_sequences"] for source in first["sources"]] == [row[0] for row in expected.values()]
    assert [source["kind"] for source in second["sources"]] == ["speech", "speech", "synthetic speech", "text"]
    assert second["num_sequences"] == 2 * BATCH


def test_every_checkpoint_has_a_card_beside_it(trained: SimpleNamespace) -> None:
    for stage in (trained.one, trained.two):
        card = (stage / "checkpoints" / "README.md").read_text()
        assert "Its training is under way, or was stopped." in card
        assert "CC BY-NC 4.0" in card
    assert "Data of stage one\n\n3 of 6 steps" in (trained.one / "checkpoints" / "pre_decay" / "README.md").read_text()


def test_what_must_not_be_overlooked_is_called_out(trained: SimpleNamespace) -> None:
    card = (trained.two / "model" / "README.md").read_text()
    assert "> **Non-commercial.** The licence of emilia (CC BY-NC 4.0) forbids commercial use." in card
    assert "> **Share-alike.** The licence of prompts (CC-BY-SA-3.0) asks" in card
    assert "> **Not stated.** The licence of text LLM" in card
    assert "drawn by misalignment to the power 5, to a budget of 0.2 min, and spoken by piper-joe." in card
    assert "Where it is from: prompts from a shelf." in card
    untrained = (trained.one / "untrained" / "README.md").read_text()
    assert "Nothing of it is trained yet" in untrained
    assert "Non-commercial" not in untrained


def test_the_card_is_one_that_the_hub_reads(trained: SimpleNamespace) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(trained.two / "model" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.license == "other"
    assert "salad" in card.data.tags
    tables = [line for line in card.text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    recipe = card.text.split("```yaml\n")[1].split("```")[0]
    assert parse_recipe(yaml.safe_load(recipe), "card") == trained.recipe


ESTIMATE = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 12}
ARM = {"misalignment_nats": ESTIMATE, "forgetting_nats": ESTIMATE, "hears": False, "task": {"speech": ESTIMATE}}
WITHIN = {
    "policy": "speech_prefix",
    "broad": {"corpus": "wordnet", "voice": "piper-joe"},
    "human": {"corpus": "prompts", "voice": "human"},
    "warm_start": True,
}


def test_what_is_measured_is_added_and_the_weights_stay(trained: SimpleNamespace) -> None:
    folder = trained.one / "model"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "## Measured\n\nNot yet." in (folder / "README.md").read_text()
    for _ in range(2):  # the report may be written again
        add_results(folder, ARM, WITHIN, ESTIMATE)
    card = (folder / "README.md").read_text()
    assert card.count("| M, misalignment: what it hears against what it reads (nats) | 0.250 [0.200, 0.300], 12 |") == 1
    assert "| accuracy, hearing the question | 25.0% [20.0%, 30.0%], 12 |" in card
    assert "can't be shown to hear" in card
    assert "deaf" not in card
    assert "guessing" not in card, "the chance level is not known"
    assert read_bill(folder)["results"]["conditions"] == WITHIN
    changed = {name for name, time in before.items() if (folder / name).stat().st_mtime_ns != time}
    assert changed == {"README.md", "data_bill.json"}


def between(low: float, high: float) -> dict[str, float]:
    return {"value": (low + high) / 2, "low": low, "high": high, "n": 32}


def measured_card(trained: SimpleNamespace, **arm: Any) -> str:
    bill = read_bill(trained.two / "model")
    task = {"name": "definition", "version": 1, "chance": 0.25}
    return model_card(
        bill | {"results": results_of(ARM | arm, WITHIN, between(0.7, 0.9), between(0.6, 0.8), task)}, "me/tiny"
    )


def test_accuracy_stands_beside_chance_cascade_topline_and_gap(trained: SimpleNamespace) -> None:
    gap = {"gap": between(0.4, 0.6)}
    card = measured_card(trained, task={"speech": between(0.125, 0.375)}, split=gap)
    assert "spoken questions, 25.0% [12.5%, 37.5%], can't be told from guessing (chance is 25.0%)" in card
    assert "an ASR and the text LLM have 70.0%" in card
    for row in (
        "| chance: accuracy of guessing | 25.0% |",
        "reading what an ASR heard | 70.0%",
        "the question | 50.0%",
    ):
        assert row in card
    assert "is above chance (25.0%)" in measured_card(trained, task={"speech": between(0.26, 0.5)})
    assert "is below chance (25.0%)" in measured_card(trained, task={"speech": between(0.1, 0.2)})


def test_that_it_hears_follows_from_the_interval(trained: SimpleNamespace) -> None:
    hears, not_shown = between(0.2, 0.4), between(-0.1, 0.3)
    card = measured_card(trained, hearing_nats=hears, hears=True)
    assert "It hears words: hearing is above 0 on the broad texts (0.300 [0.200, 0.400] nats)." in card
    assert "can't be shown to hear" not in card
    card = measured_card(trained, hearing_nats=not_shown)
    assert "hears words" not in card
    assert "**It can't be shown to hear at all**" in card
    card = measured_card(trained, hearing_nats=not_shown, hearing_human_nats=hears)
    assert "on human speech (0.300 [0.200, 0.400] nats); it can't be shown to hear" in card
    assert "at all" not in card
    assert "Whether it hears was not measured." in model_card(read_bill(trained.two / "model"))


def test_the_headline_has_the_warm_starts(trained: SimpleNamespace) -> None:
    bill = read_bill(trained.two / "model")
    for part, hours, warm in zip(bill["training"], (0.175, 0.2), (4.5, 0.05), strict=True):
        part["hours_heard"], part["warm_start"]["hours_at_most"] = hours, warm
    told = "It has heard 0.375 h of speech in distillation, after 2 warm starts of at most 4.55 h"
    assert model_card(bill).count(told) == 2, "on top and in the limits"
    for part in bill["training"]:
        part["warm_start"] = None
    assert "It has heard 0.375 h of speech in distillation." in model_card(bill)


def test_part_of_a_stage_is_explained_where_it_stands(trained: SimpleNamespace) -> None:
    told = "Stage II goes on from Stage I as it was before its learning rate decayed: the last 3 steps"
    assert told in (trained.two / "model" / "README.md").read_text()
    assert told not in (trained.one / "model" / "README.md").read_text()


def test_the_front_matter_says_what_is_known_and_no_more(trained: SimpleNamespace) -> None:
    def front(bill: dict[str, Any]) -> dict[str, Any]:
        return yaml.safe_load(model_card(bill).split("---")[1])

    bill = read_bill(trained.two / "model")
    assert not {"base_model", "datasets"} & front(bill).keys(), "a folder, and corpora that are not on the hub"
    bill["recipe"]["model"]["llm"] = "smollm2-135m-instruct"
    bill["training"][0]["sources"][0]["name"] = "amphion/Emilia-Dataset"
    assert front(bill)["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front(bill)["datasets"] == ["amphion/Emilia-Dataset"]
    assert {asset.name for asset in ASSETS.values() if asset.kind == "llm"} == UPSTREAM.keys()


def test_a_run_whose_reports_say_nothing_is_counted_from_its_stream(trained: SimpleNamespace) -> None:
    """Rows of the curve as older versions wrote them: the stream is a pure function of the step."""
    from salad.interleave.builder import SequenceBuilder
    from salad.interleave.stream import Stream
    from salad.stage_one import by_size, usable_speech

    build = SequenceBuilder(
        tiny.tokenizer(), tiny.mark(), trained.recipe.sequence, tiny.POSITION_HZ, tiny.FRAMES_PER_POSITION, 3
    )
    settings = trained.recipe.stage_one
    usable, _ = usable_speech(build, list(trained.sources.values()))
    weights = [*by_size(usable, 1 - settings.text_frac), settings.text_frac]
    stream = Stream.of(build, usable, trained.texts, weights, settings, tiny.SPEECH_TOKEN_ID, "stage_one")
    rows = [{"step": row["step"]} for row in json.loads((trained.one / "curve.json").read_text())]
    counted = stage_bill("stage_one", stream, settings, settings.warm_start, rows)
    assert [counted] == read_bill(trained.one / "model")["training"]


@pytest.mark.parametrize(
    ("licence", "terms"),
    [
        ("CC BY-NC 4.0", ["non-commercial"]),
        ("cc-by-nc-sa-4.0", ["non-commercial", "share-alike"]),
        ("CC BY-NC-ND 4.0", ["non-commercial", "no derivatives"]),
        ("CC-BY-SA-3.0", ["share-alike"]),
        ("Creative Commons Attribution-NonCommercial", ["non-commercial"]),
        ("for non-commercial research", ["non-commercial"]),
        ("CC BY 4.0", []),
        ("MIT (trained on CC0 speech)", []),
        ("WordNet-3.0", []),
        ("Apache-2.0", []),
        ("not stated", ["not stated"]),
        ("unknown", ["not stated"]),
        ("", ["not stated"]),
        (None, ["not stated"]),
    ],
)
def test_terms_are_told_by_a_licences_name(licence: str | None, terms: list[str]) -> None:
    assert terms_of(licence) == terms


def test_a_bar_in_a_name_does_not_break_a_table(trained: SimpleNamespace) -> None:
    bill = data_bill(trained.recipe, "stage_one", read_bill(trained.one / "model")["training"])
    bill["training"][0]["sources"][0]["name"] = "a|b\nc"
    assert "| a\\|b c |" in model_card(bill)
