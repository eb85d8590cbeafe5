"""Pushes make a batch harder, their gradients are added, and afterwards everything is as it was."""

import pytest
import torch
from accelerate import Accelerator

from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared, Target
from pipelines.adversary import push as push_batch
from pipelines.adversary import shifted, watched
from pipelines.learner import build_model
from pipelines.recipe import Recipe
from pipelines.training import Labels, disagreement, masked_loss
from tests.monitor.classifier.tiny import write_base

ROWS = [Prepared((2, 30, 31, 32, 3), (Target("0", (1, 2)),)), Prepared((2, 25, 3)), Prepared((2, 28, 33, 3), (Target("0", (2,)),))]
# Small beside what the tiny base reads: it is far from linear.
SIZES = {"fgm": 0.005, "pgd": 0.005, "awp": 0.001}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


class Batch:
    """A model with a batch to learn; `losses` are those of every pass."""

    def __init__(self, base, adversary, method="lora", consistency=0.0):
        torch.manual_seed(5)
        self.recipe = Recipe(method=method, rank=4, adversary=adversary, adversary_size=SIZES[adversary], dropout=0.2)
        self.accelerator = Accelerator(cpu=True)
        self.model = build_model(base, 3, self.recipe, steps=10)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        self.model.train()
        self.packed = pack(ROWS)
        self.labels = Labels(torch.tensor([0, -100, 2]), torch.tensor([2, 1, -100]), torch.tensor([0, 2]))
        self.consistency = consistency
        self.losses = []

    def loss(self):
        logits = self.model(self.packed)
        loss = masked_loss(logits, self.labels, self.recipe)
        if self.consistency:
            loss = loss + self.consistency * disagreement(logits, self.model(self.packed))
        self.losses.append(float(loss.detach()))
        return loss

    def gradients(self):
        return {name: parameter.grad.clone() for name, parameter in self.model.named_parameters() if parameter.grad is not None}

    def push(self):
        push_batch(self.model, self.loss, self.accelerator, self.recipe)


@pytest.mark.parametrize("method", ["lora", "full", "prefix"])
@pytest.mark.parametrize("adversary", ["fgm", "pgd", "awp"])
def test_the_loss_rises_under_the_push(base, adversary, method):
    batch = Batch(base, adversary, method)
    drawn = torch.get_rng_state()
    batch.loss().backward()
    # The pushed batch meets the same dropout, so that the rise is that of the push.
    torch.set_rng_state(drawn)
    batch.push()
    plain, *_, pushed = batch.losses
    assert pushed > plain + 1e-4


def test_several_small_steps_lead_at_least_as_far_as_one(base):
    rises = {}
    for adversary in ("fgm", "pgd"):
        batch = Batch(base, adversary)
        batch.push()
        rises[adversary] = batch.losses[-1] - batch.losses[0]
    assert rises["pgd"] >= 0.95 * rises["fgm"]


@pytest.mark.parametrize("adversary", ["fgm", "pgd", "awp"])
def test_weights_are_the_same_to_the_bit_and_nothing_stays_hooked(base, adversary):
    batch = Batch(base, adversary)
    before = {name: parameter.detach().clone() for name, parameter in batch.model.named_parameters()}
    batch.loss().backward()
    batch.push()
    for name, parameter in batch.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert not batch.model.encoder.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("adversary", ["fgm", "pgd"])
def test_the_gradients_of_the_pushed_batch_are_added(base, adversary):
    batch = Batch(base, adversary)
    batch.loss().backward()
    plain, drawn = batch.gradients(), torch.get_rng_state()
    batch.push()
    both = batch.gradients()
    # From no gradients at all the push leaves those of the pushed batch alone.
    batch.model.zero_grad()
    torch.set_rng_state(drawn)
    batch.push()
    pushed = batch.gradients()
    assert any(gradient.any() for gradient in pushed.values())
    for name in plain:
        torch.testing.assert_close(both[name], plain[name] + pushed[name], msg=name)


def test_pushed_weights_give_the_gradients_of_where_they_were_pushed_to(base):
    batch = Batch(base, "awp")
    batch.model.eval()
    batch.loss().backward()
    plain = batch.gradients()
    batch.push()
    both = batch.gradients()
    batch.model.zero_grad()
    with torch.no_grad():
        for name, parameter in batch.model.named_parameters():
            if name in plain and parameter.ndim > 1:
                parameter.add_(plain[name] / plain[name].norm() * parameter.norm() * SIZES["awp"])
    batch.loss().backward()
    for name, gradient in batch.gradients().items():
        torch.testing.assert_close(both[name], plain[name] + gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("adversary", ["fgm", "pgd"])
def test_however_many_passes_a_push_takes_it_draws_as_much_as_one(base, adversary):
    batch = Batch(base, adversary)
    drawn = torch.get_rng_state()
    batch.loss()
    after = torch.get_rng_state()
    torch.set_rng_state(drawn)
    batch.push()
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("adversary", ["fgm", "pgd"])
def test_no_token_is_pushed_further_than_the_size(base, adversary):
    batch = Batch(base, adversary)
    embeddings = batch.model.encoder.get_input_embeddings()
    clean = embeddings(batch.packed.token_ids)
    read = []

    def loss():
        # Hooks run in the order in which they were set: this one sees what the push made of the embeddings.
        handle = embeddings.register_forward_hook(lambda _, __, states: read.append(states.detach().clone()))
        try:
            return batch.loss()
        finally:
            handle.remove()

    push_batch(batch.model, loss, batch.accelerator, batch.recipe)
    lengths = (read[-1] - clean).norm(dim=-1)
    assert float(lengths.max()) <= SIZES[adversary] + 1e-6
    assert float(lengths.min()) > 0.5 * SIZES[adversary]


def test_two_passes_of_one_batch_are_pushed_as_one(base):
    batch = Batch(base, "fgm", consistency=1.0)
    batch.push()
    assert batch.losses[-1] > batch.losses[0]


def test_a_batch_that_teaches_nothing_is_pushed_nowhere(base):
    batch = Batch(base, "fgm")
    batch.labels = Labels(torch.tensor([-100] * 3), torch.tensor([-100] * 3), torch.tensor([-100] * 2))
    batch.push()
    assert batch.losses == [0.0, 0.0]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in batch.gradients().values())


def test_hooks_are_taken_off_when_a_pass_fails(base):
    batch = Batch(base, "fgm")
    embeddings = batch.model.encoder.get_input_embeddings()
    for context in (watched(embeddings, None), shifted(embeddings, torch.zeros(1))):
        with pytest.raises(RuntimeError, match="by chance"), context:
            raise RuntimeError("by chance")
        assert not embeddings._forward_hooks
