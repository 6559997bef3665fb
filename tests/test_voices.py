"""Voices by their names: what they can do, what they refuse, and that no text is ever a command."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from salad.assets import resolve
from salad.errors import AssetError, AudioError
from salad.synthesize.voices import load_voice
from salad.synthesize.voices.catalogue import catalogue, known_names, licence_of_voice
from salad.synthesize.voices.voice import literal
from salad.synthesize.voices.wave import decoded

NEEDS_ESPEAK = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
NEEDS_FLITE = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
INJECTED = [
    'one <break time="3s"/> two',
    "a [[h@l'oU]] b",
    "stop \x01 50P now",
    "nul \0 byte",
    "$(touch HACKED) `touch HACKED`; touch HACKED | touch HACKED && touch HACKED",
    "-v nosuch --version",
    "'; touch HACKED; '",
    "{out} {text_file} {speed} %s",
    "lone \ud800 surrogate",
]


def wav_of(audio: np.ndarray, rate_hz: int, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, rate_hz, format="WAV", subtype=subtype)
    return buffer.getvalue()


def program(folder: Path, body: str) -> str:
    """A speaking program of our own: writes as many tenths of seconds of a tone as there are letters."""
    path = folder / "speaker.py"
    path.write_text(
        "import io, sys, wave, time, os\n"
        "def tone(tenths, rate=16000):\n"
        "    out = io.BytesIO()\n"
        "    with wave.open(out, 'wb') as file:\n"
        "        file.setparams((1, 2, rate, 0, 'NONE', ''))\n"
        "        file.writeframes((b'\\x00\\x20' * 20 + b'\\x00\\xe0' * 20) * (tenths * rate // 400))\n"
        "    return out.getvalue()\n" + body
    )
    return f"{sys.executable} {path}"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no such voice", "no voice 'no such voice'"),
        ("kokoro", "kokoro-jf_alpha"),
        ("espeak", "espeak-ng"),
        ("kokoro-af_hart", "kokoro-af_heart"),
        ("piper-jo", "piper-joe"),
        ("flite:nobody", "kal, kal16, awb, rms, slt"),
        ("command:", "names no program"),
        ("command:'unclosed", "can't be split"),
        ("command:no-such-program-anywhere", "not installed"),
        ("command:cat {text}", "{text_file}"),
        ("openai:localhost#m/v", "openai:http://localhost:8880"),
        ("openai:http://localhost:1/v1#voice", "MODEL/VOICE"),
        ("openai:http://me:secret@localhost:1/v1#m/v", "OPENAI_API_KEY"),
    ],
)
def test_a_name_that_is_no_voice_is_one_sentence_with_the_nearest(name, told):
    with pytest.raises(AssetError) as caught:
        load_voice(name)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["kokoro-af_heart", "piper-en_US-lessac-medium"])
def test_a_voice_of_the_hub_without_the_hub_says_what_needs_none(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match=r"the hub.*piper-joe"):
        load_voice(name)


def test_every_voice_listed_is_one_that_can_be_asked_for():
    rows = catalogue()
    assert {row.name for row in rows} >= {"piper-joe", "kokoro-af_heart", "kokoro-jf_alpha", "espeak-ng", "flite:slt"}
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.licence and (row.needs or row.ready) for row in rows)
    for name in known_names():
        try:
            voice = load_voice(name)
        except AssetError as error:  # not here, but known
            told = str(error)
        else:
            told = ""
        assert "no voice" not in told
        if told:
            continue
        row = next(row for row in rows if row.name == name)
        able = (voice.rate_hz, voice.speeds != (1.0, 1.0), voice.semitones != (0.0, 0.0), voice.deterministic)
        assert able == (row.rate_hz, row.speed, row.pitch, row.deterministic), name
        assert next(row for row in catalogue() if row.name == name).ready is True, "it was fetched if it was not"


def test_licences_for_the_bill():
    assert licence_of_voice("kokoro-af_heart") == "Apache-2.0"
    assert licence_of_voice("piper-joe") == "MIT (trained on CC0 speech)"
    assert licence_of_voice("espeak-ng:en-gb") == licence_of_voice("espeak-ng")
    assert licence_of_voice("command:x") is licence_of_voice("openai:http://a#b/c") is None


def test_a_text_is_only_a_text():
    assert literal("a\x01b \x00 [[x]] \ud800y\tz\x1ci") == "ab  [ [x] ] y z i"
    for text in INJECTED:
        assert "[[" not in literal(text)
        assert literal(text).encode().decode().isprintable()


@NEEDS_ESPEAK
def test_espeak_speaks_markup_as_signs_and_obeys_no_command():
    voice = load_voice("espeak-ng")
    tagged, plain = voice.speak('one <break time="3s"/> two').audio, voice.speak("one two").audio
    assert len(tagged) > len(plain) + 22_050  # "less than break time equals …" is read out
    assert np.array_equal(voice.speak("stop \x01 50P now").audio, voice.speak("stop  50P now").audio)
    with_brackets = [str(voice.speak(text).audio.tobytes()) for text in ("a [[h@l'oU]] b", "a [ [h@l'oU] ] b")]
    assert with_brackets[0] == with_brackets[1]


@NEEDS_ESPEAK
@pytest.mark.parametrize("text", INJECTED)
def test_espeak_only_speaks(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_voice("espeak-ng").speak(text).audio.any()
    assert list(tmp_path.iterdir()) == []


@NEEDS_ESPEAK
def test_espeak_changes_speed_and_pitch_by_itself():
    voice = load_voice("espeak-ng")
    text = "The quick brown fox jumps over the lazy dog, and many others watch it go by."
    own = len(voice.speak(text).audio)
    for speed in (0.6, 0.8, 1.25, 2.0):
        assert own / len(voice.speak(text, speed).audio) == pytest.approx(speed, rel=0.1)
    own_hz = pitch_hz(voice.speak(text).audio, voice.rate_hz)
    for semitones in (-5, -3, 3, 8):
        audio = voice.speak(text, 1.0, semitones).audio
        assert len(audio) == pytest.approx(own, rel=0.02)
        assert 12 * np.log2(pitch_hz(audio, voice.rate_hz) / own_hz) == pytest.approx(semitones, abs=0.6)
    with pytest.raises(AudioError, match=r"speed 3 by itself, but with 0\.5 to 2"):
        voice.speak(text, 3.0)
    with pytest.raises(AudioError, match=r"semitones -7"):
        voice.speak(text, 1.0, -7.0)


def pitch_hz(audio: np.ndarray, rate_hz: int) -> float:
    """The median over voiced windows of the first peak of the autocorrelation."""
    width, found = round(0.06 * rate_hz), []
    for begin in range(0, len(audio) - width, width // 2):
        window = audio[begin : begin + width] - audio[begin : begin + width].mean()
        correlation = np.correlate(window, window, "full")[width - 1 :]
        if np.sqrt((window**2).mean()) < 0.05 or correlation.min() > 0:
            continue
        least = max(rate_hz // 500, int(np.argmax(correlation < 0)))
        lag = least + int(np.argmax(correlation[least : rate_hz // 40]))
        if correlation[lag] > 0.5 * correlation[0]:
            found.append(rate_hz / lag)
    return float(np.median(found))


@NEEDS_ESPEAK
def test_a_voice_espeak_does_not_have_is_the_voices_fault():
    with pytest.raises(AssetError, match="no voice 'klingonish'"):
        load_voice("espeak-ng:klingonish").speak("hello")


@NEEDS_FLITE
@pytest.mark.parametrize("name", ["flite", "flite:kal"])
def test_flite_speaks_the_same_twice_and_at_its_own_speeds(name):
    voice = load_voice(name)
    once, again = voice.speak("Good morning.").audio, voice.speak("Good morning.").audio
    assert once.tobytes() == again.tobytes()
    assert 0.5 < len(once) / voice.rate_hz < 3
    assert len(once) / len(voice.speak("Good morning.", 2.0).audio) == pytest.approx(2.0, rel=0.05)
    assert len(voice.speak("").audio) == 0
    assert load_voice("flite:awb").fingerprint != voice.fingerprint


@NEEDS_FLITE
@pytest.mark.parametrize("text", INJECTED)
def test_flite_only_speaks(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_voice("flite").speak(text).audio.any()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", INJECTED)
@pytest.mark.parametrize("template", ["", " {text_file} {out}"])
def test_a_command_gets_the_text_and_no_shell_does(text, template, tmp_path, monkeypatch):
    body = """
