"""What is told when a training nears its end."""

from types import SimpleNamespace

from kerasdl.training.callbacks import NearEnd


def near_end(calls, **more):
    callback = NearEnd(lambda: calls.append(callback.loop.step), 10.0)
    callback.loop = SimpleNamespace(step=0, total_steps=1000, timed=[0, 0.0, 0.0], chief=True)
    vars(callback.loop).update(more)
    return callback


def take(callback, steps, seconds):
    """As the loop accounts for a call of so many steps."""
    loop = callback.loop
    loop.step += steps
    loop.timed = [loop.timed[0] + steps, loop.timed[1] + seconds, 0.0]
    callback.on_steps()


def test_it_calls_once_so_long_before_the_end():
    calls = []
    callback = near_end(calls)
    callback.on_steps()  # after the first step, which is not timed
    while callback.loop.step < 1000:
        take(callback, 10, 1.0)
    assert calls == [910]


def test_what_comes_after_it_is_not_timed():
    callback = near_end([])
    take(callback, 100, 5.0)
    take(callback, 750, 1.0)
    assert callback.timed == callback.loop.timed == [850, 6.0, 0.0]
    take(callback, 100, 99.0)
    assert callback.loop.timed == [850, 6.0, 0.0]


def test_few_steps_are_timed_first():
    calls = []
    callback = near_end(calls, total_steps=100)
    take(callback, 1, 0.01)
    assert not calls
    take(callback, 60, 0.6)
    assert calls == [61]


def test_workers_other_than_the_chief_call_nothing():
    calls = []
    callback = near_end(calls, chief=False)
    take(callback, 999, 9.0)
    assert not calls
