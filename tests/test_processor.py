"""The processor: text with marks and audio become what the speech LLM reads; transformers' Auto classes load it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import MimiConfig, MimiModel

import tiny
from salad.errors import AudioError
from salad.model.llm import load_llm
from salad.model.processor import SPEECH_TOKEN, SpeechFeatureExtractor, SpeechLMProcessor
from salad.model.speech_lm import SpeechLM

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder_on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mimi")
    config = MimiConfig(
        hidden_size=tiny.ENCODER_DIM, num_filters=4, num_hidden_layers=1, intermediate_size=16, num_attention_heads=2,
        num_key_value_heads=2, codebook_size=16, codebook_dim=8, vector_quantization_hidden_dimension=8,
        num_quantizers=2, upsample_groups=8, sliding_window=6,
    )  # fmt: skip
    torch.manual_seed(0)
    MimiModel(config).save_pretrained(folder)
    return folder


def new_processor(encoder_on_disk, frames_per_position=3):
    return SpeechLMProcessor(SpeechFeatureExtractor(str(encoder_on_disk), frames_per_position), tiny.fresh_tokenizer())


def noise(seconds, rate_hz=24_000, seed=0):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate_hz)).astype(np.float32)


def test_the_mark_stands_once_for_every_position(encoder_on_disk):
    processor = new_processor(encoder_on_disk)
    assert processor.speech_token_id == tiny.SPEECH_TOKEN_ID  # the first id behind the LLM's table
    clips = [noise(0.8), noise(1.6, seed=1), noise(0.3, seed=2)]  # 10, 20 and 4 frames at 12.5 a second
    inputs = processor(
        [f"{SPEECH_TOKEN} the river", f"of{SPEECH_TOKEN} and{SPEECH_TOKEN}"], clips, sampling_rate=24_000
    )
    assert inputs["speech_lengths"].tolist() == [10, 20, 4]
    assert inputs["speech_features"].shape == (3, 20, tiny.ENCODER_DIM)
    assert float(inputs["speech_features"][0, 10:].abs().max()) == 0.0
    marks = inputs["input_ids"] == processor.speech_token_id
    assert marks.sum(1).tolist() == [4, 7 + 2]  # ceil(10 / 3); ceil(20 / 3) and ceil(4 / 3)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    lengths = [len(tiny.tokenizer()(part, add_special_tokens=False)["input_ids"]) for part in (" the river", "of and")]
    longest = max(4 + lengths[0], 9 + lengths[1])
    for row, length in enumerate((4 + lengths[0], 9 + lengths[1])):
        assert inputs["attention_mask"][row].tolist() == [0] * (longest - length) + [1] * length  # padded on the left
    text = tiny.tokenizer()(" the river", add_special_tokens=False)["input_ids"]
    assert inputs["input_ids"][0, -len(text) :].tolist() == text
    student = SpeechLM.around(
        tiny.llm(), tiny.model_settings(frames_per_position=3), tiny.ENCODER_DIM, 12.5, processor.speech_token_id
    )
    assert student.generate(**inputs, max_new_tokens=1, pad_token_id=0).shape == (2, inputs["input_ids"].shape[1] + 1)


def test_audio_of_another_rate_is_resampled(encoder_on_disk):
    processor = new_processor(encoder_on_disk)
    inputs = processor(SPEECH_TOKEN, noise(0.8, 16_000), sampling_rate=16_000)
    assert inputs["speech_lengths"].tolist() == [10]


def test_text_alone_needs_no_audio(encoder_on_disk):
    inputs = new_processor(encoder_on_disk)("the river")
    assert inputs.keys() == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(("text", "num_clips"), [("no mark", 1), (SPEECH_TOKEN, 0), (SPEECH_TOKEN * 2, 1)])
def test_marks_and_clips_must_be_as_many(encoder_on_disk, text, num_clips):
    with pytest.raises(AudioError, match=rf"{text.count(SPEECH_TOKEN)} .*marks for {num_clips} audio clips"):
        new_processor(encoder_on_disk)(text, [noise(0.2)] * num_clips, sampling_rate=24_000)


@pytest.mark.parametrize(
    "clip", [np.zeros(0, np.float32), np.zeros((2, 100), np.float32), np.array([0.0, np.nan], np.float32)], ids=str
)
def test_audio_that_is_no_audio_is_refused(encoder_on_disk, clip):
    with pytest.raises(AudioError, match="1-d array of finite samples"):
        new_processor(encoder_on_disk)(SPEECH_TOKEN, clip, sampling_rate=24_000)


def test_a_saved_processor_comes_back_the_same_even_after_it_heard_something(tmp_path, encoder_on_disk):
    processor = new_processor(encoder_on_disk)
    wanted = processor(f"{SPEECH_TOKEN} of", noise(0.5), sampling_rate=24_000)
    processor.save_pretrained(tmp_path)
    again = SpeechLMProcessor.from_pretrained(tmp_path)
    assert again.feature_extractor.frames_per_position == 3
    got = again(f"{SPEECH_TOKEN} of", noise(0.5), sampling_rate=24_000)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)


@pytest.mark.assets
def test_a_processor_that_heard_through_ctranslate2_can_be_saved_and_printed(tmp_path):
    processor = SpeechLMProcessor(SpeechFeatureExtractor("whisper-tiny.en", 4), tiny.fresh_tokenizer())
    inputs = processor(f"{SPEECH_TOKEN} of", noise(1.0, 16_000), sampling_rate=16_000)
    assert inputs["speech_features"].shape == (1, 50, 384)
    assert "whisper-tiny.en" in repr(processor)
    processor.save_pretrained(tmp_path)
    assert SpeechLMProcessor.from_pretrained(tmp_path).feature_extractor.encoder == "whisper-tiny.en"


AUTO = """
import sys
import numpy as np
import salad
assert "transformers" not in sys.modules, "import salad is not light"
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
folder = sys.argv[1]
assert type(AutoConfig.from_pretrained(folder)).__name__ == "SpeechLMConfig"
processor = AutoProcessor.from_pretrained(folder)
assert type(processor) is salad.SpeechLMProcessor, type(processor)
for auto in (AutoModelForCausalLM, AutoModel):
    model = auto.from_pretrained(folder)
    assert type(model) is salad.SpeechLM, type(model)
inputs = processor("<|speech|> of", np.zeros(24000, np.float32), sampling_rate=24000)
generated = model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, pad_token_id=0)
assert generated.shape[1] == inputs["input_ids"].shape[1] + 2
print("all good")
"""


@pytest.mark.slow  # ten seconds of imports in a fresh interpreter
def test_import_salad_teaches_transformers_auto_classes(tmp_path, encoder_on_disk):
    llm_folder = str(tiny.save_llm(tmp_path / "llm"))
    settings = tiny.model_settings("lora", llm_folder)
    model = SpeechLM.around(load_llm(llm_folder), settings, tiny.ENCODER_DIM, 12.5, tiny.SPEECH_TOKEN_ID)
    model.save_pretrained(tmp_path / "model")
    new_processor(encoder_on_disk, tiny.FRAMES_PER_POSITION).save_pretrained(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", AUTO, str(tmp_path / "model")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "all good", done.stderr[-2000:]
