"""A teacher that has read already says what one that reads says, but for rounding; and refuses what it has not read."""

import dataclasses
import json
import shutil

import pytest
import torch
from transformers import PhiConfig, PhiForCausalLM

import cached
import tiny
from salad.distill.divergence import divergence_terms
from salad.distill.loop import train
from salad.distill.parallel import objective
from salad.distill.teacher import LoraOffTeacher, SeparateTeacher, unchanging
from salad.distill.teacher_cache import CachedTeacher, DrawnDocuments, cache_hidden, training_teacher
from salad.distill.teacher_files import TeacherIdentity, load_head
from salad.distill.teacher_shards import Document, refuse_without_room
from salad.errors import CheckpointError, MissingFileError, NonFiniteError, RecipeError
from salad.files import read_json
from salad.measure.watch import Watch
from salad.model.llm import load_llm
from salad.recipe import StageSettings
from test_stage_one import recipe_of, run

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = StageSettings(steps=3, batch_sequences=4, micro_batch_positions=2048)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return tiny.save_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def whole(llm, tmp_path_factory):
    """A cache of all documents. Read only."""
    folder = tmp_path_factory.mktemp("cache")
    cached.cache(llm, folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    """A cache that a test may damage."""
    return shutil.copytree(whole, tmp_path / "cache")


def shards(folder):
    return sorted(folder.glob("*/*.safetensors"))


def rounded(hidden):
    return hidden.half().to(hidden.dtype)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_it_says_what_the_teacher_says_but_for_rounding(llm, whole):
    assert len(shards(whole)) > 2  # the batch's documents lie in several
    batch = cached.batch()
    exact = SeparateTeacher(load_llm(str(llm))).matched_hidden(batch)
    kept = cached.opened(llm, whole).matched_hidden(batch)
    assert (kept.dtype, kept.shape) == (exact.dtype, exact.shape)
    assert torch.equal(kept, rounded(kept))
    # one half of a float16's last place, and what another packing changes in float32
    assert (kept - exact).abs().max() <= 2.0**-11 * exact.abs().max()
    assert ((kept - exact).abs() <= 2.0**-11 * exact.abs() + 1e-5).all()
    assert not torch.equal(kept, exact)


def test_its_divergence_from_the_exact_teacher_is_tiny(llm, whole):
    batch, exact, kept = cached.batch(), SeparateTeacher(load_llm(str(llm))), cached.opened(llm, whole)
    terms = divergence_terms(
        exact.matched_hidden(batch), exact.head_VH, kept.matched_hidden(batch), kept.head_VH, batch.targets_N
    )
    assert abs(float(terms.kl_N.mean())) < 5e-6


def gradient(student, teacher, batch):
    student.zero_grad()
    objective(student, teacher, batch, StageSettings(alpha=1.0)).loss.backward()
    return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


def test_its_gradient_is_the_exact_teachers_but_for_a_thousandth(llm, whole):
    student, batch = tiny.move(cached.student(llm)), cached.batch()
    exact, kept = (
        gradient(student, teacher, batch) for teacher in (LoraOffTeacher(student), cached.opened(llm, whole))
    )
    assert 0 < float((kept - exact).norm() / exact.norm()) < 1e-3


def test_what_two_bytes_cannot_hold_is_refused(tmp_path):
    llm = tiny.llm()
    with torch.no_grad():
        llm.model.norm.weight.mul_(1e6)
    llm.save_pretrained(tmp_path / "llm")
    tiny.fresh_tokenizer().save_pretrained(tmp_path / "llm")
    with pytest.raises(NonFiniteError, match=r"not finite in torch\.float16; set engine\.teacher=auto"):
        cached.cache(tmp_path / "llm", tmp_path / "cache")
    cached.cache(tmp_path / "llm", tmp_path / "wide", dtype="bfloat16")


def test_of_a_bfloat16_teacher_nothing_is_lost(llm, tmp_path):
    read = cached.documents()
    cached.cache(llm, tmp_path, read, "bfloat16")
    kept = cached.opened(llm, tmp_path, "bfloat16")
    exact = SeparateTeacher(load_llm(str(llm), "bfloat16"))
    for number, utterance in enumerate(cached.SPOKEN):
        batch = tiny.batch_of([utterance])  # alone, or the products would be rounded in another order
        alone = tmp_path / str(number)
        cached.cache(llm, alone, [read[number]], "bfloat16")
        hidden = exact.matched_hidden(batch)
        assert torch.equal(cached.opened(llm, alone, "bfloat16").matched_hidden(batch), hidden)
        assert torch.allclose(kept.matched_hidden(batch), hidden, rtol=0.05, atol=0.05)


def test_a_batch_without_a_matched_position_has_no_hidden_states(llm, tmp_path):
    batch = tiny.batch_of([], [""])
    cached.cache(llm, tmp_path, [Document("t0", batch.teacher_ids_L.tolist())])
    assert cached.opened(llm, tmp_path).matched_hidden(batch).shape == (0, 32)


def test_it_has_no_layers_to_read_other_text_with(llm, whole):
    batch, teacher = cached.batch(), cached.opened(llm, whole)
    with pytest.raises(CheckpointError, match=r"engine\.teacher=auto or separate"):
        teacher.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    with unchanging(teacher):
        teacher.matched_hidden(batch)
    with pytest.raises(CheckpointError, match="weights changed"), unchanging(teacher), torch.no_grad():
        teacher.head_VH[0, 0] += 1


# --- what it is of ----------------------------------------------------------------------------------------------------


def altered(llm, folder, what):
    """Another folder, and the name of its dtype."""
    if what == "model":
        return tiny.save_llm(folder / "llm", seed=1), "float32"
    other = shutil.copytree(llm, folder / "llm")
    if what == "config":
        config = read_json(other / "config.json")
        config["rms_norm_eps"] = 0.1  # the same weights say something else
        (other / "config.json").write_text(json.dumps(config))
    if what == "tokenizer":
        tokenizer = tiny.fresh_tokenizer()
        tokenizer.add_tokens(["<|more|>"])
        tokenizer.save_pretrained(other)
    return other, "bfloat16" if what == "dtype" else "float32"


@pytest.mark.parametrize(
    ("what", "named"), [("model", "weights"), ("config", "weights"), ("tokenizer", "tokenizer"), ("dtype", "dtype")]
)
def test_another_teachers_cache_is_refused(llm, whole, tmp_path, what, named):
    other, dtype = altered(llm, tmp_path, what)
    with pytest.raises(CheckpointError, match=rf"another teacher: .*\({named} \w+ there, \w+ here\)"):
        cached.opened(other, whole, dtype)
    before = cached.files_of(whole)
    with pytest.raises(CheckpointError, match="another teacher"):  # nothing is added to it either
        cached.cache(other, whole, None, dtype)
    assert cached.files_of(whole) == before


def test_the_same_llm_by_another_name_is_the_same(llm, whole, tmp_path):
    moved = shutil.copytree(llm, tmp_path / "moved")
    assert len(cached.opened(moved, whole)) == len(cached.documents())


def test_a_folder_without_a_cache_is_refused(llm, tmp_path):
    with pytest.raises(MissingFileError, match=r"teacher\.json"):
        cached.opened(llm, tmp_path)
    (tmp_path / "teacher.json").write_text('{"llm": "x"}')
    with pytest.raises(CheckpointError, match="does not say whose"):
        cached.opened(llm, tmp_path)


def test_a_document_that_was_not_read_is_refused_by_name(llm, whole):
    stranger = tiny.utterance("stranger", 8)
    batch = tiny.batch_of([cached.SPOKEN[0], stranger])
    with pytest.raises(CheckpointError, match=r"document 'stranger' is not in it\. Start the stage again"):
        cached.opened(llm, whole).matched_hidden(batch)


def test_a_document_of_other_tokens_is_refused_by_name(llm, whole):
    batch = cached.batch()
    ids = batch.teacher_ids_L.clone()
    ids[int(batch.teacher_lengths_D[0]) + 2] += 1
    with pytest.raises(CheckpointError, match="document 'u1' was read as other tokens"):
        cached.opened(llm, whole).matched_hidden(dataclasses.replace(batch, teacher_ids_L=ids))
    with pytest.raises(CheckpointError, match="document 't0' was read as other tokens"):
        cached.opened(llm, whole).matched_hidden(tiny.batch_of([], cached.TEXTS, max_positions=7))


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 0.3, 0.7, -1])
def test_a_flipped_byte_is_refused(llm, copy, place):
    path = shards(copy)[1]
    content = bytearray(path.read_bytes())
    content[place if isinstance(place, int) else int(len(content) * place)] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"1 shards .* damaged, the first is .*{path.name}; delete"):
        cached.opened(llm, copy)


