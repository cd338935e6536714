"""Write signatures as a SavedModel."""

import keras


def write(signatures: dict, folder, tokenizer=None) -> None:
    """Write a SavedModel, with the weights that its signatures use.

    Args:
        signatures: `{name: (function of positional tensors, [TensorSpec])}`, as of `functions`.
        folder: Where to; may exist.
        tokenizer: The `Tokenizer` that they use, or None.
    """
    archive = keras.export.ExportArchive()
    if tokenizer:
        archive.track(tokenizer)  # it has tables, models have none
    first = next(iter(signatures))
    for name, served in signatures.items():
        if name == "serving_default" != first and served is signatures[first]:
            continue  # another name of the first, which the archive gives it by itself
        function, specs = served
        archive.add_endpoint(name, function, input_signature=specs)
    archive.write_out(str(folder), verbose=False)
