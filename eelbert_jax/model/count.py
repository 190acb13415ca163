"""How many parameters a model has, by the conventions that papers count with: a formula, without JAX."""

from eelbert_jax.model.config import BertConfig

CONVENTIONS = {
    "MLM": "no pooler; the decoder matrix counts only where it is tied to the table, as EELBERT counts.",
    "MLM+decoder": "the decoder matrix always counts, as it does in a pre-training checkpoint.",
    "2-class": "with classifier, and pooler if it has one, without MLM head: what a fine-tuned model ships.",
    "tagging": "encoder and a classifier for every word, without pooler.",
}
"""What a count includes, by the convention's name. Source: EELBERT, section 4 ("MLM")."""


def count_parameters(config: BertConfig) -> dict[str, int]:
    """Return the number of parameters by convention; classifiers have `config.num_labels` outputs."""
    vocab_size, width, feed_forward = config.vocab_size, config.hidden_size, config.intermediate_size
    layer_norm, square, narrow = 2 * width, width * width + width, config.embedding_width
    up, down = width * feed_forward + feed_forward, feed_forward * width + width
    # Relative: five matrices, three biases of the query, two segments; nothing but tokens is embedded.
    attention = 5 * width * width + 5 * width if config.is_relative else 4 * square
    layer = attention + layer_norm + up + down + layer_norm
    beside = config.max_position_embeddings + config.type_vocab_size + 2  # with a LayerNorm
    rows = (0 if config.is_relative else beside) + (vocab_size if config.has_trained_table else 0)
    encoder = rows * narrow + config.num_groups * layer
    encoder += 0 if narrow == width else (narrow + 1) * width
    encoder += 0 if config.hash_width is None else config.hash_width * narrow
    if config.adapter_size is not None:
        adapter = (width + 1) * config.adapter_size + (config.adapter_size + 1) * width + layer_norm
        encoder += 2 * config.num_hidden_layers * adapter
    masked_lm = encoder + square + layer_norm + vocab_size
    classifier = (width + 1) * config.num_labels
    counts = (
        masked_lm,
        masked_lm + (0 if config.ties_decoder else vocab_size * width),
        encoder + (square if config.pooling == "pooler" else 0) + classifier,
        encoder + classifier,
    )
    return dict(zip(CONVENTIONS, counts, strict=True))
