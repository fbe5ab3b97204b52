# Measures the results of docs/ again: make -f benchmarks/results.mk DATA=FOLDER [TARGET ...]
#
# DATA has the folders paired, mismatched (half of the faces show another emotion), any (faces of any emotion) and full
# (no face is missing), each with a manifest.csv, and fer (train, dev and test with a folder of faces per emotion); see
# docs/results.md. Each step is skipped if its result exists, and a run that was interrupted is continued, so the same
# command goes on. What the commands print is in saved_models/results/.
PROGRAM := .venv/bin/python main.py
OUT := saved_models/results
MINILM := $(PROGRAM) train --preset minilm
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.SECONDARY:
.PHONY: all paired control context faces ablation ensembles tuning

all: paired control context faces ensembles tuning ablation

# A data set, a run (with its options), and a report of a command.
tfrecords/fer/dataset_info.json:
	$(PROGRAM) prepare faces $(DATA)/fer --out tfrecords/fer --face-size 48
tfrecords/demo2000/dataset_info.json:
	$(PROGRAM) prepare demo --utterances 2000 --out tfrecords/demo2000
tfrecords/%/dataset_info.json:
	$(PROGRAM) prepare table $(DATA)/$*/manifest.csv --out tfrecords/$* --face-size 48
saved_models/%/metrics.json:
	if [ -e saved_models/$*/run.json ]; then $(PROGRAM) train --resume --name $*; else $(MINILM) $(RUN) --name $*; fi
$(OUT)/%.txt:
	mkdir -p $(OUT) && $(COMMAND) | tee $@.part && mv $@.part $@

run = $(foreach name,$1,saved_models/$(name)/metrics.json)
data = $(foreach name,$1,tfrecords/$(name)/dataset_info.json)
FACE := --towers face --train.epochs 12 --train.patience 12
JOINED = --text.init saved_models/text --face.init saved_models/$1 --train.epochs 2

# docs/results.md: the paired data, and the control
$(call run,text): RUN := --data tfrecords/paired --towers text
$(call run,face): RUN := --data tfrecords/paired $(FACE)
$(call run,both): RUN := --data tfrecords/paired $(call JOINED,face)
$(call run,text-on): RUN := --data tfrecords/paired --towers text --text.init saved_models/text --train.epochs 2
$(call run,text face): $(call data,paired)
$(call run,both text-on): $(call run,text face)
$(OUT)/paired.txt: COMMAND = $(PROGRAM) compare saved_models/both saved_models/text saved_models/face saved_models/text-on
$(OUT)/paired.txt: $(call run,both text face text-on)
paired: $(OUT)/paired.txt

SEEDS := 0 1 2
seed = $(lastword $(subst seed, ,$*))
$(foreach s,$(SEEDS),$(call run,face-any-seed$s)): RUN = --data tfrecords/any $(FACE) --train.seed $(seed)
$(foreach s,$(SEEDS),$(call run,text-any-seed$s)): RUN = --data tfrecords/any --towers text --train.seed $(seed)
$(foreach s,$(SEEDS),$(call run,any-seed$s)): RUN = --data tfrecords/any --text.init saved_models/text-$* \
	--face.init saved_models/face-$* --train.epochs 2 --train.seed $(seed)
$(foreach s,$(SEEDS),$(call run,face-any-seed$s text-any-seed$s)): $(call data,any)
$(foreach s,$(SEEDS),$(eval $(call run,any-seed$s): $(call run,face-any-seed$s text-any-seed$s)))
$(foreach s,$(SEEDS),$(call run,on-any-seed$s)): RUN = --data tfrecords/any --towers text \
	--text.init saved_models/text-any-seed$(seed) --train.epochs 2 --train.seed $(seed)
$(foreach s,$(SEEDS),$(eval $(call run,on-any-seed$s): $(call run,text-any-seed$s)))
$(OUT)/control.txt: COMMAND = $(PROGRAM) compare saved_models/any --with saved_models/text-any
$(OUT)/control-on.txt: COMMAND = $(PROGRAM) compare saved_models/any --with saved_models/on-any
$(OUT)/control.txt $(OUT)/control-on.txt: $(foreach s,$(SEEDS),$(call run,any-seed$s))
$(OUT)/control-on.txt: $(foreach s,$(SEEDS),$(call run,on-any-seed$s))
control: $(OUT)/control.txt $(OUT)/control-on.txt

# docs/results.md: dialogue context
BERT := --data tfrecords/paired --towers text --text.branches bert
$(foreach s,$(SEEDS),$(call run,bert-seed$s)): RUN = $(BERT) --train.seed $(seed)
$(foreach s,$(SEEDS),$(call run,context-seed$s)): RUN = $(BERT) --text.context 3 --train.seed $(seed)
$(foreach s,$(SEEDS),$(call run,bert-seed$s context-seed$s)): $(call data,paired)
$(OUT)/context.txt: COMMAND = $(PROGRAM) compare saved_models/context --with saved_models/bert
$(OUT)/context.txt: $(foreach s,$(SEEDS),$(call run,bert-seed$s context-seed$s))
context: $(OUT)/context.txt

# docs/results.md: face towers, chosen on dev of the faces of the paired splits
TOWER := --data tfrecords/fer --towers face --train.batch-size 64 --train.learning-rate 2e-3 --train.ema 0.999 --face.branches cnn \
	--face.dropout 0.1 --fusion.dropout 0.2 --train.schedule cosine --train.label-smoothing 0.05
