"""How good is a small model on tasks of one's own, and are its scores what other libraries say they are?

    python benchmarks/own_tasks.py --write=DIR      # files of five kinds of task
    python benchmarks/own_tasks.py --score=RUNS     # a JSON line for every fine-tuned run below RUNS

    reviews.*.csv       classes: every eighth phrase of SST-2's training file, a seventh as many of the others
                        for development, the official development sentences as the test
    answers.*.tsv       pairs: QNLI's development file, cut after 3,463 and 4,463 rows
    similarity.*.tsv    numbers: STS-B's training file, to hold every tenth row out of, and its development
                        file as the test
    entities.*.txt      tagged words: sentences of Wikipedia with names, which a few rules find (see `tag`)
    mentions.*.jsonl    any number of labels: the kinds of names that each of those sentences has

`--score` computes every score of `result.json` again from `predictions/SPLIT.jsonl` with scikit-learn, scipy
or seqeval, and fails where one differs by more than rounding. `--write` reads GLUE and the text from the
folder that EELBERT_DATA names.
"""

import argparse
import csv
import itertools
import json
import lzma
import os
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TOLERANCE = 1e-6
"""The package computes correlations from float32 predictions, the libraries from their decimals."""
SENTENCES = {"train": 6000, "dev": 1000, "test": 1000}
GIVEN_NAMES = """
Albert Alexander Andrew Anne Anthony Arthur Benjamin Charles Daniel David Edward Elizabeth Francis Frank
Frederick George Henry Hugh James Jane John Joseph Louis Margaret Maria Mark Martin Mary Michael Paul Peter
Philip Richard Robert Samuel Stephen Thomas Victoria Walter William
"""
BODIES = """
Academy Army Association Bank Church Club College Committee Company Corporation Council Court Institute League
Museum Navy Orchestra Parliament Party School Senate Society Union University
"""
MONTHS = """
January February March April May June July August September October November December
"""
CONTINENTS = ("Africa", "America", "Asia", "Europe")


def cities() -> frozenset[tuple[str, ...]]:
    """Return the cities that the time-zone database names, as words."""
    names = (name.split("/") for name in zoneinfo.available_timezones())
    return frozenset(tuple(name[1].split("_")) for name in names if len(name) == 2 and name[0] in CONTINENTS)


def tag(words: Sequence[str], places: frozenset[tuple[str, ...]]) -> list[str]:
    """Return an IOB2 tag a word, by the first rule that fits, from left to right.

    LOC: a city of `places`. DATE: a month with the numbers beside it, or a year from 1100 to 2029. Of two and
    more capitalized words in a row ORG: the last is a kind of body; PER: the first is a given name.
    """
    tags, start = ["O"] * len(words), 0
    while start < len(words):
        kind, end = _name_at(words, start, places)
        if kind:
            tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
        start = end
    return tags


def _name_at(words: Sequence[str], start: int, places: frozenset[tuple[str, ...]]) -> tuple[str, int]:
    """Return the kind of the name that starts there, "" for none, and where to go on."""
    end = start
    while end < len(words) and (words[end] in MONTHS.split() or re.fullmatch(r"\d{1,2}", words[end])):
        end += 1
    if not set(MONTHS.split()).isdisjoint(words[start:end]):
        return "DATE", end + bool(re.fullmatch(r"\d{4}", words[end] if end < len(words) else ""))
    if re.fullmatch(r"1[1-9]\d\d|20[0-2]\d", words[start]):
        return "DATE", start + 1
    for length in (3, 2, 1):
        if tuple(words[start : start + length]) in places:
            return "LOC", start + length
    end = start
    while end < len(words) and (words[end][0].isupper() and words[end].isalpha()):
        end += 1
    if end - start > 1 and words[end - 1] in BODIES.split():
        return "ORG", end
    if end - start > 1 and words[start] in GIVEN_NAMES.split():
        return "PER", end
    return "", start + 1


def sentences(corpus: Path) -> Iterator[list[str]]:
    """Yield the words of sentences of 5 to 50 words in the order of the text."""
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        for line in lines:
            for sentence in re.split(r"(?<=[a-z)]\.) (?=[A-Z])", line.strip()):
                words = re.findall(r"\w+|[^\w\s]", sentence)
                if 5 <= len(words) <= 50 and words[-1] == ".":
                    yield words


