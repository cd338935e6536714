"""Recurrent networks and Transformers of texts."""

from kerasdl.catalog.entry import Paper

GRU = "https://arxiv.org/abs/1406.1078"
LOOP = {
    "tflite_static_batch": "its loop over time converts at a batch of one alone",
}
KEY_BIAS = {
    "expected_zero_grad": (
        ("cross/key/bias$", "adds the same to all scores of a query: softmax is blind to it"),
    )
}


def _classifier(authors, link, rows):
    return Paper("sequence.rnn_classifier", "classify", authors, link, rows, "digit_rows")


def _language(authors, link, rows):
    return Paper(
        "sequence.char_rnn", "generate_text", authors, link, rows, "python_docs", limits=LOOP
    )


PAPERS = (
    _classifier(
        "Elman 1990", "https://doi.org/10.1207/s15516709cog1402_1", {"rnn_classifier": 21_386}
    ),
    _classifier(
        "Hochreiter and Schmidhuber 1997",
        "https://doi.org/10.1162/neco.1997.9.8.1735",
        {"lstm_classifier": 81_674},
    ),
    _classifier("Cho et al. 2014", GRU, {"gru_classifier": 61_962}),
    _classifier(
        "Schuster and Paliwal 1997",
        "https://doi.org/10.1109/78.650093",
        {"bilstm_classifier": 163_338},
    ),
    _language(
        "Mikolov et al. 2010",
        "https://doi.org/10.21437/Interspeech.2010-343",
        {"char_rnn": 254_592},
    ),
    _language("Graves 2013", "https://arxiv.org/abs/1308.0850", {"char_lstm": 895_104}),
    _language("Cho et al. 2014", GRU, {"char_gru": 683_136}),
    Paper(
        "sequence.gpt",
        "generate_text",
        "Radford et al. 2019",
        "https://cdn.openai.com/better-language-models/language-models.pdf",
        {"gpt2_small": 124_439_808, "char_gpt": 808_064},
        "python_docs",
    ),
    Paper(
        "sequence.llama",
        "generate_text",
        "Touvron et al. 2023",
        "https://arxiv.org/abs/2302.13971",
        {"llama_small": 726_144},
        "python_docs",
    ),
    Paper(
        "sequence.llama",
        "generate_text",
        "Jiang et al. 2024",
        "https://arxiv.org/abs/2401.04088",
        {"mixtral_small": 1_281_152},
        "python_docs",
    ),
    Paper(
        "sequence.bert",
        "masked_tokens",
        "Devlin et al. 2018",
        "https://arxiv.org/abs/1810.04805",
        {"bert_base": 109_514_298, "bert_small": 843_264},
        "python_docs",
    ),
    Paper(
        "sequence.transformer",
        "translate",
        "Vaswani et al. 2017",
        "https://arxiv.org/abs/1706.03762",
        {
            "transformer_base": 63_082_496,
            "transformer_big": 214_245_376,
            "transformer_small": 942_592,
        },
        "dates",
        limits=KEY_BIAS,
    ),
)
