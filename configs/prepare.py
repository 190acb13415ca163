"""Prepare text for pre-training: rows of token ids in checksummed shards.

    eelbert prepare --config=configs/prepare.py --config.source='DIR/*.txt.xz' \\
        --config.vocabulary=VOCAB.TXT --workdir=DIR

603 MB of English text (133M tokens) in 24 xz files cost 68 seconds of processor time and, with two workers,
380 MiB of memory in all; memory does not grow with the input. Interrupted, the same command continues, and
the result is the same to the byte. `--config.show_rows=3` prints some rows as text at the end.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Return the settings of `eelbert prepare`."""
    config = ml_collections.ConfigDict()

    # Where the text is: a glob in quotes (txt, jsonl or parquet; plain, .gz, .xz or .zst; `**` crosses
    # folders), here or in an object store (gs://BUCKET/DIR/*.txt.gz; docs/prepare.md); the name of a TFDS
    # dataset (lm1b, wiki40b/en, wikipedia/20230601.en, c4/en, ...); or docs, the documentation installed on
    # this machine.
    config.source = "docs"

    # WordPiece vocabulary, one token a line; empty: train one of `train_vocabulary.size` on the source.
    config.vocabulary = ""
    config.train_vocabulary = ml_collections.ConfigDict()
    config.train_vocabulary.size = 8192  # tokens, with the special ones; legal: 300 and more
    config.train_vocabulary.max_mib = 256.0  # text to train on, from the beginning of the source, in MiB
    config.lowercase = True  # lower-case and strip accents; must fit the vocabulary
    # Largest share of [UNK] among the tokens of a given vocabulary, in percent; legal: 0 to 100. One that
    # fits has 0.01 % of English, an uncased one 8 to 12 % where the case is left in, and far more of Chinese.
    config.max_unknown_percent = 5.0

    config.row_length = 128  # L, tokens a row with its [CLS] and [SEP]; legal: 3 and more

    # Documents held out for evaluation, picked by a hash of their text, so that equal ones stay together.
    config.held_out = ml_collections.ConfigDict()
    config.held_out.fraction = 0.005  # share of the documents; legal: [0, 1)
    config.held_out.seed = 0  # picks which; legal: [0, 2**64)

    # The field of a jsonl line, parquet column or TFDS feature with the text; empty: `text`, and of a TFDS
    # dataset without it the only text feature.
    config.text_field = ""
    config.file_format = "auto"  # of files: txt, jsonl, parquet; auto goes by the name
    # A line, row or example that cannot be used (no JSON, no text, not UTF-8): skip, with their number and
    # the place of the first; or refuse.
    config.on_bad_record = "skip"
    config.on_invalid_utf8 = "error"  # error: a bad record; or replace: drop the invalid bytes and count them

    config.tfds = ml_collections.ConfigDict()
    config.tfds.split = "train"  # any split that TFDS understands, such as train[:10%]
    config.tfds.data_dir = ""  # folder of prepared datasets; empty: TFDS's own default
    config.tfds.download = True  # fetch and prepare a dataset that is not there

    config.docs = ml_collections.ConfigDict()
    config.docs.max_mib = 64.0  # limit of the files that documentation is taken from, in MiB

    # Input is divided into units, in MiB on the disk: whole files, small ones grouped, and parts of large txt
    # and jsonl files that are not compressed, or ranges of examples. A unit is what one process prepares at a
    # time, what a kill can cost, and one shard a split; rows do not cross units. legal: 0 < min <= max
    config.unit_mib = ml_collections.ConfigDict()
    config.unit_mib.min = 4.0
    config.unit_mib.max = 64.0

    # What works on the units: local, processes of this machine; beam, a pipeline of Apache Beam, on one
    # machine or many (docs/prepare.md). Does not change the result.
    config.engine = "local"
    config.workers = 0  # processes of the engine local; 0: one a core
    config.beam = ml_collections.ConfigDict()
    # Pipeline options of Beam, as in a shell. By default its direct runner, in this process; called
    # DirectRunner, it would first try to fetch another one from the network.
    config.beam.args = "--runner=FnApiRunner"
    config.show_rows = 0  # print this many rows of each split as text when all is done; also of finished work
    return config
