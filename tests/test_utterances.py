"""A corpus on the disk gives what its folder holds, one utterance at a time, and knows what a policy can use of it."""

import itertools
import pickle
import shutil

import numpy as np
import pytest

import tiny
from real_speech import spoken
from salad.errors import AlignmentError, CheckpointError, DataError, MissingFileError
from salad.interleave import builder as builder_module
from salad.interleave.builder import SequenceBuilder
from salad.interleave.sequence import SPEECH
from salad.interleave.utterances import SpeechCorpus, Utterance, feature_lookup
from salad.model.encode import encode_cuts
from salad.model.features import FeatureStore
from salad.speech.corpora import librispeech
from salad.speech.intake import prepare_corpus
from salad.speech.prepared import read_cuts, words_of, write_prepared
from tiny_corpus import chapters, corpus, spoken_cut
from tiny_speech import Loudness

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = Loudness.name


def in_memory(speech):
    """The same utterances as a list, with their features read."""
    return [Utterance(u.id, u.words, np.asarray(u.features_FE), u.continuation) for u in speech]


def ids(speech):
    return [utterance.id for utterance in speech]


def test_a_corpus_gives_what_the_folder_holds(tmp_path):
    speech, store = corpus(tmp_path, 7), FeatureStore(tmp_path, NAME)
    cuts = read_cuts(tmp_path)
    assert ids(speech) == [cut.id for cut in cuts]
    for utterance, cut in zip(speech, cuts, strict=True):
        assert utterance.words == tuple(words_of(cut))
        assert utterance.text == cut.supervisions[0].text
        frames, expected = utterance.features_FE, store.load(cut.id)
        assert (len(frames), frames.shape) == (len(expected), expected.shape)
        assert np.array_equal(np.asarray(frames), expected)
        for part in (slice(3, 9), slice(None, 4), slice(5, None), slice(2, 20, 3), slice(7, 7)):
            assert np.array_equal(frames[part], expected[part])
    assert np.array_equal(feature_lookup(speech)("u3")[:], store.load("u3"))


def test_parts_of_a_corpus(tmp_path):
    speech = corpus(tmp_path, 8)
    assert ids(speech.without(["u1", "u6"])) == ["u0", "u2", "u3", "u4", "u5", "u7"]
    assert ids(speech.only(["u6", "u1"])) == ["u1", "u6"]
    assert ids(speech.take([5, 2])) == ["u5", "u2"]
    assert ids(speech.take([5, 2, 7])[1:]) == ["u2", "u7"]
    assert ids(speech.without(["u1"]).only(["u1", "u2"])) == ["u2"]
    assert len(speech) == 8
    assert speech[-1].id == "u7"
    with pytest.raises(IndexError):
        speech[8]
    with pytest.raises(DataError, match="no cut 'x'"):
        speech.without(["u1", "x"])


def test_a_corpus_travels_as_names_and_numbers(tmp_path):
    speech = corpus(tmp_path, 8).without(["u0"])
    sent = pickle.dumps(speech)
    assert len(sent) < 2000
    there = pickle.loads(sent)
    assert ids(there) == ids(speech)
    assert np.array_equal(there[3].features_FE[2:], speech[3].features_FE[2:])


def test_what_is_not_aligned_or_not_encoded_is_left_out_and_listed(tmp_path):
    good, loose, silent = (spoken_cut(tmp_path, name, 8) for name in ("good", "loose", "silent"))
    loose.supervisions[0].alignment = None
    silent.recording.sources[0].source = str(tmp_path / "gone.flac")
    write_prepared(tmp_path, [good, loose, silent], [], {})
    encode_cuts(tmp_path, Loudness())
    speech = SpeechCorpus(tmp_path, NAME)
    assert ids(speech) == ["good"]
    usable, rejected = tiny.builder().usable(speech)
    assert ids(usable) == ["good"]
    assert [row.id for row in rejected] == ["loose", "silent"]
    assert rejected[0].reason.startswith("not aligned")
    assert "gone.flac" in rejected[1].reason