$(call run,tower-small): RUN := $(TOWER) --train.epochs 12 --train.patience 12
$(call run,tower-wide): RUN := $(TOWER) --face.cnn-filters 48 96 192 384 --train.epochs 12 --train.patience 12
$(call run,tower-small tower-wide): $(call data,fer)
FROZEN := --data tfrecords/paired --text.branches bert --text.no-train-encoder --face.branches cnn
# the narrow tower is the better one on dev
$(call run,with-tower): RUN := $(FROZEN) --face.init saved_models/tower-small
$(call run,without-tower): RUN := $(FROZEN)
$(call run,with-tower): $(call run,tower-small)
$(call run,with-tower without-tower): $(call data,paired)
$(OUT)/towers.txt: COMMAND = $(PROGRAM) compare saved_models/tower-wide saved_models/tower-small
$(OUT)/towers.txt: $(call run,tower-small tower-wide)
$(OUT)/joint.txt: COMMAND = $(PROGRAM) compare saved_models/with-tower saved_models/without-tower
$(OUT)/joint.txt: $(call run,with-tower without-tower)
faces: $(OUT)/towers.txt $(OUT)/joint.txt

# docs/ensembles.md
$(call run,both-bert): RUN := --data tfrecords/paired --text.branches bert --text.init saved_models/bert-seed0 \
	--face.init saved_models/face --train.epochs 2
$(call run,both-bert): $(call run,bert-seed0 face)
$(OUT)/ensemble-two.txt: COMMAND = $(PROGRAM) ensemble saved_models/bert-seed0 saved_models/face --name two --overwrite
$(OUT)/ensemble-three.txt: COMMAND = $(PROGRAM) ensemble saved_models/both-bert saved_models/bert-seed0 saved_models/face \
	--name three --overwrite
$(OUT)/ensemble-two.txt $(OUT)/ensemble-three.txt: $(call run,both-bert bert-seed0 face)
ensembles: $(OUT)/ensemble-two.txt $(OUT)/ensemble-three.txt

# docs/tuning.md
SEARCHED := --preset minilm --data tfrecords/paired --towers text --text.branches bert --text.no-train-encoder --train.epochs 6
$(call run,first): RUN := --data tfrecords/paired --towers text --text.branches bert --text.no-train-encoder --train.epochs 6
$(call run,first): $(call data,paired)
tuning/results/trials/best.json tuning/results/folds/best.json: $(call data,paired)
tuning/results/trials/best.json:
	$(PROGRAM) tune $(SEARCHED) --trials 18 --tuner.epochs 6 --name trials
tuning/results/folds/best.json:
	$(PROGRAM) tune $(SEARCHED) --trials 6 --folds 3 --tuner.epochs 6 --name folds
$(call run,best-trials): RUN := --config tuning/results/trials/best.json
$(call run,best-folds): RUN := --config tuning/results/folds/best.json
$(call run,best-trials): tuning/results/trials/best.json
$(call run,best-folds): tuning/results/folds/best.json
$(call run,best-trials best-folds): MINILM := $(PROGRAM) train
$(OUT)/tuning.txt: COMMAND = $(PROGRAM) compare saved_models/best-trials saved_models/first saved_models/best-folds
$(OUT)/tuning.txt: $(call run,first best-trials best-folds)
$(OUT)/folds.txt: COMMAND = $(PROGRAM) compare saved_models/best-folds saved_models/first
$(OUT)/folds.txt: $(call run,first best-folds)
$(OUT)/objective.txt: COMMAND = .venv/bin/python -m benchmarks.tuning_objective tfrecords/demo2000 --out $(OUT)/objective
$(OUT)/objective.txt: $(call data,demo2000)
tuning: $(OUT)/tuning.txt $(OUT)/folds.txt $(OUT)/objective.txt

# docs/ablation.md, and cached features
ABLATION := .venv/bin/python -m benchmarks.ablation
$(call run,face-full): RUN := --data tfrecords/full $(FACE)
$(call run,text-full): RUN := --data tfrecords/full --towers text --text.branches bert --train.epochs 2
$(call run,face-full text-full): $(call data,full)
$(OUT)/ablation.txt: COMMAND = $(ABLATION) tfrecords/paired --face-init saved_models/face --mismatched tfrecords/mismatched \
	--out $(OUT)/ablation --only fusion loss pooling "modality dropout" faces
$(OUT)/ablation.txt: $(call run,face) $(call data,mismatched)
$(OUT)/ablation-full.txt: COMMAND = $(ABLATION) tfrecords/full --face-init saved_models/face-full --out $(OUT)/ablation-full \
	--only "modality dropout" "dropout by fusion" --seeds 3
$(OUT)/ablation-full.txt: $(call run,face-full)
$(OUT)/ablation-text.txt: COMMAND = $(ABLATION) tfrecords/full --face-init saved_models/face-full \
	--text-init saved_models/text-full --out $(OUT)/ablation-text --only "modality dropout" "dropout by fusion" --seeds 3
$(OUT)/ablation-text.txt: $(call run,face-full text-full)
$(OUT)/cached.txt: COMMAND = .venv/bin/python -m benchmarks.cached_features tfrecords/paired --face-init saved_models/face --epochs 3
$(OUT)/cached.txt: $(call run,face)
ablation: $(OUT)/ablation.txt $(OUT)/ablation-full.txt $(OUT)/ablation-text.txt $(OUT)/cached.txt
