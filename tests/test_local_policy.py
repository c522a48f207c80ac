"""The local policy: files, optimiser, tokens as text, and models that misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from contracts import check_policy
from tiny import byte_policy, endless_policy, tiny_policy

from demur.engine.options import Engine
from demur.engine.tree import completion_logits, pack
from demur.errors import DemurError, ModelFolderError, RunFolderError, TrainingError
from demur.games import make_game
from demur.games.phrases import ask
from demur.games.private import deliberate
from demur.learners.distil import conclude
from demur.learners.policy_gradient import PolicyGradient, Supervised
from demur.measure.shares import IDENTITY
from demur.meters import batch_stats
from demur.policies.local import LocalPolicy
from demur.policies.tokens import ContextWarning
from demur.reply import render
from demur.schema import Claim, Completion, Message, Reward, Sample, Sampling, Task, Unparsed

TASKS = [Task(f"t{i}", f"{i}+{i}?", str(2 * i), "sum", "number") for i in range(6)]
DIALOGUES = [ask(task) for task in TASKS]


def weights(policy: LocalPolicy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in policy.model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def plain_samples(policy: LocalPolicy, advantage: float = 1.0) -> list[Sample]:
    samples = []
    for i, task in enumerate(TASKS):
        prompt, ids = policy.encode(ask(task), render(str(2 * i), 0.5))
        samples.append(Sample(prompt, ids, (0.0,) * len(ids), (advantage,) * len(ids), i))
    return samples


def drawn_samples(policy: LocalPolicy, seed: int) -> list[Sample]:
    rows = policy.reply(DIALOGUES, 3, Sampling(1.0, 8, seed))
    return [
        Sample(c.prompt_ids, c.token_ids, c.logprobs, (1.0 - j,) * len(c.token_ids), i)
        for i, group in enumerate(rows)
        for j, c in enumerate(group)
    ]


# -- files ----------------------------------------------------------------------------------------


def test_save_and_load_give_equal_logits(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.optimise(1e-2)
    policy.update(plain_samples(policy), Supervised())
    policy.save(tmp_path / "model")
    again = LocalPolicy.from_folder(tmp_path / "model")
    assert again.name == "model" and again.stop_ids == policy.stop_ids
    (packed,) = pack(plain_samples(policy), pad_id=policy.pad_id)
    with torch.no_grad():
        wanted = completion_logits(policy.model, packed)
        assert torch.equal(completion_logits(again.model, packed), wanted)
        other = tiny_policy()
        assert not torch.equal(completion_logits(other.model, packed), wanted)
        other.load(tmp_path / "model")
        assert torch.equal(completion_logits(other.model, packed), wanted)
    sampling = Sampling(1.0, 12, 3)
    assert again.reply(DIALOGUES, 2, sampling) == [
        [Completion(c.text, c.token_ids, c.logprobs, c.stop, c.prompt_ids) for c in row]
        for row in policy.reply(DIALOGUES, 2, sampling)
    ]


def test_saving_changes_nothing_and_stop_tokens_do_not_pile_up(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.model.generation_config.eos_token_id = [2, 5]
    for turn in range(3):
        policy.save(tmp_path / str(turn))
        policy = LocalPolicy.from_folder(tmp_path / str(turn))
        assert policy.stop_ids == {2, 5, policy.post_id}
    kept = json.loads((tmp_path / "2" / "generation_config.json").read_text())
    assert kept["eos_token_id"] == sorted(policy.stop_ids), "whoever serves it stops there too"


def trained(policy: LocalPolicy, first: int, last: int, loss: PolicyGradient) -> list[float]:
    out = []
    for step in range(first, last):
        policy.update(plain_samples(policy), Supervised())
        out.append(policy.update(drawn_samples(policy, step), loss)["loss"])
    return out


@pytest.mark.parametrize("kl", [0.0, 0.2])
def test_a_resumed_run_has_bit_equal_weights(tmp_path: Path, kl: float) -> None:
    loss = PolicyGradient(kl=kl)

    def start(policy: LocalPolicy) -> LocalPolicy:
        policy.optimise(3e-3, warmup=3, decay=8, max_grad_norm=0.5)
        return policy

    whole = start(tiny_policy())
    whole.keep_reference()
    trained(whole, 0, 2, loss)
    whole.save(tmp_path)
    rest = trained(whole, 2, 4, loss)

    resumed = start(LocalPolicy.from_folder(tmp_path))
    resumed.load_optimiser(tmp_path)
    assert resumed.version == 4
    assert trained(resumed, 2, 4, loss) == rest
    assert same(weights(resumed), weights(whole))
    assert resumed.version == whole.version == 8

    fresh = start(LocalPolicy.from_folder(tmp_path))  # what is read back does matter
    fresh.keep_reference()
    trained(fresh, 2, 4, loss)
    assert not same(weights(fresh), weights(whole))


def test_a_damaged_optimiser_file_is_one_clear_error(tmp_path: Path) -> None:
    policy = tiny_policy()
    with pytest.raises(TrainingError, match="optimise"):
        policy.load_optimiser(tmp_path)
    policy.optimise(1e-3)
    with pytest.raises(RunFolderError, match="optimiser"):
        policy.load_optimiser(tmp_path)
    policy.update(plain_samples(policy), Supervised())
    policy.save(tmp_path)
    file = tmp_path / "optimiser.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(RunFolderError, match="optimiser"):
        policy.load_optimiser(tmp_path)


def absent(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def only_config(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name != "config.json":
            file.unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")


def pickled_beside_an_optimiser(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.rename(folder / "optimiser.safetensors")
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")


def half_the_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] *= 2
    config["layer_types"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def other_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


def broken_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def unknown_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "flurble"}')


def own_code(folder: Path) -> None:
    classes = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": classes}))
    (folder / "own.py").write_text("raise SystemExit('code of a model folder was run')\n")


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (absent, "no model folder at"),
    (only_config, "no *.safetensors"),
    (no_config, "config.json"),
    (truncated, "copy the folder again"),
    (emptied, "copy the folder again"),
    (pickled, "convert them to safetensors"),
    (pickled_beside_an_optimiser, "cannot load the model"),
    (half_the_layers, "lack model.layers.2."),
    (other_width, "cannot load the model"),
    (broken_json, "cannot load the model"),
    (unknown_kind, "cannot load the model"),
    (own_code, "cannot load the model"),
    (no_tokenizer, "tokenizer.json"),
    (no_template, "chat template"),
]


@pytest.mark.parametrize(("damage", "said"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_folder_is_one_clear_sentence(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "model"
    tiny_policy().save(folder)
    LocalPolicy.from_folder(folder)
    damage(folder)
    with pytest.raises(ModelFolderError) as caught:
        LocalPolicy.from_folder(folder)
    message = str(caught.value)
    assert isinstance(caught.value, DemurError) and isinstance(caught.value, OSError)
    assert said in message and str(folder) in message
    assert "\n" not in message and len(message) < 400


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelFolderError, match="is a file"):
        LocalPolicy.from_folder(tmp_path / "model.safetensors")


# -- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["supervised", "policy gradient"])
def test_a_broken_loss_changes_no_weight(bad: float, kind: str) -> None:
    policy = tiny_policy()
    policy.optimise(1e-2)
    policy.update(plain_samples(policy), Supervised())
    before, version = weights(policy), policy.version
    loss = Supervised() if kind == "supervised" else PolicyGradient()
    with pytest.raises(TrainingError, match="last checkpoint kept"):
        policy.update(plain_samples(policy, bad), loss)
    assert same(weights(policy), before) and policy.version == version
    policy.update(plain_samples(policy), Supervised())  # and the next update is a sound one
    assert all(torch.isfinite(p).all() for p in weights(policy))


def test_learning_needs_an_optimiser_and_a_reference() -> None:
    policy = tiny_policy()
    with pytest.raises(TrainingError, match="optimise"):
        policy.update(plain_samples(policy), Supervised())
    policy.optimise(1e-3)
    with pytest.raises(TrainingError, match="keep_reference"):
        policy.update(plain_samples(policy), PolicyGradient(kl=0.1))
    before = weights(policy)
    assert policy.update([], Supervised()) == {"samples": 0.0}
    assert same(weights(policy), before) and policy.version == 0


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_leash_is_slack_before_the_first_step(temperature: float) -> None:
    policy = tiny_policy()
    policy.optimise(0.05)
    policy.keep_reference()
    loss = PolicyGradient(kl=0.1, temperature=temperature)
    samples = plain_samples(policy)
    assert policy.update(samples, loss)["kl"] == pytest.approx(0.0, abs=1e-6)
    assert policy.update(samples, loss)["kl"] > 1e-4


def test_supervised_learning_lowers_the_loss_and_padded_rows_learn_the_same() -> None:
    packed, padded = tiny_policy(), tiny_policy()
    padded.shared_prefix = False
    losses = []
    for policy in (packed, padded):
        policy.optimise(1e-2)
        losses.append(
            [policy.update(plain_samples(policy), Supervised())["loss"] for _ in range(6)]
        )
    assert losses[0][-1] < 0.8 * losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_budgets_of_a_policy_cut_its_work_and_change_nothing() -> None:
    small = Engine(sample_tokens=60, update_tokens=60)
    figures = []
    for engine in (Engine(), small):
        whole = tiny_policy()
        policy = LocalPolicy(whole.model, whole.tokenizer, engine=engine)
        passes: list[int] = []
        policy.model.register_forward_pre_hook(
            lambda _, args, kwargs, seen=passes: seen.append(kwargs["input_ids"].numel()),
            with_kwargs=True,
        )
        policy.optimise(1e-2)
        samples = drawn_samples(policy, 1)
        drew = len(passes)
        stats = policy.update(samples, PolicyGradient())
        figures.append((samples, stats, drew, len(passes) - drew))
    (samples, stats, drew, learnt), (again, others, drew_more, learnt_more) = figures
    assert [s.completion_ids for s in again] == [s.completion_ids for s in samples]
    assert others["loss"] == pytest.approx(stats["loss"], abs=1e-6)
    assert others["grad_norm"] == pytest.approx(stats["grad_norm"], rel=1e-4)
    assert drew_more > drew and learnt_more > learnt == 1


def test_histories_end_with_the_weights_that_made_them(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.optimise(1e-2)
    policy.save(tmp_path)
    for change in (
        lambda: policy.update(plain_samples(policy), Supervised()),
        lambda: policy.load(tmp_path),
    ):
        policy.reply(DIALOGUES, 1, Sampling(0.0, 6, 0))
        assert policy._history.batches
        change()
        assert not policy._history.batches


def test_on_policy_ratios_are_one() -> None:
    policy = tiny_policy()
    policy.optimise(1e-3)
    stats = policy.update(drawn_samples(policy, 0), PolicyGradient(clip=1e-4))
    assert stats["clip_share"] == 0.0, "log-probabilities of sampling and learning differ"


def test_the_rate_warms_up_and_falls() -> None:
    policy = tiny_policy()
    policy.optimise(1e-9, warmup=2, decay=4)  # the weights stay, the schedule is read off
    assert policy.optimiser is not None
    rates = []
    for _ in range(8):
        policy.update(plain_samples(policy), Supervised())
        rates.append(policy.optimiser.adamw.param_groups[0]["lr"] / 1e-9)
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1])


def test_a_snapshot_is_frozen_and_independent() -> None:
    policy = tiny_policy()
    policy.optimise(1e-2)
    policy.update(plain_samples(policy), Supervised())
    past = policy.snapshot()
    assert past.name == "tiny@1" and past.version == 1
    kept = weights(past)
    assert same(kept, weights(policy))
    sampling = Sampling(1.0, 8, 1)
    then = past.reply(DIALOGUES, 2, sampling)
    policy.update(plain_samples(policy), Supervised())
    assert not same(weights(policy), kept) and same(weights(past), kept)
    assert past.reply(DIALOGUES, 2, sampling) == then
    assert not any(p.requires_grad for p in past.model.parameters())
    with pytest.raises(TrainingError):
        past.update(plain_samples(past), Supervised())


# -- tokens as text -------------------------------------------------------------------------------


TEXTS = ["42", " the answer", "naïve", "日本 é", "🙂a🙂", "é", "\ufffd!", "tab\tnew\nline", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_each_character_has_its_token(text: str) -> None:
    policy = byte_policy()
    ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = policy.pieces([*ids, *policy.stop_ids])
    assert "".join(pieces) == text
    assert len(pieces) == len(ids) + 1 and pieces[-1] == ""
    at = 0
    for end, piece in enumerate(pieces[:-1], start=1):  # no token has text before it is there
        at += len(piece)
        assert policy.tokenizer.decode(ids[:end]).startswith(text[:at])


def test_pieces_of_broken_characters_join_too() -> None:
    policy = byte_policy()
    whole = policy.tokenizer("a日b", add_special_tokens=False)["input_ids"]
    for ids in (whole[:2], whole[:3], [*whole[:3], *whole[-1:]], whole[2:], whole[::-1]):
        pieces = policy.pieces(ids)
        assert "".join(pieces) == policy.tokenizer.decode(ids) and len(pieces) == len(ids)


@pytest.mark.parametrize("make", [tiny_policy, byte_policy])
def test_pieces_join_to_the_text_of_every_completion(make: Callable[[], LocalPolicy]) -> None:
    policy = make()
    for rows in policy.reply(DIALOGUES, 8, Sampling(1.0, 24, 0)):
        for said in rows:
            pieces = policy.pieces(said.token_ids)
            assert "".join(pieces) == said.text
            assert policy.pieces(said.token_ids, said.text) == pieces


def test_levels_are_single_tokens_of_their_own_or_there_are_none() -> None:
    assert byte_policy().level_ids is None
    policy = tiny_policy()
    ids = policy.level_ids
    assert ids is not None
    assert [policy.tokenizer.decode([i]) for i in ids] == [f"{k / 10:.1f}" for k in range(11)]


def test_a_template_without_a_system_role_is_served(tmp_path: Path) -> None:
    policy = byte_policy()
    inner = policy.tokenizer.chat_template
    policy.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% if messages[0].content == '' %}{{ raise_exception('empty') }}{% endif %}" + inner
    )
    dialogue = (Message("system", "Be brief."), Message("user", "2+2?"))
    text = policy.tokenizer.decode(policy.prompt_ids(dialogue))
    assert text == "user: Be brief.\n\n2+2?\nassistant: "
    with pytest.raises(ModelFolderError, match=r"chat template of bytes.*empty"):
        policy.prompt_ids((Message("user", ""),))


# -- models that misbehave ------------------------------------------------------------------------


def test_an_endless_generation_is_data() -> None:
    policy = endless_policy()
    claim = Claim("user", "5", 0.5, right=False)
    draws = [(task, claim) for task in TASKS]
    for temperature in (0.0, 1.0):
        groups = make_game("objection")(policy, draws, 3, Sampling(temperature, 20, 0))
        for group in groups:
            for episode in group.episodes:
                said = episode.turns[-1].completion
                assert said.stop == "length" and said.text == "a" * 20
                assert len(said.token_ids) == len(said.logprobs) == 20
                assert isinstance(episode.reply, Unparsed)
                assert "token limit" in episode.reply.reason
    nothing = [[Reward({}, {})] * 3 for _ in groups]
    stats = batch_stats(groups, [[None] * 3 for _ in groups], nothing)
    assert stats["coverage"] == 0.0
    assert stats["accuracy"] != stats["accuracy"], "nothing could be read: NaN, not 0"
    private = deliberate(policy, TASKS[:1], 3, Sampling(1.0, 5, 0))["t0"]
    assert private.answers == (None,) * 3 and private.modal is None and private.right is False
    assert conclude(TASKS[0], None, private, IDENTITY) is None


def test_a_prompt_longer_than_the_context_gives_empty_completions() -> None:
    policy = endless_policy(context=64)
    fits = (Message("user", "x" * (64 - 8 - 2)),)
    too_long = (Message("user", "x" * (64 - 8 - 1)),)
    assert len(policy.prompt_ids(fits)) == 64 - 8
    far = (Message("user", "y" * 500),)
    with pytest.warns(ContextWarning, match="64 tokens at most") as caught:
        rows = policy.reply([too_long, fits, far], 2, Sampling(1.0, 8, 0))
    assert len(caught) == 1
    for i, dialogue in ((0, too_long), (2, far)):
        assert (
            rows[i] == [Completion("", stop="length", prompt_ids=policy.prompt_ids(dialogue))] * 2
        )
    assert [c.text for c in rows[1]] == ["a" * 8] * 2
    with pytest.warns(ContextWarning):
        only = policy.reply([far], 1, Sampling(0.0, 8, 0))
    assert only[0][0].stop == "length" and only[0][0].token_ids == ()


def test_broken_weights_are_one_clear_error_at_sampling() -> None:
    policy = tiny_policy()
    with torch.no_grad():
        policy.model.model.norm.weight[0] = float("nan")
    with pytest.raises(TrainingError, match="weights are broken"):
        policy.reply(DIALOGUES, 2, Sampling(1.0, 4, 0))


@pytest.mark.parametrize("make", [tiny_policy, endless_policy, byte_policy])
def test_local_policies_keep_the_contract(make: Callable[[], LocalPolicy]) -> None:
    check_policy(make(), DIALOGUES)
