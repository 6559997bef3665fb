"""Speech that is heard while it is spoken is what it is when heard as a whole: frames, positions, logits, answers."""

import itertools

import numpy as np
import pytest
import torch

import tiny
import tiny_talker
from salad.cli.asking import recorded
from salad.errors import AudioError, DataError, RecipeError, TooLongError
from salad.measure.models.base import Speech
from salad.model.adapter_stream import AdapterStream
from salad.model.encoder import load_encoder
from salad.model.encoders.mimi import MimiCodesEncoder, MimiEncoder
from salad.model.encoders.speech_encoder import StreamingEncoder
from salad.serve.conversation import Turn
from salad.serve.live import LiveSpeech
from salad.serve.talker import Talker
from test_encoder_batches import mimi_model

pytestmark = pytest.mark.usefixtures("one_thread")
RATE_HZ = 24_000
ENCODERS = {
    "latents": lambda: MimiEncoder(mimi_model(), "m", ""),
    "codes": lambda: MimiCodesEncoder(mimi_model(), "m", "", 3),
}
PIECES = {"frames": [1920], "small and odd": [700, 1, 0, 333], "large and odd": [5000, 1921, 40], "whole": [10**9]}


def noise(seconds, rate_hz=RATE_HZ, seed=0):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate_hz)).astype(np.float32)


def in_pieces(clip, lengths):
    """The clip in pieces of these lengths, over and over."""
    start = 0
    for length in itertools.cycle(lengths):
        if start >= len(clip):
            return
        yield clip[start : start + length]
        start += length


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("kind", ENCODERS)
def test_frames_come_with_the_samples_and_are_those_of_the_whole_clip(kind, pieces):
    encoder = ENCODERS[kind]()
    clip = noise(1.51)  # ends within a frame, and is longer than the attention's window
    whole = encoder.encode([clip])[0]
    stream = encoder.stream()
    came, heard = [], 0
    for piece in in_pieces(clip, PIECES[pieces]):
        came.append(stream.push(piece))
        heard += len(piece)
        assert sum(map(len, came)) == min(heard, len(clip)) // 1920
    came.append(stream.finish())
    assert len(came[-1]) == 1
    assert np.abs(np.concatenate(came) - whole).max() <= 1e-4 * np.abs(whole).max()


ADAPTERS = {
    "mlp": {"kind": "mlp", "context_frames": 3},
    "mlp without context": {"kind": "mlp", "context_frames": 0},
    "stack": {"kind": "stack", "context_frames": 1},
    "conv": {"kind": "conv", "context_frames": 2, "num_layers": 0},
    "conv of six": {"kind": "conv", "context_frames": 5, "frames_per_position": 6},
    "shell": {"kind": "stack", "output": "embedding_shell"},
}


@pytest.mark.parametrize("num_frames", [1, 4, 47])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_positions_of_the_adapter_are_those_of_the_whole_span(kind, num_frames):
    adapter = tiny.move(tiny.student(**ADAPTERS[kind])).adapter
    frames = torch.from_numpy(np.random.default_rng(0).standard_normal((num_frames, tiny.ENCODER_DIM))).float()
    with torch.no_grad():
        whole = adapter(frames[None])[0]
    for lengths in ([1], [2, 5, 0], [100]):
        stream = AdapterStream(adapter)
        came = [stream.push(piece) for piece in in_pieces(frames, lengths)] + [stream.finish()]
        assert sum(map(len, came)) == len(whole)
        if num_frames > 40 and lengths == [1]:
            assert sum(len(part) for part in came[:-1]) >= len(whole) - 3  # they don't wait for the end
        assert (torch.cat(came) - whole).abs().max() <= 1e-4 * whole.abs().max()


@pytest.fixture(scope="module")
def hearing(tmp_path_factory):
    """A model whose encoder is causal."""
    folder = tmp_path_factory.mktemp("mimi")
    mimi_model().save_pretrained(folder / "encoder")
    talker = Talker.load(tiny_talker.saved(folder / "model", encoder=str(folder / "encoder")))
    yield talker
    talker.close()


def spoken_live(talker, clip, lengths, before="", after="", rate_hz=16_000):
    live = LiveSpeech(talker, before, after, rate_hz)
    for piece in in_pieces(clip, lengths):
        live.push(piece)
    return live.finish()


