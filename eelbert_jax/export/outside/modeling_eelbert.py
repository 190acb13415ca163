"""BERTs without a table of token embeddings, for transformers: the hash makes it at the first forward pass.

A type of its own: what loads it as a "bert" would draw a random table. The vocabulary is a buffer of the
weights, so that a model that is saved again still has it.
"""

import torch
from torch import nn
from transformers import BertConfig
from transformers.models.bert import modeling_bert as bert

from .hash_reference import code_points, reference_embedding, reference_signatures
from .hash_spec import HashSpec, random_hash_spec, random_signatures


class EelbertConfig(BertConfig):
    """Describe a BERT and, under "eelbert_jax", its hash; `vocabulary_bytes` are its vocab.txt's."""

    model_type = "eelbert"


class HashedEmbedding(nn.Module):
    """Look tokens up in a table that is computed once, and kept in no file."""

    def __init__(self, config):
        super().__init__()
        self.config, self.table = config, None
        self.register_buffer("vocabulary", torch.zeros(config.vocabulary_bytes, dtype=torch.uint8))
        self.width = config.eelbert_jax.get("hash_width") or config.hidden_size
        if self.width != config.hidden_size:
            self.projection = nn.Parameter(torch.zeros(self.width, config.hidden_size))

    def forward(self, ids):
        """Embed ids [B, L] as float32 [B, L, D]."""
        if self.table is None or self.table.device != ids.device:
            self.table = self._computed().to(ids.device)
        return nn.functional.embedding(ids, self.table)

    def _computed(self):
        tokens = bytes(self.vocabulary.tolist()).decode("utf-8", "surrogatepass").split("\n")[:-1]
        extras = self.config.eelbert_jax
        spec = HashSpec.from_dict(extras["hash"])
        if extras["embedding"] == "random_hash":
            grams, spec = random_signatures(spec, len(tokens)), random_hash_spec(spec)
        else:
            grams = reference_signatures(spec, *code_points(tokens))
        vectors = torch.from_numpy(reference_embedding(spec, *grams, self.width))
        if self.width == self.config.hidden_size:
            return vectors
        return vectors @ self.projection.detach().float().cpu()


class EelbertEmbeddings(bert.BertEmbeddings):
    """Add position and segment to hashed vectors."""

    def __init__(self, config):
        super().__init__(config)
        self.word_embeddings = HashedEmbedding(config)

    def forward(self, input_ids=None, inputs_embeds=None, **others):
        """Embed tokens in the type of the weights."""
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids).to(self.LayerNorm.weight.dtype)
        return super().forward(inputs_embeds=inputs_embeds, **others)


class EelbertModel(bert.BertModel):
    """Encode."""

    config_class = EelbertConfig

    def __init__(self, config, add_pooling_layer=True):
        super().__init__(config, add_pooling_layer)
        self.embeddings = EelbertEmbeddings(config)


def _with_head(head):
    class Eelbert(head):
        config_class = EelbertConfig

        def __init__(self, config):
            super().__init__(config)
            self.bert.embeddings = EelbertEmbeddings(config)

    Eelbert.__name__ = Eelbert.__qualname__ = head.__name__.replace("Bert", "Eelbert")
    return Eelbert


EelbertForMaskedLM = _with_head(bert.BertForMaskedLM)
EelbertForSequenceClassification = _with_head(bert.BertForSequenceClassification)
EelbertForTokenClassification = _with_head(bert.BertForTokenClassification)
