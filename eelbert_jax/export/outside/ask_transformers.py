"""Ask a folder in transformers, which is all this imports: rows and texts in on standard input, JSON out.

python ask_transformers.py FOLDER [trusted] <<< '{"ids": [[...]], "types": [[...]], "texts": [...]}'
"""

import json
import sys

import torch
import transformers

PROJECTION = "word_embeddings.projection"
LOGITS = 100
"""Entries of an output that are printed: a masked LM has one a token of the vocabulary."""


def main(folder, trusted):
    """Print the logits, else the last hidden states, of every row, and the ids of every text."""
    asked, how = json.load(sys.stdin), {"trust_remote_code": True} if trusted else {}
    (name,) = transformers.AutoConfig.from_pretrained(folder, **how).architectures
    _, has_head, head = name.partition("For")
    auto = getattr(transformers, f"AutoModelFor{head}" if has_head else "AutoModel")
    model, loading = auto.from_pretrained(folder, output_loading_info=True, **how)
    # A sentence encoder has no pooler; a wide hash's projection goes along, though its product is the table.
    wrong = [str(entry) for entry in loading["missing_keys"] if not str(entry).startswith("pooler.")]
    wrong += [str(entry) for entry in loading["unexpected_keys"] if not str(entry).endswith(PROJECTION)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **how)
    outputs = []
    with torch.no_grad():
        for ids, types in zip(asked["ids"], asked["types"], strict=True):
            row = model.eval()(torch.tensor([ids]), token_type_ids=torch.tensor([types]))[0][0]
            outputs.append(row[..., :LOGITS].tolist())
    ids = [tokenizer(text, truncation=True)["input_ids"] for text in asked["texts"]]
    print(json.dumps({"outputs": outputs, "ids": ids, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["trusted"])
