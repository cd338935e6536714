"""GPT-2 and ViT as KerasHub's presets name them.

Source: https://keras.io/keras_hub/api/models/gpt2 and .../models/vit. A name is the path of a
        variable in Keras' files of weights: layers by their kind, counted, and `vars` by number.
        Dense kernels are `(I, O)`, as ours are; those of attention have heads and their channels
        apart. `task/` stands before the names of a task's own weights.
"""

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable
from kerasdl.weights import image_facts
from kerasdl.weights.configs import Config
from kerasdl.weights.families import gpt2
from kerasdl.weights.keras_hub import BESIDE, TASK
from kerasdl.weights.rename import Family, Rule, backbone_of

GPT2, GPT2_OURS = "layers/transformer_decoder{_i}", "block{i+1}"
VIT = "layers/vi_t_encoder/encoder_layers/vi_t_encoder_block{_i}"
VIT_TOKENS, VIT_OURS = "layers/vi_t_patching_and_embedding", "backbone/block{i+1}"
LARGEST = 2**24  # of sizes
OPTIMIZER = r"^(task/)?optimizer/"


def dense(theirs, ours, how="same"):
    """Rules of a layer with kernel and bias, as both are stored alike."""
    return (
        Rule(f"{theirs}/vars/0", f"{ours}/kernel", how),
        Rule(f"{theirs}/vars/1", f"{ours}/bias"),
    )


def norm(theirs, ours):
    """Rules of a layer norm."""
    return Rule(f"{theirs}/vars/0", f"{ours}/gamma"), Rule(f"{theirs}/vars/1", f"{ours}/beta")


def attention(theirs, ours):
    """Rules of multi-head attention; files of earlier versions have `_query_dense` and so on."""
    return tuple(
        rule
        for mark in ("", "_")
        for rule in (
            *(
                Rule(
                    tuple(f"{theirs}/{mark}{x}_dense/vars/{n}" for x in ("query", "key", "value")),
                    f"{ours}/qkv/{name}",
                    "join_heads",
                )
                for n, name in enumerate(("kernel", "bias"))
            ),
            *dense(f"{theirs}/{mark}output_dense", f"{ours}/project", "merge_heads"),
        )
    )


def _options(config, known) -> None:
    """Refuse options that no version of the class was known to have, and quantized weights."""
    usual = ("class_name", "name", "trainable", "dtype", *BESIDE)
    for key, value in config.values.items():
        if key not in (*usual, *known):
            raise UserError(
                f"{config.name}: {printable(key)} is {printable(repr(value))} in its config; here "
                f"it can only hold {', '.join(known) or 'nothing'}"
            )
    dtype = config.get("dtype", "float32", (str, dict))
    if isinstance(dtype, dict):
        inner = dtype.get("config")
        dtype = inner.get("name", "") if isinstance(inner, dict) else ""
    if str(dtype).removeprefix("mixed_") not in ("float32", "float64", "float16", "bfloat16"):
        raise UserError(f"{config.name}: its dtype is none of floats: it holds quantized weights")


def _counts(config, names) -> dict:
    """`{ours: number from 1 on}` of `{theirs: ours}`."""
    result = {ours: config.get(theirs, kind=int) for theirs, ours in names.items()}
    for theirs, ours in names.items():
        if not 0 < result[ours] < LARGEST:
            raise UserError(f"{config.name}: {theirs} cannot be {result[ours]}")
    return result


def _task(config, class_name, known):
    """The `Config` of a task, or None of a backbone alone.

    Raises:
        UserError: It is another class than `class_name`, or has other options than are `known`.
    """
    values = config.get(TASK, None, dict)
    if values is None:
        return None
    task = Config(f"{config.name}: {TASK}", values)
    task.only(class_name=class_name)
    _options(task, known)
    return task


def of_gpt2(config):
    """The row and the arguments that a preset of a `GPT2Backbone` stands for."""
    sizes = {
        "vocabulary_size": "vocab_size",
        "max_sequence_length": "max_length",
        "hidden_dim": "dim",
        "num_layers": "depth",
        "num_heads": "num_heads",
        "intermediate_dim": "mlp_dim",
    }
    _options(config, (*sizes, "dropout"))
    _task(config, "GPT2CausalLM", ())
    return "gpt2_small", {
        **_counts(config, sizes),
        "drop_rate": config.get("dropout", 0.1, float),
    }