def test_a_shard_cut_short_is_refused_and_one_deleted_is_made_anew(llm, whole, copy):
    path = shards(copy)[0]
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match="damaged"):
        cached.opened(llm, copy)
    path.unlink()
    with pytest.raises(CheckpointError, match="'u0' is not in it"):
        cached.opened(llm, copy).matched_hidden(cached.batch())
    cached.cache(llm, copy)
    assert cached.files_of(copy) == cached.files_of(whole)


def test_a_disk_without_room_is_told_of_first(tmp_path):
    refuse_without_room(tmp_path, 10, 1152)
    with pytest.raises(RecipeError, match=r"engine.teacher=cached needs 1,152,000\.0 GB .* make room"):
        refuse_without_room(tmp_path, 10**12, 1152)


def test_hidden_states_that_are_no_numbers_are_not_kept(llm, tmp_path):
    broken = SeparateTeacher(load_llm(str(llm)))
    with torch.no_grad():
        broken.llm.get_input_embeddings().weight[tiny.mark()] = torch.nan
    identity = TeacherIdentity.of(str(llm), "float32")
    with pytest.raises(NonFiniteError, match="'u0', or of the 1 documents"):
        cache_hidden(lambda: broken, cached.documents()[:2], tmp_path, identity)
    assert not shards(tmp_path)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_nothing_is_read_twice(llm, tmp_path):
    read = cached.documents()
    cached.cache(llm, tmp_path, read[:5])
    once = cached.files_of(tmp_path)
    cached.cache(llm, tmp_path, [*read[2:4], *read[:6], *read[4:9], read[8]])
    sets = {path.parent: read_json(path) for path in tmp_path.glob("*/set.json")}
    assert sorted(row["documents"] for row in sets.values()) == [4, 5]
    assert {row["tokens"] for row in sets.values()} == {sum(len(d.ids) for d in part) for part in (read[:5], read[5:9])}
    assert once.items() <= cached.files_of(tmp_path).items()
    teacher = cached.opened(llm, tmp_path)
    assert len(teacher) == 9
    teacher.matched_hidden(tiny.batch_of(cached.SPOKEN))
    identity = TeacherIdentity.of(str(llm), "float32")
    cache_hidden(lambda: pytest.fail("there is nothing to read"), read[:9], tmp_path, identity)