def write_words(folder: Path, corpus: Path) -> None:
    """Write tagged sentences, and the same as texts with the kinds of their names."""
    places = cities()
    found = ((words, tag(words, places)) for words in sentences(corpus))
    with_names = ((words, tags) for words, tags in found if set(tags) != {"O"})
    for split, number in SENTENCES.items():
        tagged = list(itertools.islice(with_names, number))
        columns = ("".join(f"{word} {name}\n" for word, name in zip(*pair, strict=True)) for pair in tagged)
        (folder / f"entities.{split}.txt").write_text("\n".join(columns), encoding="utf-8")
        with (folder / f"mentions.{split}.jsonl").open("w", encoding="utf-8") as file:
            for words, tags in tagged:
                kinds = sorted({name[2:] for name in tags if name != "O"})
                print(json.dumps({"sentence": " ".join(words), "label": kinds}), file=file)


def rows_of(file: Path) -> list[list[str]]:
    """Return the rows of a file of GLUE, its header first."""
    return [line.split("\t") for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def write_texts(folder: Path, glue: Path) -> None:
    """Write the tables of reviews, answers and similarity."""
    train, dev = (rows_of(glue / "SST-2" / f"{split}.tsv")[1:] for split in ("train", "dev"))
    for split, rows in {"train": train[::8], "dev": train[4::56], "test": dev}.items():
        with (folder / f"reviews.{split}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["sentence", "label"])
            table.writerows([text.strip(), ("bad", "good")[int(label)]] for text, label in rows)
    header, *rows = rows_of(glue / "QNLI" / "dev.tsv")
    for split, part in {"train": rows[:3463], "dev": rows[3463:4463], "test": rows[4463:]}.items():
        write_tsv(folder / f"answers.{split}.tsv", [header, *part])
    for split, name in {"train": "train", "test": "dev"}.items():
        write_tsv(folder / f"similarity.{split}.tsv", rows_of(glue / "STS-B" / f"{name}.tsv"))


def write_tsv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows as they are."""
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def again(metric: str, truth: Sequence[Any], predictions: Sequence[Any]) -> float:
    """Return a score of labels and predictions as `predictions/SPLIT.jsonl` has them, by another library."""
    import scipy.stats
    import seqeval.metrics
    from sklearn import metrics
    from sklearn.preprocessing import MultiLabelBinarizer

    if metric in ("pearson", "spearman"):
        correlation = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}[metric]
        return float(correlation(truth, predictions).statistic)
    if metric == "entity_f1":
        return float(seqeval.metrics.f1_score(list(truth), list(predictions)))
    if isinstance(truth[0], list) and metric == "accuracy":
        return float(seqeval.metrics.accuracy_score(list(truth), list(predictions)))
    if isinstance(truth[0], list):
        sets = MultiLabelBinarizer().fit([*truth, *predictions])
        truth, predictions = sets.transform(truth), sets.transform(predictions)
    if metric in ("accuracy", "exact_match"):
        return float(metrics.accuracy_score(truth, predictions))
    if metric == "f1":
        return float(metrics.f1_score(truth, predictions, pos_label=max(truth)))
    return float(metrics.f1_score(truth, predictions, average=metric.removesuffix("_f1"), zero_division=0.0))


def score(run: Path) -> dict[str, Any]:
    """Return the scores of a run by its predictions; where its record has others, end the program."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"run": str(run), "task": result["task"], "model": result["model"]["name"]}
    reported: Mapping[str, Mapping[str, float]] = {
        result["split"]: result["metrics"],
        "test": result["test_metrics"],
    }
    for split, metrics in reported.items():
        if not metrics:
            continue
        lines = (run / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        answers = [json.loads(line) for line in lines]
        sides = [[answer[side] for answer in answers] for side in ("label", "prediction")]
        found[split] = {name: again(name, *sides) for name in metrics}
        for name, value in metrics.items():
            if not abs(found[split][name] - value) <= TOLERANCE:
                raise SystemExit(
                    f"error: {run}, {split}: {name} is {value} in result.json, and its predictions give "
                    f"{found[split][name]}"
                )
    return found


def main() -> None:
    """Write the files, or score the runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="folder to write the tasks into")
    parser.add_argument("--score", type=Path, help="folder of fine-tuned runs")
    options = parser.parse_args()
    if (options.write is None) == (options.score is None):
        parser.error("give --write=DIR or --score=RUNS")
    if options.write is not None:
        if "EELBERT_DATA" not in os.environ:
            raise SystemExit("error: set EELBERT_DATA to a folder with glue/ and corpus/")
        data = Path(os.environ["EELBERT_DATA"])
        options.write.mkdir(parents=True, exist_ok=True)
        write_texts(options.write, data / "glue")
        write_words(options.write, data / "corpus" / "enwiki-01.txt.xz")
        return
    runs = sorted(file.parent.parent for file in options.score.rglob("predictions/dev.jsonl"))
    if not runs:
        raise SystemExit(f"error: no run below {options.score} has predictions/dev.jsonl; fine-tune first")
    for run in runs:
        print(json.dumps(score(run)), flush=True)


if __name__ == "__main__":
    main()