def test_a_folder_without_timings_or_features_says_what_to_run(tmp_path):
    cut = spoken_cut(tmp_path, "loose", 8)
    cut.supervisions[0].alignment = None
    write_prepared(tmp_path, [cut], [], {})
    with pytest.raises(MissingFileError, match="salad encode"):
        SpeechCorpus(tmp_path, NAME)
    encode_cuts(tmp_path, Loudness())
    with pytest.raises(AlignmentError, match="salad align"):
        SpeechCorpus(tmp_path, NAME)


def test_features_of_other_audio_are_refused(tmp_path):
    chapters(tmp_path, 3)
    write_prepared(tmp_path, [spoken_cut(tmp_path, "u0", 6), spoken_cut(tmp_path, "u1", 12)], [], {})
    speech = SpeechCorpus(tmp_path, NAME)
    assert tiny.builder().mixed(speech[0])
    with pytest.raises(CheckpointError, match=r"'u1'.*other audio.*salad encode"):
        tiny.builder().usable(speech)


# --- what a policy can use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["interleaved", "speech_prefix", "utterance", "poisson"])
def test_usable_of_a_corpus_is_what_it_is_of_a_list_and_reads_no_features(tmp_path, policy, monkeypatch):
    speech = corpus(tmp_path, 20)
    build = tiny.builder(policy=policy, text_words=(4, 9), speech_words=(4, 9), min_words=7, poisson_words=6.0)
    expected, reasons = build.usable(in_memory(speech))
    monkeypatch.setattr(FeatureStore, "load", lambda *_: pytest.fail("features were read"))
    usable, rejected = build.usable(speech)
    assert ids(usable) == ids(expected)
    assert rejected == reasons
    assert 0 < len(usable) < 20
    assert sorted([*ids(usable), *(row.id for row in rejected)]) == sorted(ids(speech))
    monkeypatch.undo()
    for utterance, same in zip(usable, expected, strict=True):
        assert build.mixed(utterance, 1) == build.mixed(same, 1)


def usable_twice(build, speech, monkeypatch):
    """What is usable, and whether it was remembered when asked again."""
    first = build.usable(speech)
    asked = []
    with monkeypatch.context() as patch:
        sort_out = SequenceBuilder._sort_out
        patch.setattr(SequenceBuilder, "_sort_out", lambda *a: asked.append(1) or sort_out(*a))
        again = build.usable(speech)
    assert ids(again[0]) == ids(first[0])
    assert again[1] == first[1]
    return ids(first[0]), not asked


