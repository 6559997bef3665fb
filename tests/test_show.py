"""`salad show`: what it prints of a sequence is what training reads, and its audio says the words it prints."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from typer.testing import CliRunner

import tiny
from salad.assets import resolve
from salad.cli import app
from salad.cli.drawn import sequence_lines
from salad.errors import AlignmentError, DataError, MissingFileError, SaladError
from salad.interleave import view as viewing
from salad.interleave.sequence import SPEECH, mixed_sequence
from salad.interleave.show import Shown, show, show_one, write_audio
from salad.interleave.view import SequenceView
from salad.randomness import generator
from salad.recipe import SequenceSettings
from salad.speech.audio import load_cut
from salad.speech.prepared import Rejected, stream_cuts, with_words, words_of, write_prepared
from salad.texts.wordnet import comparable

RATE_HZ = 8000
POLICIES = ["interleaved", "speech_prefix", "poisson"]


def make_cut(folder: Path, name: str, num_words: int, document: str | None = None, timed: bool = True) -> MonoCut:
    """Random words on a clip whose samples say where they stand: a ramp."""
    utterance = tiny.utterance(name, num_words)
    duration_s = utterance.words[-1].end_s + 0.21
    path = folder / f"{name}.wav"
    num_samples = round(duration_s * RATE_HZ)
    soundfile.write(path, np.arange(num_samples).astype(np.int16), RATE_HZ, subtype="PCM_16")
    text = " ".join(word.text for word in utterance.words)
    recording = Recording.from_file(path, recording_id=name)
    supervision = SupervisionSegment(name, name, 0.0, recording.duration, text=text, speaker="s", language="English")
    cut = MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[supervision])
    cut.custom = {"document": document} if document else None
    return with_words(cut, [(w.text, w.start_s, w.end_s, 0.9) for w in utterance.words]) if timed else cut


def make_folder(folder: Path, *cuts: tuple[str, int, str | None] | tuple[str, int, str | None, bool]) -> Path:
    folder.mkdir()
    write_prepared(folder, [make_cut(folder, *cut) for cut in cuts], [Rejected("r", "too short: 0.01 s", "x:1")], {})
    return folder


def view_of(policy: str = "interleaved", seed: int = 0, **more: object) -> SequenceView:
    settings = SequenceSettings(policy=policy, text_words=(2, 4), speech_words=(2, 5), poisson_words=3.0)
    return SequenceView(tiny.tokenizer(), tiny.mark(), settings, seed, **more)


def lines(shown: Shown, view: SequenceView, every_position: bool = False) -> list[str]:
    return [line.plain for line in sequence_lines(shown, view, 80, every_position)]


# --- one sequence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("epoch", [0, 3])
def test_what_is_shown_is_what_training_reads(tmp_path, policy, epoch):
    view = view_of(policy, seed=5)
    for number in range(6):
        cut = make_cut(tmp_path, f"u{number}", 9 + number)
        shown = view.of(cut, epoch)
        sequence = mixed_sequence(
            cut.id,
            words_of(cut),
            view.num_clip_positions(cut),
            12.5,
            tiny.tokenizer(),
            tiny.mark(),
            view.settings,
            generator(5, "spans", cut.id, shown.epoch),
        )
        assert shown.note is None or shown.epoch == 0 != epoch
        assert " ".join(span.text for span in shown.spans) == cut.supervisions[0].text
        kinds = ["speech" if token == SPEECH else "text" for token in sequence.student_ids[1:]]
        assert [position.kind for position in shown.positions] == ["mark", *kinds]
        assert [position.student for position in shown.positions] == list(range(len(sequence.student_ids)))
        carrying = [position for position in shown.positions if position.predicts is not None]
        assert [(p.student, p.teacher) for p in carrying] == [(p.student, p.teacher) for p in sequence.pairs]
        tokens = [tiny.tokenizer().decode([pair.target]) for pair in sequence.pairs]
        assert all(p.predicts == token or "\ufffd" in token for p, token in zip(carrying, tokens, strict=True))
        heard = [(round(span.audio_s[0] * 12.5), span.positions) for span in shown.spans if span.audio_s]
        assert [(start, start + len(positions)) for start, positions in heard] == [
            (span.start, span.stop) for span in sequence.speech
        ]


def test_positions_of_speech_name_the_word_that_is_said_and_pauses(tmp_path):
    cut = make_cut(tmp_path, "u", 12)
    words = words_of(cut)
    for position in view_of("speech_prefix").of(cut).positions:
        if position.kind == "speech":
            middle_s = (position.start_s + position.end_s) / 2
            said = [word.text for word in words if word.start_s <= middle_s < word.end_s]
            assert position.reads == (said[0] if said else "")


def test_loss_ranges_are_the_positions_that_carry_loss(tmp_path):
    shown = view_of().of(make_cut(tmp_path, "u", 30))
    assert len(shown.spans) > 4
    carrying = {position.student for position in shown.positions if position.predicts is not None}
    listed = {at for span in shown.spans if span.loss for at in range(span.loss[0], span.loss[1] + 1)}
    assert carrying - {0} == listed
    for span, following in zip(shown.spans, [*shown.spans[1:], None], strict=True):
        if span.kind == "speech":  # the last frame predicts the text after it
            last = span.positions[-1].student
            assert span.loss == ((last, last) if following else None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: dataclasses.replace(s, pairs=(s.pairs[0]._replace(teacher=s.pairs[0].teacher + 1), *s.pairs[1:])),
        lambda s: dataclasses.replace(s, pairs=s.pairs[1:]),
        lambda s: dataclasses.replace(s, teacher_ids=(*s.teacher_ids[:-1], s.teacher_ids[-1] + 1)),
        lambda s: dataclasses.replace(s, student_ids=(*s.student_ids[:-1], s.student_ids[-1] + 1)),
        lambda s: dataclasses.replace(s, student_ids=(*s.student_ids, 7)),
    ],
    ids=["teacher", "unpredicted", "other text", "other token", "left over"],
)
def test_a_sequence_that_is_not_true_to_its_utterance_is_not_shown(tmp_path, monkeypatch, spoil):
    cut = make_cut(tmp_path, "u", 12)
    view_of("speech_prefix").of(cut)
    monkeypatch.setattr(viewing, "mixed_sequence", lambda *given: spoil(mixed_sequence(*given)))
    with pytest.raises(AlignmentError, match=r"utterance 'u': .*must not be trained on"):
        view_of("speech_prefix").of(cut)


def test_frames_follow_from_the_duration_or_from_the_features(tmp_path):
    cut = make_cut(tmp_path, "u", 12)

    class Store:
        frame_hz = 50.0

        def num_frames(self, cut_id):
            return {"u": 101}[cut_id]

    assert view_of().num_clip_positions(cut) == int(np.ceil(cut.duration * 12.5))
    assert view_of(store=Store()).num_clip_positions(cut) == 26


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_the_first_that_can_be_made_are_shown_and_the_others_are_counted(tmp_path):
    folder = make_folder(
        tmp_path / "f", ("a", 12, None), ("b", 3, None), ("c", 12, None, False), ("d", 4, None), ("e", 14, None)
    )
    shown = show(folder, view_of("speech_prefix"), 2)
    assert [sequence.id for sequence in shown.sequences] == ["a", "e"]
    rows = [(row["reason"], row["count"], row["example"]["id"]) for row in shown.not_made.rows()]
    assert rows == [
        ("3–4 words, fewer than sequence.min_words=5", 2, "b"),
        ("has no word timings; run 'salad align' on its folder first", 1, "c"),
    ]
    assert (shown.num_seen, shown.not_made.count) == (5, 3)
    assert show(folder, view_of("speech_prefix"), 1).num_seen == 1


@pytest.mark.parametrize(
    ("cuts", "policy", "message"),
    [
        ([], "interleaved", "holds no utterance"),
        ([("a", 9, None, False), ("b", 9, None, False)], "interleaved", "is not aligned.*run 'salad align"),
        (
            [("a", 3, None)],
            "interleaved",
            "'interleaved' can use none of 1 utterances .*fewer than sequence.min_words=5",
        ),
        ([("a", 9, None), ("b", 9, None)], "utterance", "no text follows.*need the same 'document'"),
        ([("a", 9, "x"), ("b", 9, "y")], "utterance", "no text follows"),
    ],
)
def test_a_folder_without_a_sequence_says_why(tmp_path, cuts, policy, message):
    folder = make_folder(tmp_path / "f", *cuts)
    with pytest.raises(DataError, match=message):
        show(folder, view_of(policy), 3)


def test_a_folder_that_was_never_prepared(tmp_path):
    with pytest.raises(MissingFileError, match="salad prepare"):
        show(tmp_path, view_of(), 3)


def test_an_id_is_shown_alone_and_an_unknown_one_gets_its_nearest(tmp_path):
    names = ["1272-128104-0000", "1272-128104-0001", "61-70968-0000", "other"]
    folder = make_folder(tmp_path / "f", *((name, 9, None) for name in names), ("short", 3, None))
    assert [s.id for s in show_one(folder, view_of(), "61-70968-0000").sequences] == ["61-70968-0000"]
    with pytest.raises(DataError, match=r"no utterance '61-70968-000'; the nearest are 61-70968-0000, "):
        show_one(folder, view_of(), "61-70968-000")
    with pytest.raises(DataError, match="'short' can't be shown: 3 words, fewer than"):
        show_one(folder, view_of(), "short")


def test_the_utterance_policy_reads_on_in_its_document(tmp_path):
    folder = make_folder(
        tmp_path / "f", ("a", 9, "x"), ("b", 20, "x"), ("c", 20, "x"), ("d", 9, "y"), ("e", 9, None), ("f", 9, None)
    )
    shown = show(folder, view_of("utterance"), 9)
    texts = [cut.supervisions[0].text.split() for cut in stream_cuts(folder)]
    assert [(sequence.id, sequence.spans[-1].text.split()) for sequence in shown.sequences] == [
        ("a", (texts[1] + texts[2])[:30]),
        ("b", texts[2]),
    ]
    assert all([span.kind for span in sequence.spans] == ["speech", "text"] for sequence in shown.sequences)
    assert shown.not_made.count == 4


# --- what is printed --------------------------------------------------------------------------------------------------


def test_every_line_fits_and_the_text_can_be_read_back(tmp_path):
    folder = make_folder(tmp_path / "f", ("a", 40, None), ("b", 3, None), ("c" * 60, 25, None))
    view = view_of()
    shown = show(folder, view, 2)
    for every_position in (False, True):
        printed = lines(shown, view, every_position)
        assert max(map(len, printed)) <= 80
        assert "1 of the 3 utterances looked at have no sequence: 1 × 3 words, fewer than" in " ".join(printed)
    text = " ".join(re.sub(r"^ {5}[|»] ", "", line) for line in lines(shown, view) if re.match(r" {5}[|»] ", line))
    assert text.split() == [word for cut in shown.cuts for word in cut.supervisions[0].text.split()]


def test_the_table_has_a_row_for_every_position_and_a_star_for_every_loss(tmp_path):
    view = view_of()
    shown = Shown([view.of(make_cut(tmp_path, "u", 30))], [], 1)
    rows = [line for line in lines(shown, view, True) if re.match(r" +\d+  (mark|text|speech)", line)]
    (sequence,) = shown.sequences
    assert len(rows) == len(sequence.positions)
    assert sum(" * " in row for row in rows) == sequence.num_loss
    table = [re.match(r" *(\d+)  (\w+) +(?:\"| *»)", row).groups() for row in rows]
    assert table == [(str(p.student), p.kind) for p in sequence.positions]


def test_json_says_all_of_it(tmp_path):
    folder = make_folder(tmp_path / "f", ("a", 20, None), ("b", 3, None), ("c", 25, None))
    view = view_of()
    shown = show(folder, view, 2)
    told = json.loads(json.dumps(shown.as_json(view), allow_nan=False))
    assert told["settings"]["policy"] == "interleaved"
    assert told["totals"]["num_positions"] == sum(len(sequence["positions"]) for sequence in told["sequences"])
    assert told["totals"]["num_loss"] == sum(
        p["predicts"] is not None for s in told["sequences"] for p in s["positions"]
    )
    assert told["totals"]["num_not_made"] == 1
    for sequence in told["sequences"]:
        assert sequence["spans"][0]["positions"][0] == 1
        assert sequence["spans"][-1]["positions"][1] == sequence["num_positions"] - 1


# --- what is heard ----------------------------------------------------------------------------------------------------


def test_the_audio_of_a_span_is_that_of_its_positions(tmp_path):
    folder = make_folder(tmp_path / "f", ("a b", 30, None))
    shown = show(folder, view_of(), 1)
    (sequence,) = shown.sequences
    heard = [span for span in sequence.spans if span.kind == "speech"]
    paths = write_audio(shown, tmp_path / "wav")
    assert len(paths) == len(heard) > 2
    for span, path in zip(heard, paths, strict=True):
        assert path.name.endswith(f"-span{span.number}.wav")
        audio, rate_hz = soundfile.read(path, dtype="int16")
        assert rate_hz == RATE_HZ
        assert audio[0] == np.array(round(span.audio_s[0] * RATE_HZ)).astype(np.int16)  # the ramp
        assert abs(len(audio) - (span.audio_s[1] - span.audio_s[0]) * RATE_HZ) <= 1
        assert span.audio_s[0] - 0.041 <= span.start_s + 1e-6
        assert span.end_s - 1e-6 <= span.audio_s[1] + 0.041


def test_audio_past_full_scale_is_not_clipped_in_silence(tmp_path):
    cut = make_cut(tmp_path, "u", 20)
    loud = np.full(round(cut.duration * RATE_HZ), 1.5, dtype=np.float32)
    soundfile.write(tmp_path / "u.wav", loud, RATE_HZ, subtype="FLOAT")
    with pytest.raises(SaladError, match=r"1\.500, past ±1"):
        write_audio(Shown([view_of().of(cut)], [cut], 1), tmp_path / "wav")


@pytest.fixture(scope="module")
def spoken(shared_data, tmp_path_factory) -> Path:
    """Two LibriSpeech utterances, aligned."""
    from salad.speech.recognize import Recognizer

    folder = tmp_path_factory.mktemp("spoken")
    source = shared_data / "speech" / "librispeech_excerpt"
    cuts = []
    recognizer = Recognizer(resolve("whisper-tiny.en"), 1)
    for line in (source / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        recording = Recording.from_file(source / row["audio"], recording_id=row["id"])
        supervision = SupervisionSegment(row["id"], row["id"], 0.0, recording.duration, text=row["text"])
        cuts.append(MonoCut(row["id"], 0.0, recording.duration, 0, recording=recording, supervisions=[supervision]))
        words = row["text"].split()
        placed = recognizer.align(load_cut(cuts[-1], 16000), words)
        with_words(cuts[-1], [(word, *place) for word, place in zip(words, placed, strict=True)])
    write_prepared(folder, cuts, [], {})
    return folder


@pytest.mark.assets
@pytest.mark.parametrize("policy", ["speech_prefix", "poisson"])
def test_an_asr_hears_the_words_that_are_printed(spoken, tmp_path, policy):
    from rapidfuzz.distance import Levenshtein

    from salad.speech.recognize import Recognizer

    view = dataclasses.replace(view_of(policy), settings=SequenceSettings(policy=policy))
    shown = show(spoken, view, 2)
    recognizer = Recognizer(resolve("whisper-tiny.en"), 1)
    paths = iter(write_audio(shown, tmp_path))
    wrong = total = 0
    for sequence in shown.sequences:
        for span in sequence.spans:
            if span.kind == "speech":
                audio, rate_hz = soundfile.read(next(paths), dtype="float32")
                assert rate_hz == 16000
                said, heard = comparable(span.text).split(), comparable(recognizer.transcribe(audio)).split()
                wrong += Levenshtein.distance(said, heard)
                total += len(said)
    assert total >= 20
    assert wrong / total <= 0.25, f"{wrong} of {total} words are not those that are printed"


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_json_tables_and_one_sentence(tmp_path):
    folder = make_folder(tmp_path / "f", ("a", 20, None), ("b", 25, None))
    llm = ["--tokenizer", str(tiny.save_llm(tmp_path / "llm"))]
    command = CliRunner()
    done = command.invoke(app, ["show", str(folder), "--n", "2", "--json", "--wav", str(tmp_path / "w"), *llm])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [sequence["id"] for sequence in told["sequences"]] == ["a", "b"]
    assert told["wav"]
    assert all(Path(path).is_file() for path in told["wav"])
    wrong = command.invoke(app, ["show", str(folder), "--id", "c", *llm])
    assert isinstance(wrong.exception, DataError)
    wrong = command.invoke(app, ["show", str(folder), "--policy", "all", *llm])
    assert "choose interleaved, speech_prefix, utterance, poisson" in str(wrong.exception)


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(tmp_path):
    folder = make_folder(tmp_path / "f", ("a", 20, None))
    llm = str(tiny.save_llm(tmp_path / "llm"))
    show_a = [sys.executable, "-m", "salad", "show", str(folder), "--id", "a", "--tokenizer", llm, "--positions"]
    done = subprocess.run(show_a, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "student  kind" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