@pytest.mark.parametrize("lengths", [[1280], [317, 2001], [10**9]])
@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("the quiet river", ""), ("of", "and then"), ("", "in the evening")]
)
def test_what_is_heard_live_is_the_whole_message(hearing, lengths, before, after):
    clip = noise(1.27, 16_000)
    parts = [part for part in (before, Speech(clip, "clip"), after) if part != ""]
    whole = hearing.hear([Turn("user", tuple(parts))])
    live = spoken_live(hearing, clip, lengths, before, after)
    assert live.ids == whole.ids
    assert live.num_heard == whole.num_heard > 1
    assert (live.speech_SFE - whole.speech_SFE).abs().max() <= 1e-4 * whole.speech_SFE.abs().max()
    with torch.no_grad():
        wanted = hearing.model(
            input_ids=torch.tensor([whole.ids]), speech_features=whole.speech_SFE, speech_lengths=whole.lengths_S
        ).logits[0, -1]
    _, logits = live.read.take()
    assert (logits[0, -1] - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert live.read.take() is None


def test_the_answer_is_that_to_the_whole_message_also_a_second_time(hearing):
    clip = noise(0.9, 16_000, seed=3)
    whole = hearing.hear([Turn("user", (Speech(clip, "clip"), "and then"))])
    live = spoken_live(hearing, clip, [800], after="and then")
    wanted = "".join(hearing.stream(whole, 12))
    assert wanted
    assert "".join(hearing.stream(live, 12)) == wanted
    assert "".join(hearing.stream(live, 12)) == wanted  # what was read is used up: it is read again


def test_messages_are_heard_beside_each_other(hearing):
    clips = [noise(0.8, 16_000, seed) for seed in (5, 6)]
    wanted = ["".join(hearing.stream(spoken_live(hearing, clip, [1280]), 10)) for clip in clips]
    lives = [LiveSpeech(hearing) for _ in clips]
    for start in range(0, len(clips[0]), 1000):
        for live, clip in zip(lives, clips, strict=True):
            live.push(clip[start : start + 1000])
    assert ["".join(hearing.stream(live.finish(), 10)) for live in lives] == wanted


class Recorded:
    """A clip in the place of a microphone, at the pace at which it is asked for."""

    def __init__(self, clip, piece=700):
        self._pieces = list(in_pieces(clip, [piece]))
        self._clip = clip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._last = np.concatenate([np.zeros(0, np.float32), *self._pieces])

    def newest(self):
        if hasattr(self, "_last"):
            return self._last
        return self._pieces.pop(0) if self._pieces else np.zeros(0, np.float32)

    def clip(self):
        return Speech(self._clip, "microphone")


def test_ask_hears_the_microphone_while_one_speaks(hearing):
    clip = noise(0.8, 16_000, seed=11)
    whole = hearing.hear([Turn("user", (Speech(clip, "clip"), "and then"))])
    said, prompt = recorded(hearing, Recorded(clip), 0.3, "and then")
    assert (said.samples == clip).all()
    assert prompt.ids == whole.ids
    assert prompt.read is not None
    assert "".join(hearing.stream(prompt, 8)) == "".join(hearing.stream(whole, 8))


def test_other_rates_are_heard_as_the_processor_hears_them(hearing):
    clip = noise(0.7, 44_100, seed=7)
    wanted = hearing.processor("<|speech|>", clip, sampling_rate=44_100)["speech_features"]
    live = spoken_live(hearing, clip, [999], rate_hz=44_100)
    assert (live.speech_SFE - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_what_can_not_be_heard_is_said(hearing, monkeypatch):
    live = LiveSpeech(hearing)
    with pytest.raises(AudioError, match="not one sample"):
        live.finish()
    with pytest.raises(AudioError, match="finite"):
        live.push(np.array([np.nan], np.float32))
    with pytest.raises(AudioError, match="1-d"):
        live.push(np.zeros((2, 100), np.float32))
    live.push(noise(0.2, 16_000))
    live.finish()
    with pytest.raises(AudioError, match="over"):
        live.push(noise(0.2, 16_000))
    with pytest.raises(DataError, match="mark"):
        LiveSpeech(hearing, after="<|speech|>")
    monkeypatch.setattr(hearing.model.config.get_text_config(), "max_position_embeddings", 20)
    long = LiveSpeech(hearing)
    with pytest.raises(TooLongError, match="20 positions"):
        long.push(noise(10.0, 16_000))
    assert not isinstance(load_encoder("log-mel"), StreamingEncoder)


def test_a_model_that_needs_the_whole_clip_says_so(tmp_path):
    talker = Talker.load(tiny_talker.saved(tmp_path))
    with pytest.raises(RecipeError, match="needs the whole clip"):
        LiveSpeech(talker)
    said, prompt = recorded(talker, Recorded(noise(0.3, 16_000)), 0.05, "")
    assert len(said.samples) == 4800
    assert prompt is None
    talker.close()