@pytest.mark.parametrize("policy", ["poisson", "speech_prefix", "interleaved"])
def test_the_drawn_documents_are_what_the_steps_read_each_once(llm, policy):
    student = cached.student(llm)
    stream = cached.stream(student, STEPS, policy)
    also = [Document("watched", (0, 1))]
    for steps in (1, 3, 20):
        batches = [batch for step in range(steps) for batch in stream.batches(step)]
        parts = [batch.teacher_ids_L.split(batch.teacher_lengths_D.tolist()) for batch in batches]
        read = {
            (item, tuple(ids.tolist()))
            for batch, part in zip(batches, parts, strict=True)
            for item, ids in zip(batch.items, part, strict=True)
        }
        drawn = DrawnDocuments(stream, steps, also)
        found = [(document.id, tuple(document.ids)) for document in drawn]
        assert len(found) == len(drawn) == len(set(found))
        assert set(found) == read | {("watched", (0, 1))}
        assert found[-1][0] == "watched"
        assert [document.id for document in drawn[-2:]] == [name for name, _ in found[-2:]]


@pytest.mark.parametrize("train_llm", ["lora", "frozen", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stage_trained_by_it_is_the_same_but_for_rounding(llm, tmp_path, train_llm, dtype):
    curves, told = [], []
    for kind in ("auto", "cached"):
        student = cached.student(llm, train_llm, dtype)
        stream = cached.stream(student, STEPS)
        recipe = cached.recipe(llm, kind, train_llm, dtype)
        place = tmp_path / "cache"
        teacher = training_teacher(student, recipe, stream, 3, place, lambda *so_far: told.append(so_far))
        assert isinstance(teacher, CachedTeacher) == (kind == "cached") == bool(told)
        assert (teacher.head_VH.data_ptr() == student.head_VH.data_ptr()) == (train_llm != "full")  # no second head
        with unchanging(teacher):
            reports = list(train(student, teacher, stream.batches, STEPS, lambda _: 1.0, tmp_path / kind))
        curves.append([report.kl_nats for report in reports])
    assert curves[1] == pytest.approx(curves[0], rel=2e-3 if dtype == "float32" else 1e-2)
    assert curves[0] != curves[1] or dtype == "bfloat16"  # of which nothing is lost


def test_forgetting_is_watched_by_it(llm, tmp_path):
    student = tiny.move(cached.student(llm))
    recipe = cached.recipe(llm, "cached")
    held_out = [tiny.utterance(f"h{i}", 12) for i in range(8)]
    watch = Watch(tiny.builder(), held_out, recipe)
    watched = [Document(text.item, text.teacher_ids) for text in watch.texts]
    teacher = training_teacher(student, recipe, cached.stream(student, STEPS), 1, tmp_path, also=watched)
    kept, exact = (watch(1, student, by).forgetting_nats.value for by in (teacher, LoraOffTeacher(student)))
    assert kept == pytest.approx(exact, abs=1e-3)
    assert kept != exact


def test_stage_one_by_a_cached_teacher_is_stage_one(llm, tmp_path):
    curves = {}
    for kind in ("auto", "cached"):
        recipe = recipe_of(llm)
        engine = recipe.engine.model_copy(update={"teacher": kind, "watch_every": 6})
        run(recipe.model_copy(update={"engine": engine}), tmp_path / kind / "stage_one")
        curves[kind] = read_json(tmp_path / kind / "stage_one" / "curve.json")
        assert (tmp_path / kind / "teacher_cache").is_dir() == (kind == "cached")
    for exact, kept in zip(curves["auto"], curves["cached"], strict=True):
        assert kept["kl_nats"] == pytest.approx(exact["kl_nats"], rel=5e-3)
    watched = [curves[kind][5]["watch"]["forgetting_nats"]["value"] for kind in ("auto", "cached")]
    assert watched[1] == pytest.approx(watched[0], rel=5e-3)


def test_an_llm_that_is_not_what_it_is_named_after_teaches_nothing(llm, tmp_path):
    student = cached.student(llm)
    with torch.no_grad():
        student.table_VH[0, 0] += 1
    with pytest.raises(CheckpointError, match=r"is not .* as its files are now"):
        training_teacher(student, cached.recipe(llm, "cached"), cached.stream(student, STEPS), 1, tmp_path)


def test_separate_is_by_name(llm, tmp_path):
    student = cached.student(llm)
    teacher = training_teacher(student, cached.recipe(llm, "separate"), cached.stream(student, STEPS), 1, tmp_path)
    assert isinstance(teacher, SeparateTeacher)
    assert not list(tmp_path.iterdir())


# --- the head alone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kept", ["one file", "many files", "other names"])
def test_the_head_is_that_of_the_whole_llm(tmp_path, tied, kept):
    llm = tiny.llm(tied=tied)
    llm.save_pretrained(tmp_path, max_shard_size="20KB" if kept == "many files" else "5GB")
    if kept == "other names":  # only loading knows that the decoder may be stored alone
        shutil.rmtree(tmp_path)
        llm.model.save_pretrained(tmp_path) if tied else llm.save_pretrained(tmp_path)
        config = read_json(tmp_path / "config.json")
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or kept != "many files"
    for dtype in (torch.float32, torch.bfloat16):
        head = load_head(str(tmp_path), str(dtype).removeprefix("torch."))
        assert torch.equal(head.weight_VH, llm.get_output_embeddings().weight.to(dtype))
        assert not head.weight_VH.requires_grad
        assert head.bias_V is None


def test_a_head_has_its_bias(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    llm = PhiForCausalLM(PhiConfig(vocab_size=40, tie_word_embeddings=False, **sizes))
    torch.nn.init.normal_(llm.lm_head.bias)
    llm.save_pretrained(tmp_path)
    head = load_head(str(tmp_path), "float32")
    assert torch.equal(head.bias_V, llm.lm_head.bias)
    assert torch.equal(head.weight_VH, llm.lm_head.weight)
