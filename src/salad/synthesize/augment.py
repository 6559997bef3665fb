"""What is done to synthetic speech so that it sounds less like a studio: a room, noise, a telephone line, a codec.

In that order, as sound travels. The direct sound stays where it is, to the sample, so word times hold; the length stays
too. Nothing clips: what would reach past full scale is made softer as a whole.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfiltfilt

from salad.randomness import generator
from salad.speech.audio import Samples, resample
from salad.synthesize.ffmpeg import through_codec

if TYPE_CHECKING:  # a worker needs no settings
    from salad.recipe import AugmentSettings

LOUDEST = 0.99
FRAME_S = 0.02
ACTIVE_DB = 30.0
"""A frame is speech when its power is within this of the loudest frame's; pauses don't count for the noise level."""
DIRECT_DB = 5.0
"""How much stronger the direct sound is than all of the reverberation: a microphone on the table."""
FIRST_ECHO_S = 0.003
TELEPHONE_HZ = 8000
TELEPHONE_BAND_HZ = (300.0, 3400.0)
LEAST_NOISE_HZ = 50.0  # below, red noise would be a rumble that no microphone passes on
MP3_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # what MPEG-2 layer III has at 16 kHz
CONTAINERS = {"mp3": ("mp3", "libmp3lame"), "opus": ("ogg", "libopus")}


@dataclass(frozen=True)
class Augmentation:
    """What is done to one utterance; None and False: nothing of that kind.

    Attributes:
        reverb_s: the room's reverberation time, RT60.
        noise_snr_db: how much stronger the speech is than the noise, pauses not counted.
        noise_exponent: the noise's power falls with frequency to this power: 0 white, 1 pink, 2 red.
        telephone: 300 to 3400 Hz, 8 kHz, 8-bit mu-law.
        codec: mp3 or opus.
        codec_kbps: its rate.
        draw: which noise, and which room.
    """

    reverb_s: float | None = None
    noise_snr_db: float | None = None
    noise_exponent: float | None = None
    telephone: bool = False
    codec: str | None = None
    codec_kbps: int | None = None
    draw: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """What is done, without what is not."""
        return {key: value for key, value in asdict(self).items() if value is not None and value is not False}


def draw_augmentation(text: str, settings: AugmentSettings | None, seed: int) -> Augmentation | None:
    """What is done to the utterance of a text, a pure function of both and the seed; None: nothing.

    Each kind has its own draw: a larger share of one adds utterances to it and changes no other.
    """
    if settings is None:
        return None

    def share(kind: str, frac: float) -> np.random.Generator | None:
        chance = generator(seed, "augment", kind, text)
        return chance if chance.random() < frac else None

    found: dict[str, Any] = {}
    if (chance := share("reverb", settings.reverb_frac)) is not None:
        found["reverb_s"] = round(chance.uniform(*settings.reverb_s), 3)
    if (chance := share("noise", settings.noise_frac)) is not None:
        found["noise_snr_db"] = round(chance.uniform(*settings.noise_snr_db), 1)
        found["noise_exponent"] = round(chance.uniform(0.0, 2.0), 2)
    if found:
        found["draw"] = int(generator(seed, "augment", text).integers(2**31))
    if share("telephone", settings.telephone_frac) is not None:
        found["telephone"] = True
    if (chance := share("codec", settings.codec_frac)) is not None:
        codec = settings.codecs[int(chance.integers(len(settings.codecs)))]
        kbps = chance.uniform(*settings.codec_kbps)
        found["codec"] = codec
        found["codec_kbps"] = min(MP3_KBPS, key=lambda rate: abs(rate - kbps)) if codec == "mp3" else round(kbps)
    return Augmentation(**found) if found else None


def augmented(audio: Samples, rate_hz: int, augmentation: Augmentation) -> Samples:
    """Speech [num_samples], augmented: [num_samples], within ±`LOUDEST`. The same input gives the same samples.

    Raises:
        AudioError: FFmpeg's library lacks a codec.
    """
    draw = augmentation.draw or 0
    if augmentation.reverb_s is not None:
        audio = with_reverb(audio, rate_hz, augmentation.reverb_s, generator(draw, "room"))
    if augmentation.noise_snr_db is not None:
        exponent = augmentation.noise_exponent or 0.0
        audio = with_noise(audio, rate_hz, augmentation.noise_snr_db, exponent, generator(draw, "noise"))
    if augmentation.telephone:
        audio = by_telephone(softer(audio), rate_hz)
    if augmentation.codec is not None:
        container, codec = CONTAINERS[augmentation.codec]
        audio = through_codec(softer(audio), rate_hz, container, codec, augmentation.codec_kbps)
    return softer(audio)


def softer(audio: Samples) -> Samples:
    """The same audio; made softer as a whole where a sample would reach past `LOUDEST`."""
    peak = float(np.abs(audio).max(initial=0.0))
    return audio if peak <= LOUDEST else np.asarray(audio * np.float32(LOUDEST / peak), np.float32)


def speech_power(audio: Samples, rate_hz: int) -> float:
    """Mean power of the frames that are speech: those within `ACTIVE_DB` of the loudest. 0 of silence."""
    size = max(1, round(FRAME_S * rate_hz))
    squares = np.square(audio, dtype=np.float64)
    frames = np.add.reduceat(squares, np.arange(0, len(squares), size)) / size if len(squares) else np.zeros(1)
    return float(frames[frames >= frames.max() * 10 ** (-ACTIVE_DB / 10)].mean())


def coloured_noise(num_samples: int, rate_hz: int, exponent: float, chance: np.random.Generator) -> Samples:
    """Noise of unit power [num_samples] whose power density falls as 1/f^exponent above `LEAST_NOISE_HZ`."""
    spectrum = np.fft.rfft(chance.standard_normal(num_samples))
    hz = np.fft.rfftfreq(num_samples, 1 / rate_hz)
    spectrum *= np.where(hz < LEAST_NOISE_HZ, 0.0, np.maximum(hz, LEAST_NOISE_HZ) ** (-exponent / 2))
    noise = np.fft.irfft(spectrum, num_samples)
    return np.asarray(noise / max(np.sqrt(np.mean(np.square(noise))), 1e-30), np.float32)


def with_noise(audio: Samples, rate_hz: int, snr_db: float, exponent: float, chance: np.random.Generator) -> Samples:
    """Speech with steady coloured noise, `snr_db` = 10·log10(power of the speech's frames / power of the noise)."""
    level = np.sqrt(speech_power(audio, rate_hz) / 10 ** (snr_db / 10))
    return np.asarray(audio + level * coloured_noise(len(audio), rate_hz, exponent, chance), np.float32)


def room(rate_hz: int, reverb_s: float, chance: np.random.Generator) -> NDArray[np.float64]:
    """An impulse response: the direct sound at sample 0, then noise whose power falls by 60 dB in `reverb_s` seconds.

    Diffuse reverberation after J. A. Moorer (1979); its energy with the direct sound's is 1.
    """
    time_s = np.arange(round(reverb_s * rate_hz)) / rate_hz
    echoes = chance.standard_normal(len(time_s)) * 10 ** (-3 * time_s / reverb_s)
    echoes[time_s < FIRST_ECHO_S] = 0.0
    energy = 10 ** (-DIRECT_DB / 10)
    response = echoes * np.sqrt(energy / max(float(np.square(echoes).sum()), 1e-30))
    if len(response) == 0:
        return np.ones(1)
    response[0] = 1.0
    return np.asarray(response / np.sqrt(np.square(response).sum()))


def with_reverb(audio: Samples, rate_hz: int, reverb_s: float, chance: np.random.Generator) -> Samples:
    """Speech in a room; its tail ends with the utterance."""
    return np.asarray(fftconvolve(audio, room(rate_hz, reverb_s, chance))[: len(audio)], np.float32)


def by_telephone(audio: Samples, rate_hz: int) -> Samples:
    """Speech within ±1 as a telephone line passes it on: 300 to 3400 Hz, 8 kHz, 8-bit mu-law (G.711)."""
    narrow = resample(audio, rate_hz, TELEPHONE_HZ)
    # Both ways, so that nothing is delayed; the two passes together have twice the order.
    band = butter(4, TELEPHONE_BAND_HZ, btype="bandpass", fs=TELEPHONE_HZ, output="sos")
    narrow = np.asarray(sosfiltfilt(band, narrow, padlen=min(60, len(narrow) - 1)), np.float32)
    coded = through_codec(softer(narrow), TELEPHONE_HZ, "wav", "pcm_mulaw")
    wide = resample(coded, TELEPHONE_HZ, rate_hz)
    return np.pad(wide, (0, max(0, len(audio) - len(wide))))[: len(audio)]
