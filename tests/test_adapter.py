"""The adapter's kinds: their sizes, their lengths, and what each position hears and does not hear."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import tiny
from salad.errors import RecipeError
from salad.model.adapter import Adapter
from salad.model.adapters.conv import ConvInput, prime_factors
from salad.model.adapters.frames import stack_frames
from salad.model.processor import pad_features
from salad.recipe import AdapterSettings, parse_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = [
    {"kind": "mlp"},
    {"kind": "mlp", "context_frames": 0, "output": "linear"},
    {"kind": "stack"},
    {"kind": "stack", "num_layers": 1, "context_frames": 0, "output": "linear"},
    {"kind": "conv", "num_layers": 0},
    {"kind": "conv", "num_layers": 0, "context_frames": 0, "output": "linear"},
    {"kind": "conv"},
]
FACTORS = [1, 2, 3, 5, 6, 8, 12]
EVERY = [settings | {"frames_per_position": factor} for settings in KINDS for factor in FACTORS]


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("llm_dim", "with_projections"), [(2048, 120.5), (3584, 121.9)])
def test_the_papers_adapter_has_the_papers_size(llm_dim, with_projections):
    settings = AdapterSettings(kind="paper", frames_per_position=1, context_frames=0)
    with torch.device("meta"):
        adapter = Adapter(settings, encoder_dim=512, llm_dim=llm_dim)  # 512: Mimi's latents
    assert len(adapter.stack.layers) == 12
    layer = adapter.stack.layers[0]
    assert layer.self_attn.q_proj.weight.shape == (960, 960)
    assert layer.self_attn.k_proj.weight.shape == (5 * 64, 960)
    assert layer.mlp.up_proj.weight.shape == (2560, 960)
    assert num_parameters(adapter.stack) == 12 * (2 * 960**2 + 2 * 960 * 320 + 3 * 960 * 2560 + 2 * 960) + 960
    assert round(num_parameters(adapter.stack) / 1e6, 1) == 118.0
    projections = 2 * 512 + 512 * 960 + 960 + 960 * llm_dim + llm_dim  # norm, linear, linear
    assert num_parameters(adapter) == num_parameters(adapter.stack) + projections
    assert round(num_parameters(adapter) / 1e6, 1) == with_projections


def test_the_paper_is_the_stack_of_its_sizes():
    with torch.device("meta"):
        names = [dict(Adapter(AdapterSettings(kind=kind), 4, 8).named_parameters()) for kind in ("paper", "stack")]
    assert {n: p.shape for n, p in names[0].items()} == {n: p.shape for n, p in names[1].items()}


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"kind": "paper", "num_layers": 2}, r"adapter: num_layers=2: kind=paper .* set kind=stack"),
        ({"kind": "stack", "num_layers": 0}, "num_layers=0 leaves no stack"),
        ({"kind": "stack", "num_heads": 7}, "num_heads=7 does not divide hidden_size=960"),
        ({"kind": "stack", "num_heads": 320, "num_key_value_heads": 5}, "heads of an odd width, 3"),
        ({"kind": "stack", "num_key_value_heads": 4}, "num_key_value_heads=4 does not divide num_heads=15"),
        ({"kind": "conv", "hidden_size": 640}, "num_heads=15 does not divide hidden_size=640"),
        ({"kind": "conv", "frames_per_position": 0}, "adapter.frames_per_position"),
        ({"kind": "transformer"}, "adapter.kind: input should be 'mlp', 'stack', 'paper' or 'conv'"),
    ],
)
def test_impossible_sizes_are_a_sentence(adapter, said):
    with pytest.raises(RecipeError, match=said) as caught:
        parse_recipe({"name": "x", "model": {"adapter": adapter}}, "x.yaml")
    assert "model.adapter" in str(caught.value)
    assert "Value error" not in str(caught.value)
    assert "{" not in str(caught.value)


def test_sizes_of_a_stack_say_nothing_where_there_is_none():
    parse_recipe({"name": "x", "model": {"adapter": {"kind": "mlp", "hidden_size": 640}}}, "x.yaml")
    settings = {"kind": "conv", "hidden_size": 640, "num_layers": 0}
    parse_recipe({"name": "x", "model": {"adapter": settings}}, "x.yaml")
    assert Adapter(AdapterSettings(**settings), 8, 32).stack is None


# --- lengths, padding, neighbours -----------------------------------------------------------------------------------


def test_frames_are_stacked_with_their_neighbours():
    frames = torch.arange(1.0, 6.0).reshape(1, 5, 1)
    assert stack_frames(frames, 2, 0)[0].tolist() == [[1, 2], [3, 4], [5, 0]]
    assert stack_frames(frames, 2, 1)[0].tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 0]]
    wide = stack_frames(torch.tensor([[[1.0, 10.0], [2.0, 20.0]]]), 2, 0)
    assert wide[0].tolist() == [[1, 10, 2, 20]]  # frame by frame


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_a_span_is_heard_the_same_alone_and_beside_longer_ones(settings):
    adapter = tiny.student(**settings).adapter
    clips = [tiny.utterance(f"u{i}", n, partial_frames=i).features_FE for i, n in enumerate((1, 3, 9))]
    padded, lengths = pad_features(clips)
    with torch.no_grad():
        together = adapter(padded)
        for row, clip in enumerate(clips):
            alone = adapter(torch.from_numpy(clip.astype(np.float32))[None])
            positions = -(-int(lengths[row]) // settings["frames_per_position"])
            assert alone.shape == (1, positions, 32)
            assert torch.allclose(alone[0], together[row, :positions], atol=1e-5)


def heard_frames(adapter, position, num_frames=60):
    """First and last frame that reach an LLM position, by the gradient."""
    frames = torch.randn(1, num_frames, tiny.ENCODER_DIM, requires_grad=True)
    adapter.direction(frames)[0, position].square().sum().backward()
    reached = frames.grad[0].abs().sum(-1).nonzero()[:, 0]
    return int(reached.min()), int(reached.max())


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("factor", FACTORS)
def test_what_reaches_a_position(factor, context):
    position = 25 // factor
    first, end = position * factor, (position + 1) * factor
    options = {"frames_per_position": factor, "context_frames": context}
    mlp = heard_frames(tiny.student(kind="mlp", **options).adapter, position)
    assert mlp == (first - context, end - 1 + context)
    stack = heard_frames(tiny.student(kind="stack", **options).adapter, position)
    assert stack == (0, end - 1 + context)  # causal
    conv = heard_frames(tiny.student(kind="conv", num_layers=0, **options).adapter, position)
    assert conv[1] == end - 1 + context
    assert first - 2 * factor - context < conv[0] <= first - context
    assert heard_frames(tiny.student(kind="conv", **options).adapter, position) == (0, end - 1 + context)


# --- convolutions ---------------------------------------------------------------------------------------------------


def test_prime_factors():
    assert [prime_factors(n) for n in (1, 2, 7, 8, 12, 45)] == [[], [2], [7], [2, 2, 2], [2, 2, 3], [3, 3, 5]]


def by_hand(conv: nn.Conv1d, norm: nn.LayerNorm, inputs_LW, stride):
    """A convolution, one position and one tap after the other, in float64."""
    weight, bias = conv.weight.double(), conv.bias.double()
    out = []
    for begin in range(0, len(inputs_LW) - weight.shape[2] + 1, stride):
        total = bias.clone()
        for tap in range(weight.shape[2]):
            total += weight[:, :, tap] @ inputs_LW[begin + tap]
        out.append(norm.double()(nn.functional.gelu(total)))
    return torch.stack(out)


@torch.no_grad()
def test_strided_convolutions_are_what_they_say():
    settings = AdapterSettings(kind="conv", hidden_size=6, num_layers=0, frames_per_position=6, context_frames=1)
    torch.manual_seed(0)
    conv = ConvInput(settings, 5).double()
    frames = torch.randn(1, 10, 5, dtype=torch.float64)
    zeros = torch.zeros(1, 5, dtype=torch.float64)
    hidden = conv.norm(torch.cat([zeros, frames[0], zeros, zeros, zeros]))  # 10 frames are 2 positions of 6
    hidden = by_hand(conv.first.conv, conv.first.norm, hidden, 1)
    assert len(hidden) == 12
    for layer, stride in zip(conv.strided, (2, 3), strict=True):
        silence = torch.zeros(stride, 6, dtype=torch.float64)
        hidden = by_hand(layer.conv, layer.norm, torch.cat([silence, hidden]), stride)
    assert torch.allclose(conv(frames)[0], hidden, atol=1e-12)


# --- the shell ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "stack", "conv"])
def test_the_shell_is_where_the_llms_embeddings_lie(kind):
    student = tiny.student(kind=kind)
    table = student.table_VH.detach()
    mean, norm = table.mean(0), (table - table.mean(0)).norm(dim=-1).mean()
    with torch.no_grad():
        heard = student.adapter(torch.randn(2, 12, tiny.ENCODER_DIM))
    assert torch.allclose((heard - mean).norm(dim=-1), norm.expand(2, 3), rtol=1e-5)


def test_the_page_on_adapters_has_the_sizes_of_these_classes():
    page = (Path(__file__).parents[1] / "docs" / "adapters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\{kind.*\})`.* \| (\d+) \| (\d+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 6
    for keys, encoder_dim, llm_dim, millions in rows:
        with torch.device("meta"):
            adapter = Adapter(AdapterSettings(**yaml.safe_load(keys)), int(encoder_dim), int(llm_dim))
        assert f"{num_parameters(adapter) / 1e6:.2f}" == millions, keys
