"""Log-mel frames: no weights, the baseline that every learnt encoder has to beat."""

from __future__ import annotations

import numpy as np

from salad.model.encoders.speech_encoder import Features, hash_of, refuse_empty
from salad.speech.audio import Samples


class LogMelEncoder:
    """Whisper's 80 log-mel bands, 100 frames a second, by transformers' feature extractor at the clip's own length.

    Bands are floored at 80 dB under the clip's loudest, so a frame depends on the whole clip: not causal. Each clip by
    itself; there is nothing to gain from a batch.
    """

    causal = False
    frame_hz = 100.0
    sample_rate_hz = 16_000
    feature_dim = 80

    def __init__(self, name: str = "log-mel") -> None:
        from transformers import WhisperFeatureExtractor

        self.name = name
        self._extractor = WhisperFeatureExtractor()
        self.fingerprint = hash_of([], f"log-mel {self._extractor.to_json_string()}")

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Features [num_frames, 80] of each clip [num_samples] at 16 kHz, one for every 160 samples that are whole.

        Raises:
            AudioError: a clip is shorter than 25 ms, one window of the transform.
        """
        refuse_empty(samples, self._extractor.n_fft)
        return [self._encode(clip) for clip in samples]

    def _encode(self, clip: Samples) -> Features:
        made = self._extractor(
            clip, sampling_rate=self.sample_rate_hz, padding="longest", truncation=False, return_tensors="np"
        )
        return np.ascontiguousarray(made.input_features[0].T, dtype=np.float32)
