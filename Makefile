# make demo      set up .venv and evaluate the shipped policy in MuJoCo
# make robosuite  add robosuite to .venv (docs/tasks/robosuite.md)
# make test      set up .venv and run the tests (make test-all adds the slow ones)
# make results   measure the README's numbers here
# make results-tasks  the tables of the task cards, docs/tasks
# make results-few-calls  docs/few-calls.md
# make results-budgets    docs/budgets.md and docs/picard.md
# make results-video      docs/video.md
# make results-drive      docs/drive.md
# make results-robosuite, times-robosuite, results-pixels, results-push-t  their task cards
# make docs      the pages as HTML, runs/docs/index.html
# make lint      ruff and pyright
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup robosuite demo test test-all results results-tasks results-few-calls results-budgets results-video results-drive \
	results-robosuite times-robosuite results-pixels results-push-t docs lint clean

setup: .venv/ready

# torch and torchvision go into one resolve, pinned together, so that pip cannot pick another build of either.
.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[sim,video,drive,openvino,dev]"
	touch $@

# robosuite 1.5.2 pins mink, which pins numpy below 2; it runs without both.
robosuite: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[robosuite]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps robosuite

demo: setup
	$(BIN)/ontick evaluate --tasks metaworld/pick-place-v3 --plans ddpm-100,ddim-10 --episodes 20 --workers 2 \
		--html runs/demo/report.html --json runs/demo/report.json

test: setup
	$(BIN)/python -m pytest -m "not slow" -n 2

test-all: setup
	$(BIN)/python -m pytest -n 2

# The README's numbers, measured on this machine: it takes long; run nothing beside it.
EVALUATE = $(BIN)/ontick evaluate --tasks metaworld/pick-place-v3 --episodes 200 --workers 2
results: setup
	$(EVALUATE) --plans ddpm-100,ddim-10,dpmpp-10,ddim-2,robomimic-bc \
		--json benchmarks/results/pick_place-cpu.json --html runs/results/report.html
	$(EVALUATE) --plans ddpm-100,ddim-10,ddim-2 --charge measured \
		--json benchmarks/results/pick_place-charged-cpu.json
	$(BIN)/python benchmarks/evaluation_speed.py
	for case in published large; do \
		$(BIN)/ontick bench policy-cpu --cases $$case --json benchmarks/results/policy-cpu-$$case-1-thread.json && \
		$(BIN)/ontick bench policy-cpu --cases $$case --threads 2 \
			--json benchmarks/results/policy-cpu-$$case-2-threads.json || exit 1; \
	done
	$(BIN)/python benchmarks/exact_switches.py
	$(BIN)/ontick evaluate --tasks metaworld/pick-place-v3,metaworld/peg-insert-side-v3 \
		--plans ddpm-100,exact,bf16,int8 --episodes 100 --workers 2 --json benchmarks/results/exact-evaluate-cpu.json

# The task cards' tables: every shipped policy and baseline, 200 episodes a row; it takes long.
SAMPLERS = ddpm-100,ddim-10,ddim-4,ddim-2,dpmpp-10
TASK_ROWS = $(BIN)/ontick evaluate --plans $(SAMPLERS),robomimic-bc --episodes 200 --workers 2
results-tasks: setup
	$(TASK_ROWS) --tasks ontick/Avoid-v0 --json benchmarks/results/task-avoid-cpu.json
	$(TASK_ROWS) --tasks ontick/Avoid-v0 --disturb push --json benchmarks/results/task-avoid-push-cpu.json
	$(BIN)/ontick demos ontick/Avoid-v0 --styled --episodes 1000 --out runs/avoid.hdf5
	$(call train,avoid-rnn,--algorithm bc-rnn --data runs/avoid.hdf5)
	$(TASK_ROWS) --plans robomimic-bc-rnn --tasks ontick/Avoid-v0 --checkpoint runs/avoid-rnn --json benchmarks/results/task-avoid-rnn-cpu.json
	$(TASK_ROWS) --plans robomimic-bc-rnn --tasks ontick/Avoid-v0 --checkpoint runs/avoid-rnn --disturb push --json benchmarks/results/task-avoid-rnn-push-cpu.json
	$(TASK_ROWS) --tasks metaworld/pick-place-v3 --json benchmarks/results/task-pick-place-cpu.json
	$(TASK_ROWS) --tasks metaworld/peg-insert-side-v3 --json benchmarks/results/task-peg-insert-side-cpu.json
	$(TASK_ROWS) --plans $(SAMPLERS) --tasks metaworld/drawer-open-v3 --json benchmarks/results/task-drawer-open-cpu.json

