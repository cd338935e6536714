"""Our layers against PyTorch's on the CPU, one training step; for those who have `torch`."""

import keras

from kerasdl.bench import attention, recurrent
from kerasdl.bench.steps import noise, training_step
from kerasdl.layers.attention import SelfAttention
from kerasdl.layers.recurrent import GRU, LSTM


def cases(recurrent_size=None, attention_size=None):
    """Yield `(name, steps)` for `paired.compare`; ours with and without XLA.

    Args:
        recurrent_size: As `recurrent.SIZE`, which it is if None.
        attention_size: As `attention.SIZE`, which it is if None.
    """
    import torch

    batch, time, dim, units = (recurrent_size or recurrent.SIZE).values()
    for ours, peer in ((LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU)):
        x, theirs = noise((batch, time, dim)), peer(dim, units, batch_first=True)
        yield (
            f"{recurrent.title(ours, recurrent_size)} / torch.nn.{peer.__name__}",
            _sides(lambda ours=ours: ours(units), theirs, theirs, x),
        )
    batch, tokens, dim, num_heads = (attention_size or attention.SIZE).values()
    theirs = torch.nn.MultiheadAttention(dim, num_heads, batch_first=True)
    yield (
        f"{attention.title(attention_size)} / torch.nn.MultiheadAttention",
        _sides(
            lambda: SelfAttention(num_heads),
            theirs,
            lambda x: theirs(x, x, x, need_weights=False),
            noise((batch, tokens, dim)),
        ),
    )


def _sides(ours, theirs, call, x):
    sides = {("ours", xla): training_step(ours(), x, xla) for xla in (False, True)}
    return {**sides, ("peer", False): _torch_step(theirs, call, x)}


def _torch_step(module, call, x):
    """As `steps.training_step`, of a module of PyTorch."""
    import torch

    adam = keras.optimizers.Adam()  # whose settings both have
    optimizer = torch.optim.Adam(
        module.parameters(),
        float(adam.learning_rate),
        (float(adam.beta_1), float(adam.beta_2)),
        float(adam.epsilon),
    )
    x = torch.from_numpy(x)

    def step():
        optimizer.zero_grad()
        loss = call(x)[0].square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