if len(sys.argv) > 1:
    text = open(sys.argv[1], "rb").read()
    open(sys.argv[2], "wb").write(tone(3))
else:
    text = sys.stdin.buffer.read()
    sys.stdout.buffer.write(tone(3))
open(os.environ["HEARD"], "wb").write(text)
"""
    command = program(tmp_path, body)
    monkeypatch.setenv("HEARD", str(tmp_path / "heard"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    audio, words = load_voice(f"command:{command}{template}").speak(text)
    assert len(audio) == 7200  # 0.3 s at 24 kHz
    assert words is None
    assert (tmp_path / "heard").read_bytes() == literal(text).encode()
    assert list((tmp_path / "here").iterdir()) == []


def test_the_template_is_no_shells_either(tmp_path, monkeypatch):
    command = program(tmp_path, "sys.stdout.buffer.write(tone(len(sys.argv)))\n")
    monkeypatch.chdir(tmp_path)
    audio = load_voice(f"command:{command} ; touch HACKED | $(touch HACKED)").speak("x").audio
    assert len(audio) == 2400 * 7  # the program itself and six arguments
    assert not (tmp_path / "HACKED").exists()


def test_a_commands_speed_is_what_its_template_takes(tmp_path):
    command = program(tmp_path, "sys.stdout.buffer.write(tone(round(10 / float(sys.argv[1]))))\n")
    voice = load_voice(f"command:{command} {{speed}}")
    assert voice.speeds == (0.5, 2.0)
    assert len(voice.speak("x", 2.0).audio) == 12_000
    still = load_voice(f"command:{command} 1")
    assert still.speeds == (1.0, 1.0)
    assert still.deterministic is False
    with pytest.raises(AudioError, match="but with 1 alone"):
        still.speak("x", 1.1)
    assert voice.fingerprint != still.fingerprint


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no such word')", "exit code 1: no such word"),
        ("print('hello')", "gave 6 bytes that begin 'hello' where a WAV was expected"),
        ("pass", "gave nothing where a WAV was expected"),
        ("sys.stdout.buffer.write(tone(3)[:900])", "cut short"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_a_command_that_fails_says_how(body, message, tmp_path):
    voice = load_voice(f"command:{program(tmp_path, body)}")
    with pytest.raises(AudioError) as caught:
        voice.speak("the words\nof a text")
    assert message in str(caught.value)
    assert "the words" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("salad.synthesize.voices.command._LIMIT_S", 0.5)
    with pytest.raises(AudioError, match=r"did not finish within 0\.5 s"):
        load_voice(f"command:{program(tmp_path, 'time.sleep(60)')}").speak("x")


def test_a_command_that_writes_no_file_says_so(tmp_path):
    with pytest.raises(AudioError, match=r"wrote no WAV to \{out\}"):
        load_voice(f"command:{program(tmp_path, 'pass')} {{out}}").speak("x")


def test_waves_as_programs_write_them():
    tone = np.sin(np.arange(800) / 5).astype(np.float32) / 2
    honest = wav_of(tone, 16_000)
    place = honest.index(b"data") + 4
    for unknown in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\xf0\xff\x7f"):
        piped = honest[:4] + unknown + honest[8:place] + unknown + honest[place + 4 :]
        audio, rate_hz = decoded(piped, "it")
        assert rate_hz == 16_000
        assert np.abs(audio - tone).max() < 1e-4
    stereo = np.stack([tone, -tone], axis=1)
    assert np.abs(decoded(wav_of(stereo, 8_000), "it")[0]).max() < 1e-4
    assert np.abs(decoded(wav_of(tone, 16_000, "FLOAT"), "it")[0] - tone).max() < 1e-6
    with pytest.raises(AudioError, match=r"^it gave samples that are no numbers"):
        decoded(wav_of(np.full(8, np.nan, dtype=np.float32), 16_000, "FLOAT"), "it")
    with pytest.raises(AudioError, match=r"^it gave a WAV that is cut short"):
        decoded(honest[:-2], "it")


def salad_voices(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "salad", "voices", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def test_the_verb_lists_and_speaks(tmp_path):
    rows = json.loads(salad_voices("--json").stdout)
    assert {"name", "licence", "rate_hz", "speed", "pitch", "word_times", "deterministic", "ready"} <= rows[0].keys()
    assert "piper-joe" in salad_voices().stdout
    command = f"command:{program(tmp_path, 'sys.stdout.buffer.write(tone(len(sys.stdin.read())))')}"
    out = tmp_path / "said.wav"
    done = salad_voices("--say", "We are 5.", "--voice", command, "--out", str(out), "--json")
    told = json.loads(done.stdout)
    assert told["text"] == "We are five."
    assert soundfile.info(out).frames == 24_000 * 12 / 10
    assert told["seconds"] == 1.2
    failed = salad_voices("--say", "x", "--voice", "nobody", "--out", str(out))
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def joe() -> Path:
    """The folder of the Piper voice."""
    return resolve("piper-joe")


@pytest.mark.assets
def test_piper_speaks_at_a_speed_and_its_word_times_are_of_that_speed(joe):
    voice = load_voice("piper-joe")
    text = "Good morning. How are you today?"
    own, fast, slow = (voice.speak(text, speed) for speed in (1.0, 1.6, 0.7))
    for spoken, speed in ((fast, 1.6), (slow, 0.7)):
        assert len(own.audio) / len(spoken.audio) == pytest.approx(speed, rel=0.2)
        assert spoken.words[-1][1] <= len(spoken.audio) / voice.rate_hz
        for (start, end), (own_start, _) in zip(spoken.words, own.words, strict=True):
            inside = spoken.audio[round(start * voice.rate_hz) : round(end * voice.rate_hz)]
            assert np.sqrt(np.mean(inside**2)) > 0.01
            place, own_place = start / len(spoken.audio), own_start / len(own.audio)
            assert place * voice.rate_hz == pytest.approx(own_place * voice.rate_hz, abs=0.03)


@pytest.mark.assets
@pytest.mark.parametrize("text", INJECTED)
def test_piper_only_speaks(text, joe):
    audio, words = load_voice("piper-joe").speak(text)
    assert audio.any()
    assert words is None or len(words) == len(text.split())


@pytest.mark.assets
@pytest.mark.parametrize("damage", ["cut", "no config", "not JSON", "other JSON", "no rate"])
def test_a_damaged_piper_voice_is_one_sentence(damage, joe, tmp_path):
    model = next(joe.glob("*.onnx"))
    config = model.with_suffix(".onnx.json")
    content = model.read_bytes()
    (tmp_path / model.name).write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    stated = {"not JSON": "{", "other JSON": '{"audio": {"sample_rate": 22050}}', "no rate": "{}"}
    if damage != "no config":
        (tmp_path / config.name).write_text(stated.get(damage, config.read_text()))
    with pytest.raises(AssetError) as caught:
        load_voice(str(tmp_path)).speak("hello")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
