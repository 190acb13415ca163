"""Statistics of a hash function: collisions, likeness and neighbours, against vectors and brute force."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.hashing.reference import hash_table
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.hashing.statistics import collision_groups, inflected_pairs, likeness, nearest_neighbours

ROOT = Path(__file__).resolve().parents[2]


def test_repetitions_collide_and_the_whole_token_part_parts_them():
    tokens = ["000", "a", "0000", "....", "b", "...", ".....", "00", "0", "abab", "ababab"]
    assert collision_groups(HashSpec(), tokens) == [("....", "...", "....."), ("000", "0000")]
    assert collision_groups(HashSpec(whole_token_width=8), tokens) == []


def test_a_part_without_width_does_not_tell_tokens_apart():
    tokens = ["listen", "silent", "tinsel", "enlist", "list"]
    assert collision_groups(HashSpec(split=(128, 0, 0)), tokens) == [("listen", "silent", "tinsel", "enlist")]
    assert collision_groups(HashSpec(split=(127, 1, 0)), tokens) == []


def test_marks_collide_where_they_are_stripped():
    assert collision_groups(HashSpec(continuation="strip"), ["ing", "##ing", "##"]) == [("ing", "##ing")]
    assert collision_groups(HashSpec(), ["ing", "##ing", "##"]) == []


@settings(max_examples=40)
@given(tokens=st.lists(st.text("ab", max_size=7), unique=True), max_gram=st.integers(1, 3))
def test_tokens_collide_exactly_where_their_vectors_do(tokens, max_gram):
    spec = HashSpec(max_gram=max_gram)
    group_of = {token: group for group in collision_groups(spec, tokens) for token in group}
    table = hash_table(spec, tokens, 64)
    for i, first in enumerate(tokens):
        for j, second in enumerate(tokens):
            same = abs(table[i] - table[j]).max() < 1e-5
            assert same == (i == j or (first in group_of and second in group_of[first])), (first, second)


def test_no_token_of_the_published_vocabulary_collides_by_default(vocabulary_file):
    tokens = vocabulary_file.read_text("utf-8").removesuffix("\n").split("\n")
    assert collision_groups(HashSpec(), tokens) == []
    with_bigrams = HashSpec(max_gram=2)
    groups = collision_groups(with_bigrams, tokens)
    assert {frozenset(group) for group in groups} >= {frozenset(["00", "000"]), frozenset(["ii", "iii"])}
    for spec, lost in ((HashSpec(), 0), (with_bigrams, sum(len(group) - 1 for group in groups))):
        # Only at some width: in few entries vectors may agree by accident of the seeds.
        vectors = hash_table(spec, tokens, 128).round(5) + np.float32(0)
        assert len({vector.tobytes() for vector in vectors}) == len(tokens) - lost


def test_pairs_are_found_by_rule():
    tokens = [
        "walk",
        "walks",
        "walking",
        "run",
        "running",
        "corn",
        "corner",
        "be",
        "bed",
        "##ing",
        "19",
        "19s",
    ]
    assert inflected_pairs(tokens) == [("walk", "walks"), ("walk", "walking"), ("corn", "corner")]


def test_inflections_are_alike_and_random_pairs_are_not(vocabulary_file):
    tokens = vocabulary_file.read_text("utf-8").removesuffix("\n").split("\n")
    found = likeness(HashSpec(), tokens, 128)
    assert found.num_pairs == len(inflected_pairs(tokens)) > 1000
    assert found.inflected > 0.7
    assert abs(found.random) < 0.1
    assert likeness(HashSpec(), tokens, 128) == found
    # A hash of whole tokens knows no morphology: the measure must see that.
    spelling_blind = likeness(HashSpec(max_gram=1, split=(0,), whole_token_width=128), tokens, 128)
    assert abs(spelling_blind.inflected) < 0.01


def test_likeness_needs_two_pairs():
    found = likeness(HashSpec(), ["walk", "walks"], 128)
    assert found.num_pairs == 1
    assert math.isnan(found.inflected)


def test_nearest_neighbours_are_those_of_all_cosines():
    tokens = ["walk", "walks", "talk", "walked", "table", "running", "a"]
    found = nearest_neighbours(["walking", "walk"], HashSpec(), tokens, 128, count=3)
    for word, neighbours in found.items():
        vector, table = hash_table(HashSpec(), [word], 128)[0], hash_table(HashSpec(), tokens, 128)
        cosines = {
            token: float(row @ vector / np.linalg.norm(row) / np.linalg.norm(vector))
            for token, row in zip(tokens, table, strict=True)
            if token != word
        }
        expected = sorted(cosines, key=cosines.__getitem__, reverse=True)[:3]
        assert [token for token, _ in neighbours] == expected
        assert [cosine for _, cosine in neighbours] == pytest.approx(
            [cosines[token] for token in expected], abs=1e-6
        )
    assert found["walk"][0][0] in ("walks", "walked")
    assert len(nearest_neighbours(["walk"], HashSpec(), tokens, 128, count=99)["walk"]) == 6


def test_a_zero_vector_is_near_nothing():
    assert nearest_neighbours([""], HashSpec(), ["a", "b"], 128) == {"": [("a", 0.0), ("b", 0.0)]}


def test_the_benchmark_prints_its_lines(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "000", "0000", "walk", "walks", "talk", "talked"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    command = [sys.executable, "benchmarks/hash_statistics.py", "--quick", "--json", "--vocabulary"]
    run = subprocess.run(
        [*command, tmp_path / "vocab.txt"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert all({"benchmark", "case", "ours", "baseline", "unit", "ratio"} <= set(line) for line in lines)
    assert [line["ours"] for line in lines if "colliding" in line["case"]] == [2, 2]
    missing = subprocess.run(
        [*command, tmp_path / "no"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert missing.returncode != 0
    assert b"Cannot read the vocabulary" in missing.stderr