def test_what_is_usable_is_remembered_until_something_changes(tmp_path, monkeypatch):
    speech = corpus(tmp_path, 12)
    remembered = [
        usable_twice(build, part, monkeypatch)
        for build, part in (
            (tiny.builder(min_words=7), speech),
            (tiny.builder(min_words=8), speech),
            (tiny.builder(min_words=8, seed=3), speech),
            (tiny.builder(min_words=8), speech.without(["u1"])),
        )
    ]
    assert all(again for _, again in remembered)
    assert len({tuple(found) for found, _ in remembered}) == 3  # the seed alone changes nothing under speech_prefix
    assert len(list(speech.cuts.place.glob("usable-*.npz"))) == 4
    for path in speech.cuts.place.glob("usable-*.npz"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    assert ids(tiny.builder(min_words=7).usable(speech)[0]) == remembered[0][0]


def test_new_features_and_new_cuts_are_asked_about_again(tmp_path, monkeypatch):
    speech, build = corpus(tmp_path, 6), tiny.builder()
    assert len(build.usable(speech)[0]) == 6
    asked = []
    sort_out = SequenceBuilder._sort_out
    monkeypatch.setattr(SequenceBuilder, "_sort_out", lambda *a: asked.append(1) or sort_out(*a))
    shutil.rmtree(tmp_path / "features")
    encode_cuts(tmp_path, Loudness(gain=0.5))
    build.usable(SpeechCorpus(tmp_path, NAME))
    chapters(tmp_path, 7)
    assert len(build.usable(SpeechCorpus(tmp_path, NAME))[0]) == 7
    assert len(asked) == 2


def test_where_nothing_can_be_written_it_is_found_out_each_time(tmp_path, monkeypatch):
    speech = corpus(tmp_path, 6)
    monkeypatch.setattr(builder_module.os, "access", lambda *_: False)
    assert len(tiny.builder().usable(speech)[0]) == 6
    assert not list(speech.cuts.place.glob("usable-*"))


# --- the utterance policy -------------------------------------------------------------------------------------------


def test_the_utterance_policy_predicts_what_follows_in_the_chapter(tmp_path):
    speech = corpus(tmp_path, 10)  # two chapters of five
    build = tiny.builder(policy="utterance", continuation_words=8)
    usable, rejected = build.usable(speech)
    assert ids(usable) == [f"u{i}" for i in range(10) if i % 5 < 4]
    assert [row.id for row in rejected] == ["u4", "u9"]
    assert all("no text follows" in row.reason for row in rejected)
    texts = [cut.supervisions[0].text.split() for cut in read_cuts(tmp_path)]
    for index, utterance in enumerate(speech):
        chapter = index // 5 * 5
        follows = list(itertools.chain(*texts[index + 1 : chapter + 5]))[:8]
        assert utterance.continuation(8).split() == follows
        if not follows:
            continue
        sequence = build.mixed(utterance)
        read = tiny.tokenizer().decode([pair.target for pair in sequence.pairs])
        assert read.split() == follows
        heard = len(utterance.features_FE) / tiny.FRAMES_PER_POSITION
        assert sequence.student_ids.count(SPEECH) == np.ceil(heard)
        assert sequence.pairs[0].student == sequence.student_ids.count(SPEECH)


def test_other_policies_read_no_further_than_the_utterance(tmp_path):
    speech = corpus(tmp_path, 5)
    sequence = tiny.builder().mixed(speech[0])
    assert tiny.tokenizer().decode(sequence.teacher_ids[1:]).strip() == speech[0].text


def test_the_text_of_a_held_out_utterance_is_no_continuation(tmp_path):
    speech = corpus(tmp_path, 5)
    build = tiny.builder(policy="utterance")
    trained = speech.without(["u2"])
    assert speech[1].continuation(20)
    assert trained[1].continuation(20) == ""
    assert trained.only(["u0", "u1"])[0].continuation(99) == speech[1].text
    assert ids(build.usable(trained)[0]) == ["u0", "u3"]
    assert ids(build.usable(speech.take([0, 1, 3, 4]))[0]) == ["u0", "u1", "u3"]
    assert speech.only(["u2"])[0].continuation(5)  # held-out speech may be measured with what follows it


def test_a_chapter_of_librispeech_is_heard_and_read_on(shared_data, tmp_path):
    """Real speech with real word times, laid out as LibriSpeech unpacks, prepared and encoded as its user would."""
    chapter = tmp_path / "LibriSpeech" / "train-clean-5" / "19" / "198"
    chapter.mkdir(parents=True)
    lines, timings = [], []
    for number, utterance in enumerate(spoken(shared_data, "ljspeech_excerpt", 3)):
        name = f"19-198-{number:04d}"
        (chapter / f"{name}.flac").write_bytes(utterance.encoded("flac"))
        lines.append(f"{name} {utterance.text}\n")
        words = ",".join(word.upper() for word, _, _ in utterance.words)
        timings.append(f'{name} "{words}" "{",".join(f"{end:.3f}" for _, _, end in utterance.words)}"\n')
    (chapter / "19-198.trans.txt").write_text("".join(lines))
    (chapter / "19-198.alignment.txt").write_text("".join(timings))
    prepare_corpus(librispeech.candidates(tmp_path), tmp_path / "out", dict(librispeech.INFO))
    encode_cuts(tmp_path / "out", Loudness())
    build = tiny.builder(policy="utterance", continuation_words=12, min_words=4)
    usable, rejected = build.usable(SpeechCorpus(tmp_path / "out", NAME))
    assert ids(usable) == ["19-198-0000", "19-198-0001"]
    assert [row.id for row in rejected] == ["19-198-0002"]
    texts = [line.split()[1:] for line in lines]
    for number, utterance in enumerate(usable):
        sequence = build.mixed(utterance)
        read = tiny.tokenizer().decode([pair.target for pair in sequence.pairs])
        assert read.split() == list(itertools.chain(*texts[number + 1 :]))[:12]
        assert [word.text for word in utterance.words] == texts[number]
        assert 0 <= utterance.words[0].start_s < utterance.words[-1].end_s <= len(utterance.features_FE) / 50 + 0.02