def of_vit(config):
    """The row and the arguments that a preset of a `ViTBackbone` stands for."""
    sizes = {
        "hidden_dim": "dim",
        "num_layers": "depth",
        "num_heads": "num_heads",
        "mlp_dim": "mlp_dim",
    }
    switches = {
        "use_mha_bias": ("qkv_bias", "project_bias"),
        "use_mlp_bias": ("mlp_bias",),
        "use_patch_bias": ("patch_bias",),
        "use_class_token": ("class_token",),
    }
    others = ("dropout_rate", "attention_dropout", "layer_norm_epsilon", "data_format")
    _options(config, ("image_shape", "patch_size", *sizes, *switches, *others))
    config.only(data_format=(None, "channels_last"))
    shape = image_facts.sizes(config, "image_shape")
    patch = image_facts.sides(config, "patch_size")
    if patch[0] != patch[1]:
        raise UserError(f"{config.name}: patch_size is {patch}; here patches are square")
    if not shape or len(shape) != 3:
        raise UserError(f"{config.name}: image_shape must be height, width and channels")
    return "vit_b16", {
        "image_shape": shape,
        "patch_size": patch[0],
        **_counts(config, sizes),
        **{name: config.get(theirs, True) for theirs, ours in switches.items() for name in ours},
        "drop_rate": config.get("dropout_rate", 0.0, float),
        "epsilon": config.get("layer_norm_epsilon", 1e-6, float),
        **_classifier(config),
    }


def _classifier(config) -> dict:
    """Arguments of a `ViTImageClassifier`; `softmax` makes probabilities of the same logits."""
    known = ("num_classes", "pooling", "intermediate_dim", "activation", "dropout", "head_dtype")
    task = _task(config, "ViTImageClassifier", known)
    if task is None:
        return {"features": True, "num_classes": 1}
    task.only(
        pooling=("token", "gap"),
        intermediate_dim=None,
        activation=(None, "linear", "softmax"),
    )
    pooling, class_token = task.get("pooling", "token"), config.get("use_class_token", True)
    if pooling == "token" and not class_token:
        raise UserError(
            f"{config.name}: pooling is 'token' and use_class_token False in its config; without "
            "that token it can only be 'gap'"
        )
    pooling = "cls" if pooling == "token" else "all_mean" if class_token else "mean"
    return {**_counts(task, {"num_classes": "num_classes"}), "pooling": pooling}


def vit(model):
    """Rules of a `ViTBackbone` and of the dense layer of a `ViTImageClassifier`."""
    ours = "backbone/tokens"
    before = model is None or backbone_of(model).tokens.positions_before
    positions = (f"{ours}/positions/grid", f"{ours}/positions/before")
    return (
        Rule(f"{VIT_TOKENS}/vars/0", f"{ours}/cls"),
        *dense(f"{VIT_TOKENS}/patch_embedding", f"{ours}/patches"),
        Rule(
            f"{VIT_TOKENS}/position_embedding/vars/0",
            positions if before else positions[:1],
            "flat_grid",
        ),
        *norm(f"{VIT}/layer_norm_1", f"{VIT_OURS}/norm1"),
        *attention(f"{VIT}/mha", f"{VIT_OURS}/attention"),
        *norm(f"{VIT}/layer_norm_2", f"{VIT_OURS}/norm2"),
        *dense(f"{VIT}/mlp/dense_1", f"{VIT_OURS}/mlp/dense1"),
        *dense(f"{VIT}/mlp/dense_2", f"{VIT_OURS}/mlp/dense2"),
        *norm("layers/vi_t_encoder/layer_norm", "backbone/norm"),
        *dense("task/layers/dense", "head"),
    )


def _is_vit(model) -> bool:
    backbone, tokens = backbone_of(model), backbone_of(model).tokens
    block, class_token = backbone.blocks[0], int(tokens.class_token)
    return (
        getattr(model, "pooling", "cls") in (("cls", "all_mean") if class_token else ("mean",))
        and getattr(model, "pool_norm", None) is None
        and backbone.norm is not None
        and not backbone.gated
        and block.scale1 is None
        and block.attention.use_bias == block.attention.project_bias
        and tokens.before == tokens.positions_before == class_token
    )


FAMILIES = (
    Family(
        name="KerasHub GPT-2",
        module="sequence.gpt",
        rules=(
            Rule("layers/reversible_embedding/vars/0", "embedding/table"),
            Rule("layers/position_embedding/vars/0", "positions/table"),
            *norm(f"{GPT2}/_self_attention_layer_norm", f"{GPT2_OURS}/norm1"),
            *attention(f"{GPT2}/_self_attention_layer", f"{GPT2_OURS}/attention"),
            *norm(f"{GPT2}/_feedforward_layer_norm", f"{GPT2_OURS}/norm2"),
            *dense(f"{GPT2}/_feedforward_intermediate_dense", f"{GPT2_OURS}/mlp/dense1"),
            *dense(f"{GPT2}/_feedforward_output_dense", f"{GPT2_OURS}/mlp/dense2"),
            *norm("layers/layer_normalization", "norm"),
        ),
        ignored=(OPTIMIZER,),
        configs={"GPT2Backbone": of_gpt2},
        accepts=lambda model: model.head is None and gpt2.accepts(model),
        needs="learned positions, layer norms, perceptrons of two layers, all biases, and scores "
        "made with the token embeddings",
    ),
    Family(
        name="KerasHub ViT",
        module="vision_transformer.vit",
        rules=vit,
        ignored=(OPTIMIZER,),
        configs={"ViTBackbone": of_vit},
        accepts=_is_vit,
        needs="one token before the patches at most, positions of all tokens, layer norm before "
        "the pooling, and neither layer scale nor gates",
    ),
)