# The tables and pictures of docs/few-calls.md; it takes three hours and more. Run nothing beside the lines that time.
RTI = rti-1,rti-2,rti-3,rti-3-renoise,rti-5,rti-10,rti-10-renoise,rti-20
OTHERS = ddpm-100,ddim-10,ddim-2,draft-3,ddim-3-every-1
FEW = $(OTHERS),$(RTI)
TRAINED = anchored-1,anchored-2,anchored-3,diagonal-1
CHUNKED = ddim-10,ddim-10-every-8,ddim-8-every-8,ddim-16-every-8,ddim-24-every-8
PUSHED = $(CHUNKED),ddim-3-every-1,rti-3,rti-3-renoise,draft-3,draft-3-every-1
PUSHED_TRAINED = diagonal-1,anchored-2-every-1,anchored-2
FEW_ROWS = $(BIN)/ontick evaluate --episodes 200 --tasks
RESULTS = benchmarks/results
CALM = $(foreach task,avoid pick-place peg-insert-side,$(RESULTS)/few-calls-$(task)-cpu.json)
PUSHES = $(foreach task,avoid pick-place,$(RESULTS)/few-calls-$(task)-push-cpu.json)
results-few-calls: setup
	$(FEW_ROWS) ontick/Avoid-v0 --plans $(FEW),$(TRAINED) --json $(RESULTS)/few-calls-avoid-cpu.json
	$(FEW_ROWS) metaworld/pick-place-v3 --plans $(FEW),$(TRAINED) --json $(RESULTS)/few-calls-pick-place-cpu.json
	$(FEW_ROWS) metaworld/peg-insert-side-v3 --plans $(OTHERS),rti-1,rti-2,rti-3,rti-3-renoise,rti-5 \
		--json $(RESULTS)/few-calls-peg-insert-side-cpu.json
	$(BIN)/ontick evaluate --episodes 64 --tasks metaworld/peg-insert-side-v3 --plans rti-10,rti-10-renoise,rti-20 \
		--json $(RESULTS)/few-calls-peg-insert-side-64-cpu.json
	$(FEW_ROWS) ontick/Avoid-v0 --plans anchored-2-argmax,anchored-2-hysteresis,anchored-2-warm \
		--json $(RESULTS)/few-calls-picks-cpu.json
	$(FEW_ROWS) ontick/Avoid-v0 --disturb push --plans $(PUSHED),$(PUSHED_TRAINED) \
		--json $(RESULTS)/few-calls-avoid-push-cpu.json
	$(FEW_ROWS) metaworld/pick-place-v3 --disturb push --plans $(PUSHED),$(PUSHED_TRAINED) \
		--json $(RESULTS)/few-calls-pick-place-push-cpu.json
	for task in ontick-Avoid-v0 metaworld-pick-place-v3 metaworld-peg-insert-side-v3; do \
		$(BIN)/ontick calibrate assets/diffusion-transformer/$$task --plan rti --out $(RESULTS)/rti-entry-$$task.json || exit 1; \
	done
	$(BIN)/python benchmarks/fair_times.py $(CALM)
	$(BIN)/python benchmarks/few_calls.py $(CALM)
	$(BIN)/python benchmarks/few_calls.py $(PUSHES) \
		--picture $(RESULTS)/few-calls-push-cpu.png
	$(BIN)/python benchmarks/rti_entry.py --entries $(RESULTS)/rti-entry-*.json \
		--evaluations $(CALM) $(RESULTS)/few-calls-peg-insert-side-64-cpu.json

# The tables and pictures of docs/budgets.md and docs/picard.md; it takes three hours. Run nothing beside it.
TRACED = ddpm-100,ddim-10,exact,exact-ddim-20,exact-ddim-10,exact-ddim-4,rti-3,draft-3,anchored-2,diagonal-1
results-budgets: setup
	$(BIN)/python benchmarks/delays.py --out $(RESULTS)/delays-cpu
	$(BIN)/python benchmarks/ladder.py --json $(RESULTS)/ladder-cpu.json
	for task in ontick-Avoid-v0 metaworld-pick-place-v3; do \
		$(BIN)/ontick tune assets/diffusion-transformer/$$task --budget cpu-20hz \
			--out $(RESULTS)/tune-$$task-cpu-20hz.yaml || exit 1; \
	done
	$(BIN)/python benchmarks/picard.py
	$(BIN)/ontick evaluate --tasks ontick/Avoid-v0,metaworld/pick-place-v3 --plans $(TRACED) --episodes 1 \
		--charge measured --json runs/traced.json

