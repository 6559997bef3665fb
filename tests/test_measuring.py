"""The gap of a spoken task end to end on tiny models: arms, split, guards, what is kept, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import tiny
from salad.cli import app
from salad.cli.measured_lines import _written, lines_of
from salad.errors import DataError, RecipeError
from salad.measure.altered import ALTERATIONS, AlteredClips
from salad.measure.choice_scorers import EngineScorer
from salad.measure.choices import ItemScore
from salad.measure.compared import compare
from salad.measure.item_scores import read_item_scores
from salad.measure.listening import listening
from salad.measure.models.base import Speech
from salad.measure.score_task import ScoreSettings, score_task
from salad.measure.spoken_clips import SpokenClips
from salad.measure.tasks import task
from salad.measure.transcripts import Transcripts
from salad.measuring import Measuring, Writer, answers_of, measure_task, summarize
from test_scoring_speech import items_of, model, scorer, spoken  # noqa: F401  (model is a fixture)


class Typist:
    """An ASR that writes what it is told, and counts how often it is asked."""

    name, fingerprint, max_audio_s = "typist", "typist 1", None

    def __init__(self, words: str = "the cat was seven.") -> None:
        self.words, self.asked = words, 0

    def transcribe(self, clip: Speech) -> str:
        self.asked += 1
        return self.words if clip.samples.any() else ""


TOLD = {"asr": "typist", "base": "base"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return spoken(tmp_path_factory.mktemp("measuring") / "spoken", "arc_easy", items_of("arc_easy"))


@pytest.fixture
def measuring(model, tmp_path):  # noqa: F811
    base = EngineScorer(tiny.llm(), model[1].tokenizer, "base", "base", True)
    transcripts = Transcripts(Typist(), tmp_path / "cache")
    return Measuring(scorer(model), base, transcripts, tmp_path / "out", ScoreSettings(shots=1, num_bootstrap=200))


def test_every_arm_is_the_scoring_of_its_own_prompts(measuring, folder):
    result = measure_task(measuring, folder)
    own = [answers_of(score_task(*_asked(measuring, folder), clips=SpokenClips(folder, v))) for v in ("nan", "ned")]
    assert result.arms.speech == dict(zip(("nan", "ned"), own, strict=True))
    heard = np.mean([list(one.values()) for one in own])
    assert result.gap.whole.speech.value == pytest.approx(heard)
    split = result.gap.whole
    assert split.gap.value == pytest.approx(split.topline.value - heard)
    assert split.forgotten.value + split.heard_wrong.value + split.misaligned.value == pytest.approx(split.gap.value)
    assert [(row.voice, row.condition) for row in result.conditions] == [("nan", "clean"), ("ned", "clean")]
    assert result.cascade.value == pytest.approx(split.topline.value - result.cascade_gap.value)
    assert 0 <= result.p_value <= 1
    assert result.chance == pytest.approx(1 / 3)
    assert "resolve" in result.resolved
    json.dumps(result.as_json())


def _asked(measuring, folder, count=[0]):  # noqa: B006  (a new folder each time)
    count[0] += 1
    items = list(folder.items)
    return measuring.model, task("arc_easy"), items, measuring.out / f"again{count[0]}", measuring.settings


def test_what_cannot_be_scored_is_said(measuring, folder):
    own = measuring.model
    broken = EngineScorer(own.model, own.tokenizer, "broken", "broken", True, own.processor)
    broken._embeddings = lambda speech: own._embeddings(speech) * float("nan")
    with pytest.raises(DataError, match=r"0 items could be scored with speech, the guards need 2; s0: .*"):
        measure_task(replace(measuring, model=broken), folder)


def test_transcripts_stand_where_speech_stood_and_are_made_once(measuring, folder, model):  # noqa: F811
    measure_task(measuring, folder)
    assert measuring.transcripts.asr.asked == 14  # seven items by two voices, for both readers
    told = [replace(item, question="the cat was seven.") for item in folder.items]
    examples = list(folder.items)
    base = score_task(measuring.base, task("arc_easy"), told, measuring.out / "told", measuring.settings, examples)
    read = read_item_scores(measuring.out / "arc_easy/cascade/nan")
    assert [row.logprobs for row in read] == [pytest.approx(row.logprobs, abs=1e-4) for row in base.scores]


def test_what_is_scored_is_not_scored_again(measuring, folder):
    first = measure_task(measuring, folder)

    def none(prompts):
        raise AssertionError("scored again")

    for one in (measuring.model, measuring.base):
        one.score = none
    again = measure_task(measuring, folder)
    assert again.as_json() == first.as_json()


def test_words_and_text_are_a_space_apart(tmp_path):
    clip = Speech(np.ones(10, np.float32), "a")
    transcripts = Transcripts(Typist("two words"), tmp_path)
    assert transcripts.read(["Question:", clip, "\nAnswer:"]) == "Question: two words\nAnswer:"
    assert transcripts.read([clip, "so"]) == "two words so"
    assert transcripts.read(["Q: ", clip]) == "Q: two words"
    assert transcripts.read(["Q:", Speech(np.zeros(4, np.float32), "b"), "\nA:"]) == "Q:\nA:"


# --- guards -----------------------------------------------------------------------------------------------------------


def test_alterations_are_what_they_say(folder):
    clips = SpokenClips(folder, "nan")
    ids = [item.id for item in folder.items]
    altered = {how: AlteredClips(clips, how, ids, 3) for how in ALTERATIONS}
    hashes = {altered[how].sha256 for how in ALTERATIONS} | {
        clips.sha256,
        AlteredClips(clips, "swapped", ids, 4).sha256,
    }
    assert len(hashes) == 5
    for name in ids:
        own = clips[name].samples
        assert not altered["silent"][name].samples.any()
        assert len(altered["silent"][name].samples) == len(own)
        shuffled = altered["shuffled"][name].samples
        assert (np.sort(shuffled) == np.sort(own)).all()
        assert (shuffled != own).any()
        swapped = altered["swapped"][name]
        assert swapped.id == name
        assert any(len(swapped.samples) == len(clips[other].samples) for other in ids if other != name)
        assert len(swapped.samples) != len(own)  # every item of this folder has its own length
    assert "s9" not in altered["silent"]


def score_of(name, right, wrong=-2.0):
    logprobs, counts, picks = (right, wrong), (2, 2), {"token": 0}
    return ItemScore(
        name, "", "", logprobs, counts, (3, 3), (3, 3), None, picks, (), 0, "token", 0, "", "x", "t", 1, "m"
    )


def test_a_model_that_gets_no_audio_is_found_out():
    right = [score_of(str(i), -1.0 - i / 10) for i in range(20)]
    verdict = listening(right, dict.fromkeys(ALTERATIONS, right), 0)
    assert not verdict.listens
    assert verdict.sentence.startswith("THE MODEL DOES NOT LISTEN: with swapped and silent and shuffled")


def test_right_speech_has_to_help():
    rng = np.random.default_rng(0)
    right = [score_of(str(i), float(v)) for i, v in enumerate(-2 + 0.1 * rng.standard_normal(40))]
    worse = [score_of(one.item_id, one.logprobs[0] - 1) for one in right]
    chance = [
        score_of(one.item_id, one.logprobs[0] + float(d)) for one, d in zip(right, rng.standard_normal(40), strict=True)
    ]
    verdict = listening(right, {"swapped": worse, "silent": worse, "shuffled": worse}, 0)
    assert verdict.listens
    assert verdict.by_alteration["swapped"].help.value == pytest.approx(0.5)  # 1 nat over two tokens
    verdict = listening(right, {"swapped": chance, "silent": worse, "shuffled": worse}, 0)
    assert not verdict.listens
    assert "CAN'T BE SHOWN TO LISTEN" in verdict.sentence
    with pytest.raises(DataError, match="no item was scored with swapped speech"):
        listening(right, {"swapped": [score_of("other", -1.0)]}, 0)


# --- several tasks, and the verb --------------------------------------------------------------------------------------


def test_two_measurements_are_compared_with_all_that_lies_in_their_folders(measuring, folder, model, tmp_path):  # noqa: F811
    measure_task(measuring, folder)
    other = replace(measuring, base=EngineScorer(tiny.llm(seed=5), model[1].tokenizer, "other", "other", True))
    measure_task(replace(other, out=tmp_path / "other"), folder)
    kinds = {path.relative_to(measuring.out / "arc_easy").parts[0] for path in measuring.out.rglob("*.parquet")}
    assert {"divergence", ".guards", "speech", "topline"} <= kinds
    compared = compare(measuring.out, tmp_path / "other")
    views = {one.view: one for one in compared.comparisons}
    assert set(views) == {"text topline", "text own_text", "speech", "speech own_transcript", "speech cascade"}
    assert views["speech"].difference.value == 0  # the same model heard
    assert not compared.arms_only_in_a


def test_a_text_llm_that_guesses_is_pointed_out(measuring, folder):
    result = measure_task(measuring, folder)  # a random LLM
    assert result.gap.whole.topline.low <= result.chance
    assert "can't be told from guessing" in result.caution
    assert any(
        line.startswith("  CAUTION") for line in lines_of(summarize({"t": result}, measuring.settings), TOLD, None)
    )
    sure = replace(result, chance=result.gap.whole.topline.low - 0.01)
    assert sure.caution is None
    assert sure.as_json()["caution"] is None


def test_tasks_are_summed_up(measuring, folder, tmp_path):
    other = spoken(tmp_path / "copa", "copa", items_of("copa"))
    results = {name: measure_task(measuring, one) for name, one in (("arc_easy", folder), ("copa", other))}
    measured = summarize(results, measuring.settings)
    gaps = [result.gap.whole.gap.value for result in results.values()]
    assert measured.mean.gap.value == pytest.approx(np.mean(gaps))
    assert measured.holm["copa"] >= results["copa"].p_value


def test_the_verb_refuses_what_it_cannot_measure(tmp_path, folder):
    def refused(*options):
        return str(CliRunner().invoke(app, ["measure", "nothing", *map(str, options)]).exception)

    assert "--spoken" in refused()
    assert "holds no spoken task" in refused("--spoken", tmp_path)
    assert "holds no piqa" in refused("--spoken", folder.folder, "--tasks", "piqa")
    assert "both hold arc_easy" in refused("--spoken", folder.folder, "--spoken", folder.folder)
    assert "give --base" in refused("--spoken", folder.folder)
    assert isinstance(CliRunner().invoke(app, ["measure", "nothing"]).exception, RecipeError)


# --- models that only write -------------------------------------------------------------------------------------------


class Clerk:
    """Writes a letter: to text always B; to speech that of the item whose clip has so many samples, if it listens."""

    can_score, max_audio_s = False, None

    def __init__(self, letters: dict[int, str], listens: bool) -> None:
        self.letters, self.listens, self.asked = letters, listens, 0
        self.name = self.fingerprint = f"clerk {listens}"

    def generate(self, segments, max_tokens, seed, *, temperature=0.7, top_k=250):
        self.asked += 1
        heard = [part for part in segments if isinstance(part, Speech)]
        if not heard or not self.listens or not heard[0].samples.any():
            return "The answer is B."
        return self.letters.get(len(heard[0].samples), "I can't tell.")


def test_a_model_that_only_writes(measuring, tmp_path):
    folder = spoken(tmp_path / "many", "arc_easy", items_of("arc_easy", 24))
    clips = SpokenClips(folder, "nan")
    letters = {len(clips[item.id].samples): "ABC"[item.answer] for item in folder.items[:-1]}
    clerk, deaf = (Clerk(letters, listens) for listens in (True, False))
    own = replace(measuring, model=Writer(clerk), base=Writer(deaf), out=tmp_path / "clerk")
    result = measure_task(own, folder)
    split = result.gap.whole
    assert split.topline.value == split.own_text.value == 0.5  # every second answer is B
    assert split.speech.value == pytest.approx(23 / 24)  # one answer could not be read: wrong
    assert [row.predictions["declared"] for row in read_item_scores(tmp_path / "clerk/arc_easy/speech/nan/clean")][
        -1
    ] == -1
    last = read_item_scores(tmp_path / "clerk/arc_easy/speech/nan/clean")[-1]
    assert last.reply == "I can't tell."
    assert result.written["speech/nan/clean"].num_unread == 1
    assert result.written["speech/nan/clean"].accuracy_by_rule["declared"] == pytest.approx(23 / 24)
    # The others' rules draw a letter where none is found: VoiceBench's of four, in expectation.
    chosen = len(folder.items[-1].choices)
    by_rule = result.written["speech/nan/clean"].accuracy_by_rule
    assert by_rule["voicebench"] == pytest.approx((23 + 1 / 4) / 24)
    assert by_rule["guessing"] == pytest.approx((23 + 1 / chosen) / 24)
    assert result.written["topline"].num_unread == 0
    assert result.as_json()["written"]["speech/nan/clean"]["num_answers"] == 24
    lines = "\n".join(_written(result))
    assert "count as wrong: speech/nan/clean 1 of 24" in lines
    assert result.listening.by_alteration["swapped"].changed_frac > 0.4
    asked = clerk.asked
    assert measure_task(own, folder).as_json() == result.as_json()
    assert clerk.asked == asked  # nothing is asked again
    verdict = measure_task(replace(own, model=Writer(deaf), out=tmp_path / "deaf"), folder).listening
    assert not verdict.listens
    assert "DOES NOT LISTEN" in verdict.sentence
