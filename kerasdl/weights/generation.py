"""How texts are written, from the `generation_config.json` of transformers.

Source: https://huggingface.co/docs/transformers/main_classes/text_generation, whose defaults hold
        for options that a file leaves out.
"""

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable
from kerasdl.weights.configs import Config

FILE = "generation_config.json"
START, END, FORCED = "decoder_start_token_id", "eos_token_id", "forced_eos_token_id"
EARLY_STOPPING = {False: "likely", None: "likely", True: "full", "never": "never"}
# Options that change what is written and that no search here has: what they are without effect,
# the default first.
OFF = {
    "do_sample": (False, None),
    "num_beam_groups": (1, None),
    "diversity_penalty": (0.0, 0, None),
    "repetition_penalty": (1.0, 1, None),
    "encoder_repetition_penalty": (1.0, 1, None),
    "no_repeat_ngram_size": (0, None),
    "encoder_no_repeat_ngram_size": (0, None),
    "min_length": (0, 1, None),
    "min_new_tokens": (None, 0),
    "guidance_scale": (None, 1, 1.0),
    "penalty_alpha": (None, 0, 0.0),
    **dict.fromkeys(
        (
            "forced_bos_token_id",
            "forced_decoder_ids",
            "begin_suppress_tokens",
            "sequence_bias",
            "exponential_decay_length_penalty",
            "force_words_ids",
            "constraints",
            "stop_strings",
            "watermarking_config",
        ),
        (None,),
    ),
}


def of_place(place, config) -> Config:
    """What a place says of writing: its `generation_config.json`, or else its `config.json`.

    Args:
        place: A `kerasdl.weights.places.Place`.
        config: The `Config` of its `config.json`, which has the special ids that the other lacks.
    """
    found = place.read_json(FILE)
    if found is None:
        return config
    ids = {key: value for key, value in config.values.items() if key.endswith("_token_id")}
    ids = {key: value for key, value in ids.items() if not key.startswith("forced")}
    shape = {k: v for k, v in config.values.items() if k == "is_encoder_decoder"}
    return Config(f"{config.name}/{FILE}", {**shape, **ids, **found})


def ids_of(config, key) -> tuple:
    """The ids that an option holds: one, several, or none."""
    value = config.get(key, (), (int, list))
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def never_written(config) -> tuple:
    """Ids that are never written, but for the ends.

    Raises:
        UserError: Words of several tokens.
    """
    words = config.get("bad_words_ids", [], list)
    if not all(isinstance(word, list) and len(word) == 1 for word in words):
        raise UserError(
            f"{config.name}: bad_words_ids has words of several tokens; here each can only be one"
        )
    ids = [word[0] for word in words] + config.get("suppress_tokens", [], list)
    if config.values.get("is_encoder_decoder"):
        ids += [i for i in ids_of(config, "pad_token_id") if i >= 0]
    ends = ids_of(config, "eos_token_id")
    return tuple(dict.fromkeys(i for i in ids if i not in ends))


def translation_settings(config, vocab_size: int) -> dict:
    """Settings of the task translate that search as transformers does.

    Args:
        config: Of `of_place`.
        vocab_size: Tokens of the target.

    Raises:
        UserError: An option that changes what is written, and that no search here has; no token
            that begins a target, or none that ends it.
    """
    config.only(**OFF, early_stopping=tuple(EARLY_STOPPING))
    start, ends, forced = (ids_of(config, key) for key in (START, END, FORCED))
    for key, ids in ((START, start), (END, ends)):
        if not ids:
            raise UserError(f"{config.name}: no {key} in its config")
        if wrong := [i for i in ids if type(i) is not int or not 0 <= i < vocab_size]:
            raise UserError(
                f"{config.name}: {key} is {printable(repr(wrong[0]))[:80]}; "
                f"the target has {vocab_size} tokens"
            )
    if forced not in ((), ends[:1]):
        raise UserError(
            f"{config.name}: {FORCED} is {printable(repr(forced))[:80]} in its config; "
            f"here it can only be {END}, {ends[0]}"
        )
    alpha = float(config.get("length_penalty", 1.0, float))
    if not alpha >= 0:
        raise UserError(f"{config.name}: length_penalty is {alpha}; here it must be from 0 on")
    settings = {
        "beam_width": config.get("num_beams", 1),
        "length_penalty": alpha,
        "length_normalization": "power",
        "early_stopping": EARLY_STOPPING[config.values.get("early_stopping", False)],
        "renormalize": config.get("renormalize_logits", False),
        "forced_end": bool(forced),
    }
    longest = config.get("max_new_tokens", None, int)
    if longest is None and (whole := config.get("max_length", None, int)) is not None:
        longest = whole - 1  # less the token that begins it
    return settings | ({} if longest is None else {"max_new_tokens": longest})