# The tables and pictures of docs/video.md; two further networks are trained first. It takes two hours.
QUALITY = $(BIN)/python benchmarks/video_quality.py
FLOW = $(BIN)/ontick train --algorithm video --data runs/flow.zarr --set patch=4 --set width=96 --set layers=3 \
	--set steps=1200 --set causal=0
results-video: setup
	$(BIN)/ontick clips arm-and-ball --episodes 60 --frames 100 --seed 1 --out runs/arm-held.zarr
	$(BIN)/ontick clips kolmogorov --episodes 64 --frames 150 --seed 0 --out runs/flow.zarr
	$(BIN)/ontick clips kolmogorov --episodes 16 --frames 100 --seed 1 --out runs/flow-held.zarr
	$(FLOW) --set 'levels={context: 1}' --out runs/flow-windows
	$(FLOW) --set 'levels={rolling: 1}' --out runs/flow-rolling
	$(QUALITY) assets/space-time-transformer/arm-and-ball --clips runs/arm-held.zarr --n 16 --frames 16 --threads 2 \
		--out $(RESULTS)/video-arm-cpu
	for model in windows rolling; do \
		$(QUALITY) runs/flow-$$model --clips runs/flow-held.zarr --n 16 --frames 16 --members 2 --threads 2 \
			--plans $(FLOW_PLANS) --out $(RESULTS)/video-flow-$$model-cpu || exit 1; \
	done
	$(BIN)/python benchmarks/video_peer.py --out $(RESULTS)/video-peer-cpu.json
	$(BIN)/ontick stream --out runs/long.mp4 --frames 10000 --json $(RESULTS)/video-stream-cpu.json
FLOW_PLANS = full,rolling,fifo:view=all:steps=8,fifo:view=all:steps=16,fifo:view=partitions:steps=16,fifo:view=lookahead:steps=8,fifo:view=lookahead:steps=16

