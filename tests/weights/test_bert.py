"""BERT's weights: the answers of transformers, both spellings, there and back."""

import numpy as np
import pytest

from kerasdl import create_model
from kerasdl.errors import UserError
from kerasdl.weights.configs import Config
from kerasdl.weights.families.bert import FAMILIES
from kerasdl.weights.rename import by_path, fraction, to_ours, to_theirs
from tests import goldens

(FAMILY,) = FAMILIES
GOLDEN = goldens.read("bert")
POOLER = {"bert.pooler.dense.weight": (24, 24), "cls.seq_relationship.bias": (2,)}


def of_config(**changed):
    values = GOLDEN.config["resolved_config"] | changed
    return FAMILY.configs["bert"](Config("config.json", values))


def filled(weights, **changed):
    row, arguments = of_config(**changed)
    model = create_model(row, **arguments)
    renamed = to_ours(FAMILY, model, weights)
    assert renamed.left_over == renamed.missing == ()
    for path, weight in by_path(model).items():
        weight.assign(renamed.arrays[path])
    return model


def old_names(weights):
    """The names of files that were made from TensorFlow's."""
    ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    result = {}
    for name, value in weights.items():
        for new, old in ends.items():
            name = name.replace(new, old)
        result[name] = value
    return result


def inputs():
    names = {"token_ids": "input_ids", "segment_ids": "token_type_ids"}
    names["attention_mask"] = "attention_mask"
    return {ours: GOLDEN.inputs[theirs].astype("int32") for ours, theirs in names.items()}


@pytest.mark.parametrize("spelled", [dict, old_names])
def test_answers_are_those_of_transformers(spelled):
    model = filled(spelled(GOLDEN.weights))
    assert goldens.deviation(model(inputs()), GOLDEN.outputs["logits"]) < 1e-5
    assert goldens.deviation(model.encode(inputs()), GOLDEN.outputs["hidden"]) < 1e-5
    theirs = to_theirs(FAMILY, model)
    assert theirs.keys() == GOLDEN.weights.keys()
    assert all(v.tobytes() == theirs[k].tobytes() for k, v in GOLDEN.weights.items())


def test_padding_is_a_mask_and_segments_count():
    model, x = filled(GOLDEN.weights), inputs()
    padded = {**x, "token_ids": np.where(x["attention_mask"] == 1, x["token_ids"], 0)}
    whole = padded["token_ids"] != 0
    without = {k: v for k, v in padded.items() if k != "attention_mask"}
    masked = {**padded, "attention_mask": whole}
    np.testing.assert_array_equal(model(without), model(masked))
    assert np.abs(model(without) - model(padded["token_ids"])).max() > 1e-2
    other = {**without, "token_ids": np.where(whole, without["token_ids"], 0)}
    other["attention_mask"] = np.ones_like(whole)
    assert not whole.all() and np.abs(model(other) - model(masked)).max() > 1e-3
    first = without | {"segment_ids": np.zeros_like(x["segment_ids"])}
    np.testing.assert_allclose(model(first), model(padded["token_ids"]), atol=1e-5)


def test_what_files_have_besides_or_lack():
    _, arguments = of_config()
    model = create_model("bert_base", **arguments)
    more = GOLDEN.weights | {k: np.zeros(shape, "float32") for k, shape in POOLER.items()}
    more["bert.embeddings.position_ids"] = np.arange(19)[None]
    whole = to_ours(FAMILY, model, more)
    assert whole.left_over == whole.missing == ()
    tied = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    fewer = {k: v for k, v in GOLDEN.weights.items() if k not in tied}
    assert to_ours(FAMILY, model, fewer).missing == ()
    bare = {  # the encoder alone, without the name of the whole
        k.removeprefix("bert."): v for k, v in more.items() if k.startswith("bert.")
    }
    encoder = to_ours(FAMILY, model, bare)
    assert encoder.left_over == ()
    assert encoder.missing and all(path.startswith("head/") for path in encoder.missing)
    assert fraction(FAMILY, model, GOLDEN.weights) == fraction(FAMILY, model, bare) == 1
    assert fraction(FAMILY, None, GOLDEN.weights) == 1
    changed = GOLDEN.weights | {tied[1]: GOLDEN.weights[tied[1]] + 1}
    with pytest.raises(UserError, match="cls.predictions.decoder.bias differ"):
        to_ours(FAMILY, model, changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"num_hidden_layers": 1, "num_attention_heads": 4, "type_vocab_size": 3},
        {"tie_word_embeddings": False, "intermediate_size": 20, "max_position_embeddings": 7},
        {"hidden_size": 30, "hidden_act": "gelu_new", "pad_token_id": 5, "layer_norm_eps": 1e-5},
    ],
)
def test_other_sizes_go_there_and_back(changed, rng):
    row, arguments = of_config(**changed)
    model = create_model(row, **arguments)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(rng.normal(size=weight.shape))
    theirs = to_theirs(FAMILY, model)
    heads = changed.get("tie_word_embeddings", True)
    same = theirs["cls.predictions.decoder.weight"] is not None and np.array_equal(
        theirs["cls.predictions.decoder.weight"], theirs["bert.embeddings.word_embeddings.weight"]
    )
    assert same == heads
    again = to_ours(FAMILY, model, theirs)
    assert again.missing == again.left_over == ()
    assert all(np.array_equal(again.arrays[k], v) for k, v in by_path(model).items())


def test_a_config_without_sizes_is_that_of_the_paper():
    row, arguments = FAMILY.configs["bert"](Config("config.json", {"model_type": "bert"}))
    base = {"vocab_size": 30522, "dim": 768, "depth": 12, "num_heads": 12, "epsilon": 1e-12}
    assert row == "bert_base" and base.items() <= arguments.items()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"vocab_size": "many"}, "vocab_size cannot be 'many'"),
    ],
)
def test_what_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        of_config(**changed)
