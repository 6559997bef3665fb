"""Batches: a flat row of documents that changes no number."""

import pytest
import torch

import tiny
from salad.distill.parallel import objective
from salad.distill.teacher import SeparateTeacher, teacher_for
from salad.interleave.sequence import SPEECH
from salad.recipe import StageSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = [tiny.utterance("a", 6), tiny.utterance("b", 25, partial_frames=3), tiny.utterance("c", 12)]


def mixed_sequences():
    """Three interleaved utterances, and a text in their midst."""
    build = tiny.builder(policy="interleaved", text_words=(1, 5), speech_words=(1, 5))
    spoken = [build.mixed(u) for u in SPOKEN]
    return [*spoken[:2], build.text("t", "the quiet river"), spoken[2]]


def test_a_batch_is_its_documents_one_after_another():
    sequences = mixed_sequences()
    batch = tiny.collated(sequences, SPOKEN)
    assert batch.items == ("a", "b", "t", "c")
    rows = zip(
        batch.student_ids_T.split(batch.student_lengths_D.tolist()),
        batch.teacher_ids_L.split(batch.teacher_lengths_D.tolist()),
        strict=True,
    )
    for sequence, (student, teacher) in zip(sequences, rows, strict=True):
        assert [SPEECH if i == tiny.SPEECH_TOKEN_ID else i for i in student.tolist()] == list(sequence.student_ids)
        assert teacher.tolist() == list(sequence.teacher_ids)
    assert batch.documents_N.tolist() == [d for d, sequence in enumerate(sequences) for _ in sequence.pairs]
    # Both rows go on with the target, within the document.
    assert torch.equal(batch.student_ids_T[batch.student_positions_N + 1], batch.targets_N)
    assert torch.equal(batch.teacher_ids_L[batch.teacher_positions_N + 1], batch.targets_N)
    for positions_N, lengths_D in (
        (batch.student_positions_N, batch.student_lengths_D),
        (batch.teacher_positions_N, batch.teacher_lengths_D),
    ):
        document_T = torch.arange(len(lengths_D)).repeat_interleave(lengths_D)
        assert torch.equal(document_T[positions_N], batch.documents_N)
        assert torch.equal(document_T[positions_N + 1], batch.documents_N)


def test_the_speech_of_a_batch_is_its_spans_in_reading_order():
    sequences = mixed_sequences()
    batch = tiny.collated(sequences, SPOKEN)
    spans = [span for sequence in sequences for span in sequence.speech]
    by_id = {utterance.id: utterance for utterance in SPOKEN}
    for span, features, length in zip(spans, batch.speech_features_SFE, batch.speech_lengths_S, strict=True):
        frames = slice(span.start * tiny.FRAMES_PER_POSITION, span.stop * tiny.FRAMES_PER_POSITION)
        heard = torch.from_numpy(by_id[span.utterance].features_FE[frames]).float()
        assert torch.equal(features[: int(length)], heard)
        assert not features[int(length) :].any()


@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("train_llm", ["lora", "full", "frozen"])
@pytest.mark.parametrize("adapter", [{"kind": "mlp"}, {"kind": "stack"}, {"output": "linear"}], ids=str)
def test_packing_changes_neither_the_loss_nor_its_gradient(adapter, train_llm, alpha):
    sequences = mixed_sequences()
    packed, unpacked = [tiny.collated(sequences, SPOKEN)], [tiny.collated([one], SPOKEN) for one in sequences]
    losses, gradients = [], []
    for batches in (packed, unpacked):
        student = tiny.move(tiny.student(train_llm, **adapter), by=0.05).train()
        teacher = SeparateTeacher(tiny.llm()) if train_llm == "full" else teacher_for(student)
        count = sum(len(batch.targets_N) for batch in batches)
        settings = StageSettings(alpha=alpha)
        loss = torch.stack([objective(student, teacher, batch, settings).loss for batch in batches]).sum() / count
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: p.grad for name, p in student.named_parameters() if p.requires_grad})
    assert losses[0] > 0.1
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("adapter", [{"kind": "mlp"}, {"kind": "stack"}, {"output": "linear"}], ids=str)
def test_the_adapter_takes_part_where_nothing_is_heard_and_changes_nothing(adapter):
    student = tiny.move(tiny.student(**adapter), by=0.05)
    teacher = teacher_for(student)
    batch = tiny.batch_of([], ["the quiet river", "she listens, he speaks;"])
    assert batch.speech_features_SFE is None
    calm = objective(student, teacher, batch, StageSettings(alpha=0.5)).loss
    loss = objective(student.train(), teacher, batch, StageSettings(alpha=0.5)).loss
    assert torch.equal(loss, calm)
    loss.backward()
    for name, parameter in student.adapter.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    assert all(p.grad.abs().max() > 0 for name, p in student.named_parameters() if "lora_B" in name)