# The tables of docs/tasks/robosuite.md, avoid-pixels.md and push-t.md: demonstrations, training and 200 episodes a row.
# Half a day on two cores.
PLAY = $(BIN)/ontick evaluate --episodes 200 --tasks
# $(call train,CHECKPOINT,OPTIONS): nothing where it is there already, so that an interrupted target goes on.
train = { test -d runs/$(1) || $(BIN)/ontick train --threads 1 --out runs/$(1) $(2); }
results-robosuite: robosuite
	$(BIN)/ontick demos robosuite/Lift --episodes 200 --styled --out runs/lift.hdf5
	$(BIN)/ontick demos robosuite/PickPlaceCan --episodes 200 --styled --out runs/can.hdf5
	for task in lift can; do \
		$(call train,$$task-bc,--data runs/$$task.hdf5 --algorithm bc) && \
		$(call train,$$task-rnn,--data runs/$$task.hdf5 --algorithm bc-rnn) && \
		$(call train,$$task-u,--data runs/$$task.hdf5 --algorithm unet --preset unet-small --set steps=2000 --set batch=64) || \
		exit 1; \
	done
	$(call train,lift-t,--data runs/lift.hdf5 --preset lift)
	$(call train,lift-s,--data runs/lift.hdf5 --preset lift-small)
	$(call train,can-t,--data runs/can.hdf5 --preset lift-small --set steps=8000)
	for task in lift can; do \
		$(BIN)/ontick calibrate runs/$$task-t --plan bac-10 --data runs/$$task.hdf5 && \
		$(BIN)/ontick calibrate runs/$$task-t --plan global-10 --data runs/$$task.hdf5 --samples 8 || exit 1; \
	done
	$(PLAY) robosuite/Lift --plans ddim-10 --checkpoint runs/lift-s --json $(RESULTS)/lift-small-cpu.json
	for row in lift:robosuite/Lift can:robosuite/PickPlaceCan; do \
		task=$${row%%:*} id=$${row#*:}; \
		$(PLAY) $$id --plans robomimic-bc --checkpoint runs/$$task-bc --json $(RESULTS)/$$task-bc-cpu.json && \
		$(PLAY) $$id --plans robomimic-bc-rnn --checkpoint runs/$$task-rnn --json $(RESULTS)/$$task-bc-rnn-cpu.json && \
		$(PLAY) $$id --plans ddim-10 --checkpoint runs/$$task-u --json $(RESULTS)/$$task-unet-cpu.json && \
		$(PLAY) $$id --plans exact,ddim-10,bac-10,global-10,rti-3 --checkpoint runs/$$task-t \
			--json $(RESULTS)/$$task-transformer-cpu.json || exit 1; \
	done

# Chunk times of all of them: run nothing beside it.
ROWS = ddpm-100 exact ddim-10 bac-10 global-10 rti-3
TIMES = $(BIN)/python benchmarks/chunk_times.py
times-robosuite: robosuite
	$(TIMES) $(ROWS:%=runs/lift-t=%) runs/lift-s=ddim-10 runs/lift-s=rti-3 runs/lift-u=ddim-10 runs/lift-bc=robomimic-bc \
		runs/lift-rnn=robomimic-bc-rnn --data runs/lift.hdf5 --json $(RESULTS)/lift-times-cpu.json
	$(TIMES) $(ROWS:%=runs/can-t=%) runs/can-u=ddim-10 runs/can-bc=robomimic-bc runs/can-rnn=robomimic-bc-rnn \
		--data runs/can.hdf5 --json $(RESULTS)/can-times-cpu.json

results-pixels: setup
	$(BIN)/ontick demos ontick/AvoidPixels-v0 --styled --episodes 1000 --out runs/avoid-pixels.zarr
	$(call train,avoid-pixels,--data runs/avoid-pixels.zarr --preset avoid-pixels)
	for plan in bac-10 global-10; do \
		$(BIN)/ontick calibrate runs/avoid-pixels --plan $$plan --data runs/avoid-pixels.zarr --samples 8 || exit 1; \
	done
	$(PLAY) ontick/AvoidPixels-v0 --checkpoint runs/avoid-pixels --plans ddim-10,bac-10,global-10,exact,ddpm-100 \
		--json $(RESULTS)/avoid-pixels-cpu.json
	$(TIMES) $(foreach plan,ddpm-100 exact ddim-10 bac-10 global-10,runs/avoid-pixels=$(plan)) --data runs/avoid-pixels.zarr \
		--json $(RESULTS)/avoid-pixels-times-cpu.json

results-push-t: setup
	$(BIN)/ontick demos ontick/PushT-v0 --styled --episodes 300 --out runs/pusht.zarr
	$(call train,push-t,--data runs/pusht.zarr --preset push-t --set n_action_steps=4)
	$(PLAY) ontick/PushT-v0 --plans ddim-10,ddim-2,rti-3 --json $(RESULTS)/push-t-cpu.json
	$(PLAY) ontick/PushT-v0 --plans ddpm-100 --json $(RESULTS)/push-t-ddpm-cpu.json
	$(PLAY) ontick/PushT-v0 --checkpoint runs/push-t --plans ddim-10-every-1 --json $(RESULTS)/push-t-trained-cpu.json
	$(BIN)/python benchmarks/experts_played.py ontick/PushT-v0 --episodes 100 --json $(RESULTS)/push-t-expert-cpu.json

# The controller in real time, an hour and more: run nothing beside it.
results-drive: setup
	$(BIN)/python benchmarks/drive.py runs --out benchmarks/results/drive-cpu.json
	$(BIN)/python benchmarks/drive.py faults --out benchmarks/results/drive-faults-cpu.json
	$(BIN)/python benchmarks/gate_fuzz.py --n 1000000 --json benchmarks/results/gate-fuzz-cpu.json
	$(BIN)/python benchmarks/wire_fuzz.py --json benchmarks/results/wire-fuzz-cpu.json
	$(BIN)/python benchmarks/serve.py --json benchmarks/results/serve-cpu.json
	$(BIN)/python benchmarks/wakeups.py --seconds 60 --json benchmarks/results/wakeups-cpu.json

docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	rm -rf runs/docs-source
	$(BIN)/python docs/stage.py runs/docs-source
	$(BIN)/mkdocs build --quiet --strict

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
