"""What asks other machines: with a limit, whatever the libraries below do about theirs."""

import queue
import threading


def within(seconds: float, function):
    """The value of `function()`, which is left alone if it takes longer.

    Name servers that do not answer are waited for outside of all time-outs of a client, and each
    address of a host has a time-out of its own.

    Raises:
        TimeoutError: It took longer.
    """
    answers = queue.SimpleQueue()

    def run():
        try:
            answers.put((function(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    if error is not None:
        raise error
    return value
